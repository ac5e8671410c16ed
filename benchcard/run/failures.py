"""The failures of a row, by what is missing because of them, and in words.

An exception becomes a `Failure` in `workers.child`. The table of failures is left to `analysis.frames.failures`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from benchcard.utils.values import Failure, Shape


@dataclass
class Failures:
    """The failures of a row, by what is missing because of them.

    Attributes:
        model: There is no model, and so nothing else.
        quality: There are no predictions or no metrics.
        comparison: There are no intervals and no paired tests.
        reasons: There is no explanation.
        time: There is no measurement of time, by shape as the spec has it.
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
            failure: Failure | None = getattr(self, name)
            if failure is not None:
                yield name, failure
        for shape, failure in self.time.items():
            yield f"time {shape}", failure
