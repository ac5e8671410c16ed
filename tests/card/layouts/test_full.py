"""The full layout: a golden card, hostile contents with a Markdown parser, reading back, and the picture."""

from __future__ import annotations

import locale
import re
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from facts_as_data import from_data, to_data
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from benchcard import Benchmark
from benchcard.card import Card
from benchcard.card.facts import (
    Data,
    Facts,
    Metric,
    Noise,
    Row,
    figure,
)
from benchcard.card.layouts import figures, full, full_tables, plot, reproduce
from benchcard.card.reading.classic import read_card
from benchcard.errors import CardError
from benchcard.utils.values import Disturbance, Failure, Interval, Shape
from card.test_facts import facts_of, figure_strategy, names, texts, values

GOLDEN = Path(__file__).parents[2] / "data" / "cards" / "digits-full.md.txt"
MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable("table")
SHAPE, BATCH = Shape(1, 64), Shape(8, 64)
DISTURBANCES = (Disturbance("", "a b"), Disturbance("others", "others used the processors in 3 of 30 rounds"))


def timed(latency: float, ratio: float, detectable: bool = True) -> dict[str, Interval | None]:
    """Return the time figures of a cell, with intervals of 5 % on either side."""
    return {
        "latency_mean_ms": figure(latency, 0.95 * latency, 1.05 * latency),
        "latency_p99_ms": figure(1.4 * latency),
        "throughput_per_s": figure(1000 / latency),
        "ratio": figure(ratio, 0.95 * ratio, 1.05 * ratio),
        "detectable": figure(float(detectable)),
        "memory_mb": figure(18.25),
    }


def sample(**changes: object) -> Facts:
    """Return a small card with one of everything: same model, failure, saturation risk, noise, notes."""
    parameters = ("framework", "quantization_approach", "per_channel", "apply_quantization")
    given_rows = [
        ("onnxruntime", None, None, False),
        ("onnxruntime", "dynamic", False, True),
        ("onnxruntime", "dynamic", True, True),
        ("onnxruntime", "static", False, True),
        ("pytorch", None, None, None),
    ]
    cells = [timed(0.8, 1.0, False), timed(0.4, 2.0), timed(0.4, 2.0), timed(0.78, 1.03, False), {}]
    rows = [
        Row(
            parameters=dict(zip(parameters, told)),
            metrics={"accuracy": figure(0.977 - 0.003 * index, 0.956, 0.99)} if index < 4 else {},
            times={SHAPE: times, BATCH: times} if times else {},
            figures={"size_mb": figure(1.49 - 0.3 * index)} if index < 4 else {},
        )
        for index, (told, times) in enumerate(zip(given_rows, cells))
    ]
    for index, count in ((1, 38), (2, 38), (3, 0)):
        counts = {"nodes_quantized": figure(38), "nodes_in_8_bits": figure(count)}
        rows[index] = replace(rows[index], figures={**rows[index].figures, **counts})
    rows[1] = replace(rows[1], figures={**rows[1].figures, "accuracy_difference": figure(-0.003, -0.011, 0.006)})
    rows[2] = replace(rows[2], same_model_as=1, reasons=("`MatMul` took one scale only",))
    rows[3] = replace(rows[3], saturation_risk=True)
    rows[4] = replace(rows[4], failure=Failure("evaluate", "SIGKILL", "killed | no memory"))
    facts = Facts(
        task="image-classification",
        backend="local",
        fixed={
            "dataset": {"path": "me/digits", "eval_split": "validation", "calibration_split": "train"},
            "name_or_path": "me/vit-digits",
            "calibration": {"method": "minmax", "num_calibration_samples": 32},
        },
        benchmarked={
            "framework": ["onnxruntime", "pytorch"],
            "quantization_approach": ["dynamic", "static"],
            "per_channel": [False, True],
            "apply_quantization": [False, True],
        },
        metrics=(Metric("accuracy", "", True, "a share, from 0 to 1"),),
        shapes=(SHAPE, BATCH),
        duration_s=15.0,
        rows=tuple(rows),
        data=Data(dataset="me/digits", split="validation", revision="abc123", samples=350, on_hub=True),
        baseline=0,
        chosen=1,
        pareto=(0, 1),
        reasons=("2.00x [1.90, 2.10] as fast as the baseline",),
        settings={"metrics": ["accuracy"], "batch_sizes": [1, 8], "duration": 15},
        noise=(
            Noise(shape=SHAPE, ratio=Interval(1.004, 0.99, 1.01), models=3, rounds=30),
            Noise(shape=BATCH, ratio=Interval(0.98, 0.9, 1.1), models=3, rounds=30, disturbances=DISTURBANCES),
        ),
        environment={
            "processor": "A CPU",
            "int8": {"best": "avx2", "u8s8_saturates": True},
            "versions": {"benchcard": "0.1.0", "onnxruntime": "1.32.0"},
        },
        run={"id": "0123456789ab", "created": "2026-01-02T03:04:05+00:00"},
        notes=("labels were matched by number",),
    )
    return replace(facts, **changes)


def shown(facts: Facts) -> Facts:
    """The facts as a card shows them: figures with the digits of their column, and no logs."""
    return read_card(full.body(facts))


def tables_in(markdown: str) -> list[list[list[str]]]:
    """Return every table as a reader sees it: rows of cells, header first."""
    found: list[list[list[str]]] = []
    tokens = MARKDOWN.parse(markdown)
    for place, token in enumerate(tokens):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type in ("td_open", "th_open"):
            inline = tokens[place + 1]
            found[-1][-1].append("".join(child.content for child in inline.children or []))
    return found


def test_a_precision_is_said_beside_the_duration():
    """If timing stopped at a precision, the card says that the duration is a maximum, and it is read back."""
    text = full.body(sample(settings={"precision": 0.02}, duration_s=15.0))
    assert "for 15 seconds per config on average, at most: each was timed until the 95 % interval" in text
    assert "was within 2 % of the ratio" in text
    assert read_card(text).duration_s == 15.0
    assert "on average" not in full.body(sample(duration_s=15.0))


def test_the_golden_card_is_the_same_to_the_byte():
    """The card of the sample is the golden card."""
    text = full.body(sample(), plot="benchcard/digits/plot.png", slug="digits")
    assert text == GOLDEN.read_text(encoding="utf-8")


def test_cards_with_the_previous_titles_and_sentences_are_read():
    """A card that was written before titles and sentences changed gives the same facts as the golden card."""
    before = read_card(GOLDEN.with_name("digits-full-old.md.txt").read_text(encoding="utf-8"))
    assert before.notes == ("labels were matched by number",)
    assert [disturbance.text for disturbance in before.noise[1].disturbances] == ["a b", "c"]
    after = shown(sample())
    listed = {**after.fixed, "dataset": [after.fixed["dataset"]]}
    assert replace(before, noise=after.noise) == replace(after, fixed=listed)
    assert full.body(before).count("* **path**: `me/digits`") == 1


def test_one_sentence_says_what_to_ship_with_its_intervals():
    """The first paragraph names the row, its ratio, latency, quality and size against the baseline's."""
    sentence = full.body(sample()).split("\n\n")[1]
    assert sentence == (
        "**Ship row 1** (onnxruntime, dynamic): **2.00 [1.90, 2.10] times as fast** as the unquantized model; "
        "0.400 instead of 0.800 ms at batch size 1, input length 64; accuracy 0.974 [0.956, 0.990], the unquantized "
        "model's 0.977 [0.956, 0.990]; 1.190 instead of 1.490 MB."
    )


def test_a_quantized_row_is_not_called_unquantized():
    """A row that its framework quantized, or whose graph came quantized, has numbers of nodes on the card, and where it
    is the baseline the card does not call it the unquantized model; the card reads back equal.
    """
    counts = {"nodes_in_8_bits": figure(0)}
    rows = [
        replace(row, figures={**row.figures, **counts}) if index in (0, 4) else row
        for index, row in enumerate(sample().rows)
    ]
    facts = sample(rows=tuple(rows))
    assert full_tables.row_names(facts)[:2] == ["onnxruntime, already quantized", "onnxruntime, dynamic"]
    text = full.body(facts)
    assert "times as fast** as the baseline; 0.400" in text
    assert "accuracy 0.974 [0.956, 0.990], the baseline's 0.977" in text
    assert "unquantized" not in text
    assert full.body(read_card(text)) == text
    alone = sample(rows=(replace(rows[4], failure=None),), chosen=0, pareto=(), noise=())
    assert full_tables.row_names(alone) == ["quantized"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"chosen": 0}, "**Keep the baseline, row 0** (onnxruntime, not quantized)"),
        ({"chosen": None}, "**There is nothing to recommend:**"),
        ({"baseline": None}, "there is no unquantized baseline"),
        ({"chosen": 3}, "no detectable difference in speed from the baseline"),
    ],
)
def test_the_sentence_claims_no_more_than_was_found(changes, said):
    """Without a detectable gain, a baseline or a choice, the first sentence says so."""
    assert said in full.body(sample(**changes)).split("\n\n")[1]


def test_nothing_is_said_to_be_no_faster_that_was_not_timed():
    """The first sentence says if nothing was timed, if only the baseline was, or if there is one row; the card reads
    back equal.
    """
    facts = sample(chosen=0)
    rows = [replace(row, times={}) for row in facts.rows]
    for changes, said in (
        ({"rows": tuple(rows), "shapes": ()}, ": nothing was timed; accuracy 0.977"),
        ({"rows": tuple(rows)}, ": nothing was timed; accuracy 0.977"),
        ({"rows": (facts.rows[0], *rows[1:])}, ": no other row was timed together with it; accuracy 0.977"),
        ({"rows": facts.rows[:1], "pareto": ()}, "row 0** (as it is), and nothing to compare it with; accuracy 0.977"),
    ):
        text = full.body(replace(facts, **changes))
        assert said in text.split("\n\n")[1], said
        assert full.body(read_card(text)) == text


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        (0, "**Keep the baseline, row 0, for now** (onnxruntime, not quantized): the run is not finished; accuracy"),
        (1, "**Ship row 1, for now** (onnxruntime, dynamic):"),
        (None, "**There is nothing to recommend:**"),
    ],
)
def test_the_card_of_an_unfinished_run_says_so_at_the_top(chosen, said):
    """The number of finished configurations precedes the recommendation, which is preliminary, and is read back."""
    text = full.body(sample(chosen=chosen, done=3))
    _, first, second, *_ = text.split("\n\n")
    assert first.startswith(
        "**This run is not finished**, with 3 of 5 configurations done: `benchcard run` continues it"
    )
    assert second.startswith(said)
    assert read_card(text).done == 3
    assert full.body(read_card(text)) == text


def test_the_summary_is_short_and_its_recommended_row_bold():
    """The summary has at most ten rows, including the baseline and the recommended row, which alone is bold."""
    rows = tuple(replace(sample().rows[1], parameters={"n": number}) for number in range(30))
    facts = sample(benchmarked={"n": list(range(30))}, rows=rows, pareto=tuple(range(5, 30)), baseline=0, chosen=29)
    listed = full_tables.summary_rows(facts)
    assert len(listed) == 10
    assert {0, 29} <= set(listed)
    bold = [line for line in full_tables.summary(facts).splitlines() if "**" in line]
    assert len(bold) == 1
    assert bold[0].startswith("| **29** |")


COMPARISONS = (
    Metric("kl_mean", "nats", False, "the mean divergence"),
    Metric("agreement", "", True),
    Metric("kl_max", "nats", False),
    Metric("lost", "", False),
    Metric("recovery", "%", True),
)


def compared() -> Facts:
    """Return a small card whose rows differ from the baseline by powers of ten."""
    rows = list(sample().rows)
    for index, mean in ((1, 1.234e-9), (2, 5.4e-5), (3, 0.0123)):
        figures_of_row = {
            "kl_mean": figure(mean, 0.9 * mean, 1.25 * mean),
            "agreement": figure(0.9967, 0.98, 1.0),
            "kl_max": figure(40 * mean),
            "lost": figure(index),
            "recovery": figure(99.66, 98.1, 100.4),
        }
        rows[index] = replace(rows[index], figures={**rows[index].figures, **figures_of_row})
    return sample(rows=tuple(rows), comparisons=COMPARISONS)


def test_fidelity_has_a_table_of_its_own():
    """All comparisons are in a table with digits that tell rows apart by powers of ten; the first two are in the
    summary, and their directions are said with those of the metrics.
    """
    text = full.body(compared())
    summary, *_, details = [table for table in tables_in(text) if "kl_mean (nats)" in table[0]]
    assert [header for header in summary[0] if header in ("kl_mean (nats)", "agreement", "kl_max (nats)")] == [
        "kl_mean (nats)",
        "agreement",
    ]
    assert details[0][2:] == ["kl_mean (nats)", "agreement", "kl_max (nats)", "lost", "recovery (%)"]
    assert details[2][2].replace("\xa0", " ") == "1.23e-9 [1.11e-9, 1.54e-9]"
    assert details[4][2:4] == ["0.0123 [0.0111,\xa00.0154]", "0.99670 [0.98000,\xa01.00000]"]
    assert details[4][4:] == ["0.492", "3", "99.7 [98.1,\xa0100.4]"]
    assert details[1][2:] == ["n/a"] * 5
    assert "* **kl_mean**: the mean divergence; lower is better" in text
    assert full.COMPARISON_TITLE not in full.body(sample())


def saved() -> Facts:
    """Return a small card with what each row saves; no row of the summary but the baseline has recovery."""
    rows = [
        replace(
            row,
            figures={**row.figures, "size_saved": figure(12.345 * index), "bits_per_weight": figure(32 / (index + 1))},
            times={shape: {**times, "memory_saved": figure(-10.5008)} for shape, times in row.times.items()},
        )
        for index, row in enumerate(sample().rows[:4])
    ]
    return sample(rows=(*rows, *sample().rows[4:]))


def test_what_a_row_saves_is_beside_sizes_and_memory():
    """Sizes, memory and bits per weight are in the tables of time, and without any in that of metrics; read back."""
    facts = saved()
    text = full.body(facts)
    headers = ["size (MB)", "size saved (%)", "bits per weight"]
    times = [table for table in tables_in(text) if "memory saved (%)" in table[0]]
    assert [table[0][-3:] for table in times] == [headers, headers]
    assert times[0][2][-4:] == ["-10.5", "1.190", "12.3", "16.00"]
    assert "size saved (%)" not in tables_in(text)[0][0]
    back = read_card(text)
    assert full.body(back) == text
    assert back.rows[1].figures["size_saved"] == Interval(12.3)
    assert back.rows[1].times[SHAPE]["memory_saved"] == Interval(-10.5)
    untimed = replace(facts, shapes=(), rows=tuple(replace(row, times={}) for row in facts.rows))
    assert set(headers) < set(tables_in(full.body(untimed))[1][0])
    assert full.body(read_card(full.body(untimed))) == full.body(untimed)


def test_the_summary_has_no_column_without_figures():
    """A figure that only rows outside of the summary have is no column of it."""
    facts = compared()
    assert "agreement" in tables_in(full.body(facts))[0][0]
    rows = tuple(
        replace(row, figures={name: value for name, value in row.figures.items() if index == 3 or name != "agreement"})
        for index, row in enumerate(facts.rows)
    )
    text = full.body(replace(facts, rows=rows))
    assert 3 not in full_tables.summary_rows(facts)
    assert "agreement" not in tables_in(text)[0][0]
    assert full.body(read_card(text)) == text


def test_fidelity_is_read_back():
    """The figures and their directions are read with the digits of the card, and give the same card again."""
    text = full.body(compared())
    found = read_card(text)
    assert [(each.name, each.unit, each.higher_is_better) for each in found.comparisons] == [
        (each.name, each.unit, each.higher_is_better) for each in COMPARISONS
    ]
    assert found.rows[1].figures["kl_mean"] == Interval(1.23e-9, 1.11e-9, 1.54e-9)
    assert found.rows[3].figures["lost"] == Interval(3.0)
    assert "kl_mean" not in found.rows[0].figures
    assert full.body(found) == text
    start = text.index(full.COMPARISON_TITLE)
    damaged = text[:start] + re.sub(r"\n\|   4 \|.*", "", text[start:], count=1)
    with pytest.raises(CardError, match="has 4 rows, expected 5"):
        read_card(damaged)


@given(st.floats(-1e12, 1e12), st.floats(0, 1e3))
def test_three_digits_are_read_and_written_again(value, width):
    """A figure with three significant digits, however small, is the same text after it was read."""
    text = figures.format_figure(Interval(value, value - width, value + width), None)
    assert figures.format_figure(figures.parse_figure(text, "here"), None) == text
    assert figures.parse_figure(text, "here").value == pytest.approx(value, rel=6e-3)
    assert [figures.significant(number) for number in (5e-6, 5.4e-7, 0.1, 100, 0)] == [
        *("5.00e-6", "5.40e-7", "0.100", "100", "0"),
    ]


@given(st.floats(0, 12), st.floats(0, 1))
def test_figures_near_one_are_read_and_written_again(exponent, width):
    """A cosine or a share however near to 1 is the same text after it was read."""
    distance = 10**-exponent
    text = figures.near_one(Interval(1 - distance, 1 - distance * (1 + width), 1 - distance * (1 - width)))
    assert figures.near_one(figures.parse_figure(text, "here")) == text


def test_figures_near_one_show_their_distance_from_it():
    """A cosine of a float16 graph is not shown as 1, and its interval is not lost; float32 rounding is shown as 1."""
    rows = [
        replace(row, figures={"cosine_mean": figure(cosine, cosine - 2e-7, cosine + 2e-7)})
        for row, cosine in zip(sample().rows, (0.99961, 0.99996, 1 - 3e-7))
    ]
    facts = sample(rows=(*rows, *sample().rows[3:]), comparisons=(Metric("cosine_mean", "", True),))
    cells = [row.split("|")[3].strip() for row in full_tables.comparisons(facts).replace("\xa0", " ").splitlines()]
    assert cells[2:5] == ["0.999610", "0.9999600 [0.9999598, 0.9999602]", "0.999999700 [0.999999500, 0.999999900]"]
    assert figures.near_one(Interval(1 - 1e-12, 1 - 2e-12, 1.0)) == "1.0000"
    assert full.body(read_card(full.body(facts))) == full.body(facts)


def test_the_cosine_of_older_cards_is_read_by_its_present_name():
    """`embedding_cosine` of cards of benchcard 0.1 and before is `cosine_mean`."""
    rows = [replace(row, figures={**row.figures, "embedding_cosine": figure(0.99961)}) for row in sample().rows]
    found = read_card(full.body(sample(rows=tuple(rows))))
    assert found.rows[1].figures["cosine_mean"].value == pytest.approx(0.9996, abs=1e-3)
    assert "embedding_cosine" not in found.rows[1].figures
    assert [each.name for each in found.comparisons] == ["cosine_mean"]


def test_a_probability_next_to_nothing_is_not_called_zero():
    """A p-value has four decimals; a smaller one is shown as below them."""
    rows = [
        replace(row, figures={"accuracy_p_value": figure(value)})
        for row, value in zip(sample().rows, (0.25, 0.00004, 1.0, 0.0001, 0.0))
    ]
    text = full.body(sample(rows=tuple(rows)))
    told = [row[3] for row in tables_in(text)[1]]
    assert told == ["accuracy p-value", "0.2500", "<0.0001", "1.0000", "0.0001", "<0.0001"]
    assert full.body(read_card(text)) == full.body(read_card(full.body(read_card(text))))
    assert read_card(text).rows[1].figures["accuracy_p_value"] == Interval(0.0)


def headings(text: str) -> list[str]:
    """Return the headings of the folded parts of a card."""
    return re.findall("<summary>(.*)</summary>", text)


def test_the_card_shows_the_choice_and_folds_what_is_behind_it():
    """Parameters, the tables of all rows, machine, versions and how to repeat the run are folded, and are read."""
    text = full.body(sample())
    assert headings(text) == [
        "Data, parameters, metrics and settings",
        "Quality of 5 configurations",
        "Time of 5 configurations",
        "Noise of the machine",
        "8-bit arithmetic on this processor",
        "Rows with the same model",
        "1 failed row",
        "Machine and versions",
        "How to reproduce it",
    ]
    visible = re.sub(r"<details>.*?</details>", "", text, flags=re.DOTALL)
    assert sum(map(bool, visible.splitlines())) < 25
    assert "Fixed parameters" not in visible
    assert "A CPU" in visible
    assert "Quality was measured on 350 samples" in visible
    assert shown(sample()).environment == sample().environment


def test_the_card_says_once_how_the_intervals_of_ratios_are_made():
    """The legend says that they hold for all ratios at once; with one ratio there is nothing to say."""
    assert full.body(sample()).count("Intervals of ratios hold together (Bonferroni") == 1
    one = sample(rows=sample().rows[:1], pareto=(0,), chosen=0, shapes=(SHAPE,))
    assert "Bonferroni" not in full.body(one)


def test_the_data_set_is_shown_by_its_fields():
    """It is no list of one, however the facts have it."""
    fields = "* **dataset**:\n    * **path**: `me/digits`\n    * **eval_split**: `validation`\n"
    assert fields in full.body(sample())
    listed = {**sample().fixed, "dataset": [sample().fixed["dataset"]]}
    assert full.body(sample(fixed=listed)) == full.body(sample())


def test_further_metrics_are_the_last_columns_of_the_summary():
    """A page that is too narrow for the summary cuts off neither latency nor ratio."""
    rows = [replace(row, metrics={**row.metrics, "f1": figure(0.5)}) for row in sample().rows]
    header = tables_in(full.body(sample(metrics=(*sample().metrics, Metric("f1")), rows=tuple(rows))))[0][0]
    assert header == [
        "row",
        "configuration",
        "accuracy",
        "latency (ms)",
        "times as fast as the baseline",
        "size (MB)",
        "f1",
    ]


def test_a_task_without_length_has_no_column_for_it():
    """The noise certificate of images has no input length, and is read back."""
    image = Shape(32)
    rows = [replace(row, times={image: row.times.get(SHAPE, {})}) for row in sample().rows]
    noise = (replace(sample().noise[1], shape=image),)
    text = full.body(sample(rows=tuple(rows), shapes=(image,), noise=noise))
    assert "input length" not in text
    assert read_card(text).noise == noise
    assert full.body(read_card(text)) == text


def test_the_phases_of_generation_are_told_apart_and_read_back():
    """Time per token and time to first token have tables and headers of their own, and come back from the text."""
    token, prompt = Shape(1, 64, "token"), Shape(1, 64, "prompt")
    figures_of = {
        token: {**timed(0.5, 2.0), "tokens_per_s": figure(2000.0), "cost_per_million": figure(0.3)},
        prompt: {**timed(4.0, 1.5), "tokens_per_s": figure(16000.0)},
    }
    rows = tuple(replace(row, times=figures_of if row.times else {}) for row in sample().rows)
    noise = tuple(replace(certificate, shape=shape) for certificate, shape in zip(sample().noise, figures_of))
    facts = sample(rows=rows, shapes=(token, prompt), noise=noise)
    text = full.body(facts)
    assert "Below, time metrics for batch size = 1, input length = 64 (time per token)." in text
    assert "0.500 instead of 0.500 ms at batch size 1, input length 64 (time per token)" in text
    assert "4.00 instead of 4.00 ms (time to first token)" in text
    headers = [table[0] for table in tables_in(text)]
    assert headers[0][3:6] == ["time per token (ms)", "times as fast as the baseline", "time to first token (ms)"]
    times = [header for header in headers if "p99 (ms)" in header]
    assert [header[2:6] for header in times] == [
        ["time per token (ms)", "p99 (ms)", "generation (tokens/s)", "times as fast as the baseline"],
        ["time to first token (ms)", "p99 (ms)", "throughput (prompts/s)", "prefill (tokens/s)"],
    ]
    assert any("cost per million tokens" in header for header in headers)
    read = read_card(text)
    assert read.shapes == facts.shapes
    assert read.noise == noise
    for shape, shown_figures in figures_of.items():
        found = read.rows[0].times[shape]
        for name in ("latency_mean_ms", "tokens_per_s"):
            assert found[name].value == shown_figures[name].value
    assert full.body(read) == text
    assert "time per token" in full.alt_text(facts)
    copied = "copies the cache from the memory of the host and back"
    assert copied not in text
    assert copied in full.body(replace(facts, environment={**facts.environment, "gpu": "NVIDIA H200"}))


def test_data_and_models_have_the_names_that_they_are_given():
    """The heading has the name of the model and that of the data, and is not read as a title of its own."""
    data = replace(sample().data, dataset="./x/data", name="Digits of 1990", on_hub=False)
    facts = sample(data=data, fixed={**sample().fixed, "model_name": "Tiny ViT"})
    text = full.body(facts)
    assert text.startswith("## Benchmark: image-classification with Tiny ViT on Digits of 1990\n")
    assert "350 samples of Digits of 1990" in text
    assert (read_card(text).title, read_card(text).data) == ("", data)
    several = {"path": "a", "eval_split": "x", "name": "easy"}, {"path": "b", "eval_split": "x"}
    rows = tuple(replace(sample().rows[1], parameters={"dataset": value}) for value in several)
    varied = sample(benchmarked={"dataset": list(several)}, rows=rows, chosen=1, pareto=())
    assert full_tables.row_names(varied) == ["easy", "b"]


def test_what_a_reader_has_to_bring_is_listed():
    """Models, data and scripts that are not published are named before the command, and read back."""
    needed = ("the model `./vit`, SHA-256 0123…", "the data `data_1`")
    text = full.body(sample(needed=needed))
    assert f"{full.NEEDED_TITLE}\n* {needed[0]}\n* {needed[1]}\n\nFrom a shell" in text
    assert read_card(text).needed == needed
    assert full.NEEDED_TITLE not in full.body(sample())


def test_data_in_memory_are_a_variable_of_the_call():
    """The call has a variable in place of data in memory, and there is no YAML, which could not name them."""
    rows = {"path": "memory:0123456789abcdef", "eval_split": "validation"}
    text = full.body(sample(fixed={**sample().fixed, "dataset": rows}))
    assert '"path": data,' in text
    assert "```yaml" not in text
    assert "benchcard run" not in text
    several = [rows, {**rows, "path": "memory:fedcba9876543210"}]
    both = sample(fixed={}, benchmarked={"dataset": several}, rows=(), baseline=None, chosen=None, pareto=())
    assert '"dataset": [{"path": data_1, ' in reproduce.python_call(both, "runs/x")
    assert reproduce.variables(both) == {rows["path"]: "data_1", "memory:fedcba9876543210": "data_2"}


def test_a_gain_below_the_noise_is_called_not_detectable():
    """The ratio of row 3 is marked in both time tables, that of the baseline is not."""
    marked = [line for line in full.body(sample()).splitlines() if ", not detectable |" in line]
    assert len(marked) == 2
    assert all("|   3 |" in line for line in marked)


def test_accuracies_at_risk_are_marked_and_the_processor_is_named():
    """The accuracy of row 3 is marked, and the text explains the processor."""
    text = full.body(sample())
    assert "0.968 [0.956,\N{NO-BREAK SPACE}0.990]\N{NO-BREAK SPACE}†" in text
    assert "`A CPU` has no instruction for dot products" in text
    assert "Rows at risk, marked †: 3." in text
    safe = sample(environment={"int8": {"best": "avx512_vnni", "u8s8_saturates": False}})
    assert "`avx512_vnni`, which keeps their sums in 32 bits" in full.body(safe)


def test_the_legend_is_of_marks_that_are_there():
    """If only the baseline, which has no mark, is not detectable, the legend does not mention marks, and the card reads
    back equal.
    """
    facts = sample()
    rows = []
    for index, row in enumerate(facts.rows):
        detectable = figure(float(index != facts.baseline))
        times = {shape: {**told, "detectable": detectable} for shape, told in row.times.items()}
        rows.append(replace(row, times=times))
    text = full.body(replace(facts, rows=tuple(rows)))
    assert figures.NOT_DETECTABLE not in text
    assert full.body(read_card(text)) == text


def two_data_sets() -> Facts:
    """Return the sample's first two rows on two data sets, each with its own baseline and Pareto front."""
    rows = []
    for index, (name, accuracy) in enumerate([("easy", 0.98), ("easy", 0.97), ("hard", 0.6), ("hard", 0.61)]):
        row = sample().rows[index % 2]
        told = {"dataset.path": name, **row.parameters}
        figures_of = {"samples": figure(350 if name == "easy" else 20), **row.figures}
        metrics = {"accuracy": figure(accuracy)}
        rows.append(replace(row, parameters=told, metrics=metrics, figures=figures_of, baseline=index // 2 * 2))
    benchmarked = {"dataset.path": ["easy", "hard"], **sample().benchmarked}
    rows[2] = replace(rows[2], same_model_as=0, reasons=("the model file is the same",))
    noise = tuple(replace(each, baseline=place) for each, place in zip(sample().noise, (0, 2)))
    return sample(benchmarked=benchmarked, rows=tuple(rows), chosen=1, further=(2,), pareto=(0, 1, 3), noise=noise)


def test_each_baseline_has_a_sentence_and_rows_of_its_own():
    """Each baseline has a recommendation, rows name their baseline, and no baseline is marked."""
    text = full.body(two_data_sets())
    assert "There are 2 baselines, and each row is compared with its own:" in text
    assert "\n* **Ship row 1** (easy, dynamic): **2.00 [1.90, 2.10] times as fast** as the unquantized model;" in text
    assert "\n* **Keep the baseline, row 2** (hard, not quantized): no variant is both" in text
    roles = [row[1] for row in tables_in(text)[1][1:]]
    assert roles == [
        "baseline, Pareto",
        "recommended, Pareto, against row 0",
        "baseline, recommended",
        "Pareto, against row 2",
    ]
    assert figures.NOT_DETECTABLE not in text
    assert "no other row of the same examples" in text
    assert "Each baseline was timed twice" in text
    none = full.body(replace(two_data_sets(), chosen=None))
    assert "* **There is nothing to recommend for the baseline, row 0:** no row" in none
    assert read_card(none).chosen is None
    assert read_card(none).further == (2,)


def test_several_baselines_are_read_back():
    """The baseline of each row and the recommendation for each baseline are read from the card."""
    facts, text = two_data_sets(), full.body(two_data_sets())
    back = read_card(text)
    assert full.body(back) == text
    assert (back.baseline, back.chosen, back.further, back.pareto) == (0, 1, (2,), (0, 1, 3))
    assert [row.baseline for row in back.rows] == [0, 0, 2, 2]
    assert [row.figures["samples"].value for row in back.rows] == [350, 350, 20, 20]
    assert [each.baseline for each in back.noise] == [0, 2]
    assert back.noise[1].disturbances == DISTURBANCES
    assert from_data(to_data(facts)) == facts


def test_the_picture_has_a_front_for_each_data_set():
    """No line connects rows of different data sets, and the same model on other data has its own point."""
    facts = two_data_sets()
    points = plot._points(facts)
    assert list(points) == [0, 1, 2, 3]
    assert plot.front_lines(facts, points) == [[(0.4, 0.97), (0.8, 0.98)]]
    everything = replace(facts, pareto=(0, 1, 2, 3))
    assert [len(line) for line in plot.front_lines(everything, points)] == [2, 2]
    if plot.can_draw():
        assert plot.render_png(facts) is not None


def test_work_of_other_processes_is_a_limitation():
    """A disturbance of the kind `others` adds a limitation; other kinds do not."""
    sentence = "Other processes used the processors during the timing."
    assert sentence in full.body(sample())
    noise = tuple(replace(certificate, disturbances=DISTURBANCES[:1]) for certificate in sample().noise)
    assert sentence not in full.body(sample(noise=noise))


def with_processor_time(*disturbances: Disturbance) -> Facts:
    """Return the sample with processor times at both shapes, and the second shape disturbed like this."""
    facts = sample()
    times = {
        "cpu_ratio": figure(1.524, 1.4, 1.6),
        "cpu_ms": figure(0.75, 0.7, 0.8),
        "core_seconds_per_1000": figure(0.75, 0.7, 0.8),
        "cost_per_million": figure(0.0125, 0.012, 0.013),
    }
    rows = tuple(
        replace(row, times={shape: {**figures, **times} for shape, figures in row.times.items()}) for row in facts.rows
    )
    noise = tuple(
        replace(each, cpu_ratio=figure(1.0 + place, 0.9, 2.1), disturbances=disturbances if each.shape == BATCH else ())
        for place, each in enumerate(facts.noise)
    )
    return replace(facts, rows=rows, noise=noise)


DISTURBED = Disturbance("disturbed", "the machine was disturbed: no ratio counts as detectable")
CPU_HEADER = "processor time, baseline / row"


def test_processor_time_is_folded_on_a_quiet_machine():
    """It has tables of its own, with what it hides, and the tables before are as they were without it."""
    facts = with_processor_time()
    text = full.body(facts)
    before, fold = text.split("<summary>Processor time of 5 configurations</summary>")
    assert CPU_HEADER not in before
    assert "processor time" not in before.lower()
    assert fold.lstrip().startswith(full.CPU_EXPLANATION)
    tables = [table for table in tables_in(text) if CPU_HEADER in table[0]]
    assert len(tables) == 2
    assert tables[0][0][2:] == [
        *(CPU_HEADER, "processor time (ms)", "core-seconds per 1,000 samples", "cost per million samples"),
    ]
    assert tables[0][2][2].replace("\N{NO-BREAK SPACE}", " ") == "1.52 [1.40, 1.60]"
    assert tables[0][5][2] == "failed"


def test_processor_time_comes_first_where_the_machine_was_disturbed():
    """The first ratio of a disturbed shape is that of processor time, and the card says so; others stay as they are."""
    facts = with_processor_time(DISTURBED)
    text = full.body(facts)
    assert "The machine was disturbed at batch size 8, input length 64: the ratio of processor time comes first" in text
    summary, _, quiet, disturbed, *_ = [table[0] for table in tables_in(text)]
    assert CPU_HEADER not in summary
    assert CPU_HEADER not in quiet
    assert disturbed[2] == CPU_HEADER
    first = full.body(replace(facts, shapes=(BATCH, SHAPE)))
    header = tables_in(first)[0][0]
    assert header.index(CPU_HEADER) < header.index("latency (ms)") < header.index("times as fast as the baseline")
    legend = first.partition("### What was compared")[0]
    assert "Latency ratios may be wrong, so that of processor time is shown first.**" in legend
    assert "the baseline against itself is 0.980 [0.900, 1.100] by latency and 2.00 [0.90, 2.10] by processor" in legend
    assert "against itself is 1.004" not in legend
    assert first.count(full.CPU_EXPLANATION) == 1
    assert CPU_HEADER not in full.body(replace(sample(), noise=facts.noise))


@pytest.mark.parametrize("disturbances", [(), (DISTURBED,), (*DISTURBANCES, DISTURBED)])
def test_processor_time_reads_back(disturbances):
    """A card with processor time gives the same card again, with its figures and the kinds of disturbances."""
    facts = with_processor_time(*disturbances)
    text = full.body(facts)
    back = read_card(text)
    assert full.body(back) == text
    assert back.shapes == facts.shapes
    assert back.noise == facts.noise
    assert back.rows[1].times[SHAPE]["cpu_ratio"] == Interval(1.52, 1.4, 1.6)
    assert back.rows[1].times[BATCH]["cost_per_million"] == Interval(0.0125, 0.012, 0.013)
    assert set(back.rows[1].times[BATCH]) == set(facts.rows[1].times[BATCH])
    partly = replace(facts, noise=(replace(facts.noise[0], cpu_ratio=None), facts.noise[1]))
    assert read_card(full.body(partly)).noise == partly.noise


def test_one_sample_is_not_called_samples():
    """One sample is written in the singular."""
    data = replace(sample().data, samples=1)
    assert "Quality was measured on 1 sample of one split" in full.body(sample(data=data))
    assert "on 350 samples of one split" in full.body(sample())


def test_the_sample_reads_back():
    """Everything that the sample's card shows is read from it."""
    facts, back = sample(), shown(sample())
    for name in (
        "task",
        "backend",
        "fixed",
        "benchmarked",
        "metrics",
        "shapes",
        "duration_s",
        "data",
        "baseline",
        "chosen",
        "pareto",
        "reasons",
        "settings",
        "environment",
        "run",
        "notes",
        "title",
    ):
        assert getattr(back, name) == getattr(facts, name), name
    assert [row.same_model_as for row in back.rows] == [None, None, 1, None, None]
    assert back.rows[2].reasons == facts.rows[2].reasons
    assert back.rows[4].failure == facts.rows[4].failure
    assert back.rows[3].saturation_risk
    assert back.rows[1].metrics == {"accuracy": Interval(0.974, 0.956, 0.99)}
    assert back.rows[1].figures["accuracy_difference"] == Interval(-0.003, -0.011, 0.006)
    assert back.rows[1].times[SHAPE]["ratio"] == Interval(2.0, 1.9, 2.1)
    assert [row.times[BATCH].get("detectable") for row in back.rows[:4]] == [
        Interval(0.0),
        Interval(1.0),
        Interval(1.0),
        Interval(0.0),
    ]
    assert back.noise[1].disturbances == DISTURBANCES


def test_the_call_and_the_spec_run_the_same_benchmark_again(tmp_path):
    """The Python call and the YAML on the card give the same spec, with the grid of the card."""
    facts = sample()
    path = tmp_path / "spec.yaml"
    path.write_text(reproduce.yaml_spec(facts), encoding="utf-8")
    space: dict[str, object] = {}
    code = reproduce.python_call(facts, "runs/x").rsplit("\nresults", 1)[0]
    exec(code, space)
    spec = Benchmark.from_spec(path).spec
    assert space["benchmark"].spec == replace(spec, folder=space["benchmark"].spec.folder)
    assert spec.grid == facts.benchmarked
    assert spec.get("batch_sizes") == [1, 8]


@st.composite
def hostile(draw: st.DrawFn) -> Facts:
    """Return facts with hostile texts in every place that takes a text."""
    words = texts.map(lambda text: "".join(char if char.isprintable() else " " for char in text).strip())
    parameters = draw(st.lists(names, min_size=1, max_size=2, unique=True))
    metrics = draw(st.lists(names.filter(lambda name: name not in ("row", "role")), max_size=2, unique=True))
    shapes = draw(
        st.lists(st.builds(Shape, st.integers(1, 64), st.none() | st.integers(1, 512)), max_size=2, unique=True)
    )
    rows = []
    for index in range(draw(st.integers(0, 12))):
        found = st.sampled_from([None, Interval(0.5), Interval(1e-5), Interval(1234.5), Interval(2.0, 1.5, 2.5)])
        same = draw(st.none() | st.integers(0, index - 1)) if index else None
        rows.append(
            Row(
                parameters={name: draw(values) for name in parameters},
                metrics={name: draw(figure_strategy(None, True)) for name in metrics},
                times={shape: {"latency_mean_ms": draw(found), "ratio": draw(found)} for shape in shapes},
                figures={"size_mb": draw(found)},
                failure=draw(st.none() | st.builds(Failure, words, words, words)),
                same_model_as=same,
                reasons=(draw(words),) if same is not None else (),
                saturation_risk=draw(st.booleans()) and bool(metrics),
            )
        )
    place = st.none() | st.integers(0, len(rows) - 1) if rows else st.none()
    lines = st.lists(words.filter(bool), max_size=2).map(tuple)
    return Facts(
        task=draw(texts),
        backend=draw(texts),
        backend_args=draw(st.dictionaries(texts, values, max_size=2)),
        max_eval_samples=draw(st.none() | st.integers(1, 10**6)),
        fixed=draw(st.dictionaries(names, values, max_size=3)),
        benchmarked={name: draw(st.lists(values, min_size=1, max_size=3)) for name in parameters},
        metrics=tuple(Metric(name, "", draw(st.none() | st.booleans()), draw(words)) for name in metrics),
        shapes=tuple(shapes),
        duration_s=draw(st.none() | st.integers(0, 100).map(float)) if shapes else None,
        rows=tuple(rows),
        title=draw(words),
        data=draw(st.none() | st.builds(Data, dataset=texts, samples=st.none() | st.integers(1, 99))),
        baseline=draw(place),
        chosen=draw(place),
        reasons=draw(lines),
        notes=draw(lines),
        settings=draw(st.dictionaries(names, values, max_size=2)),
        environment=draw(st.dictionaries(names, values, max_size=2)),
        run=draw(st.dictionaries(names, values, max_size=2)),
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(hostile())
def test_hostile_cards_parse_as_tables_and_read_back_equal(facts):
    """For any contents, a Markdown parser finds all tables, and the facts that are read render to the same bytes."""
    text = full.body(facts)
    back = read_card(text)
    assert full.body(back) == text
    for name in ("task", "backend", "backend_args", "max_eval_samples", "fixed", "benchmarked", "baseline", "chosen"):
        assert repr(getattr(back, name)) == repr(getattr(facts, name)), name
    for name in ("settings", "environment", "run", "notes", "reasons", "duration_s", "data"):
        assert repr(getattr(back, name)) == repr(getattr(facts, name)), name
    assert repr([row.parameters for row in back.rows]) == repr([row.parameters for row in facts.rows])
    assert [row.same_model_as for row in back.rows] == [row.same_model_as for row in facts.rows]
    assert [bool(row.failure) for row in back.rows] == [bool(row.failure) for row in facts.rows]
    tables = tables_in(text)
    wanted = (2 if facts.rows else 1) + len(facts.shapes)
    wanted += any(row.same_model_as is not None for row in facts.rows) + any(row.failure for row in facts.rows)
    assert len(tables) == wanted
    assert all(len(row) == len(table[0]) for table in tables for row in table)
    assert not any(cell.strip("* ") == "nan" for table in tables for row in table for cell in row[-3:])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-1e5, 1e5) | st.floats(-1e-3, 1e-3), min_size=1, max_size=5), st.booleans())
def test_a_column_keeps_its_digits_when_it_is_read_and_written(numbers, is_quality):
    """All cells of a column have the same number of decimals, and are the same after reading and writing."""
    rule = figures.quality_decimals if is_quality else figures.three_digits
    column = [Interval(number) for number in numbers]
    places = figures.column_decimals(column, rule)
    cells = [figures.format_figure(each, places) for each in column]
    back = [figures.parse_figure(cell, "cell") for cell in cells]
    assert figures.column_decimals(back, rule) == places
    assert [figures.format_figure(each, places) for each in back] == cells
    assert len({len(cell.partition(".")[2]) for cell in cells}) == 1


def test_a_cell_that_is_no_figure_is_refused():
    """A cell that somebody changed is an error with its place."""
    with pytest.raises(CardError, match="row 0, accuracy: 'about 1' is not a figure"):
        figures.parse_figure("about 1", "row 0, accuracy")


@pytest.mark.parametrize("card", ["vit-beans", "sst2-distilbert"])
def test_published_cards_can_be_laid_out_anew(card):
    """The facts of a classic card in the full layout are read back as the same facts."""
    facts = replace(facts_of(card), baseline=0)
    back = Card.from_facts(facts).facts()
    assert back.benchmarked == facts.benchmarked
    assert [row.parameters for row in back.rows] == [row.parameters for row in facts.rows]
    assert [row.metrics for row in back.rows] == [row.metrics for row in facts.rows]


def test_the_picture_is_the_same_bytes_and_readable_on_both_pages():
    """Two pictures of one card have the same bytes, a transparent background, and no program name."""
    pytest.importorskip("matplotlib")
    first = plot.render_png(sample())
    assert first == plot.render_png(sample())
    assert b"Software" not in first
    assert len(first) < 200_000
    assert alpha_of_first_pixel(first) == 0
    for colour in (plot.INK, plot.BASELINE, plot.CHOSEN, plot.OTHERS):
        assert min(contrast(colour, "#ffffff"), contrast(colour, "#0d1117")) >= 3


def test_rows_to_look_for_are_bold_in_the_picture():
    """The numbers of the baseline and of the recommended row are bold."""
    figure = pytest.importorskip("matplotlib.figure")
    facts = sample()
    axes = figure.Figure(figsize=(8, 4.5)).subplots()
    plot._draw(axes, facts, plot._points(facts))
    bold = [text.get_text() for text in axes.texts if text.get_fontweight() == "bold"]
    for row in (facts.baseline, facts.chosen):
        assert any(str(row) in text.split(", ") for text in bold), (row, bold)


def alpha_of_first_pixel(png: bytes) -> int:
    """Return the opacity of the upper left pixel of an RGBA picture."""
    place, data = 8, b""
    while place < len(png):
        (length,) = struct.unpack(">I", png[place : place + 4])
        if png[place + 4 : place + 8] == b"IDAT":
            data += png[place + 8 : place + 8 + length]
        place += 12 + length
    return zlib.decompress(data)[4]


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours, as defined by WCAG 2.2."""

    def luminance(colour: str) -> float:
        shares = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted([luminance(one), luminance(other)], reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_alt_text_holds_the_figures():
    """The alternative text contains the figures of the picture."""
    assert full.alt_text(sample()) == (
        "accuracy against mean latency at batch size 1, input length 64: row 1 (recommended, Pareto) "
        "0.974 \\[0.956, 0.990\\] at 0.400 \\[0.380, 0.420\\] ms; row 0 (baseline, Pareto) "
        "0.977 \\[0.956, 0.990\\] at 0.800 \\[0.760, 0.840\\] ms"
    )


def test_without_matplotlib_the_card_says_nothing_of_a_picture(monkeypatch):
    """Without matplotlib there is no file and no link to it."""
    monkeypatch.setattr(plot, "can_draw", lambda: False)
    card = Card.from_facts(sample(), slug="digits")
    assert card.files == {}
    assert "![" not in card.text


def test_the_picture_lies_where_the_card_looks_for_it(tmp_path):
    """Saving a card saves its picture at the path in the text; a notebook gets it embedded."""
    pytest.importorskip("matplotlib")
    card = Card.from_facts(sample(), slug="digits")
    card.save(tmp_path / "README.md")
    assert "](benchcard/digits/plot.png)" in card.text
    assert (tmp_path / "benchcard" / "digits" / "plot.png").read_bytes() == card.files["benchcard/digits/plot.png"]
    assert "](data:image/png;base64,iVBOR" in card._repr_markdown_()


def test_a_name_that_would_leave_the_folder_is_refused():
    """The slug becomes a path, and must not lead out of the folder."""
    with pytest.raises(CardError, match="cannot name a section"):
        Card.from_facts(sample(), slug="../x")


def test_neither_clock_nor_locale_changes_a_byte(tmp_path):
    """Another locale, hash seed and time zone give the same card."""
    assert locale.getlocale()
    program = (
        "import sys, locale; sys.path.insert(0, sys.argv[1])\n"
        "from card.layouts.test_full import sample; from benchcard.card.card import full\n"
        "sys.stdout.buffer.write(full.body(sample(), plot='benchcard/digits/plot.png', slug='digits').encode())"
    )
    environment = {"LC_ALL": "C", "TZ": "Pacific/Chatham", "PYTHONHASHSEED": "7", "PATH": "/usr/bin"}
    environment["PYTHONPATH"] = str(Path(full.__file__).parents[3])
    command = [sys.executable, "-c", program, str(Path(__file__).parents[2])]
    done = subprocess.run(command, capture_output=True, check=True, env=environment, cwd=tmp_path)
    assert done.stdout.decode() == GOLDEN.read_text(encoding="utf-8")
