"""The inputs and outputs of a graph that was not exported here, changed to the names and the layout that tasks use.

Owns which input and output of the graph is which of the task, and the changes to the graph. What comes later finds the
names that an exported graph has, so calibration, evaluation, timing and publishing need to know nothing of it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx

from benchcard.errors import ArtifactError, Mistake, SpecError, UnfitGraphError
from benchcard.graphs import cache
from benchcard.graphs.cache import PAST, has_cache
from benchcard.graphs.files import load_model
from benchcard.graphs.graph import opset_of, rename_values
from benchcard.graphs.runtime import open_session, runtime_errors
from benchcard.graphs.signature import LAYOUTS, GraphInput, graph_inputs, only_length
from benchcard.utils.text import did_you_mean, join_names

Arrays: TypeAlias = Mapping[str, np.ndarray]

# From (batch, channels, height, width) to (batch, height, width, channels), and the place of each axis in it.
_TO_NHWC = (0, 2, 3, 1)
_SYNONYMS: Mapping[str, str] = {"token_embeddings": "last_hidden_state"}
_MOST_LISTED = 8
# Inputs that follow from the token ids, and the first opset that has the operators which compute them.
_FILL_OPSETS = {"position_ids": 11, "token_type_ids": 9}
_PROCESSOR = "change the configuration of the processor or the `layout`, or use another graph"
_TOKENIZER = "change the tokenizer (`model_input_names` in tokenizer_config.json), or use another graph"
_OTHER_GRAPH = "Use a graph that takes these types and sizes, or correct `inputs` in `framework_args`"
_BAD_FILE = "Make the file again, or use a version of ONNX Runtime that has its operators"
_OTHER_LAYOUT = "If it takes images as (batch, height, width, channels), write `framework_args: {layout: NHWC}`"
_ADVICE = "say which is which in `framework_args: {inputs: {name of the task: name in the graph}, outputs: {…}}`"


@dataclass(frozen=True)
class Names:
    """What a spec says about a graph: its names by those of the task, and the layout of its images, if known."""

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    layout: str | None


@dataclass(frozen=True)
class Contract:
    """What a task gives to a model and reads from it.

    Attributes:
        example: The inputs of a call by name, the first of which every model reads.
        outputs: The outputs that it reads, with their numbers of axes: alternatives, the preferred one first.
        labels: The number of the model's labels, which is the size of the last axis of `logits`; None if unknown.
        recorded: The task's names of inputs and outputs that the graph's exporter wrote down, by those in the graph.
        padding_id: Returns the padding id from whose successor the model counts the tokens that are no padding; None
            if it counts all tokens from 0. Raises `ArtifactError` where this cannot be known.
    """

    example: Arrays
    outputs: Sequence[Mapping[str, int]] = ()
    labels: int | None = None
    recorded: Mapping[str, str] = field(default_factory=dict)
    padding_id: Callable[[], int | None] = lambda: None


@dataclass(frozen=True)
class Adapted:
    """What became of a graph: the only number of tokens that it takes, if it has one, and notes on its names."""

    input_length: int | None
    notes: tuple[str, ...]


def adapt(path: Path, names: Names, contract: Contract) -> Adapted:
    """Give the inputs and outputs of a graph the task's names and layout, in its file, and run it once.

    Nothing is changed in a graph that has them already.

    Raises:
        SpecError: The spec names an input or output that the task or the graph does not have.
        UnfitGraphError: The model's processor makes inputs that the graph does not take, the graph gives no outputs
            that the task reads, or it does not follow from names, types and shapes which is which.
        ArtifactError: The graph cannot be loaded or run.
    """
    model = load_model(path)
    inputs = graph_inputs(model.graph)
    _expect_cache(inputs, names, contract.example)
    chosen = _match_inputs(inputs, names, contract)
    transposed = [own.name for own in inputs if _is_transposed(own, chosen[own.name], names, contract.example)]
    notes = [
        f"the input `{own}` is `{name}`" + (", in the layout NHWC" if own in transposed else "")
        for own, name in chosen.items()
        if own != name or own in transposed
    ]
    # With a cache, positions depend on it, and are given with each call.
    computed = [] if has_cache(chosen.values()) else [name for name in chosen.values() if name not in contract.example]
    filled = _fills(model, computed, contract)
    _change_inputs(model, inputs, chosen, transposed, filled)
    if notes or filled:
        onnx.save(model, str(path))
    outputs = _run(path, inputs, chosen, contract.example, names.layout)
    renamed = _match_outputs(outputs, names, contract, f"the graph {path.name}")
    if renamed:
        rename_values(model, renamed)
        onnx.save(model, str(path))
    notes += [f"the input `{name}` is computed ({fill.description})" for name, fill in filled.items()]
    notes += [f"the output `{own}` is `{name}`" for own, name in renamed.items()]
    sentence = f"the names of the graph {path.name} in the model's folder were changed: {'; '.join(notes)}"
    return Adapted(only_length(inputs), (sentence,) if notes else ())


def _expect_cache(inputs: Sequence[GraphInput], names: Names, example: Arrays) -> None:
    """Raise where a graph has a cache of keys and values, and the spec has none, or the other way round."""
    own = {*names.inputs, *(own.name for own in inputs)}
    if has_cache(own) and not has_cache(example):
        advice = "write `task_args: {use_cache: true}`, or use a graph without a cache"
        raise UnfitGraphError(f"the graph reads a cache of keys and values (`{PAST}0.key` and others): {advice}")
    missing = [name for name in example if name.startswith(PAST) and name not in own]
    if missing:
        advice = (
            "leave out `use_cache`, name a graph with a cache in `framework_args: {file_name: …}`, or export the model "
            "with `from_transformers: true`"
        )
        raise UnfitGraphError(f"the graph has no input `{missing[0]}`, with which `use_cache` calls it: {advice}")


def _fits(own: GraphInput, array: np.ndarray) -> bool:
    """Return whether an input takes such an array; token ids are padded to its length, and any batch filled."""
    is_of_tokens = array.dtype.kind in "iub"
    if own.dtype is not None and (own.dtype.kind in "iub") != is_of_tokens:
        return False
    if own.shape is None:
        return True
    sizes = () if is_of_tokens else zip(own.shape[1:], array.shape[1:])
    return len(own.shape) == array.ndim and all(taken in (None, size) for taken, size in sizes)


def _filled(own: GraphInput, array: np.ndarray) -> np.ndarray:
    """Return an array that fits, repeated up to the batch size and the number of tokens of an input, in its type."""
    sizes = own.shape or ()
    for axis, size in enumerate(sizes[:1] if array.dtype.kind == "f" else sizes):
        if size is not None:
            array = np.take(array, np.arange(size) % array.shape[axis], axis=axis)
    return own.cast(array)


def _match_inputs(inputs: Sequence[GraphInput], names: Names, contract: Contract) -> dict[str, str]:
    """Return the task's name of each input of the graph."""
    example = contract.example
    main, own_names = next(iter(example)), [own.name for own in inputs]
    known = (*example, *(_FILL_OPSETS if example[main].dtype.kind in "iu" else ()))
    _expect_known(names.inputs, known, own_names, "inputs")
    chosen = {own: name for name, own in names.inputs.items()}
    for own in own_names:
        plain = contract.recorded.get(own, _plain(own))
        if own not in chosen and plain in known and plain not in chosen.values():
            chosen[own] = plain
    open_inputs = [own for own in inputs if own.name not in chosen]
    free = [name for name in example if name not in chosen.values()]
    layouts = [names.layout] if names.layout else LAYOUTS

    def fits(own: GraphInput, name: str) -> bool:
        return name not in example or any(_fits(own, _in_layout(example[name], layout)) for layout in layouts)

    possible = [
        dict(zip((own.name for own in open_inputs), order))
        for order in itertools.permutations(free, len(open_inputs))
        if (main in order or main not in free) and all(map(fits, open_inputs, order))
    ]
    chosen |= possible[0] if possible else {}
    wrong = [own for own in inputs if own.name in chosen and not fits(own, chosen[own.name])]
    if len(possible) != 1 or wrong:
        taken = [_describe(own.name, own.dtype, own.shape) for own in wrong or inputs]
        made = [chosen[own.name] for own in wrong] or example
        arrays = [_in_layout(example[name], names.layout) for name in made]
        given = ", ".join(_describe(name, array.dtype, array.shape) for name, array in zip(made, arrays))
        layout = f" (in the layout {names.layout})" if names.layout else ""
        maker, advice = ("processor", _PROCESSOR) if example[main].dtype.kind == "f" else ("tokenizer", _TOKENIZER)
        advice = _ADVICE if len(possible) > 1 else advice
        raise UnfitGraphError(
            f"the graph takes {_listed(taken) or 'nothing'}, and the model's {maker} makes {given}{layout}: {advice}"
        )
    return {own: chosen[own] for own in own_names}


def _match_outputs(outputs: Arrays, names: Names, contract: Contract, graph: str) -> dict[str, str]:
    """Return the task's name of each output that has another one."""
    wanted = {name: axes for alternative in contract.outputs for name, axes in alternative.items()}
    _expect_known(names.outputs, tuple(wanted) or tuple(names.outputs), tuple(outputs), "outputs")
    chosen = {own: name for name, own in names.outputs.items()}
    for own in outputs:
        plain = contract.recorded.get(own, _SYNONYMS.get(_plain(own), _plain(own)))
        if own not in chosen and plain in wanted and plain not in chosen.values():
            chosen[own] = plain

    def fits(own: str, name: str) -> bool:
        array = outputs[own]
        is_labelled = name != "logits" or contract.labels in (None, array.shape[-1])
        return array.dtype.kind == "f" and array.ndim == wanted[name] and is_labelled

    if contract.outputs and not any(set(alternative) <= set(chosen.values()) for alternative in contract.outputs):
        free = [own for own in outputs if own not in chosen]
        possible = [
            dict(zip(order, missing))
            for alternative in contract.outputs
            for missing in [[name for name in alternative if name not in chosen.values()]]
            for order in itertools.permutations(free, len(missing))
            if all(map(fits, order, missing))
        ]
        if len(possible) != 1:
            listing = _listed([_describe(own, array.dtype, array.shape) for own, array in outputs.items()])
            needed = " or ".join(join_names(alternative) for alternative in contract.outputs)
            advice = _ADVICE if possible else "; ".join(_needed(name, contract, wanted[name]) for name in wanted)
            raise UnfitGraphError(f"{graph} gives {listing}, and the task reads {needed}: {advice}")
        chosen |= possible[0]
    for own, name in chosen.items():
        if name in wanted and not fits(own, name):
            description = _describe(own, outputs[own].dtype, outputs[own].shape)
            raise UnfitGraphError(f"{graph} gives {description}; {_needed(name, contract, wanted[name])}")
    return {own: name for own, name in chosen.items() if own != name}


def _needed(name: str, contract: Contract, axes: int) -> str:
    """Return what an output must be for a task."""
    needed = f"`{name}` must have {axes} axes of floating-point numbers"
    if name == "logits" and contract.labels is not None:
        needed += f", the last one of {contract.labels}: the labels (`id2label`) in the model's config.json"
    return needed


def _expect_known(given: Mapping[str, str], wanted: Sequence[str], own: Sequence[str], kind: str) -> None:
    """Raise where a spec names an input or output that the task or the graph does not have, or one of them twice."""
    mistakes = []
    for name, value in given.items():
        place = f"$.framework_args.{kind}.{name}"
        if name not in wanted:
            mistakes.append(Mistake(place, f"`{name}`", join_names(wanted), did_you_mean(name, wanted)))
        elif value not in own:
            hint = did_you_mean(value, own) or f"these are the {kind} of the graph"
            mistakes.append(Mistake(place, f"`{value}`", join_names(own), hint))
        elif list(given.values()).count(value) > 1:
            mistakes.append(Mistake(place, f"`{value}`", "each name once"))
    if mistakes:
        raise SpecError(mistakes)


def _plain(name: str) -> str:
    """Return the name of an input or output without the number that TensorFlow puts behind it, as in `input_ids:0`."""
    return re.sub(r":\d+$", "", name)


def _describe(name: str, dtype: object, shape: Iterable[int | None] | None) -> str:
    sizes = "" if shape is None else f" [{', '.join('?' if size is None else str(size) for size in shape)}]"
    return f"`{name}` {dtype or 'of any type'}{sizes}"


def _listed(descriptions: Sequence[str]) -> str:
    """Return descriptions of inputs or outputs, the first few of which are enough."""
    more = len(descriptions) - _MOST_LISTED
    return ", ".join(descriptions[:_MOST_LISTED]) + (f" and {more} more" if more > 0 else "")


def _in_layout(array: np.ndarray, layout: str | None) -> np.ndarray:
    is_image = array.ndim == 4 and array.dtype.kind == "f"
    return array.transpose(_TO_NHWC) if is_image and layout == "NHWC" else array


def _is_transposed(own: GraphInput, name: str, names: Names, example: Arrays) -> bool:
    """Return whether an input takes images as NHWC: as the spec says, else where its shape takes nothing else."""
    if name not in example or example[name].ndim != 4:
        return False
    return names.layout == "NHWC" or (names.layout is None and not _fits(own, example[name]))


def _change_inputs(
    model: onnx.ModelProto,
    inputs: Sequence[GraphInput],
    chosen: Mapping[str, str],
    transposed: Sequence[str],
    filled: Mapping[str, _Fill],
) -> None:
    """Rename inputs, compute those that the task does not give, and transpose images inside the graph."""
    rename_values(model, {own: name for own, name in chosen.items() if own != name})
    for own in inputs:
        name = chosen[own.name]
        value = next(value for value in model.graph.input if value.name == name)
        if name in filled:
            model.graph.input.remove(value)
            nodes = filled[name].nodes(name, value.type.tensor_type.elem_type)
        elif own.name in transposed:
            inner = f"{name}/nhwc"
            rename_values(model, {name: inner})
            value.name = name
            if value.type.tensor_type.HasField("shape"):
                sizes = list(value.type.tensor_type.shape.dim)
                del value.type.tensor_type.shape.dim[:]
                value.type.tensor_type.shape.dim.extend(sizes[axis] for axis in (0, 3, 1, 2))
            nodes = [onnx.helper.make_node("Transpose", [name], [inner], f"{name}/Transpose", perm=_TO_NHWC)]
        else:
            continue
        for node in reversed(nodes):
            model.graph.node.insert(0, node)


@dataclass(frozen=True)
class _Fill:
    """How an input is computed: nodes that give it, from its name and element type, and a description."""

    nodes: Callable[[str, int], list[onnx.NodeProto]]
    description: str


def _fills(model: onnx.ModelProto, names: Sequence[str], contract: Contract) -> dict[str, _Fill]:
    """Return how inputs that follow from the token ids are computed where the tokenizer does not make them, as
    transformers fills them.
    """
    opset, ids = opset_of(model), next(iter(contract.example))
    fills: dict[str, _Fill] = {}
    for name in names:
        if opset is not None and opset < _FILL_OPSETS[name]:
            advice = "convert the graph with `onnx.version_converter`, or use one without this input"
            lack = f"in a graph of opset {opset}; expected {_FILL_OPSETS[name]} or above"
            raise ArtifactError(f"the input `{name}` cannot be computed {lack}: {advice}")
        if name == "token_type_ids":
            fills[name] = _Fill(partial(_zeros, ids), "zeros")
        elif (padding_id := _padding_id(contract)) is None:
            fills[name] = _Fill(partial(_positions, ids), "0, 1, 2, …")
        else:
            description = f"from {padding_id + 1} on, without padding"
            fills[name] = _Fill(partial(_positions_after, ids, padding_id), description)
    return fills


def _padding_id(contract: Contract) -> int | None:
    try:
        return contract.padding_id()
    except ArtifactError as error:
        advice = (
            "correct `model_type` in config.json, allow its code with `trust_remote_code`, or use a graph without this "
            "input"
        )
        raise ArtifactError(f"the first of the `position_ids` is not known: {error}. To mend it, {advice}") from error


def _integer(name: str, value: int) -> onnx.NodeProto:
    """Return a node that gives a number; its attribute is one that old opsets have, too."""
    tensor = onnx.helper.make_tensor("value", onnx.TensorProto.INT64, [], [value])
    return onnx.helper.make_node("Constant", [], [name], f"{name}/Constant", value=tensor)


def _positions(ids: str, name: str, element_type: int) -> list[onnx.NodeProto]:
    """Return nodes that number the tokens of each text from 0, `(batch, tokens)`."""
    make = onnx.helper.make_node
    return [
        *(_integer(f"{name}/{value}", value) for value in (0, 1)),
        make("Shape", [ids], [f"{name}/shape"], f"{name}/Shape"),
        make("Gather", [f"{name}/shape", f"{name}/1"], [f"{name}/length"], f"{name}/Gather"),
        make("Range", [f"{name}/0", f"{name}/length", f"{name}/1"], [f"{name}/range"], f"{name}/Range"),
        make("Expand", [f"{name}/range", f"{name}/shape"], [f"{name}/int64"], f"{name}/Expand"),
        make("Cast", [f"{name}/int64"], [name], f"{name}/Cast", to=element_type),
    ]


def _positions_after(ids: str, padding_id: int, name: str, element_type: int) -> list[onnx.NodeProto]:
    """Return nodes that number the tokens of each text from the one after the padding id; padding has that id itself.

    Source: `create_position_ids_from_input_ids` in transformers/models/roberta/modeling_roberta.py.
    """
    make, int64 = onnx.helper.make_node, onnx.TensorProto.INT64
    return [
        _integer(f"{name}/1", 1),
        _integer(f"{name}/padding_id", padding_id),
        make("Cast", [ids], [f"{name}/ids"], f"{name}/Cast_ids", to=int64),
        make("Equal", [f"{name}/ids", f"{name}/padding_id"], [f"{name}/padding"], f"{name}/Equal"),
        make("Not", [f"{name}/padding"], [f"{name}/real"], f"{name}/Not"),
        make("Cast", [f"{name}/real"], [f"{name}/mask"], f"{name}/Cast_mask", to=int64),
        make("CumSum", [f"{name}/mask", f"{name}/1"], [f"{name}/number"], f"{name}/CumSum"),
        make("Mul", [f"{name}/number", f"{name}/mask"], [f"{name}/masked"], f"{name}/Mul"),
        make("Add", [f"{name}/masked", f"{name}/padding_id"], [f"{name}/int64"], f"{name}/Add"),
        make("Cast", [f"{name}/int64"], [name], f"{name}/Cast", to=element_type),
    ]


def _zeros(ids: str, name: str, element_type: int) -> list[onnx.NodeProto]:
    """Return nodes that give a zero for each token, `(batch, tokens)`."""
    zero = onnx.helper.make_tensor("value", element_type, [1], [0])
    return [
        onnx.helper.make_node("Shape", [ids], [f"{name}/shape"], f"{name}/Shape"),
        onnx.helper.make_node("ConstantOfShape", [f"{name}/shape"], [name], f"{name}/ConstantOfShape", value=zero),
    ]


def _run(
    path: Path, inputs: Sequence[GraphInput], chosen: Mapping[str, str], example: Arrays, layout: str | None
) -> dict[str, np.ndarray]:
    """Return the outputs of the changed graph for the example, by the graph's own names."""
    given = [(own, chosen[own.name]) for own in inputs if chosen[own.name] in example]
    feed = {name: _filled(own, example[name]) for own, name in given}
    if has_cache(feed):
        feed = cache.feed([replace(own, name=chosen[own.name]) for own in inputs], feed)
    try:
        session = open_session(path, 0)
    except runtime_errors() as error:
        # The file is a copy of the model's, whose folder says nothing.
        reason = str(error).replace(str(path), path.name)
        raise ArtifactError(f"ONNX Runtime cannot load {path.name}: {reason}. {_BAD_FILE}") from error
    try:
        values = session.run(None, feed)
    except runtime_errors() as error:
        shown = ", ".join(_describe(own.name, feed[name].dtype, feed[name].shape) for own, name in given)
        may_be_nhwc = layout is None and any(array.ndim == 4 for array in feed.values()) and not has_cache(feed)
        advice = _OTHER_LAYOUT if may_be_nhwc else _OTHER_GRAPH
        raise ArtifactError(f"ONNX Runtime cannot run the graph with {shown}: {error}. {advice}") from error
    return {entry.name: np.asarray(value) for entry, value in zip(session.get_outputs(), values)}
