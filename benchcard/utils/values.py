"""Values that all layers share: the shape of inputs, an estimate with its interval, a failure, and a disturbance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

MEMORY_PREFIX = "memory:"
"""The prefix of the name of a data set that was passed in memory; its files are in the run directory."""


PHASES = {"token": "time per token", "prompt": "time to first token"}
"""What the latency of a call is in each phase of generation: of one token with those before it in the cache, and of a
prompt with an empty cache.
"""

SAMPLES: Mapping[str | None, str] = {None: "samples", "token": "tokens", "prompt": "prompts"}
"""What throughput and costs count in each phase."""


@dataclass(frozen=True, order=True)
class Shape:
    """The inputs of one forward call that is timed. As text: `8x64`, or `batch 8` where there is no length, with what
    the latency of a phase is: `8x64 (time per token)`.

    `input_length` counts tokens or audio samples of one input; None where the task has no length, as for images. In the
    phase `token`, these are in the cache already.
    """

    batch_size: int
    input_length: int | None = None
    phase: str | None = None

    def __str__(self) -> str:
        size = f"{self.batch_size}x{self.input_length}" if self.input_length else f"batch {self.batch_size}"
        return size + self.remark

    @property
    def remark(self) -> str:
        """What the latency of the phase is, in brackets after a space; empty without a phase."""
        return f" ({PHASES.get(self.phase, self.phase)})" if self.phase else ""

    @property
    def tokens(self) -> int | None:
        """The tokens that a call reads, or makes in the phase `token`, of one input; None where there is no length."""
        return 1 if self.phase == "token" else self.input_length


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % interval; both bounds are None where there are too few values for an interval."""

    value: float
    low: float | None = None
    high: float | None = None

    def excludes(self, value: float) -> bool:
        """Return whether the interval lies entirely on one side of `value`; False where there is no interval."""
        return self.low is not None and self.high is not None and not self.low <= value <= self.high

    @property
    def reach(self) -> float:
        """The largest distance of a ratio and its bounds from 1, as a logarithm."""
        return max(abs(math.log(bound)) for bound in (self.low, self.value, self.high) if bound is not None)

    @property
    def half_width(self) -> float | None:
        """Half the width of the interval over the value; None where there is no interval."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2 / self.value

    def within(self, share: float) -> bool:
        """Return whether half the width of the interval is at most this share of the value."""
        return self.half_width is not None and self.half_width <= share


@dataclass(frozen=True)
class Failure:
    """Why a result is missing.

    `stage` is the kind of the step, or `time`; `type` the class of the exception, or the signal that killed the
    process; `log` the end of the step's log.
    """

    stage: str = ""
    type: str = ""
    message: str = ""
    log: str = ""

    def __str__(self) -> str:
        """Return the stage, the type, and the first line of the message."""
        message = next(iter(self.message.strip().splitlines()), "")
        return ": ".join(part for part in (self.stage, self.type, message) if part) or "failed"


@dataclass(frozen=True)
class Disturbance:
    """Something that may have disturbed a timing, and how much, as the sentence `text`.

    `kind` is `others` (other processes used the processors), `steal`, `throttling`, `quota`, `governor`, `heat`,
    `cores` (their speed changed), `swap`, `battery` or `gpu` (its clocks were lowered); `disturbed` where others or
    steal took so much that ratios of latencies may be wrong; empty where it is not one of the machine, or not known.
    """

    kind: str
    text: str

    def __str__(self) -> str:
        return self.text
