"""The conversion of a graph to float16, whose inputs and outputs stay float32."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx.external_data_helper import load_external_data_for_model

from benchcard.graphs.files import load_clean_model, without_weights, write_model
from benchcard.graphs.graph import sort_nodes


def convert_to_float16(model: Path, target: Path) -> None:
    """Write a float32 model in float16 to `target`, whose folder exists.

    Operators without a kernel for float16 stay in float32, as ONNX Runtime's converter has it.

    Source: `onnxruntime.transformers.float16`.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    proto = load_clean_model(model)
    # Inferred without the weights: a message with all of them may be too large.
    inferred = onnx.shape_inference.infer_shapes(without_weights(proto)).graph.value_info
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(inferred)
    load_external_data_for_model(proto, str(model.parent))
    half = convert_float_to_float16(proto, keep_io_types=True, disable_shape_infer=True)
    # The conversions of inputs stand at the end.
    sort_nodes(half)
    write_model(half, target)
