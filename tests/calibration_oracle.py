"""Small graphs to calibrate, and the ranges of onnxruntime's own calibrators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from tiny_graphs import normal, saved, written

from benchcard.quantization.calibration.collect import CalibrationReport, collect_statistics
from benchcard.quantization.calibration.ranges import Method
from benchcard.quantization.calibration.statistics import ActivationStatistics

# Of no count of values below 100,000 is this share a whole number of values, where the percentile is any of many.
PERCENTILE = 99.913

MLP = """
<ir_version: 8, opset_import: ["" : 17]>
mlp (float[n, 16] x) => (float[n, 4] y) {
    h = MatMul (x, w)
    hb = Add (h, b)
    r = Relu (hb)
    o = MatMul (r, v)
    y = Add (o, c)
}"""
WEIGHTS = {"w": normal(16, 48), "b": normal(48, seed=1), "v": normal(48, 4, seed=2), "c": normal(4, seed=3)}

# Every tensor here but `s`, `s1` and `a` holds the values of another one in another order or shape.
PATHS = """
<ir_version: 8, opset_import: ["" : 17]>
paths (float[2, 3, 4] x) => (float[4, 6] z) {
    flat = Reshape (x, rows)
    turned = Transpose <perm = [1, 0]> (flat)
    same = Identity (turned)
    cast = Cast <to = 1> (same)
    wide = Unsqueeze (cast, axis)
    s = MatMul (wide, wide2)
    narrow = Squeeze (s, axis)
    s1 = Add (narrow, narrow)
    z = Transpose <perm = [1, 0]> (s1)
}"""
PATH_WEIGHTS = {"rows": np.array([6, 4]), "axis": np.array([0]), "wide2": normal(1, 6, 4)}


def mlp(folder: Path, **weights: np.ndarray) -> Path:
    return saved(written(MLP, WEIGHTS | weights), folder / "mlp.onnx")


def feeds(count: int, rows: int = 37) -> list[dict[str, np.ndarray]]:
    return [{"x": normal(rows, 16, seed=10 + number)} for number in range(count)]


def gather(
    model: Path, feeds: Any, target: Path, operators: Any = ("MatMul", "Add")
) -> tuple[CalibrationReport, ActivationStatistics]:
    target.parent.mkdir(exist_ok=True)
    report = collect_statistics(model, iter(feeds), target, operators=operators, intra_op_num_threads=1)
    return report, ActivationStatistics.load(target)


class Reader:
    """The samples as onnxruntime asks for them."""

    def __init__(self, feeds: Any) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Any:
        return next(self._feeds, None)


def oracle(
    model: Path,
    feeds: Any,
    folder: Path,
    method: Method,
    operators: Any = ("MatMul", "Add"),
    *,
    one_by_one: bool = False,
) -> tuple[Any, dict[str, float]]:
    """Ranges by onnxruntime's own calibrator, and the width of its bins by tensor (0 where it has none)."""
    from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator

    kinds = {"minmax": "MinMax", "percentile": "Percentile", "entropy": "Entropy", "distribution": "Distribution"}
    options = {
        "symmetric": method.symmetric,
        "percentile": method.percentile,
        "num_bins": method.num_bins,
        "moving_average": method.moving_average,
        "averaging_constant": method.moving_average_constant,
    }
    folder.mkdir(exist_ok=True)
    calibrator = create_calibrator(
        model,
        operators and list(operators),
        augmented_model_path=str(folder / "oracle.onnx"),
        calibrate_method=CalibrationMethod[kinds[method.method]],
        extra_options={name: value for name, value in options.items() if value is not None},
    )
    # Of values that are tiny or all equal, onnxruntime's mean and deviation underflow.
    with np.errstate(all="ignore"):
        for part in [[feed] for feed in feeds] if one_by_one else [feeds]:
            calibrator.collect_data(Reader(part))
        result = calibrator.compute_data()
    found = {} if method.method == "minmax" else calibrator.collector.histogram_dict
    widths = {tensor: float(np.diff(found[tensor][1]).max()) if tensor in found else 0.0 for tensor in result}
    return result, widths


def bits(found: Any) -> dict[str, tuple[Any, ...]]:
    return {
        tensor: tuple((bound.shape, bound.dtype, bound.item()) for bound in map(np.asarray, found[tensor].range_value))
        for tensor in found
    }


def off_by(ours: Any, theirs: Any, widths: dict[str, float]) -> dict[str, float]:
    """Largest distance of both ends of each range, in bins of the oracle; 0 is equality to the bit."""
    assert set(ours.keys()) == set(theirs.keys())
    assert ours.calibration_method == theirs.calibration_method
    off = {}
    for tensor in theirs:
        pairs = list(zip(ours[tensor].range_value, theirs[tensor].range_value))
        off[tensor] = max(abs(float(np.squeeze(a)) - float(np.squeeze(b))) for a, b in pairs)
        off[tensor] = off[tensor] and off[tensor] / widths[tensor]
    return off
