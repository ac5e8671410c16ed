"""The index of the graph that ONNX Runtime's quantizer changes: it changes nothing in the result."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from benchcard.quantization.indexed import IndexedModel

# Weight and bias are those of two nodes, one node reads a tensor twice, and an inner tensor is an output.
GRAPH = """
<ir_version: 8, opset_import: ["": 13]>
shared (float[2, 4] x) => (float[2, 4] y, float[2, 4] b) {
  a = Gemm(x, w, c)
  b = Relu(a)
  d = Add(b, b)
  e = Gemm(d, w, c)
  y = Add(e, b)
}
"""


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("options", [{}, {"DedicatedQDQPair": True}, {"AddQDQPairToWeight": True}])
def test_the_quantized_graph_is_the_same(per_channel, options):
    """With the index and without, the graph has the same bytes."""
    generator, graphs = np.random.default_rng(0), []
    weights = {"w": generator.normal(size=(4, 4)), "c": generator.normal(size=4)}
    ranges = {name: TensorData(lowest=np.float32(-9), highest=np.float32(9)) for name in "xabdey"}
    for indexed in (False, True):
        model = onnx.parser.parse_model(GRAPH)
        for name, values in weights.items():
            model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
        model = onnx.shape_inference.infer_shapes(model)
        data, int8 = TensorsData(CalibrationMethod.MinMax, ranges), QuantType.QInt8
        quantizer = QDQQuantizer(model, per_channel, False, int8, int8, data, [], [], ["Gemm", "Add"], options)
        if indexed:
            quantizer.model = IndexedModel(quantizer.model.model)
        graphs.append(quantizer.quantize_model().SerializeToString(deterministic=True))
    assert graphs[0] == graphs[1]
    assert b"QuantizeLinear" in graphs[0]
