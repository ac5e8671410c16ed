"""Write the data set and the trained model of the retrieval example: `python examples/retrieval/train.py --out DIR`.

Advertisements offer a thing of some colour and material in some place; queries ask for a thing of a colour in a place.
Both say the same in different words, and some advertisements do not tell the colour, so that no model finds all. A
document is relevant with 2 if thing, colour and place are what is asked for, with 1 if the thing and one of the others
are. Data have the form of BEIR: documents, queries and judgements in three configurations. The model has different
prompts for queries and documents, and is trained on other advertisements, so that the cosine of a query is highest for
a document that offers what it asks for. The script takes half a minute on one core.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchcard.testing import text_model, train, write_data, write_tokenizer

if TYPE_CHECKING:
    from torch import Tensor

THINGS = tuple(
    group.split()
    for group in (
        *("boat ship yacht", "bicycle bike tandem", "sofa couch settee", "coat jacket anorak", "clock watch timer"),
        *("house home cottage", "car automobile vehicle", "cup mug beaker", "bag sack pouch", "lamp light lantern"),
    )
)
COLOURS = tuple(
    group.split() for group in ("red scarlet crimson", "blue navy azure", "black dark ebony", "white pale ivory")
)
MATERIALS = tuple(group.split() for group in ("wooden oak", "metal steel", "plastic vinyl", "old used"))
PLACES = tuple(group.split() for group in ("city town centre", "village country", "coast shore seaside", "hills alps"))
OFFERS = ("for sale near the {place} : one {colour} {material} {thing}", "this {material} {thing} , {colour} , {place}")
REQUESTS = ("where is a {colour} {thing} in the {place} ?", "i need a {thing} at the {place} , a {colour} one")
PROMPTS = {"query": "query: ", "document": "passage: "}
WORDS = [word for groups in (THINGS, COLOURS, MATERIALS, PLACES) for group in groups for word in group]
WORDS += ["query", "passage", "nice"]
WORDS += "".join([*OFFERS, *REQUESTS, ":"]).replace("{", " {").replace("}", "} ").split()
README = """---
configs:
- config_name: advertisements
  default: true
  data_files:
  - {split: train, path: judgements/train-*}
  - {split: validation, path: judgements/validation-*}
- config_name: corpus
  data_files:
  - {split: corpus, path: corpus/corpus-*}
- config_name: queries
  data_files:
  - {split: queries, path: queries/queries-*}
---
Generated advertisements, queries and judgements, in the form of BEIR. `train.py` beside this folder writes them.
"""

Meaning = tuple[list[str], list[str], list[str]]


def meaning(draw: random.Random) -> Meaning:
    """Return a thing, a colour and a place, each as a group of words for it."""
    return draw.choice(THINGS), draw.choice(COLOURS), draw.choice(PLACES)


def offer(draw: random.Random, meant: Meaning) -> str:
    """Return an advertisement; one in six does not tell the colour."""
    thing, colour, place = map(draw.choice, meant)
    colour = "nice" if draw.random() < 1 / 6 else colour
    material = draw.choice(draw.choice(MATERIALS))
    return draw.choice(OFFERS).format(thing=thing, colour=colour, place=place, material=material)


def request(draw: random.Random, meant: Meaning) -> str:
    """Return a query."""
    thing, colour, place = map(draw.choice, meant)
    return draw.choice(REQUESTS).format(thing=thing, colour=colour, place=place)


def relevance(asked: Meaning, offered: Meaning) -> int:
    """Return how relevant an advertisement is to a query, 0 to 2."""
    same = [one is other for one, other in zip(asked, offered)]
    return sum(same) - 1 if same[0] and sum(same) > 1 else 0


def write_retrieval_data(folder: Path) -> dict[str, list[Any]]:
    """Write the three configurations, and return texts and judgements of the split `validation`."""
    import datasets

    draw = random.Random(0)
    offered = [meaning(draw) for _ in range(600)]
    documents = [offer(draw, meant) for meant in offered]
    asked = [draw.choice(offered) for _ in range(400)]
    queries = [request(draw, meant) for meant in asked]
    text, number = datasets.Value("string"), datasets.Value("int8")
    ids = [f"d{index}" for index in range(len(documents))], [f"q{index}" for index in range(len(queries))]
    write_data(folder / "corpus", {"corpus": {"_id": ids[0], "text": documents}}, {"_id": text, "text": text})
    write_data(folder / "queries", {"queries": {"_id": ids[1], "text": queries}}, {"_id": text, "text": text})
    splits: dict[str, dict[str, list[Any]]] = {}
    for split, numbers in (("train", range(200)), ("validation", range(200, 400))):
        pairs = [(q, d, relevance(asked[q], offered[d])) for q in numbers for d in range(len(documents))]
        # For training, only what is asked for: calibration takes one document for each judgement.
        judged = [(ids[1][q], ids[0][d], score) for q, d, score in pairs if score > (split == "train")]
        splits[split] = dict(zip(("query-id", "corpus-id", "score"), map(list, zip(*judged))))
    write_data(folder / "judgements", splits, {"query-id": text, "corpus-id": text, "score": number})
    (folder / "README.md").write_text(README)
    judgements = [[relevance(meant, other) for other in offered] for meant in asked[200:]]
    return {"documents": documents, "queries": queries[200:], "relevance": judgements}


def embeddings(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """Return the mean of the token embeddings of each text, scaled to length 1."""
    import torch

    mask = inputs["attention_mask"][:, :, None]
    tokens = model(**inputs).last_hidden_state
    return torch.nn.functional.normalize((tokens * mask).sum(1) / mask.sum(1), dim=1)


def loss(model: Any, batch: Mapping[str, Tensor]) -> Tensor:
    """Return the cross-entropy of the document of each query among all documents of the batch.

    Args:
        model: The model.
        batch: Inputs of queries and documents, with the prefixes `query_` and `document_`.
    """
    import torch

    queries, documents = (
        embeddings(model, {key.removeprefix(name): each for key, each in batch.items() if key.startswith(name)})
        for name in ("query_", "document_")
    )
    scores = queries @ documents.T / 0.1
    return torch.nn.functional.cross_entropy(scores, torch.arange(len(scores)))


def write_modules(folder: Path) -> None:
    """Write the files of sentence-transformers: pooling by the mean, normalization, and prompts."""
    kinds = ("Transformer", "Pooling", "Normalize")
    modules = [
        {"idx": index, "name": str(index), "path": f"{index}_{kind}" if index else ""}
        | {"type": f"sentence_transformers.models.{kind}"}
        for index, kind in enumerate(kinds)
    ]
    (folder / "1_Pooling").mkdir(exist_ok=True)
    pooling = {"word_embedding_dimension": 64, "pooling_mode_mean_tokens": True}
    settings = {"prompts": PROMPTS, "default_prompt_name": None, "similarity_fn_name": "cosine"}
    files = {"modules": modules, "1_Pooling/config": pooling, "config_sentence_transformers": settings}
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")


def main() -> None:
    """Write `data/` and `model/`, and print the loss and nDCG on the split `validation`."""
    import torch
    from sklearn.metrics import ndcg_score

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="the folder for data/ and model/")
    parser.add_argument("--epochs", type=int, default=5, help="passes over the pairs (default: %(default)s)")
    arguments = parser.parse_args()
    data = write_retrieval_data(arguments.out / "data")
    tokenizer = write_tokenizer(arguments.out / "model", WORDS, maximum=64)
    model = text_model(
        "Model", len(tokenizer),
        hidden_size=64, intermediate_size=128, initializer_range=0.1, hidden_dropout_prob=0.0,
    )  # fmt: skip

    def inputs(kind: str, texts: list[str]) -> dict[str, torch.Tensor]:
        return dict(tokenizer([PROMPTS[kind] + text for text in texts], padding=True, return_tensors="pt"))

    draw = random.Random(1)
    pairs = [meaning(draw) for _ in range(4000)]
    texts = {"query": [request(draw, meant) for meant in pairs], "document": [offer(draw, meant) for meant in pairs]}
    encoded = {f"{kind}_{name}": each for kind in texts for name, each in inputs(kind, texts[kind]).items()}
    print(f"loss {train(model, encoded, epochs=arguments.epochs, loss=loss):.4f}")
    with torch.inference_mode():
        scores = (
            embeddings(model, inputs("query", data["queries"]))
            @ embeddings(model, inputs("document", data["documents"])).T
        )
    print(f"validation: ndcg_at_10 {ndcg_score(data['relevance'], scores.numpy(), k=10):.4f}")
    model.half().save_pretrained(arguments.out / "model")
    write_modules(arguments.out / "model")


if __name__ == "__main__":
    main()
