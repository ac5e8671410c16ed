"""How a transformers model and its processor are loaded."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from benchcard import registry
from benchcard.errors import ArtifactError
from benchcard.utils.files import list_files, pointer_hint

SEED = 0
_LEARNED_BUFFERS = (".running_mean", ".running_var")  # of batch normalization


def load_model(model: str | Path, task: str, *, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """The transformers model of a task in evaluation mode, with float32 weights.

    Args:
        model: a local folder, or a Hub id.
        task: a task that optimum's `TasksManager` knows, or a synonym of one.
        revision: the revision of a Hub id.
        trust_remote_code: whether code of the model's repository may run.

    Raises:
        ArtifactError: there is no such model or task, the two do not go together, or the checkpoint lacks weights that
            the task's outputs come from, which would be drawn at random.
    """
    return load(model, task, revision, trust_remote_code)[0]


def _loads_as(task: str) -> str:
    """The task by whose name optimum knows the model class: a registered task may say another one than its own."""
    own = registry.task(task) if task in registry.tasks() else None
    return str(getattr(own, "loads_as", task))


def load(model: str | Path, task: str, revision: str | None, trust_remote_code: bool) -> tuple[Any, list[str]]:
    """The model of `load_model`, and the names of its weights that the checkpoint does not have.

    A base model often lacks a pooler that no task reads. Such weights are drawn from a fixed seed, so that every
    process that loads the model has the same ones; a model that lacks any other is refused.
    """
    import torch
    from optimum.exporters.tasks import TasksManager
    from safetensors import SafetensorError
    from transformers import AutoConfig

    if isinstance(model, Path) and not model.is_dir():
        raise ArtifactError(f"{model} is no folder")
    source: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(str(model), **source)
        auto_class = TasksManager.get_model_class_for_task(
            _loads_as(task), framework="pt", model_type=config.model_type
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            loaded, info = auto_class.from_pretrained(
                str(model), dtype=torch.float32, output_loading_info=True, **source
            )
    except KeyError as error:
        raise ArtifactError(f"{model} cannot be loaded for the task {task!r}: {error.args[0]}") from error
    except (SafetensorError, UnpicklingError) as error:
        hint = "" if isinstance(model, str) else _pointer_among_weights(model)
        way_out = "they are incomplete: download them again"
        if isinstance(error, UnpicklingError):
            way_out = "a pickle may hold tensors alone: save the model as safetensors, or download it again"
        reason = str(error).partition("\n")[0].partition(". This file can")[0]
        raise ArtifactError(f"the weights of {model} cannot be read: {hint or f'{reason} ({way_out})'}") from error
    except (OSError, ValueError, RuntimeError, ImportError, AttributeError) as error:
        raise ArtifactError(f"{model} cannot be loaded for the task {task!r}: {error}") from error
    loaded.eval()
    if getattr(loaded.config, "use_cache", False):
        loaded.config.use_cache = False  # the cache of keys and values is no output that a graph should have
    missing = _weights(loaded, info["missing_keys"])
    read = _read(loaded, missing)
    if read:
        raise ArtifactError(
            f"{model} is no model for the task {task!r}: its checkpoint has no weights for {', '.join(read)}, which"
            " would be drawn at random. Name a checkpoint that was trained for the task, with a configuration that fits"
            " it."
        )
    return loaded, sorted(missing)


def _pointer_among_weights(model: Path) -> str:
    weights = (file for name, file in list_files(model).items() if name.endswith((".safetensors", ".bin")))
    return next(filter(None, map(pointer_hint, weights)), "")


def _weights(model: Any, missing: Iterable[str]) -> dict[str, Any]:
    """Those of the names that the checkpoint lacks which stand for something learned: no other name of a weight that
    it has, and nothing that follows from the configuration, as position ids and fixed embeddings do.
    """
    absent = set(missing)
    named = {name: each for name, each in model.named_parameters(remove_duplicate=False) if each.requires_grad}
    named |= {name: each for name, each in model.named_buffers() if name.endswith(_LEARNED_BUFFERS)}
    present = {id(weight) for name, weight in named.items() if name not in absent}
    return {name: named[name] for name in sorted(absent & set(named)) if id(named[name]) not in present}


def _read(model: Any, weights: Mapping[str, Any]) -> list[str]:
    """The names of those weights that the task's outputs come from, by the graph of the gradients; all of them, where
    the model cannot be run on inputs of one's own making.
    """
    import torch

    from benchcard.export import probes

    if not weights:
        return []
    try:
        inputs = probes.model_inputs(model, None)
        shape = probes.check_shapes(model, inputs)[0]
        example = probes.example(inputs, probes.vocabulary(model, None), *shape)
        with torch.enable_grad():
            tensors = {name: torch.from_numpy(array) for name, array in example.items()}
            outputs = dict(model(**tensors, return_dict=True))
    except (ArtifactError, RuntimeError, ValueError, TypeError, AttributeError, LookupError):
        return list(weights)
    if "last_hidden_state" in outputs:
        outputs.pop("pooler_output", None)  # embeddings are pooled from the tokens: no task reads it
    nodes = [value.grad_fn for value in outputs.values() if isinstance(value, torch.Tensor)]
    seen: set[Any] = {None}
    while nodes:
        node = nodes.pop()
        if node not in seen:
            seen.add(node)
            nodes.extend(before for before, _ in node.next_functions)
    leaves = {id(node.variable) for node in seen if hasattr(node, "variable")}
    return [name for name, each in weights.items() if not leaves or id(each) in leaves or not each.requires_grad]


def load_processor(
    loaded: Any, model: str | Path, revision: str | None, trust_remote_code: bool, notes: list[str]
) -> Any | None:
    """Return the model's processor, tokenizer, image processor or feature extractor; None where its folder has none."""
    from transformers import AutoImageProcessor, AutoProcessor

    from benchcard.export.exporters import brief

    # For an architecture that reads texts or images, as Perceiver does, `AutoProcessor` gives a tokenizer either way.
    taken = inspect.signature(loaded.forward).parameters
    auto = AutoImageProcessor if "pixel_values" in taken and "input_ids" not in taken else AutoProcessor
    try:
        return auto.from_pretrained(str(model), revision=revision, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, ImportError, TypeError, AttributeError, KeyError) as error:
        notes.append(f"no processor could be loaded, the inputs follow from the configuration: {brief(error)}")
        return None
