"""The choice: a row that is surely better and good enough, else the baseline."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchcard.analysis.choice import Chooser
from benchcard.analysis.gains import Gain, Gains
from benchcard.analysis.row_facts import RowQuality
from benchcard.utils.values import Interval, Shape

SHAPE = Shape(1, 64)
ONE = (1.0, 1.0, 1.0, False)
FAST = (2.0, 1.8, 2.2, True)


def of(ratios, objective="latency", costs=None):
    """Return gains of rows 0, 1, ...; a ratio is (value, low, high, sure), or None where it is not known."""
    by_row = {
        row: (Gain(Interval(*ratio[:3]), ratio[3], SHAPE) if ratio else Gain(None, False, SHAPE),)
        for row, ratio in enumerate(ratios)
    }
    costs = costs or {row: 10.0 / ratio[0] for row, ratio in enumerate(ratios) if ratio}
    return Gains(objective, by_row, costs, "ratios hold together")


def rows_of(values, baselines=0, *, examples=None, differences=None, p_values=None, models=None, precisions=None):
    """Return the quality of rows 0, 1, ...; by default all are compared with row 0 on the same examples."""
    several = baselines if isinstance(baselines, dict) else dict.fromkeys(range(len(values)), baselines)
    return {
        row: RowQuality(
            parameters={"precision": precisions[row]} if precisions else {"per_channel": None},
            baseline=several[row],
            examples=examples[row] if examples else "all",
            figure=None if value is None else Interval(value, 0.8, 1.0),
            difference=Interval(*differences[row]) if differences and differences[row] else None,
            p_value=p_values[row] if p_values else None,
            model=row if models is None or models[row] is None else models[row],
            failure="",
        )
        for row, value in enumerate(values)
    }


def choose(values, ratios, baseline=0, max_drop=0.01, objective="latency", columns=None, **rest):
    """Return the choice among rows with these qualities and ratios."""
    rows = rows_of(values, baseline, **(columns or {}))
    return Chooser(rows, of(ratios, objective), baseline, "accuracy", max_drop, **rest).choose()


def chosen_of(rows, gains, baseline=0, max_drop=0.01):
    """Return the choice among rows with these gains."""
    return Chooser(rows, gains, baseline, "accuracy", max_drop).choose()


def test_the_fastest_row_that_is_good_enough():
    """The fastest row within the drop is chosen; the reason has the ratio, its interval and both qualities, and each
    alternative has its reason.
    """
    found = choose([0.9, 0.895, 0.5, 0.895], [ONE, (1.5, 1.4, 1.6, True), FAST, (1.2, 1.1, 1.3, True)])
    assert found.row == 1
    assert found.reason == "1.50x [1.40, 1.60] as fast as the baseline, with accuracy 0.895 (baseline 0.900)"
    assert found.gain == Interval(pytest.approx(1.5), 1.4, 1.6)
    assert {each.row: each.reason for each in found.alternatives} == {
        2: "accuracy 0.500 is not at least 0.890",
        3: "1.20x [1.10, 1.30] as fast as the baseline: a smaller gain",
    }
    assert "ratios hold together" in found.explain()
    # What an interactive session and a notebook show.
    assert repr(found.explain()) == str(found.explain())
    assert "\n  not row 2: accuracy 0.500" in found.explain()._repr_html_()
    assert "not row 2: accuracy 0.500" in found.explain()
    assert "not rows 1, 2: the latency is the baseline's" in choose([0.9] * 3, [ONE, ONE, ONE]).explain()
    assert "<table>" in found._repr_html_()


def test_a_gain_over_several_shapes_is_called_a_mean():
    """The ratio of a choice among several shapes is the mean, which differs from that of each shape."""
    gains = [Gain(Interval(value, value - 0.1, value + 0.1), True, Shape(size)) for size, value in ((1, 1.5), (8, 2.0))]
    found = chosen_of(rows_of([0.9, 0.9]), Gains("latency", {0: (), 1: tuple(gains)}, {}, ""))
    assert found.reason.startswith(
        "1.73x [1.40, 2.10] as fast as the baseline, on average over 2 shapes, with accuracy"
    )


@pytest.mark.parametrize("ratio", [(1.2, 0.9, 1.5, False), (1.2, 1.1, 1.3, False), (0.5, 0.4, 0.6, False), None])
def test_what_is_not_surely_faster_is_not_taken(ratio):
    """The baseline is kept if the other row's interval includes 1, or if the row is within the noise, slower, or was
    not timed.
    """
    found = choose([0.9, 0.9], [ONE, ratio])
    assert found.row == 0
    said = "nothing is detectably faster" if ratio else "nothing was timed beside it"
    assert f"keep the baseline: {said}" in found.reason
    assert found.gain is None
    assert [each.row for each in found.alternatives] == [1]


@pytest.mark.parametrize(
    ("ratio", "doubt", "expected"),
    [
        ((0.5, 0.4, 0.6), "", "slower at 1x64: 0.50x [0.40, 0.60] as fast as the baseline"),
        ((1.2, 0.9, 1.5), "", "not detectably better at 1x64: 1.20x [0.90, 1.50] as fast as the baseline"),
        (
            (1.05, 1.02, 1.08),
            "the machine was disturbed",
            "1.05x [1.02, 1.08] as fast as the baseline at 1x64, but the machine was disturbed",
        ),
        (
            (0.5, 0.4, 0.6),
            "the machine was disturbed",
            "0.50x [0.40, 0.60] as fast as the baseline at 1x64, but the machine was disturbed",
        ),
        ((1.05, None, None), "the noise is not known", "not detectably better at 1x64: 1.05x as fast as the baseline"),
    ],
)
def test_the_reason_says_why_a_gain_is_not_sure(ratio, doubt, expected):
    """The reason says whether a row is slower, within its own interval, or in a run whose ratios are in doubt."""
    gains = Gains("latency", {0: (), 1: (Gain(Interval(*ratio), False, SHAPE, doubt=doubt),)}, {}, "")
    found = chosen_of(rows_of([0.9, 0.9]), gains)
    assert found.row == 0
    assert found.alternatives[0].reason == expected


def test_two_measurements_of_memory_may_differ():
    """A gain in memory below the difference between launches of the baseline says so."""
    gains = Gains("memory", {0: (), 1: (Gain(Interval(1.05, 1.02, 1.08), False, SHAPE, 2.1),)}, {}, "")
    found = chosen_of(rows_of([0.9, 0.9]), gains)
    assert "within the noise of this run at 1x64" in found.alternatives[0].reason
    assert "2.10x" in found.alternatives[0].reason


def test_a_metric_of_which_less_is_better():
    """For an error metric, a drop in quality is a higher value."""
    assert choose([1.0, 1.005], [ONE, FAST], higher_is_better=False).row == 1
    assert choose([1.0, 0.5], [ONE, FAST], higher_is_better=False).row == 1
    found = choose([1.0, 1.5], [ONE, FAST], higher_is_better=False)
    assert found.row == 0
    assert "at most 1.010" in found.reason


def test_a_metric_that_nobody_knows_the_direction_of():
    """Where the direction is not known, no row may differ in either direction, and the reason says what to set."""
    fast = (1.5, 1.4, 1.6, True)
    found = choose([0.9, 0.95, 0.85, 0.905], [ONE, FAST, FAST, fast], higher_is_better=None)
    assert found.row == 3
    assert "not known whether a higher `accuracy` is better: set `higher_is_better: {accuracy: true}`" in found.reason
    assert found.alternatives[0].reason == "accuracy 0.950 is not within 0.01 of 0.900"
    kept = choose([0.9, 0.95], [ONE, FAST], higher_is_better=None)
    assert (
        "keep the baseline: nothing is detectably faster at accuracy within 0.01 of 0.900; it is not known"
        in kept.reason
    )
    alone = choose([0.9, 0.95], [ONE, FAST], baseline=None, higher_is_better=None)
    assert alone.row == 1
    assert alone.reason.startswith("it costs least; there is no")
    assert alone.alternatives[0].reason == "accuracy 0.900, at no less cost than row 1"


def test_without_a_baseline_quality_decides():
    """Without a baseline, or if it failed, the best quality is chosen, the cheaper of equal ones, and the reason says
    so.
    """
    found = choose([0.8, 0.9, 0.9], [ONE, FAST, (3.0, 2.9, 3.1, True)], baseline=None)
    assert found.row == 2
    assert "no unquantized baseline" in found.reason
    assert found.alternatives[0].reason == "accuracy 0.800"
    assert "row 0, has no figures" in choose([None, 0.9], [ONE, FAST]).reason


def test_no_figures_no_row():
    """Where nothing was measured, the choice has a reason and no row."""
    found = choose([None, None], [ONE, FAST])
    assert found.row is None
    assert "no configuration has figures" in found.reason


def test_nothing_timed_keeps_the_baseline():
    """Without time measurements the baseline is kept, and the reason says that nothing was timed."""
    found = chosen_of(rows_of([0.9, 0.9]), Gains("latency", {}, {}, ""))
    assert (found.row, found.reason) == (0, "keep the baseline: nothing was timed")


def test_a_shape_of_which_the_baseline_has_no_latency_is_named():
    """The reason names shapes at which the baseline has no latency, so that nothing is compared there."""
    gains = replace(of([ONE, FAST]), untimed_shapes={0: (Shape(1, 200),)})
    found = chosen_of(rows_of([0.9, 0.9]), gains, max_drop=0)
    assert found.row == 1
    assert found.reason.endswith("; at 1x200 nothing is compared: the baseline has no latency there")


def test_one_row_is_compared_with_nothing():
    """The reason for a single row says that there is nothing to compare it with, also without a baseline or times."""
    alone = "there is one configuration, and nothing to compare it with"
    assert choose([0.9], [ONE]).reason == choose([0.9], [ONE], baseline=None).reason == alone
    untimed = chosen_of(rows_of([0.9]), Gains("latency", {}, {}, ""))
    assert (untimed.row, untimed.reason) == (0, f"{alone}; nothing was timed")


@pytest.mark.parametrize(
    ("values", "row", "said"),
    [
        ([0.9, 0.9], 0, "keep the baseline for now: {}"),
        ([None, None], None, "{}"),
        ([None, 0.9], 1, "accuracy 0.900 is the best; the baseline, row 0, has no figures to compare with; {}"),
    ],
)
def test_a_run_that_is_not_finished_is_said_to_be(values, row, said):
    """The reason says that the run is not finished, and does not claim that rows without figures are no better."""
    found = replace(of([ONE, ONE]), unfinished=frozenset({1}))
    choice = chosen_of(rows_of(values), found)
    state = "the run is not finished (1 of 2 configurations done): `benchcard run` continues it"
    assert (choice.row, choice.reason) == (row, said.format(state))


def test_memory_and_size_are_told_as_shares():
    """Half the memory is 0.50x of the baseline's; an exact figure has no interval."""
    assert choose([0.9, 0.9], [ONE, FAST], objective="memory").reason.startswith(
        "0.50x [0.45, 0.56] of the baseline's memory"
    )
    assert choose([0.9, 0.9], [ONE, (4.0, 4.0, 4.0, True)], objective="size").reason.startswith(
        "0.25x of the baseline's size"
    )


def loss_of(value, low, high, p_value, others=17, max_drop=0.02, **rest):
    """Return the choice for a faster row with this difference and p-value, among other rows equal to the baseline."""
    columns = {
        "differences": [None, (value, low, high), *[(0.0, -0.01, 0.01)] * others],
        "p_values": [None, p_value, *[1.0] * others],
    }
    values = [0.9, 0.9 + value, *[0.9] * others]
    return choose(values, [ONE, FAST, *[ONE] * others], columns=columns, max_drop=max_drop, **rest)


@pytest.mark.parametrize("others", [0, 17, 500])
def test_a_loss_is_judged_by_its_own_interval_however_many_rows_there_are(others):
    """A correction for many rows hides no loss: an interval below zero is a detectable loss."""
    found = loss_of(-0.019, -0.034, -0.004, 0.02, others)
    assert found.row == 1
    assert found.reason.endswith(": -0.019 [-0.034, -0.004], detectably worse: may be worse by up to 0.034")
    assert "no detectable difference" not in found.explain()


@pytest.mark.parametrize(
    ("difference", "max_drop", "words"),
    [
        ((0.0, -0.009, 0.009), 0.01, "+0.000 [-0.009, +0.009]: not worse by more than 0.01"),
        ((0.0, -0.0104, 0.01), 0.01, "+0.000 [-0.010, +0.010]: may be worse by up to 0.0104"),
        ((-0.005, -0.008, -0.002), 0.01, "-0.005 [-0.008, -0.002], detectably worse: not worse by more than 0.01"),
        ((0.02, 0.001, 0.04), 0.0, "+0.020 [+0.001, +0.040]: not worse"),
        ((0.0, -0.01, 0.01), 0.0, "+0.000 [-0.010, +0.010]: may be worse by up to 0.01"),
    ],
)
def test_not_worse_is_claimed_only_where_the_whole_interval_says_so(difference, max_drop, words):
    """Non-inferiority: the worst end of the interval decides, not the value and not a p-value."""
    assert loss_of(*difference, 0.04, max_drop=max_drop).reason.endswith(f": {words}")


def test_a_divergence_decides_and_is_shown_in_its_order_of_magnitude():
    """Where the divergence decides, a row beyond the drop is left out though it is fastest; small ones have digits."""
    rows = rows_of([0.0, 4.6e-5, 0.2], differences=[None, (4.6e-5, 4e-5, 5e-5), (0.2, 0.1, 0.3)])
    choice = Chooser(rows, of([ONE, FAST, (3.0, 2.9, 3.1, True)]), 0, "kl_mean", 0.05, False).choose()
    assert choice.row == 1
    assert "with kl_mean 4.6e-05 (baseline 0): +4.6e-05 [+4e-05, +5e-05]" in choice.reason
    assert choice.reason.endswith("not worse by more than 0.05")
    assert choice.alternatives[0].reason == "kl_mean 0.2 is not at most 0.05"


def test_the_loss_of_an_error_is_a_higher_figure():
    """For a metric that is better when lower, the upper end of the interval decides."""
    found = loss_of(0.019, 0.004, 0.034, 0.02, higher_is_better=False)
    assert found.reason.endswith("+0.019 [+0.004, +0.034], detectably worse: may be worse by up to 0.034")
    either = loss_of(-0.019, -0.034, -0.004, 0.02, max_drop=0.05, higher_is_better=None)
    assert "-0.019 [-0.034, -0.004], detectably different: not different by more than 0.05" in either.reason
    around = loss_of(0.0, -0.01, 0.01, 1.0, max_drop=0.05, higher_is_better=None)
    assert "+0.000 [-0.010, +0.010]: not different by more than 0.05" in around.reason


@pytest.mark.parametrize(("others", "is_claimed"), [(0, True), (17, False)])
def test_a_gain_is_claimed_beyond_the_chance_of_many_rows(others, is_claimed):
    """A p-value that is significant alone is not so among many rows; rows with the same model are tested once."""
    found = loss_of(0.02, 0.001, 0.04, 0.03, others)
    assert ("detectably better" in found.reason) is is_claimed
    assert f"p-values adjusted for {others + 1} model" in found.method
    assert "a worse one by its own 95 % interval" in found.method
    assert found.difference == Interval(0.02, 0.001, 0.04)


def test_rows_of_one_model_are_one_look():
    """Rows with the same model as an earlier one are not adjusted for again."""
    columns = {
        "p_values": [None, 0.03, 0.03, 0.03, 0.03],
        "differences": [None, *[(0.02, 0.01, 0.03)] * 4],
        "models": [None, None, 1, 1, 1],
    }
    found = choose([0.9, *[0.92] * 4], [ONE, FAST, ONE, ONE, ONE], columns=columns)
    assert "detectably better" in found.reason
    assert "1 model (Holm)" in found.method


def test_a_difference_without_an_interval_rules_nothing_out():
    """A difference without an interval rules out no loss, whatever the p-value."""
    for p_value in (1.0, 0.01):
        found = choose([0.9, 0.9], [ONE, FAST], columns={"differences": [None, (0.0,)], "p_values": [None, p_value]})
        words = ": +0.000 (no interval), so these examples do not limit how much worse it may be"
        assert found.reason.endswith(words)
        assert found.difference == Interval(0.0, None, None)


def test_another_baseline_is_another_question():
    """A row that is compared with another baseline is not chosen for this one."""
    choice = chosen_of(rows_of([0.9, 0.9], {0: 0, 1: 1}), of([ONE, FAST]))
    assert choice.row == 0
    assert choice.reason == "of the rows compared with row 0: keep the baseline: no other row is compared with it"
    assert "not row 1: compared with another baseline" in choice.explain()


def test_each_baseline_is_asked_for_its_own_rows():
    """A row is judged against its own baseline by quality, ratio and p-value, whatever the other rows are."""
    baselines = {0: 0, 1: 0, 2: 2, 3: 2}
    columns = {
        "models": [None, None, 0, 1],
        "p_values": [None, 0.9, None, 0.001],
        "differences": [None, (0.0,), None, (-0.005,)],
    }
    rows, found = rows_of([0.9, 0.9, 0.5, 0.495], baselines, **columns), of([ONE, FAST, ONE, FAST])

    def chosen(baseline):
        return chosen_of(rows, found, baseline)

    first, second = chosen(0), chosen(2)
    assert (first.row, second.row) == (1, 3)
    assert "+0.000 (no interval)" in first.reason
    assert second.reason.startswith("of the rows compared with row 2: 2.00x [1.80, 2.20] as fast as the baseline")
    assert "-0.005 (no interval)" in second.reason
    assert "1 model (Holm)" in second.method
    assert [each.row for each in second.alternatives] == [0, 1]
    alone = chosen_of(rows_of([0.9, 0.9, None, 0.8], baselines), found, 2)
    assert (alone.row, alone.baseline) == (3, None)
    assert "the baseline, row 2, has no figures" in alone.reason


def test_none_among_numbers_stays_none():
    """A parameter that is None stays None, although a column of numbers holds NaN for it."""
    choice = chosen_of(rows_of([0.9, 0.9], precisions=[None, 0.5]), of([ONE, ONE]))
    assert choice.parameters == {"precision": None}
    assert str(choice).startswith("row 0 (): keep the baseline")


def with_fidelity(rows, name, figures):
    """Return rows with a figure of fidelity each: (value, low, high)."""
    return {row: replace(entry, fidelity={name: Interval(*figures[row])}) for row, entry in rows.items() if row} | {
        0: rows[0]
    }


def fidelity_choice(ratios, figures, name="kl_mean", values=(0.9, 0.9, 0.9), differences=None, **rest):
    """Return the choice among rows with these ratios and figures of fidelity."""
    rows = with_fidelity(rows_of(values, differences=differences), name, figures)
    return Chooser(rows, of(ratios), 0, "accuracy", 0.01, **rest).choose()


SAME = [ONE, (2.0, 1.8, 2.2, True), (1.9, 1.7, 2.1, True)]
FAR, CLOSE = (1e-3, 0.9e-3, 1.1e-3), (1e-5, 0.9e-5, 1.1e-5)


def test_fidelity_decides_among_rows_that_are_equally_fast():
    """Of rows whose gains do not differ detectably, the one closest to the baseline is chosen, and both reasons say
    so; a row that is detectably slower is not taken for its fidelity.
    """
    found = fidelity_choice(SAME, [None, FAR, CLOSE])
    assert found.row == 2
    assert found.reason.endswith("; closer to the baseline than row 1, which is not detectably better otherwise")
    assert found.gain == Interval(pytest.approx(1.9), 1.7, 2.1)
    assert found.alternatives[0].reason == (
        "2.00x [1.80, 2.20] as fast as the baseline: not detectably better than row 2, and farther from the baseline: "
        "kl_mean 0.00100 [0.000900, 0.00110] instead of 1.00e-5 [9.00e-6, 1.10e-5]"
    )
    assert fidelity_choice([ONE, FAST, (1.5, 1.4, 1.6, True)], [None, FAR, CLOSE]).row == 1


@pytest.mark.parametrize(
    "figures",
    [
        [None, CLOSE, FAR],
        [None, (1e-3, 0.5e-3, 2e-3), (0.9e-3, 0.4e-3, 1.9e-3)],
        [None, (1e-3, None, None), (1e-5, None, None)],
    ],
)
def test_fidelity_must_differ_detectably_to_decide(figures):
    """The fastest row is chosen if no other is closer by more than the intervals, or these are not known."""
    assert fidelity_choice(SAME, figures).row == 1


def test_higher_may_be_closer():
    """Cosines and agreement are higher where a row is closer; the closest of three is chosen."""
    ratios = [*SAME, (1.95, 1.75, 2.15, True)]
    figures = [None, (0.90, 0.89, 0.91), (0.95, 0.94, 0.96), (0.99, 0.98, 0.995)]
    assert fidelity_choice(ratios, figures, "cosine_mean", [0.9] * 4).row == 3


def test_a_row_that_is_detectably_worse_is_not_taken_for_its_fidelity():
    """A row with a worse metric than the fastest, by more than their intervals, is not its equal."""
    same, worse = (-0.001, -0.002, 0.001), (-0.008, -0.009, -0.005)
    assert fidelity_choice(SAME, [None, FAR, CLOSE], differences=[None, same, worse]).row == 1
    assert fidelity_choice(SAME, [None, FAR, CLOSE], differences=[None, worse, same]).row == 2
    assert fidelity_choice(SAME, [None, FAR, CLOSE], values=(0.9, 0.9, 0.895)).row == 1


def test_the_ratio_of_two_rows_decides_whether_they_are_equally_fast():
    """Where two rows were timed together, their own ratio counts, not the overlap of their gains."""
    rows = with_fidelity(rows_of([0.9] * 3), "kl_mean", [None, FAR, CLOSE])
    for differ, chosen in ((True, 1), (False, 2), (None, 2)):
        gains = replace(of(SAME), differ=lambda row, other, differ=differ: differ)
        assert Chooser(rows, gains, 0, "accuracy", 0.01).choose().row == chosen


@pytest.mark.parametrize(
    ("name", "limit", "reason"),
    [
        ("kl_mean", 0.00105, "kl_mean 0.00100 [0.000900, 0.00110] may be above 0.00105"),
        ("kl_mean", 0.0005, "kl_mean 0.00100 [0.000900, 0.00110] is above 0.0005"),
        ("agreement", 0.00095, "agreement 0.0010 [0.0009, 0.0011] may be below 0.00095"),
        ("agreement", 0.01, "agreement 0.0010 [0.0009, 0.0011] is below 0.01"),
        ("kl_max", 0.1, "no kl_max, for which there is a limit"),
    ],
)
def test_a_limit_of_fidelity(name, limit, reason):
    """A row whose interval exceeds a limit is not chosen, and its reason has figure and limit."""
    figure_name = "kl_mean" if name == "kl_max" else name
    found = fidelity_choice(SAME[:2], [None, FAR], figure_name, [0.9, 0.9], limits={name: limit})
    assert found.row == 0
    assert found.alternatives[0].reason == reason
    assert found.fidelity == {name: limit}
    side = "least" if name == "agreement" else "most"
    bound = f"accuracy of at least 0.890 and {name} of at {side} {limit:g}"
    assert found.reason == f"keep the baseline: nothing is detectably faster at {bound}"


def test_a_figure_near_one_is_told_from_its_limit():
    """Three digits of the distance from 1 are shown, not of the figure."""
    near = [None, (0.9999412, 0.9999391, 0.9999434)]
    found = fidelity_choice(SAME[:2], near, "cosine_mean", [0.9, 0.9], limits={"cosine_mean": 0.99995})
    assert found.alternatives[0].reason == "cosine_mean 0.9999412 [0.9999391, 0.9999434] is below 0.99995"


@pytest.mark.parametrize("baseline", [0, None])
def test_a_broken_row_is_never_chosen(baseline):
    """Not as the one that gains most, and not as the one of best quality; the reason says what is broken."""
    rows = rows_of([0.9, 0.95, 0.9], baseline)
    rows[1] = replace(rows[1], broken="kl_mean 14.3 is too much")
    found = chosen_of(rows, of([ONE, FAST, ONE]), baseline)
    assert found.row == 0
    assert found.alternatives[0].reason == "broken: kl_mean 14.3 is too much"
    if baseline == 0:
        assert "keep the baseline: nothing that is not broken is detectably faster at accuracy" in found.reason


def test_rows_within_a_limit_are_chosen():
    """A row within the limit is chosen; a figure without an interval counts by its value."""
    assert fidelity_choice(SAME[:2], [None, FAR], values=[0.9, 0.9], limits={"kl_mean": 0.0011}).row == 1
    alone = [None, (0.5, None, None)]
    assert fidelity_choice(SAME[:2], alone, "kl_max", [0.9, 0.9], limits={"kl_max": 0.5}).row == 1
    assert fidelity_choice(SAME[:2], alone, "kl_max", [0.9, 0.9], limits={"kl_max": 0.4}).row == 0
