"""Compare how fast ONNX Runtime multiplies with weights of few bits, with float16 and with dynamic int8.

    python benchmarks/few_bits.py [--rounds 7]

The model is 24 products, with weights of 384 x 1536 and 1536 x 384 in turn, on one thread. Each round calls every
variant in turn; the script prints how many times as fast as float32 each is, by the median of its processor times.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from benchcard.graphs.float16 import convert_to_float16
from benchcard.graphs.runtime import open_session
from benchcard.quantization.quantize import quantize_model
from benchcard.quantization.settings import Quantization

WIDTH, INNER, PAIRS, CALLS = 384, 1536, 12, 2
TOKENS = (1, 16, 128)


def write_float(path: Path) -> None:
    """Write the float32 model."""
    draw = np.random.default_rng(0)
    nodes, weights, last = [], [], "x"
    for index in range(PAIRS):
        for name, rows, columns in (("up", WIDTH, INNER), ("down", INNER, WIDTH)):
            weight = draw.standard_normal((rows, columns), dtype=np.float32) / rows**0.5
            weights.append(numpy_helper.from_array(weight, f"{name}{index}"))
            nodes.append(helper.make_node("MatMul", [last, weights[-1].name], [f"{name}{index}_out"], f"n{len(nodes)}"))
            last = f"{name}{index}_out"
        nodes.append(helper.make_node("Relu", [last], [f"relu{index}"], f"r{index}"))
        last = f"relu{index}"
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["tokens", WIDTH]) for name in ("x", last)]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def sessions(folder: Path) -> dict[str, onnxruntime.InferenceSession]:
    """Return a session of each variant, float32 first."""
    path = folder / "float32.onnx"
    write_float(path)
    convert_to_float16(path, folder / "float16.onnx")
    names = ["float32", "float16"]
    for algorithm, bits, level in (
        *(("rtn", bits, level) for bits in (4, 8) for level in (0, 4)),
        *(("k_quant", 4, level) for level in (0, 4)),
        ("hqq", 4, 0),
    ):
        names.append(f"{algorithm}, {bits} bits, level {level}")
        how = Quantization("weight_only", bits=bits, algorithm=algorithm, accuracy_level=level)
        quantize_model(path, folder / f"{names[-1]}.onnx", how)
    names.append("dynamic")
    quantize_model(path, folder / "dynamic.onnx", Quantization("dynamic"))
    return {name: open_session(folder / f"{name}.onnx", 99, threads=1) for name in names}


def main() -> None:
    """Print the ratios for each number of tokens in a call."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        variants = sessions(Path(folder))
        times: dict[tuple[str, int], list[float]] = {}
        for tokens in TOKENS:
            feed = {"x": np.random.default_rng(1).standard_normal((tokens, WIDTH), dtype=np.float32)}
            for _ in range(rounds):
                for name, session in variants.items():
                    session.run(None, feed)
                    started = time.process_time()
                    for _ in range(CALLS):
                        session.run(None, feed)
                    times.setdefault((name, tokens), []).append(time.process_time() - started)
    print(f"{'tokens in a call':28}", *(f"{tokens:>6}" for tokens in TOKENS))
    for name in variants:
        ratios = (
            statistics.median(times["float32", tokens]) / statistics.median(times[name, tokens]) for tokens in TOKENS
        )
        print(f"{name:28}", *(f"{ratio:6.2f}" for ratio in ratios))


if __name__ == "__main__":
    main()
