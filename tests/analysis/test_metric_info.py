"""The limits of figures of fidelity that can be meant."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from benchcard.analysis import metric_info
from benchcard.errors import BenchcardError
from benchcard.utils.values import Interval


@pytest.fixture
def limits(monkeypatch):
    """Return the limits of a run of embeddings."""
    computed = dict.fromkeys(("cosine_mean", "cosine_p1", "neighbor_overlap", "kl_p99"), Interval(0.9))
    monkeypatch.setattr(metric_info, "fidelity", lambda record: computed)
    return lambda limit: metric_info.fidelity_limits(SimpleNamespace(records=[None]), limit)


@pytest.mark.parametrize("limit", [0.01, {"cosine_p1": 0.49}, {"cosine_mean": 1.1}, {"kl_p99": -1}, -1])
def test_a_limit_that_cannot_be_meant_is_refused(limits, limit):
    """A negative one, and one of a cosine that no model would miss, or none could keep."""
    with pytest.raises(BenchcardError, match=r"expected a number .* @ fidelity\.") as caught:
        limits(limit)
    assert ("for 0.01 less, write" in str(caught.value)) == ("kl_p99" not in str(caught.value))


def test_limits_that_can_be_meant(limits):
    """Half of the neighbours may be others, and a cosine may be exactly that of equal outputs."""
    for limit in ({"neighbor_overlap": 0.4}, {"cosine_mean": 1}, {"kl_p99": 0}):
        assert limits(limit) == limit
    assert limits(0.99) == {"cosine_mean": 0.99}
