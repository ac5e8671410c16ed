"""The failures of a row, by what is missing because of them.

An exception becomes text in `workers.child`. The table of failures is left to `analysis.frames.failures`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from benchcard.utils.values import Failure, Shape


@dataclass
class Failures:
    """The failures of a row, by what is missing because of them.

    Without a `model` there is nothing else. `quality` stands for predictions and metrics, `comparison` for intervals
    and paired tests, `reasons` for the explanation, and `time` for measurements, by shape as the spec has it.
    """

    model: Failure | None = None
    quality: Failure | None = None
    comparison: Failure | None = None
    reasons: Failure | None = None
    time: dict[Shape, Failure] = field(default_factory=dict)

    def of_quality(self) -> Failure | None:
        """Return why the row has no metrics, or None."""
        return self.model or self.quality

    def items(self) -> Iterator[tuple[str, Failure]]:
        """Yield each failure with what is missing, in words."""
        for name in ("model", "quality", "comparison", "reasons"):
            if failure := getattr(self, name):
                yield name, failure
        for shape, failure in self.time.items():
            yield f"time {shape}", failure
