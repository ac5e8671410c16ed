"""The base class of benchcard's own metrics, which need neither the network nor a cache on disk."""

from __future__ import annotations

from typing import ClassVar

import datasets
import evaluate


class Offline(evaluate.Metric):  # type: ignore[misc]  # evaluate has no annotations
    """A metric that works in memory.

    Attributes:
        takes: The features of its inputs; several for inputs of several forms, all with the same names.
    """

    takes: ClassVar[tuple[dict[str, object], ...]] = ()

    def __init__(self, **settings: object) -> None:
        super().__init__(**{"keep_in_memory": True, **settings})

    def _info(self) -> evaluate.MetricInfo:
        features = [datasets.Features(form) for form in self.takes]
        return evaluate.MetricInfo(
            description=self.__doc__ or "",
            citation="",
            inputs_description=f"One of each: {', '.join(features[0])}.",
            features=features if len(features) > 1 else features[0],
        )
