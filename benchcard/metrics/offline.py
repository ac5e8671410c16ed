"""What the metrics that benchcard brings have in common: they are `evaluate.Metric`s that need neither the network nor
a cache on disk.
"""

from __future__ import annotations

from typing import Any, ClassVar

import datasets
import evaluate


class Offline(evaluate.Metric):  # type: ignore[misc]  # evaluate has no annotations
    """A metric that works in memory.

    Attributes:
        takes: The features of its inputs; several where inputs may come in several forms, which name the same inputs.
    """

    takes: ClassVar[tuple[dict[str, Any], ...]] = ()

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"keep_in_memory": True, **settings})

    def _info(self) -> evaluate.MetricInfo:
        features = [datasets.Features(each) for each in self.takes]
        return evaluate.MetricInfo(
            description=self.__doc__ or "",
            citation="",
            inputs_description=f"One of each: {', '.join(features[0])}.",
            features=features if len(features) > 1 else features[0],
        )
