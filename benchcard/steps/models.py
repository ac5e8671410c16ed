"""The steps `export` and `convert`: the graph of a model, and the file that a framework makes of a graph."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchcard import registry
from benchcard.errors import ArtifactError
from benchcard.steps.step import Asked, Needs, Progress


def export(asked: Asked, needs: Needs, extra: Asked, target: Path, progress: Progress) -> dict[str, Any]:
    """A graph of the asked opset: exported from a transformers model and checked against it, or the one that the
    model's folder holds.
    """
    from benchcard.graphs.files import model_digest

    if asked["from_transformers"]:
        from benchcard.export.export import export_model

        report = asdict(
            export_model(
                Path(extra["model"]),
                asked["task"],
                asked["opset"],
                target,
                trust_remote_code=asked.get("trust_remote_code", False),
            )
        )
        file = "model.onnx"
    else:
        from benchcard.export.existing import take_existing

        file, report = take_existing(Path(extra["model"]), asked["file_name"], asked["opset"], target)
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file() and path.name != "log.txt")
    return {"file": file, "digest": model_digest(target / file), "size_bytes": size, "report": report}


def convert(asked: Asked, needs: Needs, extra: Asked, target: Path, progress: Progress) -> dict[str, Any]:
    """A graph in the form that a framework of somebody else's opens."""
    from benchcard.utils.files import content_digest

    graph = needs["graph"]
    framework = registry.framework(asked["framework"])
    file = framework.convert(graph.folder / graph.values["file"], target, asked["arguments"])
    if not (target / file).exists():
        raise ArtifactError(f"{asked['framework']} said that it wrote {file}, and did not")
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file() and path.name != "log.txt")
    return {"file": file, "digest": content_digest(target / file), "size_bytes": size}
