"""Metrics: agreement with the libraries and scorers that define them, and how figures are to be read."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import ClassVar

import numpy as np
import pytest

from benchcard import metrics, registry
from benchcard.errors import BenchcardError, SpecError
from benchcard.metrics import compute as compute_
from benchcard.metrics import info

CASES = 1000


def drawn(seed):
    """Return the generators of a thousand small cases of predictions and references."""
    return (np.random.default_rng([seed, index]) for index in range(CASES))


def computed(name, predictions, references, **arguments):
    """Return what a metric computes, without evaluate's copies of the inputs, which take a thousand times as long."""
    return registry.metric(name)._compute(predictions, references, **arguments)


def figures_of(name, given, meanings=None, arguments=None, script=None):
    """Return the figures of `compute_metric` for inputs by name."""
    inputs = {"references": [], "predictions": None, **given, "meanings": meanings or {}, "arguments": arguments or {}}
    return metrics.compute_metric(name, metrics.MetricInputs(**inputs), script)


def test_averages_agree_with_scikit_learn():
    """Precision, recall and F1 of a thousand cases, at each average, are scikit-learn's, by argument and by name."""
    from sklearn.metrics import f1_score, precision_score, recall_score

    scores = {"precision": precision_score, "recall": recall_score, "f1": f1_score}
    for index, generator in enumerate(drawn(1)):
        name, average = list(scores)[index % 3], ("binary", "micro", "macro", "weighted")[index // 3 % 4]
        labels = 2 if average == "binary" else generator.integers(2, 5)
        found, right = generator.integers(0, labels, (2, generator.integers(2, 12)))
        expected = scores[name](right, found, average=average, zero_division=0)
        if average == "binary" or index % 2:
            assert computed(name, found, right, average=average) == {name: expected}
        else:
            assert computed(f"{name}_{average}", found, right) == {f"{name}_{average}": expected}


def test_accuracy_and_matthews_agree_with_scikit_learn():
    """Accuracy and the Matthews correlation of a thousand cases are scikit-learn's."""
    from sklearn.metrics import accuracy_score, matthews_corrcoef

    for index, generator in enumerate(drawn(2)):
        found, right = generator.integers(0, generator.integers(2, 5), (2, generator.integers(2, 12)))
        right[:2] = [0, 1]
        if index % 2:
            assert computed("accuracy", found, right) == {"accuracy": accuracy_score(right, found)}
        else:
            assert computed("matthews_correlation", found, right) == {
                "matthews_correlation": matthews_corrcoef(right, found)
            }


def test_top_k_counts_the_highest_scores():
    """Top-k accuracy of a thousand cases is the share of rows whose label is among the k highest scores."""
    for generator in drawn(3):
        labels = int(generator.integers(2, 6))
        k = int(generator.integers(1, labels))
        scores = generator.standard_normal((8, labels)).astype(np.float32)
        right = generator.integers(0, labels, 8)
        expected = np.mean([label in np.argsort(row)[-k:] for row, label in zip(scores, right)])
        assert registry.metric("top_k_accuracy")._compute(scores, right, k=k)["top_k_accuracy"] == pytest.approx(
            expected
        )


def test_correlations_agree_with_scipy():
    """Pearson, Spearman and the squared error of a thousand cases are those of scipy and scikit-learn; a constant has
    no correlation.
    """
    from scipy.stats import pearsonr, spearmanr
    from sklearn.metrics import mean_squared_error

    expected = {
        "pearson": lambda found, right: pearsonr(found, right).statistic,
        "spearman": lambda found, right: spearmanr(found, right).statistic,
        "mse": lambda found, right: mean_squared_error(right, found),
    }
    for index, generator in enumerate(drawn(4)):
        found, right = generator.standard_normal((2, 6)).round(int(generator.integers(1, 4)))
        name = list(expected)[index % 3]
        assert computed(name, found, right) == {name: expected[name](found, right)}
    assert math.isnan(computed("pearson", [1.0, 1.0], [1.0, 2.0])["pearson"])
    assert math.isnan(computed("spearman", [1.0, 2.0], [3.0, 3.0])["spearman"])


TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-MISC"]


def tagged(generator):
    """A case of two to four sentences with tags of any order, valid or not."""
    lengths = generator.integers(1, 9, generator.integers(2, 5))
    return [[[TAGS[tag] for tag in generator.integers(0, len(TAGS), length)] for length in lengths] for _ in range(2)]


def test_entities_agree_with_seqeval():
    """Overall figures of a thousand cases are those of seqeval's own functions."""
    from seqeval.metrics import accuracy_score, f1_score, precision_score, recall_score

    for generator in drawn(5):
        found, right = tagged(generator)
        told = computed("seqeval", found, right)
        assert told["overall_precision"] == precision_score(right, found, zero_division=0)
        assert told["overall_recall"] == recall_score(right, found, zero_division=0)
        assert told["overall_f1"] == pytest.approx(f1_score(right, found, zero_division=0), abs=1e-15)
        assert told["overall_accuracy"] == accuracy_score(right, found)


def entities(tags):
    """Return the entities of a sentence as conlleval counts them: type, first word and last word."""
    found, begun = [], None
    for place, tag in enumerate([*tags, "O"]):
        kind = tag[2:]
        if begun and (tag == "O" or tag.startswith("B-") or kind != begun[0]):
            found.append((*begun, place - 1))
            begun = None
        if tag != "O" and begun is None:
            begun = (kind, place)
    return found


def test_entities_agree_with_conlleval():
    """Precision and recall of a thousand cases agree with an independent implementation of conlleval's rule."""
    for generator in drawn(6):
        found, right = tagged(generator)
        one = {(index, *entity) for index, tags in enumerate(found) for entity in entities(tags)}
        other = {(index, *entity) for index, tags in enumerate(right) for entity in entities(tags)}
        told = computed("seqeval", found, right)
        assert told["overall_precision"] == pytest.approx(len(one & other) / len(one) if one else 0.0)
        assert told["overall_recall"] == pytest.approx(len(one & other) / len(other) if other else 0.0)


def test_entities_of_other_letters():
    """Adjacent entities in BILOU count as two, as in IOBES; labels without entities have no entity figures."""
    right = [["U-PER", "U-PER", "O", "B-LOC", "L-LOC", "B-LOC", "I-LOC", "L-LOC"]]
    found = [["U-PER", "O", "O", "B-LOC", "L-LOC", "B-LOC", "L-LOC", "O"]]
    told = computed("seqeval", found, right)
    assert (told["overall_precision"], told["overall_recall"]) == (pytest.approx(2 / 3), 0.5)
    letters = str.maketrans("LU", "ES")
    assert computed(
        "seqeval", *([[tag[0].translate(letters) + tag[1:] for tag in side[0]]] for side in (found, right))
    ) == {**told}
    plain = [["ORG", "O", "PER"]], [["O", "O", "PER"]]
    assert [name for name, value in computed("seqeval", *plain).items() if isinstance(value, float)] == [
        "overall_accuracy"
    ]
    strict = computed("seqeval", *plain, mode="strict", scheme="IOB2")
    assert "overall_f1" not in strict
    named = computed("seqeval", *plain, entity_tags={"O": "O", "ORG": "I-ORG", "PER": "I-PER"})
    assert (named["overall_precision"], named["overall_recall"]) == (0.5, 1.0)


def test_strict_schemes():
    """With a strict scheme an entity that begins with `I-` does not count; an unknown scheme is refused."""
    found, right = [["I-PER", "O"]], [["B-PER", "O"]]
    assert computed("seqeval", found, right)["overall_f1"] == 1.0
    assert computed("seqeval", found, right, mode="strict", scheme="IOB2")["overall_f1"] == 0.0
    with pytest.raises(ValueError, match="IOB2"):
        computed("seqeval", found, right, scheme="IOB3")


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  Beatles", "beatles"),
        ("an apple a day", "apple day"),
        ("theatre", "theatre"),
        ("U.S.A.", "usa"),
        ("twenty-one", "twentyone"),
        ("  \t new\nline ", "new line"),
        ("“quoted”", "“quoted”"),
        ("Łódź, THE Café", "łódź café"),
        ("non\u00a0breaking", "non breaking"),
        ("a.b", "ab"),
        ("the-end", "theend"),
        ("$1,000", "1000"),
        ("An", ""),
        ("...", ""),
        ("İ", "i\u0307"),
    ],
)
def test_answers_are_normalized_as_by_squad(text, normal):
    """Lower case, no ASCII punctuation, no articles, single spaces; other marks and letters stay."""
    from benchcard.metrics.answers import normalize

    assert normalize(text) == normal


WORDS = ["the", "a", "An", "cat", "Cat", "mat.", "it's", "-", "U.S.", "café", "“cat”", "", "1,000"]


def phrase(generator):
    """A few words with articles, punctuation and odd letters among them."""
    return " ".join(generator.choice(WORDS, generator.integers(0, 5)))


def plainly(prediction, answer):
    """Return exact match and F1 of SQuAD v1.1 by an independent implementation."""
    import string

    def words(text):
        kept = "".join(letter for letter in text.lower() if letter not in string.punctuation)
        return [word for word in kept.split() if word not in ("a", "an", "the")]

    found, right = words(prediction), words(answer)
    left, same = list(right), 0
    for word in found:
        if word in left:
            left.remove(word)
            same += 1
    return float(found == right), (2 * same / (len(found) + len(right)) if same else 0.0)


def test_squad_agrees_with_its_scorer():
    """Exact match and F1 of a thousand questions with several answers, and of each question alone."""
    predictions, references, exact, f1 = [], [], [], []
    for index, generator in enumerate(drawn(7)):
        answers = [phrase(generator) for _ in range(generator.integers(1, 4))]
        prediction = answers[0] if generator.random() < 0.3 else phrase(generator)
        predictions.append({"id": str(index), "prediction_text": prediction})
        references.append({"id": str(index), "answers": {"text": answers, "answer_start": [0] * len(answers)}})
        exact.append(max(plainly(prediction, answer)[0] for answer in answers))
        f1.append(max(plainly(prediction, answer)[1] for answer in answers))
        alone = computed("squad", predictions[-1:], references[-1:])
        assert (alone["exact_match"], alone["f1"]) == (pytest.approx(100 * exact[-1]), pytest.approx(100 * f1[-1]))
    told = registry.metric("squad").compute(predictions=predictions, references=references)
    assert told == {"exact_match": pytest.approx(100 * np.mean(exact)), "f1": pytest.approx(100 * np.mean(f1))}
    assert 20 < told["exact_match"] < 80


def answered(texts, gold, doubts=None):
    """Predictions and references of SQuAD v2."""
    doubts = doubts or [0.0] * len(texts)
    predictions = [
        {"id": str(index), "prediction_text": text, "no_answer_probability": doubt}
        for index, (text, doubt) in enumerate(zip(texts, doubts))
    ]
    references = [
        {"id": str(index), "answers": {"text": list(each), "answer_start": [0] * len(each)}}
        for index, each in enumerate(gold)
    ]
    return {"predictions": predictions, "references": references}


def test_squad_v2_counts_no_answer():
    """No answer is right only where there is none; figures of both kinds of questions are separate."""
    told = registry.metric("squad_v2").compute(
        **answered(["Paris", "", "Rome", "the"], [["in Paris"], [], [], ["the"]])
    )
    assert told["exact"] == 50.0
    assert told["f1"] == pytest.approx((2 / 3 + 1 + 0 + 1) / 4 * 100)
    assert (told["HasAns_exact"], told["HasAns_total"], told["NoAns_exact"], told["NoAns_f1"], told["NoAns_total"]) == (
        50.0,
        2,
        50.0,
        50.0,
        2,
    )
    assert told["total"] == 4


def test_squad_v2_obeys_the_threshold():
    """Above the threshold an answer counts as no answer; the best threshold is one of the probabilities."""
    given = answered(["Paris", "Rome", "Rome"], [["Paris"], [], ["Bonn"]], [0.1, 0.9, 0.5])
    plain, strict = (
        registry.metric("squad_v2").compute(**given),
        registry.metric("squad_v2").compute(**given, no_answer_threshold=0.4),
    )
    assert plain["exact"] == pytest.approx(100 / 3)
    assert strict["exact"] == pytest.approx(200 / 3)
    assert (plain["best_exact"], plain["best_exact_thresh"]) == (pytest.approx(200 / 3), 0.1)


def test_the_two_scorers_differ_where_nothing_is_left():
    """An answer of nothing but articles shares no word in v1.1, and is no answer in v2."""
    given = answered(["a"], [["the"]])
    assert registry.metric("squad").compute(**given) == {"exact_match": 100.0, "f1": 0.0}
    assert registry.metric("squad_v2").compute(**given)["f1"] == 100.0


def test_squad_refuses_questions_without_answers():
    """SQuAD v1.1 refuses questions without an answer; the error names the metric that takes them."""
    with pytest.raises(ValueError, match="squad_v2"):
        registry.metric("squad").compute(**answered([""], [[]]))


def test_exact_match_letter_by_letter():
    """Texts are compared as they are, unless asked otherwise."""
    found = {"predictions": ["Cat!", "dog 1", "x"], "references": ["cat", "dog 2", "x"]}
    metric = registry.metric("exact_match")
    assert metric.compute(**found) == {"exact_match": 1 / 3}
    assert metric.compute(**found, ignore_case=True, ignore_punctuation=True) == {"exact_match": 2 / 3}
    assert metric.compute(**found, ignore_numbers=True) == {"exact_match": 2 / 3}
    assert metric.compute(**found, regexes_to_ignore=["[a-zA-Z!]"]) == {"exact_match": 2 / 3}


RANKED = {"ranks": [2, 30], "float_index_ranks": [1, 31], "float_top_10_recall": 0.9}
EXAMPLES = {
    "squad": answered(["a"], [["a"]]),
    "squad_v2": answered(["a"], [["a"]]),
    "seqeval": {"predictions": [["B-A", "O"]], "references": [["B-A", "O"]]},
    "exact_match": {"predictions": ["a"], "references": ["a"]},
    "perplexity": {"predictions": [-3.0, -1.5], "references": [2, 1]},
    **{name: {"predictions": [[0.1, 0.2]], "references": [[1.0, 0.0]]} for name in ("ndcg_at_10", "mrr_at_10")},
    **{name: {"predictions": [RANKED], "references": [[1.0, 0.0]]} for name in ("recall_at_10", "recall_at_100")},
    **{
        f"float_index_{name}": {"predictions": [RANKED], "references": [[1.0, 0.0]]}
        for name in ("ndcg_at_10", "recall_at_10")
    },
    "float_top_10_recall": {"predictions": [RANKED]},
    "map": {
        "predictions": [{"boxes": [[0.0, 0.0, 9.0, 9.0]], "scores": [0.9], "labels": [1]}],
        "references": [{"boxes": [[0.0, 0.0, 9.0, 8.0]], "labels": [1], "areas": [72.0], "crowds": [False]}],
    },
    **{name: {"predictions": ["a b"], "references": ["a c"]} for name in ("wer", "cer")},
    "top_k_accuracy": {"prediction_scores": [[0.1, 0.2, 0.7], [0.6, 0.3, 0.1]], "references": [2, 1]},
    **{
        name: {"predictions": [1.0, 2.0, 4.0], "references": [1.0, 2.0, 3.0]} for name in ("pearson", "spearman", "mse")
    },
}


# The figures of lm_eval are those of a task of lm-eval: `tests/tasks/test_lm_eval.py`.
@pytest.mark.parametrize("name", [name for name in registry.metrics() if name != "lm_eval"])
def test_every_metric_is_a_module_of_evaluate(name):
    """Each is an `evaluate.EvaluationModule`, works through `compute` without the network, twice alike, and its figures
    can be read.
    """
    import evaluate

    if name == "map":
        pytest.importorskip("pycocotools", reason="the extra `detection` is not installed")

    found = compute_.load_metric(name)
    assert isinstance(found, evaluate.EvaluationModule)
    given = EXAMPLES.get(name, {"predictions": [0, 1, 1], "references": [0, 1, 0]})
    arguments = {name: {"k": 1}} if name == "top_k_accuracy" else {}
    first = figures_of(name, given, {}, arguments)
    assert first == figures_of(name, given, {}, arguments)
    assert all(isinstance(figure.value, float) for figure in first.values())
    assert all(figure.info.unit is not None for figure in first.values())
    main = next(iter(first.values())).info
    assert main.higher_is_better is (name not in ("mse", "perplexity", "wer", "cer"))


def test_several_labels_to_a_row():
    """Lists of 0 and 1 are taken by accuracy and averages, and refused without an average."""
    given = {"predictions": [[1, 0, 1], [0, 0, 0]], "references": [[1, 0, 0], [0, 0, 0]]}
    assert figures_of("accuracy", given)["accuracy"].value == 0.5
    assert figures_of("f1_micro", given)["f1_micro"].value == pytest.approx(2 / 3)
    assert figures_of("f1", given, {}, {"f1": {"average": "micro"}})["f1"].value == pytest.approx(2 / 3)
    with pytest.raises(SpecError, match=r"3 labels.*f1_macro"):
        figures_of("f1", given)


def test_a_meaning_of_its_own():
    """Where a task means another metric by an id, that one is taken, under the id that was asked, with its arguments
    and its unit.
    """
    given = {"predictions": [["I-PER", "O"]], "references": [["B-PER", "O"]]}
    meanings = {"f1": "seqeval.overall_f1"}
    assert figures_of("f1", given, meanings, {}) == {"f1": metrics.Figure(1.0, info.MetricInfo(True, "share"))}
    strict = {"seqeval": {"mode": "strict", "scheme": "IOB2"}}
    assert figures_of("f1", given, meanings, strict)["f1"].value == 0.0
    told = figures_of("f1", answered(["a"], [["a"]]), {"f1": "squad.f1"}, {})
    assert told["f1"].info.unit == "%"


def test_what_is_not_defined_has_no_value():
    """A correlation with a constant is not defined, and has no value."""
    assert figures_of("pearson", {"predictions": [1.0, 1.0], "references": [1.0, 2.0]})["pearson"].value is None


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("f1", {"predictions": [0, 1, 2], "references": [0, 1, 1]}, "3 labels.*f1_weighted"),
        ("mse", {"predictions": ["a"], "references": ["b"]}, r"\$\.metrics \(`mse`\)"),
        ("accuracy", {"predictions": [1.5, 2.25], "references": [1.0, 2.0]}, "no labels.*pearson"),
        ("f1", {"predictions": [0, 1], "references": [0.2, 1.0]}, "references are numbers"),
        (
            "top_k_accuracy",
            {"predictions": [1], "references": [1], "prediction_scores": None},
            "gives no `prediction_scores`",
        ),
        ("top_k_accuracy", {"prediction_scores": [[0.0, 1.0, 2.0]], "references": [1]}, "k is 5.*3 labels"),
    ],
)
def test_a_metric_that_does_not_fit(name, given, said):
    """A metric that does not fit the predictions raises a `SpecError` with the metric's own message."""
    with pytest.raises(SpecError, match=said):
        figures_of(name, given)


def test_an_id_that_nobody_brings(monkeypatch):
    """Where `evaluate.load` has no connection, the error says so and names a similar metric."""
    import evaluate

    def load(name):
        raise FileNotFoundError(name)

    monkeypatch.setattr(evaluate, "load", load)
    with pytest.raises(SpecError, match="did you mean `accuracy`"):
        compute_.load_metric("acuracy")
    with pytest.raises(SpecError, match="needs the network"):
        compute_.load_metric("bleu")

    def lacks(name):
        raise ImportError("you need to install 'jiwer'")

    monkeypatch.setattr(evaluate, "load", lacks)
    with pytest.raises(SpecError, match=r"packages are installed.*jiwer"):
        compute_.load_metric("bleu")


SCRIPT = """
import datasets
import evaluate


class Longer(evaluate.Metric):
    def _info(self):
        number = datasets.Value("float64")
        features = datasets.Features({"predictions": number, "references": number})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, predictions, references):
        return sum(a > b for a, b in zip(predictions, references)) / len(references)
"""


@pytest.fixture
def own_modules(tmp_path, monkeypatch):
    """Scripts that `evaluate` keeps go into the test's own folder, and are imported from there."""
    import evaluate

    monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    for name in [name for name in sys.modules if name.partition(".")[0] == "evaluate_modules"]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.usefixtures("own_modules")
def test_a_metric_of_a_script_is_loaded_by_evaluate(tmp_path):
    """Any other id goes to `evaluate.load`: a script's path has its figure under the whole path, dots and all, also
    where `compute` gives a bare number.
    """
    (tmp_path / "longer.v2").mkdir()
    script = tmp_path / "longer.v2" / "longer.py"
    script.write_text(SCRIPT)
    given = {"predictions": [1.0, 2.0, 4.0], "references": [1.0, 1.0, 3.0]}
    found = figures_of(str(script), given)
    assert found == {str(script): metrics.Figure(pytest.approx(2 / 3), info.MetricInfo(None, None))}
    none = figures_of(str(script), {**given, "predictions": [0.0] * 3})
    assert none[str(script)].value == 0


@pytest.mark.usefixtures("own_modules")
def test_a_script_that_changes_behind_a_hash_is_another_one(tmp_path):
    """A script, or a file that it imports, in which only a text behind a `#` changes gives the figure of the new one;
    its path may hold any character.
    """
    folder = tmp_path / "met[r]ic*::1"
    folder.mkdir()
    script = SCRIPT.replace("import datasets", "import datasets\nfrom .limits import MORE", 1)
    given = {"predictions": [1.0, 2.0, 4.0], "references": [1.0, 1.0, 3.0]}
    for least, more, expected in (("#0", "#0", 2 / 3), ("#1", "#0", 0.0), ("#0", "#1", 0.0)):
        (folder / "limits.py").write_text(f'MORE = "{more}"\n')
        text = script.replace("a > b ", f'a > b + int("{least}"[1:]) + int(MORE[1:]) ')
        (folder / "longer.py").write_text(text)
        found = figures_of("longer", given, {}, {}, str(folder / "longer.py"))
        assert found["longer"].value == pytest.approx(expected)


def test_a_figure_that_a_metric_does_not_give():
    """An unknown figure raises an error that names the known ones."""
    given = {"predictions": [["B-A", "O"]], "references": [["B-A", "O"]]}
    with pytest.raises(SpecError, match=r"no figure `overall_f2`.*did you mean `overall_f1`"):
        figures_of("seqeval.overall_f2", given)


@pytest.mark.parametrize("name", ["mae", "pearsonr", "spearmanr", "me/accuracy1", "bleu", "ter"])
def test_ids_that_evaluate_knows_are_no_slips(name):
    """A spec accepts ids of evaluate's metrics, and paths, even if they resemble a known id."""
    from benchcard.spec import spec

    told = {"task": "text-classification", "model": "m", "dataset": {"path": "d", "eval_split": "test"}}
    assert spec.read_spec({**told, "metrics": [name]}).fixed["metrics"] == [name]
    with pytest.raises(SpecError, match="did you mean `accuracy`"):
        spec.read_spec({**told, "metrics": [name, "acuracy"]})


def test_readings_need_no_library():
    """`metric_info` imports no heavy library; it knows nothing of an unknown id."""
    code = (
        "import sys; from benchcard import metrics\n"
        "assert metrics.metric_info('mse').higher_is_better is False\n"
        "assert metrics.metric_info('seqeval', 'overall_f1').unit == 'share'\n"
        "assert metrics.metric_info('squad_v2.best_exact').unit == '%'\n"
        "unknown = metrics.MetricInfo(None, None)\n"
        "assert metrics.metric_info('bleu') == metrics.metric_info('seqeval.other') == unknown\n"
        "print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"evaluate", "datasets", "sklearn", "numpy", "scipy"} & set(loaded)


def test_a_metric_of_somebody_elses_tells_its_reading(monkeypatch):
    """A registered metric may have its direction and unit as attributes."""

    class Regret:
        higher_is_better = False
        unit = "EUR"

    monkeypatch.setattr(registry, "metrics", lambda: ("regret",))
    monkeypatch.setattr(registry, "metric", lambda name: Regret())
    assert info.metric_info("regret") == info.MetricInfo(False, "EUR")


def test_what_the_author_says_wins_over_what_a_name_is_known_for(monkeypatch):
    """The attributes of a metric that replaces a known one win; what it leaves out is taken from the known one."""

    class Mine:
        features: ClassVar = {"predictions": None, "references": None}

        def compute(self, predictions, references):
            return {"accuracy": 3.0}

    monkeypatch.setattr(registry, "is_built_in_metric", lambda name: False)
    monkeypatch.setattr(registry, "metric", lambda name: mine)
    given, mine = {"predictions": [1], "references": [1]}, Mine()
    assert info.metric_info("accuracy") == info.MetricInfo(True, "share")
    mine.higher_is_better = False
    assert info.metric_info("accuracy") == info.MetricInfo(False, "share")
    mine.unit = "EUR"
    assert info.metric_info("accuracy") == info.MetricInfo(False, "EUR")
    assert figures_of("accuracy", given)["accuracy"] == metrics.Figure(3.0, info.MetricInfo(False, "EUR"))


class Strict:
    """A metric that takes one argument."""

    features: ClassVar = {"predictions": None, "references": None}

    def compute(self, predictions, references, normalize=False):
        raise OverflowError("too much")


def test_what_another_metric_raises(monkeypatch):
    """Unknown arguments raise a `SpecError`; what a metric raises is reported with the metric's name."""
    monkeypatch.setattr(registry, "metrics", lambda: ("strict",))
    monkeypatch.setattr(registry, "metric", lambda name: Strict())
    given = {"predictions": [0, 1], "references": [0, 1]}
    with pytest.raises(SpecError, match=r"did you mean `normalize`.*\$.task_args.metric_args.strict.nomalize"):
        figures_of("strict", given, {}, {"strict": {"nomalize": True}})
    with pytest.raises(BenchcardError, match="the metric `strict` failed: OverflowError: too much"):
        figures_of("strict", given, {}, {"strict": {"normalize": True}})


class OfOne:
    """A metric of another package that takes the positive class."""

    features: ClassVar = {"predictions": None, "references": None}

    def compute(self, predictions, references, pos_label=1, average="binary"):
        return {"found": predictions.count(pos_label)}


def test_another_metric_gets_the_positive_class(monkeypatch):
    """A metric that takes a `pos_label` gets the task's, unless the spec gives one or averages over labels."""
    monkeypatch.setattr(registry, "metrics", lambda: ("of_one",))
    monkeypatch.setattr(registry, "metric", lambda name: OfOne())
    monkeypatch.setattr(registry, "is_built_in_metric", lambda name: False)
    given = {"predictions": [0, 0, 0, 1, 2, 2], "references": [0] * 6}

    def found(defaults, arguments):
        told = figures_of("of_one", {**given, "defaults": defaults}, {}, {"of_one": arguments})["found"]
        return told.value, told.positive_label

    assert found({"pos_label": 0}, {}) == (3, 0)
    assert found({"pos_label": 0}, {"pos_label": 2}) == (2, 2)
    assert found({"pos_label": 0}, {"average": "macro"}) == (1, None)
    assert found({"pos_label": None}, {}) == (1, None)


def figure(value):
    """Return a figure of unknown direction and unit."""
    return metrics.Figure(value, info.MetricInfo(None, None))


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"accuracy": {"accuracy": 1.0}, "bad": {"accuracy": 1.0}}, "metrics `accuracy` and `bad` .* `accuracy`"),
        ({"bad": {"framework": 1.0}}, "metric `bad` gives a figure `framework`"),
        ({"bad": {"row": 1.0}}, "metric `bad` gives a figure `row`"),
        ({"bad": {"calibration.method": 1.0}}, "metric `bad` gives a figure `calibration.method`"),
        ({"bad": {"mine": 1.0, "mine_low": 1.0}}, "metric `bad` has two figures for the column `mine_low`"),
        ({"bad": {"mine_low": 1.0}, "mine": {"mine": 1.0}}, "metrics `bad` and `mine` have .* `mine_low`"),
        ({"squad": {"f1": 1.0}, "f1": {"f1": 0.5}}, "metrics `squad` and `f1`"),
    ],
)
def test_figures_for_one_column_are_refused(told, said):
    """No figure may have the column of another figure, of its bounds, or of a parameter."""
    with pytest.raises(BenchcardError, match=said):
        compute_.merge_figures(
            {name: {key: figure(value) for key, value in each.items()} for name, each in told.items()},
            {"f1": "squad.f1"},
        )


def test_figures_that_are_the_same_may_come_twice():
    """Two ids may stand for the same figure; `precision` may be a metric although it is a parameter, too."""
    told = {"squad": {"f1": figure(0.5), "exact_match": figure(1.0)}, "f1": {"f1": figure(0.5)}}
    told["precision"] = {"precision": figure(0.2)}
    found = compute_.merge_figures(told, {"f1": "squad.f1"})
    assert {name: each.value for name, each in found.items()} == {"f1": 0.5, "exact_match": 1.0, "precision": 0.2}
