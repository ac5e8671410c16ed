"""One pass of forward runs over the calibration samples, from which every static configuration is served.

Owns which tensors are watched, the runs, and what is done when their values cannot be used. How values are counted is
`histogram`'s, what is stored `activations`'s, and the ranges for a method, with how they agree with onnxruntime's own
calibrators, `ranges`'s.

onnxruntime's calibrators keep every value of every sample until the last one. Here the values of a sample are counted
and forgotten: memory does not grow with the samples (their least and greatest values, 8 bytes a tensor and sample, wait
on disk). Two samples are under way at a time, each on half of the threads, so that no core waits while the values of
one are counted. Two things more make it fast: tensors that hold the same values in another order or shape (behind
Reshape, Transpose, Identity and their like) are counted once, and only the tensors asked for leave the runtime.

The graph runs as onnxruntime's calibrators run it, with all graph optimizations off, so that no tensor is folded away
and the values are to the bit those that they would have seen. It costs nothing to speak of: with the inputs and
outputs of `Add` and `MatMul` watched in a ViT-base, the optimized graphs need 0.92 to 1.03 times the processor time of
this one, since what could be fused is being watched. The `basic` level would keep the values there, the levels above
it change most of them in their last bits.
"""

from __future__ import annotations

import itertools
import math
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from benchcard.errors import ArtifactError
from benchcard.graphs import files
from benchcard.graphs.runtime import refusals
from benchcard.quantization.calibration.histogram import Array, Histogram, Scratch
from benchcard.quantization.calibration.statistics import ActivationStatistics

_SAME_VALUES = frozenset(
    ("Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "DepthToSpace", "SpaceToDepth")
)
"""Operators whose output holds exactly the values of their first input. Source: ONNX operator specification."""

_AT_ONCE = 2
"""Samples that are under way at the same time. Memory is that of all of them."""


@dataclass(frozen=True)
class Watched:
    """The tensors of a graph whose values are wanted.

    Attributes:
        tensors: names of all of them, in the order of the graph.
        sources: names of the tensors that are counted: from each the values of one or more of `tensors` are known.
        source_of: place in `sources` of each tensor.
        dtypes: `float32` or `float16`, of each source.
        operator_types: operator types that touch at least one of the tensors.
        touches: `(tensors, operator types) bool`.
    """

    tensors: tuple[str, ...]
    sources: tuple[str, ...]
    source_of: tuple[int, ...]
    dtypes: tuple[str, ...]
    operator_types: tuple[str, ...]
    touches: np.ndarray[Any, np.dtype[np.bool_]]


def watch(graph: Any, operators: Sequence[str] | None) -> Watched:
    """The tensors that onnxruntime's calibrators choose for these operators, and where their values come from.

    Chosen are the float inputs and outputs of every node of these types, initializers excepted.

    Args:
        graph: an `onnx.GraphProto` with inferred types.
        operators: operator types; None or empty stands for all.

    Source: onnxruntime.quantization.calibrate.CalibraterBase.select_tensors_to_calibrate.
    """
    from onnx import TensorProto

    dtypes = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16"}
    types = {
        info.name: info.type.tensor_type.elem_type
        for info in itertools.chain(graph.value_info, graph.output, graph.input)
        if info.type.HasField("tensor_type")
    }
    initializers = {initializer.name for initializer in graph.initializer}
    floats = {name for name, kind in types.items() if kind in dtypes and name not in initializers}
    touching: dict[str, set[str]] = {}
    origin: dict[str, str] = {}
    for node in graph.node:
        if not operators or node.op_type in operators:
            for name in itertools.chain(node.input, node.output):
                if name in floats:
                    touching.setdefault(name, set()).add(node.op_type)
        if node.input and node.input[0] in floats:
            name = node.output[0]
            same_type = types.get(name) == types[node.input[0]]
            if node.op_type in _SAME_VALUES or (node.op_type == "Cast" and same_type):
                # Nodes stand in topological order: the input's own origin is known by now.
                origin[name] = origin.get(node.input[0], node.input[0])
    places: dict[str, int] = {}
    source_of = tuple(places.setdefault(origin.get(name, name), len(places)) for name in touching)
    operator_types = tuple(sorted(set().union(*touching.values())))
    return Watched(
        tensors=tuple(touching),
        sources=tuple(places),
        source_of=source_of,
        dtypes=tuple(dtypes[types[name]] for name in places),
        operator_types=operator_types,
        touches=np.array([[kind in kinds for kind in operator_types] for kinds in touching.values()], dtype=np.bool_),
    )


def collect_statistics(
    model: Path,
    samples: Iterable[Mapping[str, Array]],
    target: Path,
    *,
    operators: Sequence[str] | None,
    intra_op_num_threads: int,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """A report of the pass, for the record; the statistics themselves are in `target`, for `ranges.ranges`.

    The report holds `samples`, `tensors` (watched), `histograms` (distinct sets of values among them), `values_counted`
    (all samples), `elapsed_ns`, of which `forward_ns` in runs and `counting_ns` in counting (each the mean over the
    samples that were under way at the same time), `statistics_bytes`, `peak_memory_bytes` (of this process since its
    start) and `endless`: tensors with a value that is NaN or infinite, for which there is no range.

    Args:
        model: ONNX file; weights beside it (external data) may be of any size.
        samples: inputs by name, one mapping a run; it is iterated once. A moving average takes each mapping as one.
        target: file to write. A working folder stands beside it during the pass, of about the size of the model.
        operators: operator types whose float inputs and outputs are watched: those of all configurations that the
            statistics shall serve. None or empty watches the tensors of all operators.
        intra_op_num_threads: threads of all runs together, two at least.
        progress: called after every sample with the number of samples that are done.

    Raises:
        ArtifactError: the model cannot be read or run, none of its tensors is wanted, or there are no samples.
    """
    start = time.perf_counter_ns()
    with tempfile.TemporaryDirectory(prefix=".calibration-", dir=target.parent) as folder:
        watched, session = _open(model, Path(folder), operators, intra_op_num_threads)
        with (Path(folder) / "sample_extremes").open("w+b") as file:
            tally = _Tally(watched, file)
            count, forward_ns, counting_ns = _run(session, watched, samples, tally, progress)
            if not count:
                raise ArtifactError("there are no calibration samples")
            file.flush()
            sample_extremes = np.memmap(file, dtype=np.float32, mode="r", shape=(count, 2, len(watched.sources)))
            ActivationStatistics(
                tensors=watched.tensors,
                histogram_of=watched.source_of,
                operators=tuple(sorted(set(operators or ()))),
                operator_types=watched.operator_types,
                touches=watched.touches,
                histograms=tuple(tally.histograms),
                dtypes=watched.dtypes,
                sample_extremes=sample_extremes,
            ).save(target)
            # Windows does not delete a file that is still mapped.
            del sample_extremes
    return {
        "samples": count,
        "tensors": len(watched.tensors),
        "histograms": len(watched.sources),
        "values_counted": sum(int(histogram.counts.sum()) for histogram in tally.histograms),
        "elapsed_ns": time.perf_counter_ns() - start,
        "forward_ns": forward_ns,
        "counting_ns": counting_ns,
        "statistics_bytes": target.stat().st_size,
        "peak_memory_bytes": peak_memory_bytes(),
        "endless": [name for name in watched.sources if name in tally.endless],
    }


def _open(model: Path, folder: Path, operators: Sequence[str] | None, threads: int) -> tuple[Watched, Any]:
    """What to watch, and a session of the model that gives it."""
    import onnx
    import onnxruntime

    proto = files.read_model(model, weights=False)
    try:
        proto = onnx.shape_inference.infer_shapes(files.without_weights(proto))
    except onnx.shape_inference.InferenceError as error:
        raise ArtifactError(f"the types of {model.name} cannot be inferred: {error}") from error
    watched = watch(proto.graph, operators)
    if not watched.tensors:
        asked = f"of the operators {', '.join(operators)}" if operators else "of any operator"
        raise ArtifactError(f"{model.name} has no float input or output {asked}: there is nothing to calibrate")
    given = {info.name for info in itertools.chain(proto.graph.output, proto.graph.input)}
    types = {info.name: info.type.tensor_type.elem_type for info in proto.graph.value_info}
    outputs = onnx.ModelProto()
    for name in watched.sources:
        if name not in given:
            outputs.graph.output.append(onnx.helper.make_tensor_value_info(name, types[name], None))
    del proto

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = math.ceil(threads / _AT_ONCE)
    # Threads that spin while they wait would take the core of those that run or count the other sample.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Two messages one after the other are read as one that has the fields of both: the graph gets more outputs, and its
    # weights pass through no hands. Source: protobuf.dev/programming-guides/encoding, "Last One Wins".
    source: str | bytes
    if len(files.files_of_model(model)) > 1:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(model.parent))
        source = model.read_bytes() + outputs.SerializeToString()
    else:
        source = shutil.copyfile(model, str(folder / "watched.onnx"))
        with open(source, "ab") as file:
            file.write(outputs.SerializeToString())
    try:
        return watched, onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except refusals() as error:
        raise ArtifactError(f"onnxruntime cannot load {model.name}: {error}") from error


class _Tally:
    """What is known of the values so far.

    Args:
        watched: what is counted.
        file: takes the extremes of each sample.
    """

    def __init__(self, watched: Watched, file: IO[bytes]) -> None:
        self._watched, self._file = watched, file
        self.histograms = [Histogram() for _ in watched.sources]
        # The order in which values come does not show in a histogram; only two threads may not add to it at once.
        self._locks = [threading.Lock() for _ in watched.sources]
        self._file_lock = threading.Lock()
        self._own = threading.local()
        # Sources with a value that is NaN or infinite. Masks and buckets of distances have such values and no need of a
        # range: who needs one where there is none, says so.
        self.endless: set[str] = set()

    def add(self, number: int, values: dict[str, Array]) -> None:
        """Count the values of one sample; any number of threads may do so at the same time.

        Args:
            number: of the sample, from 0.
            values: by source; emptied, so that their memory is free as soon as they are counted.
        """
        if not hasattr(self._own, "scratch"):
            self._own.scratch = Scratch()
        row = np.zeros((2, len(self.histograms)), dtype=np.float32)
        for place, (name, histogram, lock) in enumerate(zip(self._watched.sources, self.histograms, self._locks)):
            with lock:
                bounds = histogram.add(values.pop(name), self._own.scratch)
            # An array without values counts as 0, as in onnxruntime's calibrators.
            if bounds is not None:
                row[:, place] = bounds.lowest, bounds.highest
                if not bounds.finite:
                    self.endless.add(name)
        with self._file_lock:
            self._file.seek(number * row.nbytes)
            self._file.write(row.tobytes())


def _run(
    session: Any,
    watched: Watched,
    samples: Iterable[Mapping[str, Array]],
    tally: _Tally,
    progress: Callable[[int], None] | None,
) -> tuple[int, int, int]:
    """Number of samples, and the nanoseconds that runs and counting took; their values are in `tally`."""
    inputs = {argument.name for argument in session.get_inputs()} & set(watched.sources)
    fetched = [name for name in watched.sources if name not in inputs]
    errors = refusals()

    def one(number: int, sample: dict[str, Array]) -> tuple[int, int]:
        begun = time.perf_counter_ns()
        try:
            outputs = session.run(fetched, sample)
        except errors as error:
            raise ArtifactError(f"calibration sample {number} cannot be run: {error}") from error
        ran = time.perf_counter_ns()
        values = dict(zip(fetched, outputs)) | {name: sample[name] for name in inputs}
        del outputs
        tally.add(number, values)
        return ran - begun, time.perf_counter_ns() - ran

    pending: deque[Future[tuple[int, int]]] = deque()
    done: list[tuple[int, int]] = []

    def settle() -> None:
        done.append(pending.popleft().result())
        if progress is not None:
            progress(len(done))

    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="calibration") as pool:
        for number, sample in enumerate(samples):
            if len(pending) == _AT_ONCE:
                settle()
            # A copy: whoever gives the samples may write the next one into the same arrays.
            pending.append(pool.submit(one, number, {name: np.array(array) for name, array in sample.items()}))
        while pending:
            settle()
    at_once = max(1, min(_AT_ONCE, len(done)))
    return len(done), sum(ran for ran, _ in done) // at_once, sum(counted for _, counted in done) // at_once


def peak_memory_bytes() -> int | None:
    """Largest resident memory of this process since its start; None where the system does not tell."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not from getrusage: there, a process begins with the peak of the one that started it.
        found = re.search(r"^VmHWM:\s*(\d+) kB$", status.read_text(encoding="utf-8"), flags=re.MULTILINE)
        return int(found[1]) * 1024 if found else None
    if os.name != "posix":
        return None
    import resource

    # In bytes on macOS, in KiB elsewhere: getrusage(2).
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
