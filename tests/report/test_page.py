"""The page: nothing in it is loaded, no name can do harm, and in a browser it can be sorted, filtered and plotted."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from browser import browser
from card.layouts.test_full import sample
from card.test_hostile import hostile_facts, hostile_text

from benchcard.card.layouts import full
from benchcard.errors import BenchcardError
from benchcard.report import page
from benchcard.report.page import BASELINE, OTHER, RECOMMENDED, Column, Filter, Rows
from benchcard.utils.values import Interval

__all__ = ["browser"]

ACCURACY = [Interval(0.9, 0.85, 0.95), Interval(0.89, 0.84, 0.94), Interval(0.7, 0.6, 0.8), None]
RATIO = [Interval(1.0, 1.0, 1.0), Interval(2.0, 1.8, 2.2), Interval(1.5, 1.4, 1.6), Interval(0.5)]
DIVERGENCE = [Interval(0.0), Interval(1.2e-9, 1e-9, 2e-9), Interval(1.7e-5), Interval(0.3)]
ROWS = Rows(
    labels=["0", "1", "2", "3"],
    names=["float32", "dynamic", "static", "failed one"],
    roles=["baseline", "recommended", "", ""],
    kinds=[BASELINE, RECOMMENDED, OTHER, OTHER],
    groups=["a", "a", "a", "a"],
    columns=page.figure_columns(
        [
            {
                **dict(
                    zip(("accuracy", "accuracy_low", "accuracy_high"), (one.value, one.low, one.high) if one else ())
                ),
                **dict(zip(("ratio", "ratio_low", "ratio_high"), (other.value, other.low, other.high))),
                "kl_mean": third.value,
            }
            for one, other, third in zip(ACCURACY, RATIO, DIVERGENCE)
        ],
        ["accuracy", "ratio", "kl_mean"],
        {"accuracy": True},
        {},
    ),
    filters=[Filter("approach", ["None", "dynamic", "static", "static"])],
    links=["#row-0", "#row-1", "#row-2", "#row-3"],
    x="ratio",
    y="accuracy",
)
HOSTILE = (
    "</script><script>document.title='harm'</script>",
    "<img src=http://127.0.0.1:9/x onerror=\"document.title='harm'\">",
    '"><svg onload="document.title=\'harm\'">',
    "<!--<script>",
    "]]></style><style>*{display:none}",
    "$script ${data} \\u003c \u2028",
)


class Parsed(HTMLParser):
    """The tags of a page with their attributes, and the text of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.cdata_elem == "script":
            self.scripts.append(data)


def rendered(rows: Rows = ROWS, title: str = "A title", intro: str = "", details: str = "") -> str:
    """Return a page."""
    return page.render(title, intro, "All rows", rows, details)


def hostile_rows() -> Rows:
    """Return rows with hostile names everywhere."""
    count = len(HOSTILE)
    figures = tuple(Interval(float(index)) for index in range(count))
    return Rows(
        labels=HOSTILE,
        names=HOSTILE,
        roles=HOSTILE,
        kinds=[OTHER] * count,
        groups=HOSTILE,
        columns=[Column(name, HOSTILE, figures) for name in HOSTILE] + [Column("text", HOSTILE)],
        filters=[Filter(name, HOSTILE) for name in HOSTILE],
        links=HOSTILE,
        x=HOSTILE[0],
        y=HOSTILE[1],
    )


def test_a_page_loads_nothing():
    """No attribute, style or script of a page names something to load, and its policy forbids it."""
    text = rendered(intro=page.from_markdown(full.body(sample())))
    parsed = Parsed(text)
    loading = {"src", "srcset", "data", "poster", "background", "action", "formaction", "xlink:href", "manifest"}
    assert not [(tag, attributes) for tag, attributes in parsed.tags if loading & attributes.keys()]
    assert not {"link", "base", "iframe", "object", "embed", "img", "image", "use"} & {tag for tag, _ in parsed.tags}
    assert not re.search(r"@import|url\((?!#)|@font-face", text)
    script = parsed.scripts[-1]
    assert not re.search(r"\bimport\b|fetch\(|XMLHttpRequest|WebSocket|innerHTML|eval\(|Function\(", script)
    assert set(re.findall(r"https?://[^\s\"')]+", script)) == {"http://www.w3.org/2000/svg"}
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(attributes["content"] for tag, attributes in parsed.tags if "http-equiv" in attributes)
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def test_the_table_needs_no_script():
    """Every row with its figures and intervals is in the HTML."""
    text = rendered()
    assert text.count("<tr") == 5
    for cell in ("0.900 [0.850,\xa00.950]", "2.00 [1.80,\xa02.20]", "1.20e-9", "failed one", '<a href="#row-3">3</a>'):
        assert cell in text


def test_hostile_names_stay_text():
    """A name that is HTML or ends a script adds no element and no attribute; the script reads it unchanged."""
    text = page.render(HOSTILE[0], "", HOSTILE[1], hostile_rows(), page.fold(HOSTILE[2], page.cell(HOSTILE[3])))
    parsed = Parsed(text)
    assert len(parsed.scripts) == 2
    assert json.loads(parsed.scripts[0])["names"] == list(HOSTILE)
    assert not {"img", "svg"} & {tag for tag, _ in parsed.tags}
    assert not [name for _, attributes in parsed.tags for name in attributes if name.startswith("on")]


@pytest.mark.parametrize("seed", range(20))
def test_the_markdown_of_a_hostile_card_is_no_html(seed):
    """Of HTML, a card has only the parts that can be folded, also where its own escaping would fail."""
    generator = random.Random(seed)
    raw = [hostile_text(generator) for _ in range(200)]
    text = "\n\n".join([full.body(hostile_facts(seed)), *raw, *HOSTILE])
    parsed = Parsed(page.from_markdown(text))
    known = (
        "h1 h2 h3 h4 h5 p ul ol li strong em code pre table thead tbody tr th td div details summary a br hr blockquote"
    )
    assert {tag for tag, _ in parsed.tags} <= set(known.split())
    assert {name for _, attributes in parsed.tags for name in attributes} <= {
        *("class", "style", "role", "aria-label", "tabindex", "href", "title", "start")
    }


def test_small_figures_have_an_exponent():
    """A divergence of 1e-9 is not shown as zero; the figures of other columns have as many decimals."""
    names = {column.title: column.cells for column in ROWS.columns}
    assert names["kl_mean (nats)"] == ["0", "1.20e-9", "1.70e-5", "0.300"]
    assert names["ratio"] == ["1.00", "2.00 [1.80, 2.20]", "1.50 [1.40, 1.60]", "0.50"]
    assert names["accuracy"][-1] == ""


def test_a_column_without_figures_is_left_out():
    """Only figures that some row has are columns."""
    columns = page.figure_columns([{"a": 1.0}, {"a": None, "b": float("nan")}], ["a", "b", "c"], {}, {"a": "The a"})
    assert [(column.title, column.cells) for column in columns] == [("The a", ["1.00", ""])]


def test_a_page_that_cannot_be_written_is_reported(tmp_path):
    """The error names the folder; a name that UTF-8 cannot encode is written all the same."""
    assert page.save("\ud800", tmp_path / "page.html").read_bytes() == b"?"
    with pytest.raises(BenchcardError, match="missing"):
        page.save("text", tmp_path / "missing" / "page.html")


# In a browser

_TITLES = (
    "[...document.querySelectorAll('#rows tbody tr')].filter(row => !row.hidden).map(row => row.cells[1].textContent)"
)
_SELECT = """
const select = (title, value) => {
  const label = [...document.querySelectorAll('label')].find(each => each.firstChild.textContent === title);
  const box = label.querySelector('select');
  box.value = value;
  box.dispatchEvent(new Event('change'));
};
const points = () => [...document.querySelectorAll('.point')].map(point => point.dataset.row).sort().join();
"""


def test_a_browser_shows_the_page_without_a_network(browser):
    """The plot has the points with both figures, their intervals and the Pareto front; nothing was requested."""
    shown = browser(
        rendered(),
        f"""{_SELECT}
        const all = [...document.querySelectorAll('.point')];
        return {{marks: Object.fromEntries(all.map(each => [each.dataset.row, each.getAttribute('class')])),
          requests: performance.getEntriesByType('resource').length,
          bars: document.querySelectorAll('.bar').length,
          front: document.querySelector('.front').getAttribute('d').split('L').length,
          count: document.getElementById('count').textContent,
          hidden: document.getElementById('controls').hidden}};""",
    )
    assert shown["marks"] == {"0": "point baseline", "1": "point recommended", "2": "point other"}
    assert shown["requests"] == 0
    # Row 0 has no width in its ratio, but bounds; rows without bounds have no bars.
    assert shown["bars"] == 6
    assert shown["front"] == 2
    assert shown["count"] == "4 of 4 rows are shown."
    assert not shown["hidden"]


def test_rows_are_sorted_by_a_click(browser):
    """A header sorts up, then down, by the figure and not by its text; a missing one stays last."""
    result = browser(
        rendered(),
        f"""const buttons = [...document.querySelectorAll('#rows th button')];
        const button = buttons.find(each => each.textContent === 'accuracy');
        button.click();
        const up = {_TITLES};
        button.click();
        const sort = button.parentNode.getAttribute('aria-sort');
        const down = {_TITLES};
        buttons.find(each => each.textContent === 'kl_mean (nats)').click();
        return [up, down, sort, {_TITLES}, document.querySelectorAll('[aria-sort]').length];""",
    )
    assert result[0] == ["static", "dynamic", "float32", "failed one"]
    assert result[1] == ["float32", "dynamic", "static", "failed one"]
    assert result[2] == "descending"
    assert result[3] == ["float32", "dynamic", "static", "failed one"]
    assert result[4] == 1


def test_filters_choose_rows_and_points(browser):
    """A filter hides rows in the table and the plot; a required one always has a value."""
    shapes = Filter("inputs", ["batch size 1", "batch size 1", "batch size 8", "batch size 8"], required=True)
    result = browser(
        rendered(replace(ROWS, filters=[shapes, *ROWS.filters])),
        f"""{_SELECT}
        const first = [{_TITLES}, points()];
        select('inputs', 'batch size 8');
        const second = [{_TITLES}, points()];
        select('approach', 'dynamic');
        return [first, second, {_TITLES}, document.getElementById('plot').textContent,
          [...document.querySelectorAll('#filters select')].map(each => each.options[0].text)];""",
    )
    assert result[0] == [["float32", "dynamic"], "0,1"]
    assert result[1] == [["static", "failed one"], "2"]
    assert result[2:] == [[], "No row that is shown has both figures.", ["batch size 1", "all"]]


def test_axes_are_chosen(browser):
    """Fidelity against speed has a logarithmic axis with zero at its edge, on which less is better."""
    result = browser(
        rendered(),
        f"""{_SELECT}
        select('vertical axis', 'kl_mean (nats)');
        const at = (row) => document.querySelector(`.point[data-row="${{row}}"]`).getBoundingClientRect().y;
        return [points(), [0, 1, 2, 3].map(at), document.querySelector('#plot svg').textContent,
          document.querySelector('.front').getAttribute('d').split('L').length];""",
    )
    assert result[0] == "0,1,2,3"
    assert result[1] == sorted(result[1], reverse=True)
    assert "kl_mean (nats)  ↓ better" in result[2]
    assert result[3] == 2


def test_a_point_is_described_on_focus(browser):
    """A point is reached by the keyboard, has its figures as a name, and shows them in a tip."""
    result = browser(
        rendered(),
        """const point = document.querySelector('.point.recommended');
        point.focus();
        const tip = document.getElementById('tip');
        const shown = [tip.hidden, tip.textContent, point.getAttribute('aria-label'), document.activeElement === point];
        point.blur();
        return [...shown, tip.hidden, point.tabIndex];""",
    )
    text = "dynamic (recommended)\naccuracy: 0.890 [0.840,\xa00.940]\nratio: 2.00 [1.80,\xa02.20]"
    assert result == [False, text, text, True, True, 0]


def test_hostile_names_do_nothing_in_a_browser(browser):
    """Hostile names are shown as they are, and no script, style or request comes of them."""
    text = page.render("title", "", HOSTILE[1], hostile_rows(), page.from_markdown("\n\n".join(HOSTILE)))
    result = browser(
        text,
        """return [document.title, performance.getEntriesByType('resource').length, document.images.length,
          [...document.querySelectorAll('#rows tbody tr')].map(row => row.cells[1].textContent),
          [...document.querySelector('#filters select').options].map(option => option.text).slice(1),
          getComputedStyle(document.body).display, document.querySelectorAll('.point').length];""",
    )
    assert result == ["title", 0, 0, list(HOSTILE), list(HOSTILE), "block", len(HOSTILE)]


@pytest.mark.parametrize("scheme", [0, 1])
def test_a_narrow_page_is_legible(browser, scheme):
    """At 390 pixels nothing but tables and code is wider, in dark and light, and text has the contrast of WCAG AA."""
    result = browser(
        rendered(intro=page.from_markdown(full.body(sample()))),
        """const light = (text) => {
          const parts = text.match(/[\\d.]+/g).slice(0, 3).map(part => part / 255)
            .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
          return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
        };
        // The narrowest window is wider than this.
        document.documentElement.style.width = '390px';
        dispatchEvent(new Event('resize'));
        const page = light(getComputedStyle(document.body).backgroundColor);
        const contrast = (selector, key) => {
          const ink = light(getComputedStyle(document.querySelector(selector))[key]);
          return (Math.max(ink, page) + 0.05) / (Math.min(ink, page) + 0.05);
        };
        const right = (element) => element.getBoundingClientRect().right;
          return {page, width: Math.max(...[...document.querySelectorAll('main *:not(.scroll *, pre *)')].map(right)),
            plot: document.querySelector('#plot svg').clientWidth,
          text: contrast('body', 'color'), soft: contrast('label', 'color'), axis: contrast('#plot text', 'fill'),
          point: contrast('.point.other .mark', 'fill'), link: contrast('a', 'color')};""",
        f"--blink-settings=preferredColorScheme={scheme}",
    )
    assert result["width"] <= 390
    assert 0 < result["plot"] <= 390
    assert (result["page"] < 0.1) == (scheme == 0)
    assert min(result[name] for name in ("text", "soft", "axis", "link")) >= 4.5
    assert result["point"] >= 3


def test_everything_is_printed(browser):
    """Before printing, folded parts are opened; a link to one opens it too."""
    details = page.fold("one", '<p id="row-1">text</p>') + page.fold("two", "<p>text</p>")
    result = browser(
        rendered(details=details),
        """const open = () => [...document.querySelectorAll('details')].map(each => each.open);
        const before = open();
        location.hash = 'row-1';
        dispatchEvent(new Event('hashchange'));
        const linked = open();
        dispatchEvent(new Event('beforeprint'));
        return [before, linked, open()];""",
    )
    assert result == [[False, False], [True, False], [True, True]]
