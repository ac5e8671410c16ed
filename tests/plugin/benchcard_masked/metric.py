"""The metric `letters_off`: by how many letters the predicted words are too long or too short."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate


class LettersOff(evaluate.Metric):
    """The mean difference in length between prediction and reference."""

    higher_is_better = False
    unit = "letters"

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"keep_in_memory": True, **settings})

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        features = datasets.Features({"predictions": text, "references": text})
        return evaluate.MetricInfo(description=self.__doc__, citation="", inputs_description="", features=features)

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        off = [abs(len(found) - len(right)) for found, right in zip(predictions, references)]
        return {"letters_off": sum(off) / len(off)}
