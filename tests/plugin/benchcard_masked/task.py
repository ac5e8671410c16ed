"""The task `masked-word`: a text with a hole in; the token that fits best out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchcard.errors import Mistake, SpecError
from benchcard.spec.schema import Boolean, ValueType
from benchcard.tasks import ComparedOutput, Prepared, Question, Row, data, text
from benchcard.tasks.outputs import output


class MaskedWord:
    """Texts with one mask token each; what is right is the token that was there."""

    metrics = ("exact_match",)
    has_length = True
    arguments: Mapping[str, ValueType] = MappingProxyType({"upper_case": Boolean()})
    # optimum knows the model class by this name.
    loads_as = "fill-mask"

    def prepare(self, rows: Any, question: Question) -> Prepared:
        """Rows as token ids; a reference is a token."""
        texts = text.load_texts(question.model)
        column = data.primary(rows, question, "text")
        reference = data.reference(rows, question, "token") if question.labelled else None
        vocabulary = texts.tokenizer.convert_ids_to_tokens(range(len(texts.tokenizer)))
        context = {"vocabulary": vocabulary, "upper_case": question.arguments.get("upper_case", False)}
        code = texts.code(f"[row[{column!r}]]")
        return Prepared(self._rows(rows, question, texts, column, reference), context, texts.pad(), code=code)

    def _rows(self, rows: Any, question: Question, texts: Any, column: str, reference: str | None) -> Iterator[Row]:
        for index, row in enumerate(data.iter_rows(rows, [name for name in (column, reference) if name])):
            told = text.expect_text(row[column], column, question.number(index))
            (item,), _ = texts.encode([told])
            holes = (item["input_ids"] == texts.tokenizer.mask_token_id).nonzero()[0].tolist()
            if len(holes) != 1:
                found = f"{len(holes)} holes in row {question.number(index)} of `{column}`"
                raise SpecError(Mistake("$.dataset.data_keys.primary", found, f"one {texts.tokenizer.mask_token}"))
            right = row[reference] if reference else None
            upper = question.arguments.get("upper_case", False)
            yield Row([item], right.upper() if right and upper else right, memo=holes[0])

    def kept(
        self, outputs: Mapping[str, Any], inputs: Mapping[str, Any], context: Mapping[str, Any]
    ) -> Mapping[str, Sequence[Any]]:
        """`best` `(tokens,) int64`: the likeliest token at each place."""
        return {"best": [logits.argmax(-1) for logits in text.without_padding(output(outputs, "logits"), inputs)]}

    def prediction(self, items: Sequence[Mapping[str, Any]], memo: Any, context: Mapping[str, Any]) -> str:
        """The likeliest token in the hole."""
        token = context["vocabulary"][int(items[0]["best"][memo])]
        return token.upper() if context["upper_case"] else token

    def compared_output(self, context: Mapping[str, Any]) -> ComparedOutput:
        """Models are compared by the tokens that they predict."""
        return ComparedOutput("prediction")

    def inputs(self, model: Path, batch_size: int, input_length: int | None, seed: int) -> tuple[dict[str, Any], int]:
        """Token ids `(batch, tokens) int64`."""
        return text.load_texts(model).timed(batch_size, input_length, seed)
