"""How long timing is expected to take."""

import pytest

from benchcard.run.timing import pace


def test_the_pace_goes_from_what_was_expected_to_what_is_measured() -> None:
    """At first little is known; seconds without a timed one (starts) do not make the estimate explode."""
    assert pace(40.0, 0.0, 0.0) == 1.0
    assert pace(40.0, 10.0, 0.0) == 2.0
    assert pace(40.0, 20.0, 0.5) == 1.0
    assert pace(40.0, 80.0, 1.0) == pytest.approx(1.8)
