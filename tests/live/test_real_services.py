"""One run at each real service, for who has an account there; nothing of it runs in CI.

`BENCHCARD_LIVE_SAGEMAKER`, `BENCHCARD_LIVE_HF_JOBS` and `BENCHCARD_LIVE_RAY` in the environment are the `backend_args`
of a job, as JSON.
"""

from __future__ import annotations

import json
import os

import pytest
from tiny_run import GRID, SPEC, spec_with

from benchcard import Benchmark

VARIABLES = {
    "sagemaker-training": "BENCHCARD_LIVE_SAGEMAKER",
    "hf-jobs": "BENCHCARD_LIVE_HF_JOBS",
    "ray": "BENCHCARD_LIVE_RAY",
}


@pytest.mark.parametrize("backend", VARIABLES)
def test_a_small_grid_comes_home(ground, backend, tmp_path):
    """Every row has its quality, its time and a ratio, and a second call asks for nothing."""
    if VARIABLES[backend] not in os.environ:
        pytest.skip(f"needs an account: set {VARIABLES[backend]} to the backend_args of a job")
    arguments = json.dumps(json.loads(os.environ[VARIABLES[backend]]))
    spec = spec_with(ground, f"{SPEC}{GRID}backend: {backend}\nbackend_args: {arguments}\n", f"{backend}.yaml")
    results = Benchmark.from_spec(spec).run(tmp_path / "run")
    assert results.failures.empty
    assert results.time["ratio"].notna().all()
    Benchmark.from_spec(spec).run(tmp_path / "run")
