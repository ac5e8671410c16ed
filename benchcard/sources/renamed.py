"""Renamed data sets: those whose old ids on the Hub, without an owner, stand in early cards."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

RENAMED: Mapping[str, str] = MappingProxyType(
    {
        "ag_news": "fancyzhx/ag_news",
        "amazon_polarity": "fancyzhx/amazon_polarity",
        "banking77": "PolyAI/banking77",
        "beans": "AI-Lab-Makerere/beans",
        "cats_vs_dogs": "microsoft/cats_vs_dogs",
        "cifar10": "uoft-cs/cifar10",
        "cifar100": "uoft-cs/cifar100",
        "clinc_oos": "clinc/clinc_oos",
        "conll2003": "eriktks/conll2003",
        "dbpedia_14": "fancyzhx/dbpedia_14",
        "emotion": "dair-ai/emotion",
        "fashion_mnist": "zalando-datasets/fashion_mnist",
        "food101": "ethz/food101",
        "glue": "nyu-mll/glue",
        "go_emotions": "google-research-datasets/go_emotions",
        "imagenet-1k": "ILSVRC/imagenet-1k",
        "imdb": "stanfordnlp/imdb",
        "mnist": "ylecun/mnist",
        "multi_nli": "nyu-mll/multi_nli",
        "rotten_tomatoes": "cornell-movie-review-data/rotten_tomatoes",
        "snli": "stanfordnlp/snli",
        "squad": "rajpurkar/squad",
        "squad_v2": "rajpurkar/squad_v2",
        "sst2": "stanfordnlp/sst2",
        "super_glue": "aps/super_glue",
        "svhn": "ufldl-stanford/svhn",
        "tweet_eval": "cardiffnlp/tweet_eval",
        "wikiann": "unimelb-nlp/wikiann",
        "wnut_17": "leondz/wnut_17",
        "xnli": "facebook/xnli",
        "yelp_polarity": "fancyzhx/yelp_polarity",
        "yelp_review_full": "Yelp/yelp_review_full",
    }
)
"""Current ids by old ids. Any other id is looked up on the Hub, which answers with the current one."""
