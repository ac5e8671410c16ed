"""The spec of a card as code: a Python call and a YAML spec that run the benchmark again.

No value in it can end the block of code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from benchcard.card.facts import Facts, Plain
from benchcard.card.frontmatter.yaml import format_scalar
from benchcard.utils.values import MEMORY_PREFIX

# The parameters that have a line for each of their parts.
_ON_LINES = ("dataset", "grid", "fixed")


def spec_of(facts: Facts) -> dict[str, Plain]:
    """Return the spec of a card: the keys of a YAML spec, which are the arguments of `Benchmark`."""
    fixed = {name: value for name, value in facts.fixed.items() if name not in ("name_or_path", "dataset")}
    spec = {
        "task": facts.task,
        "model": facts.fixed.get("name_or_path"),
        **dataset_of(facts),
        "metrics": facts.settings.get("metrics"),
        "grid": facts.benchmarked,
        "fixed": fixed,
        **{name: value for name, value in facts.settings.items() if name != "metrics"},
        "max_eval_samples": facts.max_eval_samples,
        "duration": facts.settings.get("duration", facts.duration_s),
        "backend": None if facts.backend == "local" else facts.backend,
        "backend_args": facts.backend_args,
    }
    return {name: value for name, value in spec.items() if value is not None and value != {}}


def dataset_of(facts: Facts) -> dict[str, Plain]:
    """Return the fixed parameter `dataset` if there is one, not as the list of one that classic cards show."""
    fixed = {name: value for name, value in facts.fixed.items() if name == "dataset"}
    return {name: value[0] if isinstance(value, list) and len(value) == 1 else value for name, value in fixed.items()}


def variables(facts: Facts) -> dict[str, str]:
    """Return the variables of the Python call that stand for data in memory, by the names of these data."""
    data = [facts.fixed.get("dataset"), *(facts.benchmarked.get(name) for name in ("dataset", "dataset.path"))]
    names = list(dict.fromkeys(re.findall(rf"{MEMORY_PREFIX}\w+", str(data))))
    return {name: "data" if len(names) == 1 else f"data_{number}" for number, name in enumerate(names, 1)}


def python_call(facts: Facts, folder: str) -> str:
    """Return the Python call that runs the benchmark again, with `folder` as the run directory."""
    objects = variables(facts)
    lines = ["from benchcard import Benchmark", "", "benchmark = Benchmark("]
    for name, value in spec_of(facts).items():
        if name in _ON_LINES and isinstance(value, dict):
            entries = [f"        {_python(key, objects)}: {_python(item, objects)}," for key, item in value.items()]
            lines += [f"    {name}={{", *entries, "    },"]
        else:
            lines.append(f"    {name}={_python(value, objects)},")
    return "\n".join([*lines, ")", f"results = benchmark.run({_python(folder, objects)})"])


def yaml_spec(facts: Facts) -> str:
    """Return the same as a YAML spec."""
    lines = []
    for name, value in spec_of(facts).items():
        if name in _ON_LINES and isinstance(value, dict):
            lines.append(f"{name}:")
            lines += [f"  {format_scalar(key)}: {_flow(item)}" for key, item in value.items()]
        else:
            lines.append(f"{name}: {_flow(value)}")
    return "\n".join(lines)


def _python(value: Plain, objects: Mapping[str, str]) -> str:
    # One line each: a line that starts inside of a string could end the block of code.
    if isinstance(value, dict):
        items = (f"{_python(key, objects)}: {_python(item, objects)}" for key, item in value.items())
        return "{" + ", ".join(items) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_python(item, objects) for item in value) + "]"
    if isinstance(value, str) and value in objects:
        return objects[value]
    is_simple = isinstance(value, str) and value.isprintable() and "\\" not in value
    return json.dumps(value, ensure_ascii=False) if is_simple else repr(value)


def _flow(value: Plain) -> str:
    # Unlike front matter, a spec may contain null.
    if isinstance(value, dict):
        return "{" + ", ".join(f"{format_scalar(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return "null" if value is None else format_scalar(value)
