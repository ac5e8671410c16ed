"""Loading a transformers model and its processor, for `export` and for the framework `pytorch`.

This module loads torch, so import it inside a function.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from optimum.exporters.tasks import TasksManager
from safetensors import SafetensorError
from transformers import AutoConfig, AutoImageProcessor, AutoProcessor, PreTrainedModel, ProcessorMixin

from benchcard import registry
from benchcard.errors import ArtifactError
from benchcard.export import probes
from benchcard.utils.files import list_files, pointer_hint
from benchcard.utils.text import first_line

SEED = 0
_LEARNED_BUFFERS = (".running_mean", ".running_var")  # of batch normalization


def load_model(
    model: Path, task: str, *, trust_remote_code: bool = False, dtype: torch.dtype = torch.float32
) -> PreTrainedModel:
    """Return the transformers model in a folder in evaluation mode, with weights of `dtype`.

    The task is one that optimum's `TasksManager` knows, a synonym of one, or a registered one.

    Raises:
        ArtifactError: There is no such model or task, the model is not for the task, or the checkpoint lacks weights
            that the task's outputs depend on.
    """
    return load_with_missing(model, task, trust_remote_code, dtype)[0]


def load_with_missing(
    model: Path, task: str, trust_remote_code: bool, dtype: torch.dtype = torch.float32
) -> tuple[PreTrainedModel, list[str]]:
    """Return the model of `load_model`, and the names of the weights that the checkpoint lacks.

    A base model often lacks a pooler that no task reads. Such weights are drawn from a fixed seed, so that they are the
    same in every process. A model that lacks other weights is refused.
    """
    if not model.is_dir():
        raise ArtifactError(f"the model folder {model} does not exist, or is a file")
    # A registered task may load the model class of another task.
    registered = registry.task(task) if task in registry.tasks() else None
    class_task = str(getattr(registered, "loads_as", task))
    try:
        config = AutoConfig.from_pretrained(str(model), trust_remote_code=trust_remote_code)
        auto_class = TasksManager.get_model_class_for_task(class_task, framework="pt", model_type=config.model_type)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            loaded, info = auto_class.from_pretrained(
                str(model), dtype=dtype, output_loading_info=True, trust_remote_code=trust_remote_code
            )
    except KeyError as error:
        raise ArtifactError(f"{model} cannot be loaded for the task {task!r}: {error.args[0]}") from error
    except (SafetensorError, UnpicklingError) as error:
        advice = "the file is incomplete: download it again"
        if isinstance(error, UnpicklingError):
            advice = "a pickle may hold tensors only: save the model as safetensors, or download it again"
        reason = str(error).partition("\n")[0].partition(". This file can")[0]
        cause = _pointer_among_weights(model) or f"{reason} ({advice})"
        raise ArtifactError(f"the weights of {model} cannot be read: {cause}") from error
    except (OSError, ValueError, RuntimeError, ImportError, AttributeError) as error:
        raise ArtifactError(f"{model} cannot be loaded for the task {task!r}: {error}") from error
    loaded.eval()
    if getattr(loaded.config, "use_cache", False):
        loaded.config.use_cache = False  # The cache of keys and values must not become an output of the graph.
    missing = _missing_weights(loaded, info["missing_keys"])
    if needed := _needed(loaded, missing):
        raise ArtifactError(
            f"{model} is not a model for the task {task!r}: its checkpoint has no weights for {', '.join(needed)}, "
            "which would be random. Use a checkpoint that was trained for the task, with the configuration of that "
            "training."
        )
    return loaded, sorted(missing)


def _pointer_among_weights(model: Path) -> str:
    weights = (file for name, file in list_files(model).items() if name.endswith((".safetensors", ".bin")))
    return next(filter(None, map(pointer_hint, weights)), "")


def _missing_weights(model: PreTrainedModel, missing: Iterable[str]) -> dict[str, torch.Tensor]:
    """Return the learned weights among missing names, without other names of a weight that the checkpoint has.

    What follows from the configuration, as position ids and fixed embeddings do, is not learned.
    """
    absent = set(missing)
    learned: dict[str, torch.Tensor] = {
        name: weight for name, weight in model.named_parameters(remove_duplicate=False) if weight.requires_grad
    }
    learned |= {name: buffer for name, buffer in model.named_buffers() if name.endswith(_LEARNED_BUFFERS)}
    present = {id(weight) for name, weight in learned.items() if name not in absent}
    return {name: learned[name] for name in sorted(absent & set(learned)) if id(learned[name]) not in present}


def _needed(model: PreTrainedModel, weights: Mapping[str, torch.Tensor]) -> list[str]:
    """Return the names of the weights that the task's outputs depend on, by the graph of the gradients.

    If the model cannot run on generated inputs, all of them count.
    """
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
        outputs.pop("pooler_output", None)  # No task reads it: embeddings are pooled from the tokens.
    nodes = [value.grad_fn for value in outputs.values() if isinstance(value, torch.Tensor)]
    visited: set[object] = {None}
    while nodes:
        node = nodes.pop()
        if node not in visited:
            visited.add(node)
            nodes.extend(before for before, _ in node.next_functions)
    leaves = {id(node.variable) for node in visited if node is not None and hasattr(node, "variable")}
    return [name for name, weight in weights.items() if not leaves or id(weight) in leaves or not weight.requires_grad]


def load_processor(
    loaded: PreTrainedModel, model: Path, trust_remote_code: bool, notes: list[str]
) -> ProcessorMixin | None:
    """Return the model's processor, tokenizer, image processor or feature extractor; None, with a note, without one."""
    # For an architecture that reads texts or images, as Perceiver does, `AutoProcessor` always returns a tokenizer.
    accepted = inspect.signature(loaded.forward).parameters
    auto = AutoImageProcessor if "pixel_values" in accepted and "input_ids" not in accepted else AutoProcessor
    try:
        return auto.from_pretrained(str(model), trust_remote_code=trust_remote_code)
    except (OSError, ValueError, ImportError, TypeError, AttributeError, KeyError) as error:
        notes.append(f"no processor could be loaded, so the inputs follow from the configuration: {first_line(error)}")
        return None
