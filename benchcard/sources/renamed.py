"""Renamed data sets: those whose old ids on the Hub, without an owner, stand in early cards."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_CURRENT_IDS = """
    fancyzhx/ag_news fancyzhx/amazon_polarity PolyAI/banking77 AI-Lab-Makerere/beans microsoft/cats_vs_dogs
    uoft-cs/cifar10 uoft-cs/cifar100 clinc/clinc_oos eriktks/conll2003 fancyzhx/dbpedia_14 dair-ai/emotion
    zalando-datasets/fashion_mnist ethz/food101 nyu-mll/glue google-research-datasets/go_emotions ILSVRC/imagenet-1k
    stanfordnlp/imdb ylecun/mnist nyu-mll/multi_nli cornell-movie-review-data/rotten_tomatoes stanfordnlp/snli
    rajpurkar/squad rajpurkar/squad_v2 stanfordnlp/sst2 aps/super_glue ufldl-stanford/svhn cardiffnlp/tweet_eval
    unimelb-nlp/wikiann leondz/wnut_17 facebook/xnli fancyzhx/yelp_polarity Yelp/yelp_review_full
"""
RENAMED: Mapping[str, str] = MappingProxyType({name.partition("/")[2]: name for name in _CURRENT_IDS.split()})
"""Current ids by old ids. Any other id is looked up on the Hub, which answers with the current one."""
