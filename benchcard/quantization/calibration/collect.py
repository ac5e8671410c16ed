"""One pass of forward runs over the calibration samples, which serves every static configuration.

Owns which tensors are watched, and the runs. How values are counted is left to `histogram`, what is stored to
`statistics`, and the ranges of each method to `ranges`.

onnxruntime's calibrators keep every value of every sample until the last one. Here the values of a sample are counted
and freed, and only their extremes are kept, 8 bytes a tensor and sample, as they are whenever ranges are computed. Two
samples are processed at a time, each on half of the threads, so that no core is idle while values are counted. Tensors
that hold the same values in another order or shape (behind Reshape, Transpose, Identity and the like) are counted once.

All graph optimizations are off, as in onnxruntime's calibrators, so that no tensor is folded away and the values are
equal to the bit. This costs next to nothing: with the inputs and outputs of `Add` and `MatMul` watched in a ViT-base,
the optimized graphs need 0.92 to 1.03 times the processor time of this one.
"""

from __future__ import annotations

import itertools
import math
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto

from benchcard.errors import ArtifactError
from benchcard.graphs.files import load_clean_model, model_files, without_weights
from benchcard.graphs.runtime import runtime_errors, session_options
from benchcard.quantization.calibration.histogram import Array, Histogram, Scratch
from benchcard.quantization.calibration.statistics import ActivationStatistics, WatchedTensors
from benchcard.utils.process import peak_memory_bytes

# Operators whose output holds exactly the values of their first input. Source: ONNX operator specification.
_SAME_VALUES = frozenset(
    ("Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "DepthToSpace", "SpaceToDepth")
)
# Batches of samples that are processed at the same time; memory is that of all of them.
_CONCURRENT = 2
# Samples of a small model are counted together, up to this many values of all tensors: a call of NumPy takes as long as
# counting a thousand values.
_BATCH_VALUES = 1 << 22

# The least and greatest values of each sample, `(samples, 2, sources)`, and the nanoseconds of runs and of counting.
_Counted: TypeAlias = tuple[npt.NDArray[np.float32], int, int]


@dataclass(frozen=True)
class CalibrationReport:
    """What a pass over the samples did.

    `histograms` is the number of distinct sets of values among the tensors. The times of forward runs and of counting
    are means over the samples that were processed at once. `endless` tensors have a NaN or infinity, and so no range.
    """

    samples: int
    tensors: int
    histograms: int
    values_counted: int
    elapsed_ns: int
    forward_ns: int
    counting_ns: int
    statistics_bytes: int
    peak_memory_bytes: int | None
    endless: tuple[str, ...]


def select_tensors(graph: onnx.GraphProto, operators: Sequence[str] | None) -> tuple[WatchedTensors, tuple[str, ...]]:
    """Return the tensors that onnxruntime's calibrators select for these operators, and one to count per histogram.

    Selected are the float inputs and outputs of every node of these types (of all for None or none), initializers
    excepted. The graph must have inferred types.

    Source: onnxruntime.quantization.calibrate.CalibraterBase.select_tensors_to_calibrate.
    """
    dtypes = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16"}
    types = {
        info.name: info.type.tensor_type.elem_type
        for info in itertools.chain(graph.value_info, graph.output, graph.input)
        if info.type.HasField("tensor_type")
    }
    initializers = {initializer.name for initializer in graph.initializer}
    floats = {name for name, elem_type in types.items() if elem_type in dtypes and name not in initializers}
    touching: dict[str, set[str]] = {}
    origin: dict[str, str] = {}
    for node in graph.node:
        if not operators or node.op_type in operators:
            for name in (*node.input, *node.output):
                if name in floats:
                    touching.setdefault(name, set()).add(node.op_type)
        if node.input and node.input[0] in floats:
            name = node.output[0]
            same_type = types.get(name) == types[node.input[0]]
            if node.op_type in _SAME_VALUES or (node.op_type == "Cast" and same_type):
                # Nodes are in topological order, so the origin of the input is known.
                origin[name] = origin.get(node.input[0], node.input[0])
    indices: dict[str, int] = {}
    histogram_of = tuple(indices.setdefault(origin.get(name, name), len(indices)) for name in touching)
    histogram_dtypes = tuple(dtypes[types[name]] for name in indices)
    operator_types = tuple(sorted(set().union(*touching.values())))
    touches = np.array([[operator in users for operator in operator_types] for users in touching.values()], np.bool_)
    return WatchedTensors(tuple(touching), histogram_of, histogram_dtypes, operator_types, touches), tuple(indices)


def collect_statistics(
    model: Path,
    samples: Iterable[Mapping[str, Array]],
    target: Path,
    *,
    operators: Sequence[str] | None,
    intra_op_num_threads: int,
    progress: Callable[[int], None] = lambda done: None,
) -> CalibrationReport:
    """Run the samples through a model, write the statistics of its activations to `target`, and return a report.

    A working folder, about the size of the model, stands beside `target` during the pass. `samples` are inputs by name,
    one mapping a run, iterated once; a moving average counts each mapping as one. The float inputs and outputs of
    `operators` are watched; None or empty stands for all. All runs together have `intra_op_num_threads`, two at least.
    `progress` is called with the number of samples that are done.

    Raises:
        ArtifactError: The model cannot be read or run, it has no tensor to watch, or there are no samples.
    """
    start = time.perf_counter_ns()
    with tempfile.TemporaryDirectory(prefix=".calibration-", dir=target.parent) as folder:
        watched, sources, session = _open(model, Path(folder), operators, intra_op_num_threads)
        counter = _Counter(sources)
        counted = _run(session, counter, samples, progress)
    if not counted:
        raise ArtifactError("There are no calibration samples. Give one or more.")
    requested = tuple(sorted(set(operators or ())))
    each, forward_ns, counting_ns = zip(*counted)
    extremes = np.concatenate(each)
    ActivationStatistics(watched, requested, tuple(counter.histograms), extremes).save(target)
    concurrent = min(_CONCURRENT, len(counted))
    return CalibrationReport(
        samples=len(extremes),
        tensors=len(watched.tensors),
        histograms=len(sources),
        values_counted=counter.values_counted,
        elapsed_ns=time.perf_counter_ns() - start,
        forward_ns=sum(forward_ns) // concurrent,
        counting_ns=sum(counting_ns) // concurrent,
        statistics_bytes=target.stat().st_size,
        peak_memory_bytes=peak_memory_bytes(),
        endless=tuple(name for name in sources if name in counter.non_finite),
    )


def _open(
    model: Path, folder: Path, operators: Sequence[str] | None, threads: int
) -> tuple[WatchedTensors, tuple[str, ...], onnxruntime.InferenceSession]:
    """Return what to watch, the tensors to count, and a session of the model that outputs them."""
    proto = load_clean_model(model)
    try:
        proto = onnx.shape_inference.infer_shapes(without_weights(proto))
    except onnx.shape_inference.InferenceError as error:
        raise ArtifactError(f"The types of {model.name} cannot be inferred: {error}. Export it again.") from error
    watched, sources = select_tensors(proto.graph, operators)
    if not watched.tensors:
        requested = f"of the operators {', '.join(operators)}" if operators else "of any operator"
        raise ArtifactError(f"{model.name} has no float input or output {requested}: there is nothing to calibrate.")
    declared = {info.name for info in itertools.chain(proto.graph.output, proto.graph.input)}
    inner, outputs = set(sources) - declared, onnx.ModelProto()
    for info in proto.graph.value_info:
        if info.name in inner:
            info.type.tensor_type.ClearField("shape")
            outputs.graph.output.append(info)
    del proto

    # Its threads do not spin while they wait: they would take the core of those that run or count the other sample.
    options = session_options({"optimization_level": 0, "intra_op_num_threads": math.ceil(threads / _CONCURRENT)})
    # Two serialized messages in a row are parsed as one with the fields of both. So the graph gets more outputs without
    # its weights being loaded. Source: protobuf.dev/programming-guides/encoding, "Last One Wins".
    source: str | bytes
    if len(model_files(model)) > 1:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(model.parent))
        source = model.read_bytes() + outputs.SerializeToString()
    else:
        source = shutil.copyfile(model, str(folder / "watched.onnx"))
        with open(source, "ab") as file:
            file.write(outputs.SerializeToString())
    try:
        return watched, sources, onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except runtime_errors() as error:
        raise ArtifactError(f"onnxruntime cannot load {model.name}: {error}") from error


class _Counter:
    """The histograms of all sources, which are the tensors to count, and which sources have NaN or infinite values.

    Masks and buckets of distances have such values and need no range: the quantization refuses tensors without one.
    """

    def __init__(self, sources: Sequence[str]) -> None:
        self.sources = sources
        self.histograms = [Histogram() for _ in sources]
        self.non_finite: set[str] = set()
        # A histogram does not depend on the order of its values, but only one thread may add to it at a time.
        self._locks = [threading.Lock() for _ in sources]
        self._local = threading.local()

    @property
    def values_counted(self) -> int:
        """The number of values in all histograms."""
        return sum(int(histogram.counts.sum()) for histogram in self.histograms)

    def add(self, samples: Sequence[dict[str, Array]]) -> npt.NDArray[np.float32]:
        """Count the values of samples, by source, and return their extremes; several threads may call this at once.

        The samples are emptied, so that the memory is free as soon as the values are counted.
        """
        if not hasattr(self._local, "scratch"):
            self._local.scratch = Scratch()
        # An array without values counts as 0, as in onnxruntime's calibrators.
        extremes = np.zeros((len(samples), 2, len(self.histograms)), dtype=np.float32)
        for index, (name, histogram, lock) in enumerate(zip(self.sources, self.histograms, self._locks)):
            arrays = [values.pop(name).reshape(-1) for values in samples]
            with lock:
                bounds = histogram.add(np.concatenate(arrays) if len(arrays) > 1 else arrays[0], self._local.scratch)
            if bounds is None:
                continue
            if not bounds.is_finite:
                self.non_finite.add(name)
            if len(arrays) == 1:
                extremes[0, :, index] = bounds.lowest, bounds.highest
                continue
            for own, array in zip(extremes, arrays):
                if array.size:
                    own[:, index] = array.min(), array.max()
        return extremes


def _run(
    session: onnxruntime.InferenceSession,
    counter: _Counter,
    samples: Iterable[Mapping[str, Array]],
    progress: Callable[[int], None],
) -> list[_Counted]:
    """Run the samples and count the values of each."""
    inputs = {argument.name for argument in session.get_inputs()} & set(counter.sources)
    outputs = [name for name in counter.sources if name not in inputs]

    def process(first: int, batch: Sequence[dict[str, Array]]) -> _Counted:
        started = time.perf_counter_ns()
        values: list[dict[str, Array]] = []
        for number, sample in enumerate(batch, first):
            try:
                results = session.run(outputs, sample)
            except runtime_errors() as error:
                raise ArtifactError(f"Calibration sample {number} cannot be run: {error}") from error
            values.append(dict(zip(outputs, results)) | {name: sample[name] for name in inputs})
            del results
        ran = time.perf_counter_ns()
        extremes = counter.add(values)
        return extremes, ran - started, time.perf_counter_ns() - ran

    pending: deque[Future[_Counted]] = deque()
    counted: list[_Counted] = []
    done, size = 0, 1

    def finish_oldest() -> None:
        nonlocal done, size
        counted.append(pending.popleft().result())
        done += len(counted[-1][0])
        progress(done)
        if len(counted) == 1:
            # Part of the second sample may be counted too, which makes batches smaller.
            size = max(1, _BATCH_VALUES // max(1, counter.values_counted))

    with ThreadPoolExecutor(_CONCURRENT, thread_name_prefix="calibration") as pool:
        # A copy, because the caller may write the next sample into the same arrays.
        copies = ({name: np.array(array) for name, array in sample.items()} for sample in samples)
        first = 0
        while batch := list(itertools.islice(copies, size)):
            if len(pending) == _CONCURRENT:
                finish_oldest()
            pending.append(pool.submit(process, first, batch))
            first += len(batch)
        while pending:
            finish_oldest()
    return counted
