"""One quantized graph, made by ONNX Runtime's own quantizer, and the report of what really happened to it.

This module owns the call of the quantizer, with ranges that were measured before, and the reading of its result. It
runs no forward pass: ranges come from `calibrate`. Nodes to leave out come from `exclude`; whether the runtime can load
the result is asked in `runs`.

The quantizer gets what a plain call of `quantize_static` or `quantize_dynamic` with a file gets: shape inference and
nothing else. The optional pre-processing (`quant_pre_process`) is not applied, because it fuses and renames nodes: the
quantized graph would no longer be the exported one, and names to exclude would not be found.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from benchcard.errors import ArtifactError
from benchcard.graphs import files
from benchcard.graphs import graph as graphs
from benchcard.graphs.graph import Graph
from benchcard.quantization import operators, refusals
from benchcard.quantization.operators import Quantization
from benchcard.quantization.report import QuantizationReport, count_integer, report_on
from benchcard.utils.text import did_you_mean

if TYPE_CHECKING:
    from onnxruntime.quantization.calibrate import TensorsData


# Tensors that an error names before it only counts.
_NAMED = 3


def quantize_model(
    model: Path, target: Path, how: Quantization, ranges: TensorsData | Path | None = None
) -> QuantizationReport:
    """The report of a model quantized and written to `target`, whose folder exists.

    The written graph equals, node for node and weight for weight, what ONNX Runtime's quantizer makes of the same
    arguments. Where nothing is quantized, it is the float model. A model with weights beside it gets them beside it
    again, in `<target>.data`.

    Args:
        model: The float model.
        target: Where the quantized model is written.
        how: The parameters.
        ranges: Ranges of the activations, or the file into which
            `onnxruntime.quantization.calibrate.save_tensors_data` wrote them. Needed for static quantization, and not
            read for dynamic.

    Raises:
        ArtifactError: The parameters cannot be had, ranges are missing or not finite, or the quantizer refuses the
            graph.
    """
    operators.check(how)
    graph = graphs.graph_at(model)
    _refuse_unknown_names(graph, how)
    with tempfile.TemporaryDirectory(prefix=".quantize-", dir=target.parent) as folder:
        # The name of the file with the weights stands in the graph, so it is written under its final name.
        written = Path(folder, "out", target.name)
        written.parent.mkdir()
        quantized = result = None
        if set(operators.eligible(graph, how)).difference(how.nodes_to_exclude):
            graph, prepared, external = graphs.prepare(model, Path(folder))
            with _library_errors(graph, how, (written.parent, Path(folder))):
                if how.approach == "static":
                    _static(graph, prepared, written, how, _ranges(ranges), Path(folder, "ranges.json"), external)
                else:
                    _dynamic(graph, prepared, written, how, external)
            result = onnx.load(str(written), load_external_data=False)
            # Of a copy: the digest is that of the file, in which nodes may have no name.
            quantized = graphs.graph_of(files.without_weights(result))
        if result is None or quantized is None or count_integer(quantized) == count_integer(graph):
            if count_integer(graph) and not how.nodes_to_exclude:
                raise ArtifactError(
                    f"Nothing in the graph can be quantized ({how.layout}). {refusals.came_quantized(graph)}"
                )
            files.copy_model(model, target)
            return _of_doubles(report_on(graph, graph, onnx.load(str(target), load_external_data=False), how, target))
        refusals.refuse_twice_named(graph, result)
        refusals.refuse_shared_biases(graph, how, result, written.parent)
        refusals.refuse_non_finite(result)
        for file in files.files_in(result, written):
            os.replace(file, target.with_name(file.name))
    return _of_doubles(report_on(graph, quantized, result, how, target))


def _of_doubles(report: QuantizationReport) -> QuantizationReport:
    """The report, in which nodes of float64 stay what they are, and not in float32."""
    said = operators.DOUBLE
    notes = (note.replace(f"in float32: {said}", f"as it is: it {said}") for note in report.notes)
    return dataclasses.replace(report, notes=tuple(notes))


def _static(
    graph: Graph, model: Path, target: Path, how: Quantization, ranges: TensorsData, cache: Path, external: bool
) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    wanted = _wanted_ranges(graph, how, ranges)
    if not _takes_ranges(quantize_static):
        _static_by_class(graph, model, target, how, wanted, external)
        return
    from onnxruntime.quantization.calibrate import save_tensors_data

    save_tensors_data(wanted, cache)
    quantize_static(
        model,
        target,
        None,
        quant_format=QuantFormat.from_string(how.layout),
        op_types_to_quantize=list(operators.asked_operators(how)),
        per_channel=how.per_channel,
        reduce_range=how.reduce_range,
        activation_type=_dtype(how.activations_dtype, QuantType),
        weight_type=_dtype(how.weights_dtype, QuantType),
        nodes_to_exclude=[*how.nodes_to_exclude, *operators.guarded(graph, how)],
        use_external_data_format=external,
        calibrate_method=wanted.calibration_method,
        extra_options=_options(how),
        calibration_cache_path=cache,
    )


def _takes_ranges(quantize_static: Any) -> bool:
    """Whether this version of onnxruntime can be handed ranges; those for Python 3.10 cannot."""
    return "calibration_cache_path" in inspect.signature(quantize_static).parameters


def _static_by_class(
    graph: Graph, model: Path, target: Path, how: Quantization, ranges: TensorsData, external: bool
) -> None:
    """What `quantize_static` does once it has ranges, for versions that calibrate in any case.

    Source: the end of `onnxruntime.quantization.quantize.quantize_static`.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.quant_utils import QuantizationMode, load_model_with_shape_infer

    loaded = load_model_with_shape_infer(model)
    types = [_dtype(how.weights_dtype, QuantType), _dtype(how.activations_dtype, QuantType)]
    excluded = [*how.nodes_to_exclude, *operators.guarded(graph, how)]
    rest = [ranges, [], excluded, list(operators.asked_operators(how)), _options(how)]
    if how.layout == "QOperator":
        mode = QuantizationMode.QLinearOps
        quantizer = ONNXQuantizer(loaded, how.per_channel, how.reduce_range, mode, True, *types, *rest)
    else:
        quantizer = QDQQuantizer(loaded, how.per_channel, how.reduce_range, *types, *rest)
    quantizer.quantize_model()
    quantizer.model.save_model_to_file(str(target), external)


def _dynamic(graph: Graph, model: Path, target: Path, how: Quantization, external: bool) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    excluded = [*how.nodes_to_exclude, *operators.guarded(graph, how)]
    # A `Gemm` is split into a `MatMul` of this name before names are looked at.
    excluded += [f"{name}_MatMul" for name in how.nodes_to_exclude if graph.nodes[name].op_type == "Gemm"]
    quantize_dynamic(
        model,
        target,
        op_types_to_quantize=list(operators.asked_operators(how)),
        per_channel=how.per_channel,
        reduce_range=how.reduce_range,
        weight_type=_dtype(how.weights_dtype, QuantType),
        nodes_to_exclude=excluded,
        use_external_data_format=external,
        extra_options=_options(how),
    )


def _dtype(name: str | None, types: Any) -> Any:
    return types.QUInt8 if name == "uint8" else types.QInt8


def _options(how: Quantization) -> dict[str, bool]:
    """ONNX Runtime's names of the parameters that are None where the library decides."""
    options = {
        "WeightSymmetric": how.weights_symmetric,
        "ActivationSymmetric": how.activations_symmetric,
        "MatMulConstBOnly": how.matmul_const_b_only,
    }
    return {name: value for name, value in options.items() if value is not None}


def _ranges(ranges: TensorsData | Path | None) -> TensorsData:
    from onnxruntime.quantization.calibrate import TensorsData

    if ranges is None:
        raise ArtifactError("Static quantization needs the ranges of the activations. Calibrate the model first.")
    if isinstance(ranges, TensorsData):
        return ranges
    try:
        from onnxruntime.quantization.calibrate import load_tensors_data

        return load_tensors_data(Path(ranges))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ArtifactError(
            f"{ranges} is no calibration cache of onnxruntime: {error}. Calibrate the model anew."
        ) from error


def _wanted_ranges(graph: Graph, how: Quantization, ranges: TensorsData) -> TensorsData:
    """The ranges that a calibration for these operators would have given, without the histograms they came from.

    The quantizer is given no more than a plain call would have, so that nothing but the arguments decides on the
    result.
    """
    from onnxruntime.quantization.calibrate import TensorData, TensorsData

    asked = frozenset(operators.asked_operators(how))
    touched: dict[str, None] = {}
    needed: set[str] = set()
    for node in graph.nodes.values():
        if node.op_type in asked:
            tensors = [t for t in (*node.input, *node.output) if t not in graph.weights and graph.is_float(t)]
            touched.update(dict.fromkeys(tensors))
            if node.name not in how.nodes_to_exclude:
                needed.update(tensors)
    missing = sorted(tensor for tensor in needed if tensor not in ranges)
    if missing:
        raise ArtifactError(
            f"The calibration has no range for {len(missing)} of {len(needed)} tensors that are to be quantized, the "
            f"first of them `{missing[0]}`. Calibrate this very graph, for the operators {', '.join(sorted(asked))}."
        )
    found: dict[str, TensorData] = {}
    for tensor in touched:
        if tensor in ranges:
            lowest, highest = (np.asarray(bound) for bound in ranges[tensor].range_value)
            if np.isfinite(lowest).all() and np.isfinite(highest).all():
                found[tensor] = TensorData(lowest=lowest, highest=highest)
    if endless := [tensor for tensor in touched if tensor in needed and tensor not in found]:
        raise ArtifactError(_non_finite(graph, how, endless))
    return TensorsData(ranges.calibration_method, found)


def _non_finite(graph: Graph, how: Quantization, tensors: Sequence[str]) -> str:
    """That tensors have no range, and what to do."""
    touching = [
        name
        for name, node in graph.nodes.items()
        if node.op_type in operators.asked_operators(how)
        and name not in how.nodes_to_exclude
        and not set(tensors).isdisjoint((*node.input, *node.output))
    ]
    named = ", ".join(f"`{tensor}`" for tensor in tensors[:_NAMED])
    rest = f" and {len(tensors) - _NAMED} more" if len(tensors) > _NAMED else ""
    return (
        f"The float model gives NaN or infinite values on the calibration samples, which no range can hold, in {named}"
        f"{rest}. Where that is right, as in a mask or the logarithm of a distance, add to `node_exclusion` "
        f"{json.dumps(touching, ensure_ascii=False)}, or leave their operators out; else check the model and samples."
    )


def _refuse_unknown_names(graph: Graph, how: Quantization) -> None:
    for name in how.nodes_to_exclude:
        if name not in graph.nodes:
            hint = did_you_mean(name, graph.nodes)
            raise ArtifactError(f"The graph has no node `{name}` to exclude{f' ({hint})' if hint else ''}.")


class _Swallow(logging.Handler):
    """Keeps the root logger from setting itself up to print the quantizer's advice once per row."""

    def emit(self, record: logging.LogRecord) -> None:
        """Let the record be."""


@contextlib.contextmanager
def _library_errors(graph: Graph, how: Quantization, folders: Sequence[Path]) -> Iterator[None]:
    """Turn what the quantizer raises into a reason with a way out, without the folders, which are soon gone."""
    handler = _Swallow()
    logging.getLogger().addHandler(handler)
    try:
        # What overflows shows in the scales, which are looked at.
        with np.errstate(over="ignore"):
            yield
    except ArtifactError:
        raise
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        NotImplementedError,
        RuntimeError,
        TypeError,
        ValueError,
        onnx.shape_inference.InferenceError,
        onnx.checker.ValidationError,
    ) as error:
        asked = "every known operator" if how.operators_to_quantize is None else ", ".join(how.operators_to_quantize)
        reason = " ".join(str(error).split()) or type(error).__name__
        for folder in folders:
            reason = reason.replace(f"{folder}{os.sep}", "")
        raise ArtifactError(
            f"onnxruntime's quantizer refused the graph ({how.layout}, {asked}): {reason[:500]}. "
            f"{refusals.way_out(graph, how, reason)}"
        ) from error
    finally:
        logging.getLogger().removeHandler(handler)
