"use strict";
// The table is in the HTML. This adds what needs a program: sorting, filters and the plot, from the JSON of the page.
const data = JSON.parse(document.getElementById("data").textContent);
const table = document.getElementById("rows");
const lines = [...table.tBodies[0].rows];
const figuresOf = Object.fromEntries(data.axes.map((axis) => [axis.title, axis]));
const LOG_FROM = 30; // above this ratio of the largest to the smallest value, an axis is logarithmic

function create(name, attributes = {}, text = null) {
  const isSvg = ["svg", "g", "line", "path", "text", "clipPath", "rect"].includes(name);
  const node = isSvg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== null) node.textContent = text;
  return node;
}

// Sorting: a button in each header; a missing figure is always last.

function compare(one, other) {
  const difference = Number.parseFloat(one) - Number.parseFloat(other);
  return Number.isNaN(difference) ? one.localeCompare(other) : difference;
}

function sortBy(head, column) {
  const descending = head.getAttribute("aria-sort") === "ascending";
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const body = head.closest("table").tBodies[0];
  const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
  const isMissing = (text) => ["", "n/a", "failed"].includes(text);
  const order = (first, second) => {
    const [one, other] = [key(first), key(second)];
    if (isMissing(one) || isMissing(other)) return isMissing(one) - isMissing(other);
    return descending ? -compare(one, other) : compare(one, other);
  };
  body.append(...[...body.rows].sort(order));
}

for (const head of document.querySelectorAll("table.sortable th")) {
  if (!head.textContent.trim()) continue;
  const button = create("button", { type: "button" }, head.textContent);
  button.addEventListener("click", () => sortBy(head, head.cellIndex));
  head.replaceChildren(button);
}

// Filters and axes

function addSelect(form, title, options, chosen, onChange) {
  const label = create("label", {}, title);
  const select = create("select");
  for (const [text, value] of options) select.add(new Option(text, value, false, value === chosen));
  select.addEventListener("change", onChange);
  label.append(select);
  document.getElementById(form).append(label);
  return select;
}

const filters = data.filters.map(({ title, values, required }) => {
  const options = [...new Set(values)].map((value) => [value, value]);
  if (!required) options.unshift(["all", ""]);
  return { values, select: addSelect("filters", title, options, options[0][1], update) };
});
const titles = data.axes.map(({ title }) => [title, title]);
const vertical = addSelect("axes", "vertical axis", titles, data.y, drawPlot);
const horizontal = addSelect("axes", "horizontal axis", titles, data.x, drawPlot);
let shown = [];

function update() {
  shown = lines.map((_, index) => index).filter((index) =>
    filters.every(({ values, select }) => select.value === "" || values[index] === select.value));
  lines.forEach((line, index) => { line.hidden = !shown.includes(index); });
  document.getElementById("count").textContent = `${shown.length} of ${lines.length} rows are shown.`;
  drawPlot();
}

// The plot

/** Return a scale from values to 0..1 with its ticks. Intervals widen it by half of the values' span at most. */
function scaleOf(figures) {
  const values = figures.map(([value]) => value);
  const positive = values.filter((value) => value > 0);
  const isLog = values.every((value) => value >= 0) && Math.max(...positive) / Math.min(...positive) > LOG_FROM;
  const least = Math.min(...positive);
  // Zero is at the edge of a logarithmic axis.
  const move = isLog ? (value) => Math.log10(value > 0 ? Math.max(value, least / 100) : least / 10) : (value) => value;
  const moved = values.map(move);
  const [low, high] = [Math.min(...moved), Math.max(...moved)];
  const span = high - low || Math.abs(high) * 0.1 || 1;
  const bounds = (index) => figures.map((figure) => move(figure[index] ?? figure[0]));
  const start = Math.max(Math.min(...bounds(1), low), low - span / 2) - span * 0.06;
  const end = Math.min(Math.max(...bounds(2), high), high + span / 2) + span * 0.06;
  const place = (value) => (move(value) - start) / (end - start);
  return { place, ticks: isLog ? logTicks(start, end, values.includes(0)) : linearTicks(start, end) };
}

function linearTicks(start, end) {
  const power = 10 ** Math.floor(Math.log10((end - start) / 4));
  const step = power * [1, 2, 5, 10].find((factor) => power * factor >= (end - start) / 5);
  const count = Math.floor(end / step) - Math.ceil(start / step) + 1;
  return Array.from({ length: count }, (_, index) => (Math.ceil(start / step) + index) * step);
}

function logTicks(start, end, hasZero) {
  const step = Math.max(1, Math.ceil((end - start) / 6));
  const powers = [];
  for (let power = Math.ceil(start); power <= end; power += step) powers.push(10 ** power);
  return hasZero ? [0, ...powers.slice(1)] : powers;
}

const formatTick = (value) => (value !== 0 && Math.abs(value) < 1e-3 ? value.toExponential(0) : String(Number(value.toPrecision(4))));

/** Return the points that no other one of their group beats in both axes, by group, from left to right. */
function fronts(points, x, y) {
  if (!x.better || !y.better) return [];
  const beats = (a, b) => (a.x - b.x) * x.better >= 0 && (a.y - b.y) * y.better >= 0 && (a.x !== b.x || a.y !== b.y);
  const groups = new Map();
  for (const point of points) {
    const group = data.groups[point.index];
    groups.set(group, [...(groups.get(group) ?? []), point]);
  }
  return [...groups.values()].map((group) =>
    group.filter((point) => !group.some((other) => beats(other, point))).sort((a, b) => a.x - b.x));
}

function describe(index, x, y) {
  const text = (axis) => `${axis.title}: ${lines[index].cells[axis.column].textContent}`;
  const roles = data.roles[index] ? ` (${data.roles[index]})` : "";
  return [`${data.names[index]}${roles}`, text(y), text(x)].join("\n");
}

const SHAPES = { baseline: "M-5-5H5V5H-5Z", recommended: "M0-7L7 0L0 7L-7 0Z", other: "M-5 0A5 5 0 1 0 5 0A5 5 0 1 0-5 0Z" };

function drawPlot() {
  const box = document.getElementById("plot");
  const [x, y] = [figuresOf[horizontal.value], figuresOf[vertical.value]];
  const rows = shown.filter((index) => x.figures[index] && y.figures[index]);
  box.replaceChildren();
  if (!rows.length) {
    box.append(create("p", {}, "No row that is shown has both figures."));
    return;
  }
  const [width, height] = [Math.max(box.clientWidth, 260), Math.min(Math.max(box.clientWidth * 0.5, 260), 420)];
  const [left, right, top, bottom] = [58, width - 12, 24, height - 40];
  const [xs, ys] = [scaleOf(rows.map((index) => x.figures[index])), scaleOf(rows.map((index) => y.figures[index]))];
  const atX = (value) => left + xs.place(value) * (right - left);
  const atY = (value) => bottom - ys.place(value) * (bottom - top);
  const svg = create("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `${y.title} against ${x.title}` });
  const clip = create("clipPath", { id: "inside" });
  clip.append(create("rect", { x: left, y: top, width: right - left, height: bottom - top }));
  svg.append(clip);
  for (const tick of xs.ticks) {
    svg.append(create("line", { class: "grid", x1: atX(tick), x2: atX(tick), y1: top, y2: bottom }));
    svg.append(create("text", { x: atX(tick), y: bottom + 16, "text-anchor": "middle" }, formatTick(tick)));
  }
  for (const tick of ys.ticks) {
    svg.append(create("line", { class: "grid", x1: left, x2: right, y1: atY(tick), y2: atY(tick) }));
    svg.append(create("text", { x: left - 6, y: atY(tick) + 4, "text-anchor": "end" }, formatTick(tick)));
  }
  const arrow = (axis, more, less) => (axis.better ? `${axis.better > 0 ? more : less} better` : "");
  svg.append(create("text", { x: right, y: height - 4, "text-anchor": "end" }, `${x.title}  ${arrow(x, "→", "←")}`));
  svg.append(create("text", { x: 4, y: 12 }, `${y.title}  ${arrow(y, "↑", "↓")}`));
  const points = rows.map((index) => ({ index, x: x.figures[index][0], y: y.figures[index][0] }));
  for (const front of fronts(points, x, y)) {
    const path = front.map((point) => `${atX(point.x)} ${atY(point.y)}`).join("L");
    svg.append(create("path", { class: "front", d: `M${path}` }));
  }
  const tip = create("div", { id: "tip", hidden: "" });
  const rank = ({ index }) => ["other", "baseline", "recommended"].indexOf(data.kinds[index]);
  const near = (px, py, distance) => points.filter((other) => Math.hypot(atX(other.x) - px, atY(other.y) - py) <= distance);
  for (const point of [...points].sort((a, b) => rank(a) - rank(b))) {
    const [px, py] = [atX(point.x), atY(point.y)];
    const node = create("g", { class: `point ${data.kinds[point.index]}`, tabindex: 0, role: "img",
      "aria-label": describe(point.index, x, y), "data-row": point.index });
    const bars = [[x.figures[point.index], atX, (a, b) => ({ x1: a, x2: b, y1: py, y2: py })],
      [y.figures[point.index], atY, (a, b) => ({ x1: px, x2: px, y1: a, y2: b })]];
    for (const [[, low, high], at, ends] of bars) {
      if (low !== undefined) node.append(create("line", { class: "bar", "clip-path": "url(#inside)", ...ends(at(low), at(high)) }));
    }
    node.append(create("path", { class: "mark", d: SHAPES[data.kinds[point.index]], transform: `translate(${px} ${py})` }));
    const show = () => {
      // Points at one place are described together.
      const indexes = [point.index, ...near(px, py, 4).map((other) => other.index).filter((index) => index !== point.index)];
      const more = indexes.length > 4 ? `\n\nand ${indexes.length - 4} more rows here` : "";
      tip.textContent = indexes.slice(0, 4).map((index) => describe(index, x, y)).join("\n\n") + more;
      tip.hidden = false;
      tip.style.left = `${Math.max(0, Math.min(px + 14, width - tip.offsetWidth))}px`;
      tip.style.top = `${py + 14}px`;
      light(indexes, true);
    };
    const hide = () => { tip.hidden = true; light(lines.keys(), false); };
    node.addEventListener("pointerenter", show);
    node.addEventListener("focus", show);
    node.addEventListener("pointerleave", hide);
    node.addEventListener("blur", hide);
    svg.append(node);
  }
  const labels = []; // the boxes of the labels, which do not overlap
  for (const point of [...points].sort((a, b) => rank(b) - rank(a))) {
    const [px, py] = [atX(point.x), atY(point.y)];
    const numbers = near(px, py, 20).map((other) => data.labels[other.index]);
    const text = numbers.length > 4 ? `${numbers.slice(0, 3).join(", ")}, …` : numbers.join(", ");
    const start = Math.min(px - text.length * 3.5, width - text.length * 7);
    if (labels.some((box) => Math.abs(box.py - py) < 16 && start < box.end && box.start < start + text.length * 7)) continue;
    labels.push({ py, start, end: start + text.length * 7 + 6 });
    svg.append(create("text", { x: start, y: py - 10, "pointer-events": "none" }, text));
  }
  box.append(svg, tip);
}

function light(indexes, on) {
  for (const index of indexes) {
    lines[index].classList.toggle("lit", on);
    document.querySelector(`.point[data-row="${index}"]`)?.classList.toggle("lit", on);
  }
}

lines.forEach((line, index) => {
  line.addEventListener("pointerenter", () => light([index], true));
  line.addEventListener("pointerleave", () => light([index], false));
});
for (const [kind, text] of [["recommended", "◆ recommended"], ["baseline", "■ baseline"], ["other", "● other rows"], ["", "- - Pareto front of these axes"]]) {
  if (kind === "" || data.kinds.includes(kind)) document.getElementById("legend").append(create("span", { class: kind }, text));
}

// A link to a folded part opens it; everything is printed.
const openTarget = () => {
  const folded = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)))?.closest("details");
  if (folded) folded.open = true;
};
addEventListener("hashchange", openTarget);
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((folded) => { folded.open = true; }));
addEventListener("resize", drawPlot);
document.getElementById("controls").hidden = data.axes.length < 2;
if (data.axes.length > 1) update();
openTarget();
