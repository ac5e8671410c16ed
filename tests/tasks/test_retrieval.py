"""Text retrieval: rankings as a plain computation gives them, in the model's own index and in the float model's."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny_text

from benchcard import Benchmark, testing
from benchcard.analysis import compare
from benchcard.errors import ArtifactError, SpecError
from benchcard.evaluation.rows import Rows
from benchcard.metrics.compute import MetricInputs, compute_metric
from benchcard.steps import data as data_steps
from benchcard.steps.data import SampleRequest
from benchcard.tasks.retrieval import TextRetrieval
from tasks.test_feature_extraction import directly, settle, write_model

TASK = "text-retrieval"
WORDS = tiny_text.WORDS.split()[6:-2]
DRAW = np.random.default_rng(0)
TEXTS = list(dict.fromkeys(" ".join(DRAW.choice(WORDS, 4)) for _ in range(60)))
ASKED = TEXTS[:14]
CORPUS = [*TEXTS[14:], TEXTS[14]]  # The last document repeats the first one.
JUDGED = [(0, 3, 2), (0, 5, 1), (1, 0, 1), (2, 7, 0), (3, 8, 1), (3, 9, -1), (4, 10, 2), (4, 11, 2), (4, 30, 1)]
PARTS = {"corpus": {}, "queries": {}}
SPLITS = {"judged": "validation", "corpus": "corpus", "queries": "queries"}
CONFIGURATIONS = [
    f"- {{config_name: {name}, data_files: [{{split: {split}, path: {name}/*}}]}}" for name, split in SPLITS.items()
]
README = "\n".join(["---", "configs:", *CONFIGURATIONS, "---"])


def write_beir(folder, judged=tuple(JUDGED), mark="q", documents=CORPUS, **changes):
    """Judgements, documents and queries in the form of BEIR; ids of queries start with a mark, those of documents with
    `d`.
    """
    queries, places, scores = map(list, zip(*judged))
    ids = {"query-id": [f"{mark}{query}" for query in queries], "corpus-id": [f"d{place}" for place in places]}
    testing.write_data(folder / "judged", {"validation": {**ids, "score": scores, **changes}})
    for name, texts, own in (("corpus", documents, "d"), ("queries", ASKED, mark)):
        columns = {"_id": [f"{own}{index}" for index in range(len(texts))], "text": texts}
        if name == "corpus":
            columns["title"] = ["", *["the"] * (len(texts) - 2), ""]
        testing.write_data(folder / name, {name: columns})
    (folder / "README.md").write_text(README)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model with a prompt for queries and another for documents."""
    folder = write_model(tmp_path_factory.mktemp("models") / "model", normalize=False)
    return settle(folder, prompts={"query": "film ", "passage": "a "})


def embedded(model, texts, prompt):
    """The mean of the token embeddings of each text, by transformers alone."""
    return np.stack([directly(model, prompt + text).mean(axis=0) for text in texts]).astype(np.float64)


def cosines(queries, documents):
    """The cosine of each query and document."""
    return (queries @ documents.T) / np.linalg.norm(queries, axis=1)[:, None] / np.linalg.norm(documents, axis=1)


def evaluator_ndcg(scores, relevance, k=10):
    """The nDCG of one query by the definition of `InformationRetrievalEvaluator` of sentence-transformers, with graded
    gains, which is that of trec_eval.
    """
    gains = [relevance[place] for place in np.argsort(-scores, kind="stable")[:k]]
    best = sorted(relevance, reverse=True)[:k]
    return sum(gain / np.log2(place + 2) for place, gain in enumerate(gains)) / sum(
        gain / np.log2(place + 2) for place, gain in enumerate(best)
    )


def beir_request(model, data, kind=data_steps.PrepareRequest, **fields):
    """The request for rows in the form of BEIR."""
    settings = {"name": "judged", "task_args": PARTS, **fields}
    return tiny_text.rows_request(TASK, model, data, kind, **settings)


@pytest.mark.parametrize("framework", ["pytorch", "onnxruntime"])
def test_figures_are_those_of_a_plain_computation(model, tmp_path, framework):
    """Of nDCG, recall and MRR, with prompts, a document of several queries, and judgements that are not positive; each
    distinct text is encoded once.
    """
    from sklearn.metrics import ndcg_score

    documents = CORPUS[:-1]
    shares = [documents[index::5] for index in range(5)]
    rows = {"query": ASKED[:5], "documents": [[*shares[index], documents[0]] for index in range(5)]}
    rows["labels"] = [DRAW.integers(-1, 3, len(shown)).tolist() for shown in rows["documents"]]
    rows["labels"][2] = [0] * len(rows["documents"][2])
    order = list(dict.fromkeys(document for shown in rows["documents"] for document in shown))
    own = np.zeros((5, len(order)))
    for query, labels in enumerate(rows["labels"]):
        for document, label in zip(rows["documents"][query], labels):
            own[query, order.index(document)] = max(own[query, order.index(document)], label)
    data = tiny_text.write_data(tmp_path / "data", rows)
    metrics = ["ndcg_at_10", "recall_at_10", "mrr_at_10", "float_index_ndcg_at_10"]
    passed = testing.pass_through(TASK, model, data, tmp_path, framework=framework, metrics=metrics)
    scores = cosines(embedded(model, ASKED[:5], "film "), embedded(model, order, "a "))
    scored = np.flatnonzero(own.any(axis=1))
    expected = [ndcg_score([own[q]], [scores[q]], k=10, ignore_ties=True) for q in scored]
    assert expected == pytest.approx([evaluator_ndcg(scores[q], own[q]) for q in scored])
    assert passed.metrics["ndcg_at_10"] == pytest.approx(np.mean(expected))
    top = np.argsort(-scores, axis=1)[:, :10]
    recalls = [np.isin(np.flatnonzero(own[q]), top[q]).mean() for q in scored]
    assert passed.metrics["recall_at_10"] == pytest.approx(np.mean(recalls))
    ranks = [np.flatnonzero(own[q][np.argsort(-scores[q])])[0] + 1 for q in scored]
    assert passed.metrics["mrr_at_10"] == pytest.approx(np.mean([1 / rank if rank <= 10 else 0 for rank in ranks]))
    assert passed.metrics["float_index_ndcg_at_10"] is None
    assert len(passed.kept["embedding"]) == 5 + len(order)
    assert f"5 queries are searched in a corpus of {len(order)} documents" in passed.notes
    assert "every query has the model's prompt before it: 'film '" in passed.notes
    assert "every document has the model's prompt before it: 'a '" in passed.notes


def test_data_in_the_form_of_beir_are_read(model, tmp_path):
    """Texts are looked up by id, with titles; a query without a relevant document is not scored."""
    data = write_beir(tmp_path / "data")
    outcome = data_steps.prepare(beir_request(model, data), tmp_path, lambda done, total: None)
    rows = Rows(tmp_path)
    assert rows.memos == [[[3, 5], []], [[0], []], [[], []], [[8], []], [[10, 11, 30], []]]
    assert rows.references == [[2, 1], [1], [], [1], [2, 2, 1]]
    # The title makes another text of the last document but one; the last one has none, as the first.
    assert outcome.items == 5 + len(CORPUS) - 1
    assert outcome.samples == 5
    assert "1 of 5 queries has no relevant document: it is not scored" in outcome.notes
    tokens = sum(rows.items.item(index)["input_ids"].size for index in range(outcome.items))
    assert tokens == 5 * (4 + 1 + 2) + (len(CORPUS) - 2) * (4 + 2 + 2) + (4 + 1 + 2)


def test_a_document_with_the_id_of_its_query_is_left_out(model, tmp_path):
    """As in BEIR's evaluation; one that is judged relevant stays."""
    data = write_beir(tmp_path / "data", [(0, 3, 2), (1, 1, 1)], mark="d")
    outcome = data_steps.prepare(beir_request(model, data), tmp_path, lambda done, total: None)
    assert Rows(tmp_path).memos == [[[3], [0]], [[1], []]]
    expected = "1 of 2 queries has the id of a document that is not judged relevant: "
    assert f"{expected}this document is not in the ranking of the query" in outcome.notes


def test_all_judgements_of_a_chosen_query_count(model, tmp_path):
    """`max_eval_samples` chooses judgements, and of their queries all judgements are read."""
    data = write_beir(tmp_path / "data")
    data_steps.prepare(beir_request(model, data, max_samples=2), tmp_path, lambda done, total: None)
    rows = Rows(tmp_path)
    assert rows.references == [[2, 1], [1]]


def test_calibration_takes_a_judged_document_and_not_the_corpus(model, tmp_path):
    """Each row is a query and its document."""
    data = write_beir(tmp_path / "data")
    request = beir_request(model, data, SampleRequest, num_samples=4, seed=0)
    outcome = data_steps.sample(request, tmp_path, lambda done, total: None)
    assert (outcome.samples, outcome.items) == (4, 8)


def test_queries_with_one_document_need_no_labels(model, tmp_path):
    """It is relevant; equal queries and documents count once, and the code of a recipe makes the inputs."""
    rows = {"query": [*ASKED[:3], ASKED[0]], "answer": [*CORPUS[:3], CORPUS[1]]}
    data = tiny_text.write_data(tmp_path / "data", rows)
    keys = {"primary": "query", "secondary": "answer"}
    outcome = tiny_text.prepare(TASK, model, data, tmp_path, data_keys=keys)
    assert (outcome.samples, outcome.items) == (3, 6)
    assert Rows(tmp_path).memos == [[[0, 1], []], [[1], []], [[2], []]]
    assert "1 row has the query of an earlier row: they count as one query" in outcome.notes
    assert any("every document in `answer` counts as relevant" in note for note in outcome.notes)
    assert outcome.code is not None
    assert outcome.code.batch.startswith("processor(['film ' + row['query'], 'a ' + row['answer']]")


def test_prompts_of_the_spec_come_first(model, tmp_path):
    """An empty one is none."""
    data = tiny_text.write_data(
        tmp_path / "data", {"query": ["anna"], "documents": [["bob", "film"]], "labels": [[1, 0]]}
    )
    arguments = {"query_prompt": "good film ", "document_prompt": ""}
    outcome = tiny_text.prepare(TASK, model, data, tmp_path, task_args=arguments)
    items = Rows(tmp_path).items
    assert [items.item(index)["input_ids"].size for index in range(3)] == [5, 3, 3]
    assert "every query has the spec's prompt before it: 'good film '" in outcome.notes
    assert not any("every document" in note for note in outcome.notes)


def test_a_prompt_that_is_not_pooled_is_refused(tmp_path):
    """It is not supported, for queries alone, too."""
    model = settle(write_model(tmp_path / "model", include_prompt=False), prompts={"query": "film "})
    data = tiny_text.write_data(tmp_path / "data", {"query": ["anna"], "documents": [["bob"]]})
    with pytest.raises(ArtifactError, match="leaves its prompt out when it pools"):
        tiny_text.prepare(TASK, model, data, tmp_path)


@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean"])
def test_queries_search_the_index_of_the_baseline(similarity):
    """Figures on its own index, on the baseline's, and the share of the baseline's first ten that is found."""
    draw = np.random.default_rng(1)
    owners = [0] * 21 + [1] * 20 + [2] * 22
    kept, baseline = ({"embedding": draw.standard_normal((63, 4)).astype(np.float32)} for _ in range(2))
    is_query = np.isin(np.arange(63), (0, 21, 41))
    places, left_out = [[4, 50, 9], [30], [59, 0]], [[7, 8], [], [*range(20, 40)]]
    memos = list(zip(places, left_out))
    found = TextRetrieval().predictions(kept, owners, memos, {"similarity": similarity}, baseline)

    def order(queries, documents):
        queries, documents = queries["embedding"][is_query], documents["embedding"][~is_query]
        scores = {
            "cosine": cosines(queries, documents),
            "dot": queries @ documents.T,
            "euclidean": -np.linalg.norm(queries[:, None] - documents, axis=2),
        }[similarity]
        rankings = np.argsort(-scores, axis=1).tolist()
        return [[place for place in ranking if place not in left_out[row]] for row, ranking in enumerate(rankings)]

    own, mixed, floats = order(kept, kept), order(kept, baseline), order(baseline, baseline)
    for number, of_query in enumerate(found):
        assert of_query["ranks"] == [1 + own[number].index(place) for place in places[number]]
        assert of_query["float_index_ranks"] == [1 + mixed[number].index(place) for place in places[number]]
        share = len(set(mixed[number][:10]) & set(floats[number][:10])) / 10
        assert of_query["float_top_10_recall"] == pytest.approx(share)
    itself = TextRetrieval().predictions(baseline, owners, memos, {"similarity": similarity}, baseline)
    assert all(each["ranks"] == each["float_index_ranks"] and each["float_top_10_recall"] == 1 for each in itself)
    alone = MetricInputs(itself, [None] * 3)
    assert compute_metric("float_top_10_recall", alone)["float_top_10_recall"].value == 1
    with pytest.raises(SpecError, match="with `ref_keys: \\[\\]` there are none"):
        compute_metric("ndcg_at_10", alone)


@pytest.mark.parametrize(
    ("arguments", "changes", "message"),
    [
        ({"corpus": {"split": "corpse"}, "queries": {}}, {}, r"the split `corpse`.* @ \$.task_args.corpus"),
        ({"corpus": {"text": "body"}, "queries": {}}, {}, r"the column `body`.* @ \$.task_args.corpus.text"),
        ({"corpus": {}, "queries": {"id": "number"}}, {}, r"the column `number`.* @ \$.task_args.queries.id"),
        ({"queries": {}}, {}, r"the corpus of the queries, found nothing.* @ \$.task_args.corpus"),
        ({"corpus": {"id": 3}}, {}, r"\$.task_args.corpus.id"),
        (PARTS, {"corpus-id": [*["d1"] * 8, "d99"]}, 'the id of a document.*"d99" in row 8'),
        (PARTS, {"query-id": [*["q1"] * 8, "q99"]}, 'the id of a query.*"q99" in row 8'),
        (PARTS, {"score": [*[1.0] * 8, None]}, "a number.*row 8"),
    ],
)
def test_data_that_do_not_fit_are_refused(model, tmp_path, arguments, changes, message):
    """The message names the place in the spec, and the row."""
    data = write_beir(tmp_path / "data", **changes)
    request = beir_request(model, data, task_args=arguments)
    with pytest.raises(SpecError, match=message):
        data_steps.prepare(request, tmp_path, lambda done, total: None)


def test_queries_without_judgements_say_what_to_do(model, tmp_path):
    """A corpus and queries alone need `ref_keys: []`."""
    data = write_beir(tmp_path / "data")
    fields = {"name": "queries", "split": "queries", "task_args": {"corpus": {}}, "data_keys": {"primary": "text"}}
    with pytest.raises(SpecError, match=r"set `ref_keys: \[\]` and `metrics: \[float_top_10_recall\]`"):
        data_steps.prepare(beir_request(model, data, **fields), tmp_path, lambda done, total: None)
    request = beir_request(model, data, **fields, ref_keys=[])
    outcome = data_steps.prepare(request, tmp_path, lambda done, total: None)
    assert outcome.items == len(ASKED) + len(CORPUS) - 1


@pytest.mark.slow
def test_a_run_compares_int8_queries_with_the_float_index(model, tmp_path):
    """The baseline's figures in the float index are its own; quantized rows have intervals, tests and fidelity, and the
    choice goes by the float index. Without judgements the float model's first ten decide.
    """
    data = write_beir(tmp_path / "data", [(index // 2, index, 1 + index % 2) for index in range(28)])
    spec = {
        "task": TASK,
        "model": str(model),
        "grid": {"quantization_approach": ["dynamic", "static"], "apply_quantization": [False, True]},
        "calibration": {"num_calibration_samples": 8},
        "task_args": PARTS,
        "duration": 0,
        "explain": False,
    }
    dataset = {"path": str(data), "name": "judged", "eval_split": "validation", "calibration_split": "validation"}
    results = Benchmark(**spec, dataset=dataset).run(tmp_path / "run", progress=False)
    quality = results.quality
    assert quality.failure.isna().all(), list(quality.failure)
    baseline = quality[~quality.apply_quantization.astype(bool)].iloc[0]
    for name in ("ndcg_at_10", "recall_at_10"):
        assert baseline[f"float_index_{name}"] == baseline[name]
    assert baseline.float_top_10_recall == 1
    quantized = quality[quality.apply_quantization.astype(bool)]
    for name in ("float_index_ndcg_at_10", "ndcg_at_10", "float_top_10_recall"):
        assert quantized[[f"{name}_difference", f"{name}_p_value"]].notna().all(axis=None)
    assert (quantized.float_top_10_recall < 1).any()
    assert quantized[["cosine_mean", "neighbor_overlap"]].notna().all(axis=None)
    assert (quantized.predictions_changed > 0).any()
    assert next(iter(results.metrics)) == "float_index_ndcg_at_10"
    assert json.dumps(results.to_json())
    dataset = {"path": str(data), "name": "queries", "eval_split": "queries", "calibration_split": "queries"}
    dataset |= {"data_keys": {"primary": "text"}, "ref_keys": []}
    spec |= {"task_args": {"corpus": {}}, "metrics": ["float_top_10_recall"]}
    unjudged = Benchmark(**spec, dataset=dataset).run(tmp_path / "unjudged", progress=False).quality
    assert unjudged.failure.isna().all(), list(unjudged.failure)
    assert unjudged.float_top_10_recall[0] == 1


@pytest.mark.slow
def test_runs_are_compared_on_one_corpus_alone(model, tmp_path):
    """With the baseline's index for each row; the same queries in another corpus give other figures."""
    judged = [(index // 2, index, 1) for index in range(28)]
    runs = []
    for name, documents in (("a", CORPUS), ("b", [*CORPUS[:-2], " ".join(WORDS[:4])])):
        path = write_beir(tmp_path / name / "data", judged, documents=documents)
        dataset = {"path": str(path), "name": "judged", "eval_split": "validation"}
        fixed = {"quantization_approach": "dynamic", "task_args": PARTS, "explain": False}
        benchmark = Benchmark(
            task=TASK,
            model=str(model),
            dataset=dataset,
            grid={"apply_quantization": [False, True]},
            fixed=fixed,
            duration=0,
        )
        runs.append(benchmark.run(tmp_path / name / "run", progress=False))
    first, second = runs
    for record in first.records.records:
        for name, figure in compare._examples(record, first.records, False).items():
            assert figure.score(np.arange(figure.count)) == pytest.approx(first.quality[name][record.configuration.row])
    itself = first.compare(first, times=False).frame
    assert len(itself) == 2 * len(TextRetrieval.metrics)
    assert set(itself.verdict[itself.row_a == 1]) == {compare.ALIKE}
    assert itself.paired[itself.figure == "float_index_ndcg_at_10"].all()
    assert set(first.compare(second, times=False).frame.verdict) == {compare.OTHER_DATA}
