"""What the tests of timing share: subjects of a framework that is busy for a known time, and a way to time them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from benchcard.measure.blocks import GroupTiming, Round, Subject
from benchcard.measure.conductor import time_group


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with inputs in it, and a timing lock that no other run on this machine shares."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    np.savez(tmp_path / "inputs.npz", x=np.zeros(3, np.float32))
    return tmp_path


def subject(folder: Path, name: str, kind: str = "Model", **options: Any) -> Subject:
    return Subject(name, f"fake_framework:{kind}", folder, folder / "inputs.npz", options=options)


def timed(subjects: Sequence[Subject], baseline: int | None = 0, **settings: Any) -> tuple[GroupTiming, list[Round]]:
    rounds: list[Round] = []
    settings = {"duration_s": 0.12, "launches": 2, "warmup_runs": 2, "keep": rounds.append, **settings}
    return time_group(subjects, baseline, **settings), rounds


def recorded_s(rounds: Sequence[Round], name: str, twin: bool = False) -> float:
    blocks = [block for timed in rounds for block in timed.blocks if (block.name, block.twin) == (name, twin)]
    return sum(block.elapsed_ns for block in blocks) / 1e9


def order(timed: Round) -> list[tuple[str, bool]]:
    return [(block.name, block.twin) for block in timed.blocks]


def children_of(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)
