"""Rounds of timed blocks as bytes, and as files that a kill may cut short."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchcard.measure.blocks import Block, OpenedModel, Round, append_round, read_rounds, recover_rounds
from benchcard.measure.machine_state import read_machine_state


@pytest.fixture
def rounds() -> list[Round]:
    """Three rounds of two blocks, of different numbers of calls."""
    draw = np.random.default_rng(0)
    return [
        Round(
            number,
            number // 2,
            tuple(
                Block(name, twin, 1_700_000_000_000, 10**6, draw.integers(1, 10**9, calls), 2, 5, 1, None, 0, 2**30)
                for name, twin, calls in (("a", False, 5), ("b é", True, 1 + number))
            ),
            read_machine_state(),
            read_machine_state(),
        )
        for number in range(3)
    ]


def same(one: Round, other: Round) -> bool:
    """Whether two rounds hold the same, latencies included."""
    latencies = [[block.latencies_ns.tolist() for block in timed.blocks] for timed in (one, other)]
    none = np.empty(0, np.int64)
    rest = [
        replace(timed, blocks=tuple(replace(block, latencies_ns=none) for block in timed.blocks))
        for timed in (one, other)
    ]
    return latencies[0] == latencies[1] and repr(rest[0]) == repr(rest[1])


def test_a_round_survives_its_bytes(rounds: list[Round]) -> None:
    """A round written and read is the round, and a write that was cut short is not a round."""
    for timed in rounds:
        data = timed.to_bytes()
        back = Round.from_bytes(data)
        assert same(back, timed)
        assert all(block.latencies_ns.dtype == np.int64 for block in back.blocks)
        for cut in (0, 10, len(data) // 2, len(data) - 1):
            with pytest.raises(ValueError, match="not a complete round"):
                Round.from_bytes(data[:cut])


def test_a_round_without_blocks_survives_its_bytes() -> None:
    """A round in which every process failed can be kept too."""
    empty = Round(3, 1, (), read_machine_state(), read_machine_state())
    assert Round.from_bytes(empty.to_bytes()) == empty


def test_what_opening_cost_is_kept_with_the_round(rounds: list[Round]) -> None:
    """Load times and memory survive a kill, as the latencies do."""
    opened = OpenedModel("a", False, 1, 5, 6, 7, (8, 9), 10, 11, {"threads": 2})
    assert Round.from_bytes(replace(rounds[0], opened=(opened,)).to_bytes()).opened == (opened,)


def test_rounds_are_kept_one_after_the_other(tmp_path: Path, rounds: list[Round]) -> None:
    """A file of rounds is read in the order in which they were added."""
    path = tmp_path / "rounds"
    assert read_rounds(path) == recover_rounds(path) == []
    for timed in rounds:
        append_round(path, timed)
    assert all(same(back, timed) for back, timed in zip(read_rounds(path), rounds, strict=True))


@pytest.mark.parametrize("cut", [1, 5, 200])
def test_a_kill_costs_the_last_round_only(tmp_path: Path, rounds: list[Round], cut: int) -> None:
    """Whatever of a last round a kill left on disk, the rounds before it are read, and a run can go on after them."""
    path = tmp_path / "rounds"
    for timed in rounds:
        append_round(path, timed)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    assert len(read_rounds(path)) == 2
    assert path.read_bytes() == whole[:-cut]
    assert len(recover_rounds(path)) == 2
    append_round(path, rounds[-1])
    assert path.read_bytes() == whole


def test_a_changed_byte_is_seen(tmp_path: Path, rounds: list[Round]) -> None:
    """A round whose checksum is wrong is not read, nor what comes after it."""
    path = tmp_path / "rounds"
    for timed in rounds:
        append_round(path, timed)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert len(read_rounds(path)) == 1
