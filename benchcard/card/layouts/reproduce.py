"""The spec of a card as code: a Python call and a YAML spec that run the benchmark again.

No value in it can end the block of code.
"""

from __future__ import annotations

import json

from benchcard.card.facts import Facts, Plain
from benchcard.card.frontmatter.yaml import format_scalar


def spec_of(facts: Facts) -> dict[str, Plain]:
    """Return the spec of a card: the keys of a YAML spec, which are the arguments of `Benchmark`."""
    fixed = dict(facts.fixed)
    data, model = fixed.pop("dataset", None), fixed.pop("name_or_path", None)
    spec = {
        "task": facts.task,
        "model": model,
        # Cards show the data set as a list of one.
        "dataset": data[0] if isinstance(data, list) and len(data) == 1 else data,
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


def python_call(facts: Facts, folder: str) -> str:
    """Return the Python call that runs the benchmark again, with `folder` as the run directory."""
    lines = ["from benchcard import Benchmark", "", "benchmark = Benchmark("]
    for name, value in spec_of(facts).items():
        if name in ("grid", "fixed"):
            entries = [f"        {_python(key)}: {_python(item)}," for key, item in value.items()]
            lines += [f"    {name}={{", *entries, "    },"]
        else:
            lines.append(f"    {name}={_python(value)},")
    return "\n".join([*lines, ")", f"results = benchmark.run({_python(folder)})"])


def yaml_spec(facts: Facts) -> str:
    """Return the same as a YAML spec."""
    lines = []
    for name, value in spec_of(facts).items():
        if isinstance(value, dict) and name in ("grid", "fixed", "dataset"):
            lines.append(f"{name}:")
            lines += [f"  {format_scalar(key)}: {_flow(item)}" for key, item in value.items()]
        else:
            lines.append(f"{name}: {_flow(value)}")
    return "\n".join(lines)


def _python(value: Plain) -> str:
    # One line each: a line that starts inside of a string could end the block of code.
    is_simple = isinstance(value, str) and value.isprintable() and "\\" not in value
    return json.dumps(value, ensure_ascii=False) if is_simple else repr(value)


def _flow(value: Plain) -> str:
    # Unlike front matter, a spec may contain null.
    if isinstance(value, dict):
        return "{" + ", ".join(f"{format_scalar(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return "null" if value is None else format_scalar(value)
