"""The quantization of one graph by ONNX Runtime's own quantizer, with ranges that were measured before.

Ranges come from `calibration` and nodes to exclude from `exclusions`; whether the runtime can load the result is
checked in `loading`. Of the pre-processing (`quant_pre_process`) only shape inference is applied, as in a plain call
of `quantize_static` with a file: the rest fuses and renames nodes, so names to exclude would not be found.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnxruntime import quantization
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData
from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import QuantizationMode, load_model_with_shape_infer, update_opset_version

from benchcard.errors import ArtifactError
from benchcard.graphs.files import copy_model, model_files, without_weights
from benchcard.graphs.graph import Graph, PreparedModel, graph_of, load_graph, prepare_model
from benchcard.graphs.runtime import LIBRARY_ERRORS
from benchcard.quantization import checks
from benchcard.quantization.indexed import IndexedModel
from benchcard.quantization.operators import (
    check_settings,
    count_integer_operators,
    float_reasons,
    protected_nodes,
    requested_operators,
)
from benchcard.quantization.outcomes import QuantizationReport
from benchcard.quantization.report import make_report
from benchcard.quantization.settings import Quantization
from benchcard.quantization.weight_only import quantize_weights
from benchcard.utils.text import quote_names

# Tensors that a message names; further ones are counted.
_MOST_NAMED = 3
# What the quantizer raises for graphs that it cannot quantize.
_QUANTIZER_ERRORS = (*LIBRARY_ERRORS, onnx.shape_inference.InferenceError, onnx.checker.ValidationError)


def quantize_model(
    model: Path, target: Path, settings: Quantization, ranges: TensorsData | None = None
) -> QuantizationReport:
    """Quantize a model, write it to `target`, whose folder exists, and return the report.

    The written graph equals, node for node and weight for weight, what ONNX Runtime's quantizer gives for the same
    arguments. Where nothing is quantized, it is the float model. External weights go to `<target>.data`. Only static
    quantization needs and reads `ranges`, those of the activations.

    Raises:
        ArtifactError: The settings are not supported, ranges are missing or not finite, or the quantizer refuses the
            graph.
    """
    check_settings(settings)
    graph = load_graph(model)
    with tempfile.TemporaryDirectory(prefix=".quantize-", dir=target.parent) as folder:
        # The graph holds the name of its weights' file, so it is written under its final name.
        written = Path(folder, "out", target.name)
        written.parent.mkdir()
        quantized = result = None
        if set(float_reasons(graph, settings)).difference(settings.nodes_to_exclude):
            prepared = prepare_model(model, Path(folder))
            with _reporting_errors(graph, settings, (written.parent, Path(folder))):
                if settings.approach == "static":
                    _quantize_static(prepared, written, settings, ranges)
                elif settings.approach == "weight_only":
                    quantize_weights(prepared, written, settings)
                else:
                    _quantize_dynamic(prepared, written, settings)
            result = onnx.load(str(written), load_external_data=False)
            # `graph_of` names nodes, and the digest is that of the file: so index a copy.
            quantized = graph_of(without_weights(result))
        if result is None or quantized is None or count_integer_operators(quantized) == count_integer_operators(graph):
            if count_integer_operators(graph) and not settings.nodes_to_exclude:
                raise ArtifactError(
                    f"Nothing in the graph can be quantized ({settings.layout}). {checks.already_quantized(graph)}"
                )
            copy_model(model, target)
            return make_report(graph, None, onnx.load(str(target), load_external_data=False), settings, target)
        checks.check_unique_names(graph, result)
        checks.check_shared_biases(graph, settings, result, written.parent)
        checks.check_finite_scales(result)
        for file in model_files(written, result):
            os.replace(file, target.with_name(file.name))
    return make_report(graph, quantized, result, settings, target)


def _quantize_static(prepared: PreparedModel, target: Path, settings: Quantization, ranges: TensorsData | None) -> None:
    """Do what `quantize_static` does once it has ranges; onnxruntime 1.23 does not accept any.

    Source: the end of `onnxruntime.quantization.quantize.quantize_static`.
    """
    if ranges is None:
        raise ArtifactError("Static quantization needs the ranges of the activations. Calibrate the model first.")
    weight_type, activation_type = _quant_type(settings.weights_dtype), _quant_type(settings.activations_dtype)
    model = update_opset_version(load_model_with_shape_infer(prepared.path), weight_type)
    start = (model, settings.per_channel, settings.reduce_range)
    operators, excluded = list(requested_operators(settings)), names_to_exclude(prepared.graph, settings)
    used = _used_ranges(prepared.graph, settings, ranges)
    end: tuple[object, ...] = (weight_type, activation_type, used, [], excluded, operators, extra_options(settings))
    if settings.layout == "QOperator":
        quantizer = ONNXQuantizer(*start, QuantizationMode.QLinearOps, True, *end)
    else:
        quantizer = QDQQuantizer(*start, *end)
        quantizer.model = IndexedModel(quantizer.model.model)
    quantizer.quantize_model()
    quantizer.model.save_model_to_file(str(target), prepared.needs_external_weights)


def _quantize_dynamic(prepared: PreparedModel, target: Path, settings: Quantization) -> None:
    quantization.quantize_dynamic(
        prepared.path,
        target,
        op_types_to_quantize=list(requested_operators(settings)),
        per_channel=settings.per_channel,
        reduce_range=settings.reduce_range,
        weight_type=_quant_type(settings.weights_dtype),
        nodes_to_exclude=names_to_exclude(prepared.graph, settings),
        use_external_data_format=prepared.needs_external_weights,
        extra_options=extra_options(settings),
    )


def _quant_type(dtype: str | None) -> QuantType:
    return QuantType.QUInt8 if dtype == "uint8" else QuantType.QInt8


def names_to_exclude(graph: Graph, settings: Quantization) -> list[str]:
    """Return the names that ONNX Runtime's quantizer has to be given so that it leaves these nodes in float."""
    names = [*settings.nodes_to_exclude, *protected_nodes(graph, settings)]
    if settings.approach == "dynamic":
        # The quantizer splits a `Gemm` into a `MatMul` of this name before it reads the names to exclude.
        names += [f"{name}_MatMul" for name in settings.nodes_to_exclude if graph.nodes[name].op_type == "Gemm"]
    return names


def extra_options(settings: Quantization) -> dict[str, bool]:
    """Return ONNX Runtime's names of the parameters that are given."""
    options = {
        "WeightSymmetric": settings.weights_symmetric,
        "ActivationSymmetric": settings.activations_symmetric,
        "MatMulConstBOnly": settings.matmul_const_b_only,
    }
    return {name: value for name, value in options.items() if value is not None}


def _used_ranges(graph: Graph, settings: Quantization, ranges: TensorsData) -> TensorsData:
    """Return the ranges that a calibration for these operators would have given, without their histograms.

    The quantizer is given no more than a plain call would have, so that the result depends on the arguments alone.
    """
    requested = requested_operators(settings)
    # Each tensor with the nodes that need its range.
    users: dict[str, list[str]] = {}
    for name, node in graph.nodes.items():
        tensors = (*node.input, *node.output) if node.op_type in requested else ()
        for tensor in tensors:
            if tensor not in graph.weights and graph.is_float(tensor):
                names = users.setdefault(tensor, [])
                if name not in settings.nodes_to_exclude:
                    names.append(name)
    needed = [tensor for tensor, names in users.items() if names]
    if missing := sorted(tensor for tensor in needed if tensor not in ranges):
        raise ArtifactError(
            f"The calibration has no range for {len(missing)} of {len(needed)} tensors to quantize, the first of them "
            f"`{missing[0]}`. Calibrate this graph for the operators {', '.join(requested)}."
        )
    bounds = {
        tensor: [np.asarray(bound) for bound in ranges[tensor].range_value] for tensor in users if tensor in ranges
    }
    finite = {tensor: pair for tensor, pair in bounds.items() if all(np.isfinite(bound).all() for bound in pair)}
    if non_finite := [tensor for tensor in needed if tensor not in finite]:
        affected = {name for tensor in non_finite for name in users[tensor]}
        nodes = json.dumps([name for name in graph.nodes if name in affected], ensure_ascii=False)
        more = f" and {len(non_finite) - _MOST_NAMED} more" if len(non_finite) > _MOST_NAMED else ""
        raise ArtifactError(
            "The float model gives NaN or infinite values on the calibration samples, so there is no range for "
            f"{quote_names(non_finite[:_MOST_NAMED])}{more}. Where such values are right, as in a mask or the "
            f"logarithm of a distance, add to `node_exclusion` {nodes}, or leave their operators out; else check the "
            "model and the samples."
        )
    data = {tensor: TensorData(lowest=lowest, highest=highest) for tensor, (lowest, highest) in finite.items()}
    return TensorsData(ranges.calibration_method, data)


@contextlib.contextmanager
def _reporting_errors(graph: Graph, settings: Quantization, folders: Sequence[Path]) -> Iterator[None]:
    """Turn what the quantizer raises into an error with a remedy, without the names of temporary folders."""
    # With a handler, the root logger does not configure itself to print the quantizer's advice for every row.
    handler = logging.NullHandler()
    logging.getLogger().addHandler(handler)
    try:
        # Overflows show in the scales, which are checked.
        with np.errstate(over="ignore"):
            yield
    except _QUANTIZER_ERRORS as error:
        operators = settings.operators_to_quantize
        requested = "every known operator" if operators is None else ", ".join(operators)
        reason = " ".join(str(error).split()) or type(error).__name__
        for folder in folders:
            reason = reason.replace(f"{folder}{os.sep}", "")
        raise ArtifactError(
            f"onnxruntime's quantizer refused the graph ({settings.layout}, {requested}): {reason[:500]}. "
            f"{checks.remedy(graph, settings, reason)}"
        ) from error
    finally:
        logging.getLogger().removeHandler(handler)
