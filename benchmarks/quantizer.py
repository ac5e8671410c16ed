"""Compare the time of static quantization with that of ONNX Runtime's quantizer on its own graph.

    python benchmarks/quantizer.py [--layers 4 12 24]

Each model is a ViT of tiny layers, exported at opset 13, so that the time is that of changing a graph of many nodes.
`MatMul` and `Add` are quantized. The script prints processor time of both, their ratio, and whether the graphs are
equal to the byte, which they must be.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from benchcard.quantization.indexed import IndexedModel


def write_graph(layers: int, folder: Path) -> Path:
    """Write a ViT of this many layers, and return its graph."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    from benchcard.export.export import export_model

    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "num_attention_heads": 4, "intermediate_size": 96, "image_size": 32, "patch_size": 16}
    config = ViTConfig(num_hidden_layers=layers, **sizes)
    ViTForImageClassification(config).save_pretrained(folder / "model")
    export_model(folder / "model", "image-classification", 13, folder)
    return folder / "model.onnx"


def quantize(graph: Path, indexed: bool) -> tuple[float, bytes]:
    """Return the processor time of quantization in seconds, and the graph."""
    model = onnx.shape_inference.infer_shapes(onnx.load(graph))
    names = {name for node in model.graph.node for name in (*node.input, *node.output)}
    ranges = {name: TensorData(lowest=np.float32(-1), highest=np.float32(1)) for name in names}
    data = TensorsData(CalibrationMethod.MinMax, ranges)
    int8 = QuantType.QInt8
    quantizer = QDQQuantizer(model, True, False, int8, int8, data, [], [], ["MatMul", "Add"], {})
    if indexed:
        quantizer.model = IndexedModel(quantizer.model.model)
    start = time.process_time()
    quantizer.quantize_model()
    return time.process_time() - start, quantizer.model.model.SerializeToString()


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, nargs="+", default=[4, 12, 24], help="layers (default: %(default)s)")
    print(f"{'layers':>6}{'nodes':>8}{'onnxruntime s':>16}{'benchcard s':>14}{'ratio':>8}  equal")
    for layers in parser.parse_args().layers:
        with TemporaryDirectory() as folder:
            graph = write_graph(layers, Path(folder))
            nodes = len(onnx.load(graph).graph.node)
            (plain_s, plain), (indexed_s, ours) = (quantize(graph, indexed) for indexed in (False, True))
        equal = "yes" if plain == ours else "NO"
        print(f"{layers:6}{nodes:8}{plain_s:16.2f}{indexed_s:14.2f}{plain_s / indexed_s:8.1f}  {equal}")


if __name__ == "__main__":
    main()
