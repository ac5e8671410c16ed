"""The table of model files on a card."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from benchcard.analysis.files import ModelFile
from benchcard.analysis.verdict import Verdict
from benchcard.publishing import file_table
from benchcard.utils.values import Interval


@pytest.mark.parametrize(("is_detectable", "cell"), [(True, "0.77 [0.67, 0.88] "), (False, "[0.67, 0.88], not detect")])
def test_a_ratio_that_may_be_noise_is_marked_as_on_the_card(is_detectable, cell):
    """The header says against what, and a cosine near 1 is shown with its interval; processor time stands beside it."""
    cosine = Interval(0.9999412, 0.9999391, 0.9999434)
    ratio, verdict = Interval(0.77, 0.67, 0.88), Verdict("faithful")
    fidelity = {"cosine_mean": cosine}
    cpu = Interval(0.84, 0.81, 0.87)
    file = ModelFile(1, "model.onnx", None, 5_000_000, Interval(0.9), fidelity, ratio, is_detectable, verdict, (), cpu)
    records = SimpleNamespace(records=[])
    results = SimpleNamespace(describe_files=lambda files, max_drop: (file,), metrics=("spearman",), records=records)
    text = file_table.section(results).replace("\N{NO-BREAK SPACE}", " ")
    assert "times as fast as the baseline" in text
    assert cell in text
    assert "processor time, baseline / row" in text
    assert " 0.84 [0.81, 0.87] |" in text
    assert "0.9999412 [0.9999391, 0.9999434]" in text
