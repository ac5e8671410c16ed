"""How long a run will take, and what of it fits into a budget.

The estimate knows the steps of a plan, the size of the model and the seconds of timing. It does not know the machine:
the constants are those of two cores of a server of 2023.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchcard import registry
from benchcard.errors import Mistake, SpecError
from benchcard.run.directory import MEMORY_FOLDER, RunDirectory
from benchcard.run.groups import size_bytes
from benchcard.run.machines import machine_plans
from benchcard.run.planned import planned_steps
from benchcard.run.timing import IMPORT_S, expected_s
from benchcard.run.traits import traits_of
from benchcard.sources.resolve import Sources, resolve_sources, unresolved_sources
from benchcard.spec.plan import Plan, make_plan
from benchcard.spec.schema import parse_duration
from benchcard.spec.spec import Spec
from benchcard.steps.step import AnyRequest
from benchcard.tasks.data import read_layout
from benchcard.utils.plain import canonical_json
from benchcard.utils.progress import format_duration
from benchcard.utils.text import quote_names

# Seconds of a step of a small model, and more for each GB of weights. `prepare` begins with the imports.
_STEP_S: Mapping[str, float] = {
    "prepare": 4.0, "export": 1.2, "cast": 0.3, "convert": 3.0, "sample": 0.3, "calibrate": 1.0, "quantize": 0.25,
    "explain": 0.2, "rank": 1.0, "evaluate": 0.2, "score": 0.05, "compare": 0.05, "shape": 0.05, "metric": 1.0,
}  # fmt: skip
_STEP_S_PER_GB: Mapping[str, float] = {
    "export": 30.0,
    "cast": 10.0,
    "convert": 30.0,
    "quantize": 15.0,
    "calibrate": 10.0,
}
_START_S = 1.0
# Forward passes of a step, where neither examples nor calibration samples decide. For `explain` it is assumed that
# the outputs of some models are far from float32 (about 40 passes) and those of others are not (8).
_PASSES = {"explain": 20, "rank": 100}
# Multiplications of float32 in a second, and the tokens of an example whose length is not known.
_PRODUCTS_PER_S = 5e10
_TEXT_TOKENS, _IMAGE_TOKENS = 64, 200
# What is assumed of a model that is not on this machine, and of a split whose rows have not been counted.
_USUAL_BYTES, _USUAL_EXAMPLES = 400_000_000, 1000

# What a budget decides, unless the spec does, from the most to the least.
_CHOSEN = {
    "duration": "{:g} s of timing for each row and size",
    "max_eval_samples": "at most {} evaluated examples",
    "max_rows": "at most {} rows",
}
_DURATIONS = (15, 10, 7, 5, 3, 2, 1)
_EXAMPLES = (5000, 2000, 1000, 500, 200, 100)
_LEAST_ROWS = 2  # to compare


@dataclass(frozen=True)
class Estimate:
    """About how long a run takes.

    Attributes:
        step_s: Seconds of a step, by its kind.
        steps_s: Seconds of all steps without a clock.
        timing_s: Seconds of timing.
        assumed: What is assumed of sizes that are not known.
    """

    step_s: Mapping[str, float]
    steps_s: float
    timing_s: float
    assumed: tuple[str, ...] = ()

    @property
    def total_s(self) -> float:
        """Seconds of the whole run."""
        return self.steps_s + self.timing_s

    def __str__(self) -> str:
        text = f"about {format_duration(self.total_s)}, {format_duration(self.timing_s)} of it to measure time"
        return f"{text} (assuming {' and '.join(self.assumed)})" if self.assumed else text


def estimate(plan: Plan, sources: Sources | None = None, planned: Sequence[Sequence[AnyRequest]] = ()) -> Estimate:
    """Return how long the run of a plan takes, by its `planned` steps; `sources` are where its models lie.

    Machines work at the same time: it is that of the slowest of them.
    """
    if machines := machine_plans(plan):
        return max((estimate(machine.plan, sources) for machine in machines), key=lambda each: each.total_s)
    spec = plan.spec
    planned = planned or planned_steps(plan, unresolved_sources(spec), traits_of(plan), default_threads=0)
    kinds = Counter({step.key: step.kind for steps in planned for step in steps}.values())
    folders = _model_folders(spec, sources)
    weights = max(map(size_bytes, folders), default=_USUAL_BYTES)
    is_text = traits_of(plan).has_length
    tokens = max(spec.get("input_lengths") or [_TEXT_TOKENS if is_text else _image_tokens(folders)])
    pass_s = weights / 4 * tokens / _PRODUCTS_PER_S
    examples = max((row["max_eval_samples"] or _USUAL_EXAMPLES for row in plan), default=0)
    samples = max((int((row["calibration"] or {}).get("num_calibration_samples", 0)) for row in plan), default=0)
    passes = {**_PASSES, "evaluate": examples, "calibrate": 2 * samples}
    step_s = {
        kind: seconds + _STEP_S_PER_GB.get(kind, 0.0) * weights / 1e9 + passes.get(kind, 0) * pass_s
        for kind, seconds in _STEP_S.items()
    }
    cells = [
        (row, sum(step.kind == "shape" for step in steps) * (2 if row.baseline == row.row else 1))
        for row, steps in zip(plan, planned)
    ]
    timing_s = sum(count * expected_s(row["duration"]) for row, count in cells)
    timing_s += IMPORT_S * any(registry.framework(row["framework"]).engine == "torch" for row, count in cells if count)
    steps_s = _START_S + sum(step_s.get(kind, 1.0) * count for kind, count in kinds.items())
    assumed = [] if folders else [f"a model of {_USUAL_BYTES // 10**6} MB"]
    if any(row["max_eval_samples"] is None for row in plan):
        assumed.append(f"{_USUAL_EXAMPLES} examples to evaluate")
    return Estimate(step_s, steps_s, timing_s, tuple(assumed))


def within_budget(spec: Spec, path: Path | None = None) -> Spec:
    """Return the spec with `duration`, `max_eval_samples` and `max_rows` in place of its budget, and a note on them.

    What the spec itself has stays. First the part that takes longer is shortened, evaluation or timing, then the last
    rows are left out. A run in the directory `path` that is continued keeps what was chosen when it was begun. Without
    a path nothing is downloaded or counted.

    Raises:
        SpecError: The least that can be run takes longer; or see `resolve_sources`.
    """
    budget = spec.get("budget")
    if budget is None:
        return spec
    budget_s = (parse_duration(budget) or 0.0) if isinstance(budget, str) else float(budget)
    spec = replace(spec, fixed={name: value for name, value in spec.fixed.items() if name != "budget"})
    free = [name for name in _CHOSEN if not spec.values(name)]
    every = make_plan(spec)
    if path is not None and (path / "run.json").exists():
        earlier = RunDirectory(path).info.spec.fixed
        return _chosen(spec, {name: earlier[name] for name in free if name in earlier}, every, budget_s)
    sources = None if path is None else resolve_sources(spec, None, path / MEMORY_FOLDER)
    most = None if sources is None or "max_eval_samples" not in free else _most_examples(every, sources)
    choices: dict[str, list[int]] = {
        "duration": list(_DURATIONS),
        "max_eval_samples": [*filter(None, [most]), *(number for number in _EXAMPLES if most is None or number < most)],
        "max_rows": list(range(len(every), min(_LEAST_ROWS, len(every)) - 1, -1)),
    }
    choices = {name: choices[name] for name in free}
    while True:
        fitting = _with(spec, {name: values[0] for name, values in choices.items()})
        expected = estimate(make_plan(fitting), sources)
        if expected.total_s <= budget_s:
            return _chosen(spec, {name: values[0] for name, values in choices.items()}, every, budget_s)
        order = ("max_eval_samples", "duration") if expected.steps_s > expected.timing_s else _CHOSEN
        shortened = [name for name in (*order, "max_rows") if len(choices.get(name, ())) > 1]
        if not shortened:
            found = f"{format_duration(budget_s)}, while the least that can be run takes {expected}"
            fixed = [name for name in _CHOSEN if name not in free]
            hint = f"the spec has {quote_names(fixed)}: without, less is chosen" if fixed else ""
            raise SpecError(Mistake("$.budget", found, "more time, or a smaller grid", hint))
        del choices[shortened[0]][0]


def _chosen(spec: Spec, values: Mapping[str, Any], every: Plan, budget_s: float) -> Spec:
    """Return the spec with the values that were chosen for a budget, and a note on them and on rows that are left out.

    `every` is the plan with all rows.
    """
    fitting = _with(spec, values)
    kept = [row.axes for row in make_plan(fitting)]
    parts = ", ".join(_CHOSEN[name].format(value) for name, value in values.items())
    note = f"a budget of {format_duration(budget_s)} gives {parts or 'what the spec has'}"
    if left_out := [row.label for row in every if row.axes not in kept]:
        note += f", and leaves out {'; '.join(left_out)}"
    return replace(fitting, notes=(*spec.notes, note))


def _most_examples(plan: Plan, sources: Sources) -> int | None:
    """Return the rows of the largest evaluation split; None where they are not known without reading them."""
    counts = []
    for dataset in {canonical_json(row["dataset"]): row["dataset"] for row in plan}.values():
        source = sources.dataset(dataset)
        splits = read_layout(source.location, dataset.get("name"), source.revision).splits
        counts.append(splits.get(dataset["eval_split"].partition("[")[0]))
    return None if None in counts else max(filter(None, counts), default=None)


def _with(spec: Spec, values: Mapping[str, object]) -> Spec:
    return replace(spec, fixed={**spec.fixed, **values})


def _model_folders(spec: Spec, sources: Sources | None) -> list[Path]:
    """Return the folders of the models that are on this machine."""
    known = {name: Path(source.location) for name, source in (sources.models if sources else {}).items()}
    folders = [known.get(name) or spec.local_path(name) for name in spec.values("name_or_path")]
    return [folder for folder in folders if folder and folder.is_dir()]


def _image_tokens(folders: Sequence[Path]) -> int:
    """Return the patches of an image of the first model; a usual number where it has none."""
    for folder in folders:
        with suppress(OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            return int(config["image_size"] // config["patch_size"]) ** 2
    return _IMAGE_TOKENS
