"""Presets: grids by name, from `presets.yaml`, and the parameters that one of them adds to a spec."""

from __future__ import annotations

import functools
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchcard.spec.parameters import PARAMETERS, split_name
from benchcard.utils.parsing import load_yaml
from benchcard.utils.processor import Int8, int8_support, read_processor


@dataclass(frozen=True)
class Preset:
    """A grid with a name.

    Attributes:
        why: What it is for.
        fixed: Its parameters with one value.
        grid: Its benchmarked parameters, each with a list of values; empty for the preset of this machine.
        instructions: The fastest int8 instructions of the processors that it is for, as in `Int8.best`.
    """

    why: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    grid: Mapping[str, list[Any]] = field(default_factory=dict)
    instructions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Expansion:
    """The parameters that a preset adds to a spec, and a sentence for each part of the preset that was left out."""

    fixed: Mapping[str, Any]
    grid: Mapping[str, list[Any]]
    notes: tuple[str, ...]


@functools.cache
def presets() -> Mapping[str, Preset]:
    """Return all presets by name."""
    import msgspec

    text = Path(__file__).with_name("presets.yaml").read_text(encoding="utf-8")
    return msgspec.convert(load_yaml(text), dict[str, Preset])


def preset_for(int8: Int8) -> str:
    """Return the name of the preset for processors that compute int8 products in this way."""
    unknown = "avx2" if int8.u8s8_saturates else "arm64"
    return next((name for name, preset in presets().items() if int8.best in preset.instructions), unknown)


def expand(name: str, given: Mapping[str, Any]) -> Expansion:
    """Return what a preset adds to a spec with the `given` fixed parameters, which replace those of the preset.

    Rows that the spec cannot have are left out, unless no quantized row would remain.
    """
    preset = presets()[name]
    if not preset.grid:
        preset = presets()[preset_for(int8_support(read_processor()[1], platform.machine()))]
    fixed, grid = (
        {key: part[key] for key in part if not _is_given(key, given)} for part in (preset.fixed, preset.grid)
    )
    notes = []

    def leave_out(parameter: str, value: str, reason: str) -> None:
        others = [other for other in grid.get(parameter, ()) if other != value]
        if others and value in grid[parameter]:
            grid[parameter] = others
            notes.append(f"the grid `{name}` has no {value} rows here: {reason}")

    if given.get("from_transformers") is False:
        leave_out("framework", "pytorch", "with `from_transformers: false`, the model is an ONNX file")
    if not _is_given("dataset.calibration_split", given):
        leave_out("quantization_approach", "static", "they need a `dataset.calibration_split`")
    if "static" not in grid.get("quantization_approach", [given.get("quantization_approach")]):
        fixed, grid = (
            {key: part[key] for key in part if PARAMETERS[split_name(key)[0]].scope != "static"}
            for part in (fixed, grid)
        )
    return Expansion(fixed, grid, tuple(notes))


def _is_given(key: str, given: Mapping[str, Any]) -> bool:
    """Return whether a spec has a parameter or a field of it; for the name of a field, whether it has that field."""
    parameter, part = split_name(key)
    if part is None:
        return any(split_name(name)[0] == parameter for name in given)
    fields = given.get(parameter)
    return given.get(key) is not None or (isinstance(fields, Mapping) and fields.get(part) is not None)
