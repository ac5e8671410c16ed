"""The data that goes into a timing and comes out of it, and the file that keeps it.

Owns `Subject` (a model to time), `Round`, `Block` and `OpenedModel` (what was measured), `TimedFailure`, and the binary
file of rounds. Leaves measuring to `conductor`, figures to `latency`, and where files lie to the caller.
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
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchcard.errors import BenchcardError
from benchcard.measure.machine_state import MachineState
from benchcard.utils.parsing import load_json
from benchcard.utils.values import Failure

Count = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]

# Length and CRC-32 of a round's bytes, which follow.
_FRAME = struct.Struct("<QI")


@dataclass(frozen=True)
class Subject:
    """A model to time: its file, its framework and options, and its inputs.

    Attributes:
        name: The caller's key for the model, unique within a group.
        framework: A registered framework, or `module:function` for a function `(model, options) -> opened model`.
        model: The file or folder that the framework opens.
        inputs: An `.npz` file with the prepared input arrays of one call.
        samples: Samples in one call (the batch size).
        options: The framework's options; `intra_op_num_threads` and `allow_spinning` have defaults.
    """

    name: str
    framework: str
    model: Path
    inputs: Path
    samples: int = 1
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Block:
    """An uninterrupted series of timed calls of one process.

    Attributes:
        name: The subject's name.
        twin: Whether this is the second process of the baseline.
        started_ns: Wall clock at the first recorded call, in ns since the epoch.
        elapsed_ns: Time from the start of the first to the end of the last recorded call.
        latencies_ns: Latency of each recorded call, (calls,) int64.
        warm_calls: Unrecorded calls just before.
        cpu_ns: Processor time (user and system, all threads) of the recorded calls.
        voluntary_switches: Context switches because a thread waited; None where the system does not report them.
        involuntary_switches: Context switches in favour of another process; None likewise.
        major_faults: Pages read from disk; None likewise.
        peak_bytes: Peak resident memory of the process since before it loaded its model.
    """

    name: str
    twin: bool
    started_ns: Count
    elapsed_ns: Positive
    latencies_ns: NDArray[np.int64]
    warm_calls: Count
    cpu_ns: Count
    voluntary_switches: int | None
    involuntary_switches: int | None
    major_faults: int | None
    peak_bytes: Count

    @property
    def median_ns(self) -> float:
        """The median latency. Of an even number of calls the last one is left out.

        The middle of an odd number of calls lies as often above the median of all as below it, however skewed they are,
        so that blocks of few calls and blocks of many have one level.
        """
        return float(np.median(self.latencies_ns[: (len(self.latencies_ns) - 1) | 1]))


@dataclass(frozen=True)
class OpenedModel:
    """The costs of opening a model in one launch, in a process of its own while no other process worked.

    Attributes:
        name: The subject's name.
        twin: Whether this is the second process of the baseline.
        launch: The number of the launch.
        import_ns: Processor time to import the framework.
        load_ns: Time to open the model, without its first call.
        first_call_ns: Time of the first call.
        warmup_ns: Time of each call of the warm-up, (calls,) int64.
        base_bytes: Resident memory with the framework imported and the inputs read, before the model is loaded.
        peak_bytes: Peak resident memory from then to the end of the warm-up.
        facts: The settings that the framework and the process report.
    """

    name: str
    twin: bool
    launch: Count
    import_ns: Count
    load_ns: Count
    first_call_ns: Count
    warmup_ns: tuple[Count, ...]
    base_bytes: Count
    peak_bytes: Count
    facts: Mapping[str, object]


@dataclass(frozen=True)
class Round:
    """One block of every process that still needed one, in the order in which they ran.

    Attributes:
        number: The number of the round, from 0, counted over all launches and resumed runs.
        launch: The number of the launch, counted likewise.
        blocks: The blocks in order of time.
        before: The machine just before the first block.
        after: The machine just after the last block.
        opened: The models opened since the round before.
    """

    number: Count
    launch: Count
    blocks: tuple[Block, ...]
    before: MachineState
    after: MachineState
    opened: tuple[OpenedModel, ...] = ()

    def to_bytes(self) -> bytes:
        """Return the round as an uncompressed `.npz`: the latencies of all blocks, and the rest as JSON."""
        facts = asdict(self)
        for block in facts["blocks"]:
            block["calls"] = len(block.pop("latencies_ns"))
        latencies = [block.latencies_ns for block in self.blocks] or [np.empty(0, np.int64)]
        buffer = io.BytesIO()
        np.savez(
            buffer,
            latencies_ns=np.concatenate(latencies),
            # The facts of a framework may hold NaN or infinity, which JSON lacks: they are kept as text.
            facts=np.frombuffer(json.dumps(json.loads(json.dumps(facts), parse_constant=str)).encode(), np.uint8),
        )
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Round:
        """Return the round that `to_bytes` wrote.

        Raises:
            ValueError: The bytes are not a complete round.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                latencies: NDArray[np.int64] = arrays["latencies_ns"]
                facts = load_json(arrays["facts"].tobytes())
        except (OSError, EOFError, KeyError, ValueError, MemoryError, zipfile.BadZipFile) as error:
            raise ValueError(f"not a complete round of timed blocks: {error}") from error
        if latencies.dtype != np.int64 or latencies.ndim != 1 or (latencies <= 0).any():
            raise ValueError("a round of timed blocks whose latencies are not positive int64 numbers")
        try:
            end = 0
            for block in facts["blocks"]:
                start, end = end, end + block["calls"]
                block["latencies_ns"] = latencies[start:end]
            timed = msgspec.convert({**facts, "opened": facts.get("opened") or ()}, cls)
        except (TypeError, KeyError, AttributeError, msgspec.ValidationError) as error:
            raise ValueError(f"a round of timed blocks in an unknown form: {error}") from error
        if end != len(latencies):
            raise ValueError(f"a round of timed blocks with {len(latencies)} latencies of {end} calls")
        return timed


@dataclass(frozen=True)
class TimedFailure:
    """Why a process gave no more blocks.

    Attributes:
        name: The subject's name.
        twin: Whether this is the second process of the baseline.
        failure: The reason; its stage is start, import, inputs, load, first call, warm-up or time.
    """

    name: str
    twin: bool
    failure: Failure


@dataclass(frozen=True)
class Progress:
    """How far the timing of a group is. Reported between blocks only, so that no report disturbs a measurement.

    Attributes:
        activity: What happens next, for a person to read.
        done_s: Recorded seconds so far.
        total_s: Recorded seconds in all, as far as is known.
        half_width: Half the width of the 95 % intervals so far over their ratios, the median of all models; None before
            the second launch has ended.
    """

    activity: str
    done_s: float
    total_s: float
    half_width: float | None = None


@dataclass(frozen=True)
class GroupTiming:
    """The timing of a group, without its rounds, which `keep` received one by one.

    Attributes:
        opened: One entry per opened model, those of an earlier run included, in order of launches.
        failures: One entry per process that failed; it is not launched again.
        rounds: Number of rounds, those of an earlier run included.
        launches: Number of launches, likewise.
        before: The machine before the first model was opened.
        after: The machine after the last block.
    """

    opened: tuple[OpenedModel, ...]
    failures: tuple[TimedFailure, ...]
    rounds: int
    launches: int
    before: MachineState
    after: MachineState


def _has_form(value: object, form: type) -> bool:
    try:
        msgspec.convert(value, form)
    except msgspec.ValidationError:
        return False
    return True


def append_round(path: Path, timed: Round) -> None:
    """Append a round to a file; once this returns, the round survives a kill of this process.

    Length and checksum precede the round, so that an incomplete write is recognized.
    """
    data = timed.to_bytes()
    with path.open("ab") as file:
        file.write(_FRAME.pack(len(data), zlib.crc32(data)) + data)


def read_rounds(path: Path) -> list[Round]:
    """Return the complete rounds of a file that `append_round` wrote; none where there is no file.

    Raises:
        BenchcardError: The file holds something else, or cannot be read.
    """
    try:
        return [Round.from_bytes(data) for data in _frames(path)]
    except (OSError, ValueError) as error:
        raise BenchcardError(f"{path} is damaged ({error}): remove its folder and run the spec again") from error


def recover_rounds(path: Path) -> list[Round]:
    """Return the complete rounds of a file and cut off an incomplete one, so that more can be appended."""
    rounds = read_rounds(path)
    if path.exists():
        os.truncate(path, sum(_FRAME.size + len(data) for data in _frames(path)))
    return rounds


def _frames(path: Path) -> Iterator[bytes]:
    """Yield the bytes of each round, up to the first incomplete one."""
    if not path.exists():
        return
    file_size = path.stat().st_size
    with path.open("rb") as file:
        while len(head := file.read(_FRAME.size)) == _FRAME.size:
            size, checksum = _FRAME.unpack(head)
            if size > file_size - file.tell():
                return
            data = file.read(size)
            if len(data) < size or zlib.crc32(data) != checksum:
                return
            yield data
