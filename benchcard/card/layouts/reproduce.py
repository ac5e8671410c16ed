"""The spec of a card, as the call and the YAML that run it again.

Owns putting together what a card's facts say of their spec, and writing it as code. Whatever stands in a value, the
text stays one block of code.
"""

from __future__ import annotations

import json
from typing import Any

from benchcard.card.facts import Facts, Plain
from benchcard.card.frontmatter import yaml as yamltext


def spec(facts: Facts) -> dict[str, Plain]:
    """The spec that comes to these facts, in the form of a YAML spec and of `Benchmark`'s arguments."""
    fixed = dict(facts.fixed)
    data = fixed.pop("dataset", None)
    model = fixed.pop("name_or_path", None)
    made: dict[str, Plain] = {"task": facts.task, "model": model}
    # The cards show the data set as a list of one.
    made["dataset"] = data[0] if isinstance(data, list) and len(data) == 1 else data
    made["metrics"] = facts.settings.get("metrics")
    made["grid"] = {name: list(values) for name, values in facts.benchmarked.items()}
    made["fixed"] = fixed
    made |= {name: value for name, value in facts.settings.items() if name != "metrics"}
    if facts.max_eval_samples is not None:
        made["max_eval_samples"] = facts.max_eval_samples
    if facts.duration_s is not None and "duration" not in made:
        made["duration"] = facts.duration_s
    if facts.backend != "local":
        made["backend"] = facts.backend
    if facts.backend_args:
        made["backend_args"] = facts.backend_args
    return {name: value for name, value in made.items() if value is not None and value != {}}


def call(facts: Facts, folder: str) -> str:
    """The Python call that runs the benchmark again."""
    lines = ["from benchcard import Benchmark", "", "benchmark = Benchmark("]
    for name, value in spec(facts).items():
        if isinstance(value, dict) and name in ("grid", "fixed"):
            lines.append(f"    {name}={{")
            lines += [f"        {_python(str(key))}: {_python(item)}," for key, item in value.items()]
            lines.append("    },")
        else:
            lines.append(f"    {name}={_python(value)},")
    return "\n".join([*lines, ")", f"results = benchmark.run({_python(folder)})"])


def yaml(facts: Facts) -> str:
    """The same as a YAML spec."""
    lines = []
    for name, value in spec(facts).items():
        if isinstance(value, dict) and name in ("grid", "fixed", "dataset"):
            lines.append(f"{name}:")
            lines += [f"  {yamltext.scalar(str(key))}: {_flow(item)}" for key, item in value.items()]
        else:
            lines.append(f"{name}: {_flow(value)}")
    return "\n".join(lines)


def _python(value: Plain) -> str:
    # One line each: a line that began inside of a text could end the block of code.
    return json.dumps(value, ensure_ascii=False) if _is_simple(value) else repr(value)


def _is_simple(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable() and "\\" not in value


def _flow(value: Plain) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{yamltext.scalar(str(key))}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return "null" if value is None else yamltext.scalar(value)
