"""Verdicts on a card's figures: reproduced, different, or not comparable, and why."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from benchcard import Benchmark, Card, Results
from benchcard.card.facts import Metric
from benchcard.card.readme import merge
from benchcard.errors import CardError
from benchcard.publishing.facts import make_facts
from benchcard.reproduce import verify
from benchcard.reproduce.results import CardResults
from benchcard.reproduce.source import PublishedSource
from benchcard.utils.values import Interval, Shape


@pytest.fixture
def folder(results, tmp_path):
    """The tiny run, published in a folder."""
    from benchcard.publishing import bundle

    made = bundle.write_bundle(results, tmp_path / "out", "a/b", slug="x", artifacts="none", layout="classic")
    (tmp_path / "out" / "repo" / "README.md").write_text(merge("", made.card, "x").text)
    return tmp_path / "out" / "repo"


def with_row(card: CardResults, index: int, **changes) -> CardResults:
    """The card with one of its rows changed."""
    rows = list(card.facts.rows)
    rows[index] = replace(rows[index], **changes)
    return replace(card, facts=replace(card.facts, rows=tuple(rows)))


def verdict(verified, row, figure):
    """One verdict, with its reason."""
    frame = verified.frame
    (found,) = frame[(frame["row"] == row) & frame["figure"].str.startswith(figure)].to_dict("records")[:1]
    return found["verdict"], found["why"]


def test_a_run_reproduces_its_own_card(results, folder):
    """Every figure of a run's card is reproduced by the run."""
    verified = results.verify(folder)
    assert set(verified.frame["verdict"]) == {"reproduced"}
    assert verified.status == 0
    assert {"accuracy", "latency_mean_ms, batch 1", "throughput_per_s, batch 3"} <= set(verified.frame["figure"])
    assert not verified.ground


def test_processor_time_is_compared_and_its_cost_is_not(results):
    """Processor time is compared; a price that the run does not have makes no figure different."""
    card = card_of(results)
    shape = card.facts.shapes[0]
    times = {**card.facts.rows[1].times[shape], "cost_per_million": Interval(5.0, 4.0, 6.0)}
    verified = results.verify(with_row(card, 1, times={shape: times}))
    # The moments of this run may leave a figure without an interval, which is not comparable.
    assert not verified.counts["different"]
    figures = {figure.partition(",")[0] for figure in verified.frame["figure"]}
    assert {"cpu_ms", "cpu_ratio"} <= figures
    assert not {"cost_per_million", "core_seconds_per_1000"} & figures


def test_another_accuracy_is_different(results, folder):
    """On the same ground one changed digit of quality is found."""
    card = Results.from_card(folder)
    value = card.facts.rows[1].metrics["accuracy"].value
    verified = results.verify(with_row(card, 1, metrics={"accuracy": Interval(round(value + 0.001, 3))}))
    assert verdict(verified, 1, "accuracy") == ("different", "they differ by 0.001")
    assert verified.counts["different"] == 1
    assert verified.status == 1


@pytest.mark.parametrize(
    ("values", "here", "expected"),
    [
        ((11.157185, 66.124265), 11.157185, "reproduced"),
        ((11.157185, 66.124265), 11.166, "different"),
        ((11.1, 66.0), 11.104, "reproduced"),
        ((11.1, 66.0), 11.106, "different"),
        ((0.9, 0.8), 0.9006, "different"),
    ],
)
def test_a_metric_is_compared_to_the_digits_of_its_column(results, values, here, expected):
    """A full card shows two decimals of a perplexity and three of a share, trailing zeros too."""
    facts = make_facts(results)
    rows = [replace(row, metrics={"accuracy": Interval(value)}) for row, value in zip(facts.rows, values)]
    text = Card.from_facts(replace(facts, rows=tuple(rows)), slug="x").text
    changed, quality = Results(results.records), results.quality.copy()
    quality.loc[quality["row"] == 0, "accuracy"] = here
    vars(changed).update(quality=quality)
    assert verdict(changed.verify(CardResults(Card(text).facts(), None, results.path)), 0, "accuracy")[0] == expected


def test_fidelity_is_compared(results):
    """A run reproduces its own figures, also ones that rounding changed; another figure is different, with both."""
    card = card_of(results)
    row = next(index for index, row in enumerate(card.facts.rows) if row.figures.get("kl_mean"))
    figures = card.facts.rows[row].figures
    value = figures["kl_mean"].value
    assert value > 0
    for factor, expected in ((1.0, "reproduced"), (1.009, "reproduced"), (1.5, "different")):
        changed = {**figures, "kl_mean": Interval(value * factor)}
        verified = results.verify(with_row(card, row, figures=changed))
        found, why = verdict(verified, row, "kl_mean")
        assert found == expected
        assert (" on the card" in why) == (expected == "different")
    assert verdict(verified, row, "agreement")[0] == verdict(verified, row, "recovery")[0] == "reproduced"
    lost = {**figures, "lost": Interval(figures["lost"].value + 1)}
    assert verdict(results.verify(with_row(card, row, figures=lost)), row, "lost")[0] == "different"


def test_another_ratio_is_different_beyond_intervals_and_noise(results, folder):
    """A ratio whose interval is apart is different, with both intervals; milliseconds that are may be the machine's."""
    card = Results.from_card(folder)
    shape = Shape(1, card.facts.shapes[0].input_length)
    # Two launches of a moment each leave an interval of any width: no machine is as slow as this.
    far = Interval(1e60, 0.9e60, 1.1e60)
    verified = results.verify(with_row(card, 1, times={shape: {"ratio": far, "latency_mean_ms": far}}))
    found = verified.frame[verified.frame["verdict"] == "different"].iloc[0]
    assert (found["row"], found["figure"], found["published_low"]) == (1, "ratio, batch 1", 0.9e60)
    assert found["here_low"] <= found["here"] <= found["here_high"]
    assert verified.counts["different"] == 1
    said, because = verdict(verified, 1, "latency_mean_ms")
    assert said == "not comparable"
    assert "the machine of another day may be the reason" in because


def around(results: Results, low: float, high: float) -> Results:
    """The run with a quiet machine, and a ratio of row 1 at the first shape that is known to be within these bounds."""
    time, noise = results.time.copy(), results.noise.copy()
    (place,) = time.index[(time["row"] == 1) & (time["batch_size"] == 1)]
    time.loc[place, ["ratio", "ratio_low", "ratio_high"]] = (low + high) / 2, low, high
    noise[["ratio", "ratio_low", "ratio_high"]] = 1.0
    changed = Results(results.records)
    vars(changed).update(time=time, noise=noise)
    return changed


def card_of(run: Results) -> CardResults:
    """The card of a run that `around` changed, read back."""
    facts = make_facts(run)
    row, shape = facts.rows[1], facts.shapes[0]
    cells = run.time[(run.time["row"] == 1) & (run.time["batch_size"] == shape.batch_size)].iloc[0]
    ratio = Interval(*cells[["ratio", "ratio_low", "ratio_high"]].astype(float))
    rows = list(facts.rows)
    rows[1] = replace(row, times={**row.times, shape: {**row.times[shape], "ratio": ratio}})
    text = Card.from_facts(replace(facts, rows=tuple(rows)), slug="x").text
    return CardResults(Card(text).facts(), None, run.path)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(1.8452, 1.8498, "reproduced"), (1.8402, 1.8448, "different"), (1.8552, 1.8598, "different")],
)
def test_a_ratio_too_precise_for_an_interval_on_the_card_is_compared(results, low, high, said):
    """A card whose digits show no interval means anything that rounds to them, and nothing else."""
    card = card_of(around(results, 1.8486, 1.8514))
    assert card.facts.rows[1].times[card.facts.shapes[0]]["ratio"] == Interval(1.85)
    assert verdict(around(results, low, high).verify(card), 1, "ratio, batch 1")[0] == said


def test_printed_bounds_are_as_wide_as_their_rounding(results):
    """An interval of which the card shows two decimals meets one that only the third keeps apart from it."""
    card = card_of(around(results, 1.8051, 1.8549))
    assert card.facts.rows[1].times[card.facts.shapes[0]]["ratio"] == Interval(1.83, 1.81, 1.85)
    assert verdict(around(results, 1.8545, 1.9).verify(card), 1, "ratio, batch 1")[0] == "reproduced"
    assert verdict(around(results, 1.8552, 1.9).verify(card), 1, "ratio, batch 1")[0] == "different"


def test_without_any_interval_nothing_is_known_of_the_width(results):
    """Where a card shows no interval at a shape, models may have been launched once: its ratios are not compared."""
    facts = card_of(around(results, 1.8486, 1.8514)).facts
    bare = [
        replace(
            row,
            times={
                shape: {name: Interval(figure.value) for name, figure in figures.items()}
                for shape, figures in row.times.items()
            },
        )
        for row in facts.rows
    ]
    card = CardResults(replace(facts, rows=tuple(bare), noise=()), None, None)
    assert verdict(around(results, 1.7, 1.8).verify(card), 1, "ratio, batch 1") == (
        "not comparable",
        "one of them has no interval",
    )


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"processor": "Other CPU"}, "another CPU: Other CPU, here"),
        ({"usable_cores": 1000}, "another machine: usable cores differ"),
        ({"quota_cpus": 0.25}, "another machine: quota cpus differ"),
        ({"versions": {"onnxruntime": "0.1"}}, "other versions: onnxruntime 0.1, here"),
        ({"processor": None}, "does not say on which processor"),
        ({"versions": {}}, "does not say with which versions"),
    ],
)
def test_on_another_ground_times_are_not_comparable(results, folder, change, why):
    """Times of another machine or of other versions are no evidence; equal quality is, unequal quality is not."""
    card = Results.from_card(folder)
    card = replace(card, facts=replace(card.facts, environment={**card.facts.environment, **change}))
    verified = results.verify(with_row(card, 1, metrics={"accuracy": Interval(0.123)}))
    verdicts = dict(zip(verified.frame["figure"], verified.frame["verdict"]))
    assert verdicts["latency_mean_ms, batch 1"] == "not comparable"
    assert verdict(verified, 0, "accuracy")[0] == "reproduced"
    said, because = verdict(verified, 1, "accuracy")
    assert said == "not comparable"
    assert why in because
    assert verified.status == 0


def test_a_classic_card_alone_has_no_ground(results, tmp_path):
    """A card that says neither machine nor versions can only be confirmed in its quality."""
    path = results.card("classic").save(tmp_path / "card.md")
    verified = results.verify(path)
    times = verified.frame[verified.frame["figure"].str.startswith("latency")]
    assert set(times["verdict"]) == {"not comparable"}
    assert verified.counts["different"] == 0


def test_failures_are_compared_too(results, folder):
    """A figure that the card lacks because its row failed, and that is there here, is different."""
    from benchcard.utils.values import Failure

    card = with_row(Results.from_card(folder), 2, metrics={"accuracy": None}, failure=Failure("quantize"))
    assert verdict(results.verify(card), 2, "accuracy") == ("different", "it failed there (quantize)")


def test_other_data_is_another_ground(results, folder):
    """Figures of other content of the data set are not held against the card."""
    card = Results.from_card(folder)
    sources = {"datasets": (PublishedSource("./data", True, "other"),)}
    verified = results.verify(replace(card, run=replace(card.run, sources=sources)))
    assert verified.ground == ("another content or revision of the data set ./data",)


def test_another_task_is_refused(results, folder):
    """A run of another task has nothing to do with the card, whatever its parameters are."""
    card = Results.from_card(folder)
    with pytest.raises(
        CardError, match=r"task `text-classification`, and the run of `image-classification`\. Expected"
    ):
        results.verify(replace(card, facts=replace(card.facts, task="text-classification")))


def of_model(card: CardResults, name: str, digest: str | None = None) -> CardResults:
    """The card with another name of its model, and with other content of it, or without its `run.json`."""
    fixed = {key: value for key, value in card.facts.fixed.items() if key != "name_or_path"}
    facts = replace(card.facts, fixed={**fixed, "name_or_path": name})
    if digest is None:
        return replace(card, facts=facts, run=None)
    spec = replace(card.run.spec, fixed={**card.run.spec.fixed, "name_or_path": name})
    sources = {**card.run.sources, "models": (PublishedSource(name, True, digest),)}
    return replace(card, facts=facts, run=replace(card.run, spec=spec, sources=sources))


def test_another_model_is_refused(results, folder):
    """A run of a model with another name and content is refused; a renamed copy is the same model; a model of one name
    has other content.
    """
    card = Results.from_card(folder)
    digest = results.records.info.sources.models["./model"].digest
    with pytest.raises(CardError, match=r"the model `me/bert`, and the run of `\./model`\. Expected.*`--model`"):
        results.verify(of_model(card, "me/bert", "0" * 64))
    assert results.verify(of_model(card, "elsewhere", digest)).status == 0
    found = results.verify(of_model(card, "./model", "0" * 64))
    assert found.ground == ("another content or revision of the model ./model",)


def test_a_model_that_may_be_another_one_is_not_comparable(results, folder):
    """Without a digest on the card, and under another name, times and unequal figures of a model are not comparable,
    unless the user says that it is the model of the card.
    """
    card = of_model(Results.from_card(folder), "me/bert")
    card = with_row(card, 1, metrics={"accuracy": Interval(0.123)})
    found = results.verify(card)
    assert "the model is `./model` here, and `me/bert` on the card" in found.ground
    assert verdict(found, 1, "accuracy")[0] == "not comparable"
    assert "the model is" not in str(verify.verify(card, results, given={"./model"}).ground)
    assert "the model is" not in str(results.verify(of_model(card, "/home/me/model")).ground)


def test_a_full_card_alone_knows_its_data(results, tmp_path):
    """A full card has the first digits of the digest of its data: other content is a condition, another set refused."""
    card = Results.from_card(results.card().save(tmp_path / "README.md"))
    assert not results.verify(card).ground
    facts = replace(card.facts, data=replace(card.facts.data, revision="0" * 12))
    found = results.verify(replace(card, facts=facts))
    assert found.ground == ("another content or revision of the data set ./data",)
    dataset = {**card.facts.fixed["dataset"], "path": "me/other"}
    facts = replace(facts, fixed={**facts.fixed, "dataset": dataset})
    with pytest.raises(CardError, match=r"the data set `me/other`, and the run of `\./data`"):
        results.verify(replace(card, facts=facts))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"max_eval_samples": 5}, "other examples: `max_eval_samples` is all, on the card 5"),
        ({"eval_split": "test"}, 'other examples: `eval_split` is "validation", on the card "test"'),
    ],
)
def test_quality_on_other_examples_is_not_comparable(results, folder, change, said):
    """Equal figures of other examples confirm nothing; times do not depend on the examples."""
    card = Results.from_card(folder)
    if "eval_split" in change:
        dataset = {**card.run.spec.fixed["dataset"], **change}
        spec = replace(card.run.spec, fixed={**card.run.spec.fixed, "dataset": dataset})
        card = replace(card, run=replace(card.run, spec=spec))
    else:
        card = replace(card, facts=replace(card.facts, **change))
    found = results.verify(card)
    assert verdict(found, 0, "accuracy") == ("not comparable", said)
    assert verdict(found, 0, "latency_mean_ms")[0] == "reproduced"
    assert found.ground == (said,)


def test_local_data_may_have_another_name(results, folder):
    """The name of local data is one for the card: it says nothing of the examples."""
    card = Results.from_card(folder)
    dataset = {**card.run.spec.fixed["dataset"], "name": "Beans"}
    spec = replace(card.run.spec, fixed={**card.run.spec.fixed, "dataset": dataset})
    here = {**results.spec.fixed["dataset"], "name": "Beans of 2026"}
    named = replace(results.spec, fixed={**results.spec.fixed, "dataset": here})
    plan = replace(results.plan, spec=named)
    found = Results(replace(results.records, plan=plan)).verify(replace(card, run=replace(card.run, spec=spec)))
    assert verdict(found, 0, "accuracy")[0] == "reproduced"
    assert not found.ground


def test_a_metric_that_is_not_measured_here_is_not_comparable(results, folder):
    """A metric of the card that the run does not measure has not failed here."""
    card = with_row(Results.from_card(folder), 0, metrics={"gain": Interval(0.5)})
    card = replace(card, facts=replace(card.facts, metrics=(*card.facts.metrics, Metric("gain"))))
    assert verdict(results.verify(card), 0, "gain") == ("not comparable", "this run does not measure it")


def test_other_configurations_are_refused(results, folder):
    """Results that share no row with the card say so."""
    card = Results.from_card(folder)
    rows = tuple(replace(row, parameters={**row.parameters, "framework": "other"}) for row in card.facts.rows)
    with pytest.raises(CardError, match="none of the card's configurations"):
        results.verify(replace(card, facts=replace(card.facts, rows=rows)))


def test_the_command_runs_the_rows_and_gives_a_status(results, ground, folder, monkeypatch):
    """`benchcard verify` runs what the card says (here, a run that is finished already), and its status tells."""
    from click.testing import CliRunner

    from benchcard.cli.commands import main

    asked = []
    monkeypatch.setattr(Benchmark, "run", lambda self, path, **more: asked.append(self.spec) or Results.load(path))
    verify = ["verify", str(folder), "--out", str(results.path), "--quiet"]
    done = CliRunner().invoke(main, verify)
    assert done.exit_code == 1
    assert "the model `./model` was a folder, and is not here: give it as `--model`" in done.output
    data = str(ground / "data")
    assert CliRunner().invoke(main, [*verify, "--model", str(ground / "model"), "--dataset", data]).exit_code == 0
    assert asked.pop().fixed["dataset"] == {**results.spec.fixed["dataset"], "path": data}
    for name in ("model", "data"):
        shutil.copytree(ground / name, folder / name)
    done = CliRunner().invoke(main, verify)
    assert done.exit_code == 0, done.output
    assert asked == [results.spec]
    assert "0 different" in done.output
    text = (folder / "README.md").read_text()
    accuracy = f"{results.quality['accuracy'][0]:.3f}"
    from benchcard.card.readme import find_sections

    edited = find_sections(text)["x"].content.replace(f"|  {accuracy}   |", "|  0.001   |", 1)
    assert edited != find_sections(text)["x"].content
    (folder / "README.md").write_text(merge(text, f"---\n---\n\n{edited}", "x").text)
    done = CliRunner().invoke(main, [*verify, "--csv"])
    assert done.exit_code == 1, done.output
    assert done.output.count("different,") == 1


def test_a_run_that_is_too_imprecise_reproduces_nothing(results, folder):
    """An interval that agrees with nearly everything confirms no figure but its own."""
    card = Results.from_card(folder)
    shape = Shape(1, card.facts.shapes[0].input_length)
    wide = results.time[(results.time["row"] == 1) & (results.time["batch_size"] == 1)].iloc[0]
    published = Interval(2 * wide["latency_mean_ms"], 1e-6, 1e6)
    verified = results.verify(with_row(card, 1, times={shape: {"latency_mean_ms": published}}))
    said = verdict(verified, 1, "latency_mean_ms, batch 1")
    if wide["latency_mean_ms_high"] > 1.5 * wide["latency_mean_ms_low"]:
        assert said[0] == "not comparable"
        assert said[1].startswith("too imprecise here")
    else:
        assert said[0] == "reproduced"
