"""The frame `files`: one row for each model file that was audited, with its verdict.

The figures are computed in `analysis.files`.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from benchcard.analysis.files import ModelFile
from benchcard.analysis.frames.columns import frame_of, interval_columns, with_bounds


def files_frame(files: Sequence[ModelFile], metric: str | None) -> pd.DataFrame:
    """Return one row per file: its `verdict` and `why`, `dtype` and `bits` of its weights (on average, with scales),
    `size_mb` with external data, the first metric, the leading figure of its fidelity to the baseline, `ratio` (how
    many times as fast as the baseline) and `cpu_ratio` (the baseline's processor time over its own), each with its
    interval, and `use`.
    """
    leading = tuple(dict.fromkeys(file.leading for file in files if file.leading))
    rows = [
        {
            "row": file.row,
            "file": file.name,
            "verdict": file.verdict.name,
            "dtype": file.weights.dtype if file.weights else None,
            "bits": file.weights.bits_per_weight if file.weights else None,
            "size_mb": None if file.size_bytes is None else file.size_bytes / 1e6,
            **(interval_columns(metric, file.quality) if metric else {}),
            **{
                key: value for name in leading for key, value in interval_columns(name, file.fidelity.get(name)).items()
            },
            **interval_columns("ratio", file.ratio),
            **interval_columns("cpu_ratio", file.cpu_ratio),
            "use": ", ".join(file.uses) or None,
            "why": file.verdict.why or None,
        }
        for file in files
    ]
    names = (*([metric] if metric else []), *leading, "ratio", "cpu_ratio")
    figures = (bound for name in names for bound in with_bounds(name))
    return frame_of(rows, ("row", "file", "verdict", "dtype", "bits", "size_mb", *figures, "use", "why"))
