"""What all tests share: no socket off loopback, and small things to test with."""

from __future__ import annotations

import copy
import ipaddress
import socket
from typing import Any

import pytest
from tiny_run import ground, results

__all__ = ["ground", "results"]


BEANS: dict[str, Any] = {
    "task": "image-classification",
    "model": "nateraw/vit-base-beans",
    "dataset": {
        "path": "beans",
        "eval_split": "validation",
        "data_keys": {"primary": "image"},
        "ref_keys": ["labels"],
        "name": None,
        "calibration_split": "train",
    },
    "from_transformers": True,
    "fixed": {
        "node_exclusion": [],
        "calibration": {
            "method": "percentile",
            "num_calibration_samples": 128,
            "calibration_histogram_percentile": 99.999,
        },
    },
    "grid": {
        "framework": ["onnxruntime", "pytorch"],
        "quantization_approach": ["dynamic", "static"],
        "operators_to_quantize": [["Add", "MatMul"], ["Add"]],
        "per_channel": [False, True],
        "framework_args": [{"opset": 13, "optimization_level": 1, "intra_op_num_threads": 4}, {}],
        "reduce_range": [True, False],
        "apply_quantization": [True, False],
    },
    "batch_sizes": [1],
    "input_lengths": [224],
    "duration": 15,
}


@pytest.fixture
def beans() -> dict[str, Any]:
    """The spec of the beans card, to be changed at will."""
    return copy.deepcopy(BEANS)


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test: a connection to anywhere but this machine is an error."""
    real = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            host = address[0]
            if host != "localhost" and not ipaddress.ip_address(host).is_loopback:
                raise AssertionError(f"a test wanted to connect to {host}")
        real(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)
