"""What the files and the model card of a model say about how it was evaluated.

Leaves the choice between what they say to `draft`. No code of the model runs, and its weights are not downloaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchcard.card.frontmatter.yaml import load_front_matter, split_card
from benchcard.errors import ArtifactError, CardError, Mistake, SpecError
from benchcard.sources.resolve import described_model
from benchcard.tasks import pooling, text
from benchcard.tasks.config import load_config
from benchcard.utils.text import first_line

if TYPE_CHECKING:
    from huggingface_hub import EvalResult
    from transformers import PretrainedConfig


@dataclass(frozen=True)
class Model:
    """A model without its weights.

    Attributes:
        task: The task that its class in `config.json`, the `architecture`, is made for, as optimum names it; empty
            where that is not known.
        tag: The `pipeline_tag` of its model card; empty without one.
        results: The results in the `model-index` of its model card.
        datasets: The `datasets` of its model card.
        metrics: The `metrics` of its model card.
        needs_code: Whether it can only be loaded with code of its repository.
        notes: What in the model card cannot be read.
    """

    name: str
    folder: Path
    config: PretrainedConfig
    architecture: str
    task: str
    tag: str
    results: tuple[EvalResult, ...]
    datasets: tuple[str, ...]
    metrics: tuple[str, ...]
    needs_code: bool
    notes: tuple[str, ...]

    @property
    def embeds(self) -> bool:
        """Whether its folder has the files of sentence-transformers for embeddings."""
        return (self.folder / "modules.json").exists()

    @property
    def maximum(self) -> int | None:
        """The most tokens that it reads; None where there is no limit, or its tokenizer cannot be loaded."""
        try:
            limits = [text.load_texts(self.folder).maximum, pooling.load_pooling(self.folder).maximum]
        except (ArtifactError, OSError, ValueError, LookupError, TypeError, ImportError, AttributeError):
            return None
        return min((limit for limit in limits if limit is not None), default=None)


def read_model(name: str) -> Model:
    """Return the model in a folder or on the Hub.

    Raises:
        SpecError: There is no such model, or it is not one of transformers.
        HubError: The Hub refused, or could not be reached.
    """
    folder = described_model(name)
    config, needs_code = _config(name, folder)
    fields, notes = _front_matter(folder)
    results = _results(fields.get("model-index"), notes)
    architecture = next(iter(_texts(config.architectures)), "")
    (tag,) = _texts(fields.get("pipeline_tag"))[:1] or ("",)
    return Model(
        name,
        folder,
        config,
        architecture,
        _task_of(architecture),
        tag,
        results,
        _texts(fields.get("datasets")),
        _texts(fields.get("metrics")),
        needs_code,
        tuple(notes),
    )


def _config(name: str, folder: Path) -> tuple[PretrainedConfig, bool]:
    """Return the configuration of a model, and whether the model can only be loaded with code of its repository."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import PretrainedConfig

    expected = "a transformers model, with its `config.json`"
    if not (folder / "config.json").exists():
        is_adapter = (folder / "adapter_config.json").exists()
        hint = "it is an adapter: merge it into its base model, and save that" if is_adapter else ""
        raise SpecError(Mistake("$.model", f"`{name}`, which has none", expected, hint))
    unusable = (ValueError, LookupError, TypeError, AttributeError, OSError, StrictDataclassError)
    try:
        return load_config(folder), False
    except unusable as error:
        # `AutoConfig` does not know its `model_type`, or needs code that it may not run.
        with suppress(*unusable):
            config = PretrainedConfig.from_dict(pooling.read_json(folder / "config.json", dict[str, object]) or {})
            if getattr(config, "auto_map", None):
                return config, True
        found = f"`{name}`, whose `config.json` cannot be used: {first_line(error)}"
        raise SpecError(Mistake("$.model", found, expected)) from error


def _front_matter(folder: Path) -> tuple[dict[str, object], list[str]]:
    """Return the front matter of the README in a folder, and what is wrong with it."""
    try:
        card = split_card((folder / "README.md").read_text(encoding="utf-8", errors="replace"))
        fields: dict[str, object] = dict(load_front_matter(card.yaml))
    except FileNotFoundError:
        return {}, ["the model has no model card (README.md)"]
    except (OSError, CardError) as error:
        return {}, [f"nothing was taken from the model card: {error}"]
    return fields, [] if fields else ["the model card has no metadata"]


def _results(index: object, notes: list[str]) -> tuple[EvalResult, ...]:
    """Return the results of a `model-index`, without those that lack something; a note says so."""
    from huggingface_hub.repocard_data import model_index_to_eval_results

    results: list[EvalResult] = []
    if index is None:
        return ()
    try:
        entries = [entry for model in index if isinstance(model, dict) for entry in model.get("results") or ()]  # type: ignore[attr-defined]
    except TypeError:
        entries = [None]
    is_complete = bool(entries)
    for entry in entries:
        try:
            read = model_index_to_eval_results([{"name": "", "results": [entry]}])[1]
        except (LookupError, TypeError, ValueError, AttributeError):
            is_complete = False
        else:
            results += [result for result in read if {type(result.task_type), type(result.dataset_type)} == {str}]
    if not is_complete:
        notes.append("some results in the `model-index` of the model card lack a field or have another form")
    return tuple(results)


def _texts(value: object) -> tuple[str, ...]:
    """Return the texts in a field that holds a text or a list of texts."""
    items = [value] if isinstance(value, str) else value if isinstance(value, Sequence) else ()
    return tuple(dict.fromkeys(item.strip() for item in items if isinstance(item, str) and item.strip()))


def _task_of(architecture: str) -> str:
    """Return the task of a class of transformers, as optimum names it; empty where it has none."""
    import transformers
    from optimum.exporters.tasks import TasksManager

    try:
        model_class = getattr(transformers, architecture, None) if architecture else None
        return str(TasksManager.infer_task_from_model(model_class)) if isinstance(model_class, type) else ""
    except (ValueError, LookupError, AttributeError, TypeError, ImportError, RuntimeError):
        return ""
