"""What timing asks for and what it brings back, as plain data.

Owns the records that pass between the conductor (`timing`), the caller that keeps them, and the statistics: a `Subject`
goes in; `Round`s of `Block`s with raw latencies, one `Opened` per process and `Failure`s come out, and a round can be
written to bytes and read again. Leaves to `timing` how they come about and to the caller where they are kept.
"""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchcard.errors import BenchcardError
from benchcard.measure.noise import MachineState
from benchcard.utils.parsing import load_json
from benchcard.utils.plaindata import is_count, is_positive, known, mismatches

_FRAME = struct.Struct("<QI")
READING = {"at_ns": int, "governors?": str, "*": (int, float, bool, type(None))}
"""The form of a `Reading` as JSON; see `plaindata.mismatches`."""
OPENED = {
    "name": str,
    "twin": bool,
    "warmup_ns": [is_count],
    "facts": {"intra_op_num_threads?": int},
    **dict.fromkeys(("launch", "import_ns", "load_ns", "first_call_ns", "base_bytes", "peak_bytes"), is_count),
}
"""The form of an `Opened` as JSON."""
_SWITCHES = ("voluntary_switches", "involuntary_switches", "major_faults")
_BLOCK = {
    "name": str,
    "twin": bool,
    "calls": is_positive,
    "elapsed_ns": is_positive,
    **dict.fromkeys(("started_ns", "warm_calls", "cpu_ns", "peak_bytes"), is_count),
    **{name: (int, type(None)) for name in _SWITCHES},
}
_ROUND = {
    "number": is_count,
    "launch": is_count,
    "blocks": [_BLOCK],
    "opened?": [OPENED],
    "before": READING,
    "after": READING,
}


@dataclass(frozen=True)
class Subject:
    """One model as it is timed: what to open, with which options, on which inputs.

    Attributes:
        name: the caller's key for it; opaque here, unique within a group.
        framework: a registered framework, or `module:function` for any function `(model, options) -> opened model`.
        model: file or folder that the framework opens.
        options: what the framework is told; `intra_op_num_threads` and `allow_spinning` are filled in where absent.
        inputs: an `.npz` with the prepared input arrays of one call.
        samples: number of samples that one call works on (the batch size).
    """

    name: str
    framework: str
    model: Path
    inputs: Path
    samples: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Block:
    """One uninterrupted stretch of timed calls of one process.

    Attributes:
        name: the subject's name.
        twin: whether this is the second process of the baseline.
        started_ns: wall clock of the first recorded call, in ns since the epoch.
        elapsed_ns: from the start of the first to the end of the last recorded call.
        latencies_ns: one value per recorded call, (calls,) int64.
        warm_calls: calls made and not recorded just before.
        cpu_ns: processor time (user and system, all threads) that the process used for the recorded calls.
        voluntary_switches: times that a thread went to sleep by itself; None where the system does not tell.
        involuntary_switches: times that a thread was made to wait for another process; None likewise.
        major_faults: pages that had to be read from disk; None likewise.
        peak_bytes: peak resident memory of the process since before it loaded its model.
    """

    name: str
    twin: bool
    started_ns: int
    elapsed_ns: int
    latencies_ns: NDArray[np.int64]
    warm_calls: int
    cpu_ns: int
    voluntary_switches: int | None
    involuntary_switches: int | None
    major_faults: int | None
    peak_bytes: int

    @property
    def median_ns(self) -> float:
        """The block's median latency."""
        return float(np.median(self.latencies_ns))


@dataclass(frozen=True)
class Round:
    """One block of every process that was still due, in the order in which they ran.

    Attributes:
        number: rounds count from 0 and go on over launches, and over a resumed run.
        launch: which launch of the group's processes they belong to, counted likewise.
        blocks: the blocks in order of time.
        before: the machine just before the first block.
        after: the machine just after the last block.
        opened: what opening cost those that were opened just before this round.
    """

    number: int
    launch: int
    blocks: tuple[Block, ...]
    before: MachineState
    after: MachineState
    opened: tuple[Opened, ...] = ()

    def to_bytes(self) -> bytes:
        """The round as the bytes of an uncompressed `.npz`: the latencies of all blocks, and the rest as JSON."""
        facts = asdict(self)
        for block in facts["blocks"]:
            block["calls"] = len(block.pop("latencies_ns"))
        latencies = [block.latencies_ns for block in self.blocks] or [np.empty(0, np.int64)]
        buffer = io.BytesIO()
        np.savez(
            buffer,
            latencies_ns=np.concatenate(latencies),
            # What a framework says of its model may hold what is no number, which is kept as a word.
            facts=np.frombuffer(json.dumps(json.loads(json.dumps(facts), parse_constant=str)).encode(), np.uint8),
        )
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Round:
        """The round that `to_bytes` wrote.

        Raises:
            ValueError: the bytes are not a whole round, as after a write that was cut short.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                latencies: NDArray[np.int64] = arrays["latencies_ns"]
                facts = load_json(arrays["facts"].tobytes())
        except (OSError, EOFError, KeyError, ValueError, MemoryError, zipfile.BadZipFile) as error:
            raise ValueError(f"not a whole round of timed blocks: {error}") from error
        problem = next(mismatches(facts, _ROUND), None)
        if problem is None and (latencies.dtype != np.int64 or latencies.ndim != 1 or (latencies <= 0).any()):
            problem = "the latencies are no numbers of nanoseconds"
        if problem is None and len(latencies) != sum(block["calls"] for block in facts["blocks"]):
            problem = "there are more or fewer latencies than calls"
        if problem is not None:
            raise ValueError(f"a round of timed blocks in another form: {problem}")
        blocks, start = [], 0
        for block in facts["blocks"]:
            end = start + block["calls"]
            blocks.append(Block(latencies_ns=latencies[start:end], **known(Block, block)))
            start = end
        return cls(
            number=facts["number"],
            launch=facts["launch"],
            blocks=tuple(blocks),
            before=MachineState(**known(MachineState, facts["before"])),
            after=MachineState(**known(MachineState, facts["after"])),
            opened=tuple(
                Opened(**{**known(Opened, each), "warmup_ns": tuple(each["warmup_ns"])})
                for each in facts.get("opened") or ()
            ),
        )


@dataclass(frozen=True)
class Opened:
    """What opening a model cost in one launch, in a process of its own while nothing else of ours ran.

    Attributes:
        name: the subject's name.
        twin: whether this is the second process of the baseline.
        launch: which launch of the group's processes it belongs to.
        import_ns: importing the framework.
        load_ns: opening the model, up to its first call.
        first_call_ns: the first call.
        warmup_ns: every call of the warm-up, (calls,) int64.
        base_bytes: resident memory with the framework imported and the inputs read, before the model.
        peak_bytes: peak resident memory since then, up to the end of the warm-up (a `Block` has it up to its own end).
        facts: what the framework says it really has, and what the process really had.
    """

    name: str
    twin: bool
    launch: int
    import_ns: int
    load_ns: int
    first_call_ns: int
    warmup_ns: tuple[int, ...]
    base_bytes: int
    peak_bytes: int
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Failure:
    """Why one process gave no (more) blocks.

    Attributes:
        name: the subject's name.
        twin: whether this is the second process of the baseline.
        stage: what it was doing: start, import, load, first call, warm-up or time.
        type: the exception's class, or `Died`, or `TimedOut`.
        message: one line in words.
        log: the end of what the process wrote, with the traceback where there is one.
        exit_code: exit status where it ended by itself, else None.
        signal: name of the signal that ended it, else None.
    """

    name: str
    twin: bool
    stage: str
    type: str
    message: str
    log: str
    exit_code: int | None = None
    signal: str | None = None


@dataclass(frozen=True)
class Progress:
    """How far a group is: for a bar, called only between blocks, never while something is timed.

    Attributes:
        doing: the step at work, in words.
        done_s: timed seconds behind us.
        total_s: timed seconds as far as can be told now.
    """

    doing: str
    done_s: float
    total_s: float


@dataclass(frozen=True)
class GroupTiming:
    """All about a group but its blocks, which went to `keep` as they came.

    Attributes:
        opened: one per process that opened its model, the baseline's twin and those of an earlier run included, in
            order of launches.
        failures: one per process that failed, at whatever stage; it is not launched again.
        rounds: number of rounds, those of an earlier run included.
        launches: number of launches, likewise.
        before: the machine before the first model was opened.
        after: the machine after the last block.
    """

    opened: tuple[Opened, ...]
    failures: tuple[Failure, ...]
    rounds: int
    launches: int
    before: MachineState
    after: MachineState


def append_round(path: Path, timed: Round) -> None:
    """Adds a round at the end of a file of rounds; it is there even if this process is killed right afterwards.

    A round stands there as its length, its checksum and its bytes, so that a write which was cut short is seen.
    """
    data = timed.to_bytes()
    with path.open("ab") as file:
        file.write(_FRAME.pack(len(data), zlib.crc32(data)) + data)


def read_rounds(path: Path) -> list[Round]:
    """The whole rounds of a file that `append_round` wrote, in its order; none where there is no file.

    Raises:
        BenchcardError: it holds something else, or cannot be read.
    """
    try:
        return [Round.from_bytes(data) for data in _frames(path)]
    except (OSError, ValueError) as error:
        raise BenchcardError(f"{path} is damaged ({error}): take its folder away and run again") from error


def recover_rounds(path: Path) -> list[Round]:
    """The same, for a run that goes on: what a kill left of a last round is cut off, so that more can be appended."""
    rounds = read_rounds(path)
    if path.exists():
        os.truncate(path, sum(_FRAME.size + len(data) for data in _frames(path)))
    return rounds


def _frames(path: Path) -> Iterator[bytes]:
    """The bytes of each round, up to the first that is not whole."""
    if not path.exists():
        return
    whole = path.stat().st_size
    with path.open("rb") as file:
        while len(head := file.read(_FRAME.size)) == _FRAME.size:
            size, checksum = _FRAME.unpack(head)
            if size > whole - file.tell():
                return
            data = file.read(size)
            if len(data) < size or zlib.crc32(data) != checksum:
                return
            yield data
