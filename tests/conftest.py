"""Fixtures of all tests: no connection to other machines, and small specs and runs."""

from __future__ import annotations

import copy
import ipaddress
import os
import shutil
import socket
import tempfile
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


def pytest_configure(config: pytest.Config) -> None:
    """Give each worker of pytest-xdist its own temporary folder, and with it its own timing lock.

    No test depends on how long anything takes, so none has to wait until another has finished timing.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker:
        folder = tempfile.mkdtemp(prefix=f"benchcard-{worker}-")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
        os.environ["TMPDIR"] = tempfile.tempdir = folder


@pytest.fixture
def beans() -> dict[str, Any]:
    """A copy of the spec of the beans card."""
    return copy.deepcopy(BEANS)


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise AssertionError for a connection to another machine, in every test."""
    real = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            host = address[0]
            if host != "localhost" and not ipaddress.ip_address(host).is_loopback:
                raise AssertionError(f"the test tried to connect to {host}; expected only loopback addresses")
        real(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)
