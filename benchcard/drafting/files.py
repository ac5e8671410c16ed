"""The draft of an audit: a spec whose rows are the ONNX files of a model, with the float model as their baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from benchcard.drafting.draft import Draft, draft_spec
from benchcard.errors import ArtifactError, Mistake, SpecError
from benchcard.export.existing import USUAL_PLACES
from benchcard.graphs.weights import stored_weights
from benchcard.sources.resolve import downloaded_model
from benchcard.spec.parameters import FILE_NAME

_FLOAT = 32
# The weights that PyTorch loads, of which a folder has one kind.
_PYTORCH = ("*.safetensors", "pytorch_model*.bin")


def draft_audit(
    model: str | Path, dataset: str | Path | Mapping[str, object] | None = None, **parameters: object
) -> Draft:
    """Return the draft of a spec with a row for each ONNX file of a model, which is downloaded if it is on the Hub.

    They are compared with the float32 graph, in its usual place if it has one; without one with PyTorch, if the model
    has weights for it; else with the file of the most bits. The arguments are those of `draft_spec`.

    Raises:
        SpecError: The model has no ONNX file, or as for `draft_spec`.
        HubError: The Hub refused, or could not be reached.
    """
    folder = downloaded_model(str(model))
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.onnx"))
    if not names:
        hint = "`benchcard run` exports a model and quantizes it"
        raise SpecError(Mistake("$.model", f"`{model}`, which has none", "a model with ONNX files", hint))
    bits = {name: _bits(folder / name) for name in names}
    order = sorted(names, key=lambda name: (-bits[name], name not in USUAL_PLACES, len(name), name))
    grid: dict[str, object] = {FILE_NAME: names}
    baseline = {FILE_NAME: order[0]}
    if bits[order[0]] < _FLOAT and any(path for pattern in _PYTORCH for path in folder.glob(pattern)):
        grid["framework"], baseline = ["onnxruntime", "pytorch"], {"framework": "pytorch"}
    sources = {
        "grid": (grid, "the ONNX files of the model"),
        "from_transformers": (False, "they are measured as they are"),
        "baseline": (baseline, "the float model that they are compared with"),
    }
    drafted = {place: value for place, (value, _) in sources.items() if place not in parameters}
    draft = draft_spec(model, dataset, **{**drafted, **parameters})
    choices = {
        place: replace(choice, source=sources[place][1]) if place in drafted else choice
        for place, choice in draft.choices.items()
        # Nothing is quantized.
        if not place.startswith(("calibration.", "dataset.calibration_split"))
    }
    return replace(draft, choices=choices)


def _bits(path: Path) -> float:
    """Return the bits of the coarsest weights of a file, at most those of float32; 0 where they cannot be read."""
    try:
        weights = stored_weights(path)
    except (ArtifactError, OSError, ValueError):
        return 0
    return min(_FLOAT, weights.fewest_bits) if weights.count else 0
