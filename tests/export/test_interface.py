"""The names and the layout of graphs that were not exported here."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from tiny_graphs import normal, saved, written

from benchcard.errors import ArtifactError, SpecError, UnfitGraphError
from benchcard.export.interface import Contract, Names, adapt

FREE = Names({}, {}, None)
PIXELS = {"pixel_values": normal(1, 3, 6, 4)}
IMAGES = Contract(PIXELS, ({"logits": 2},), 5)
IDS = {
    "input_ids": np.arange(7)[None],
    "attention_mask": np.ones((1, 7), np.int64),
    "token_type_ids": np.zeros((1, 7), np.int64),
}
TOKENS = Contract(IDS, ({"logits": 3},))
EMBEDDINGS = Contract(IDS, ({"sentence_embedding": 2}, {"last_hidden_state": 3}))


def graph(tmp_path, inputs, body, outputs, weights=None):
    """A graph of opset 13 in a file of its own name."""
    text = f'<ir_version: 8, opset_import: ["" : 13]> g ({inputs}) => ({outputs}) {{ {body} }}'
    return saved(written(text, weights), tmp_path / "own.onnx")


def image_graph(tmp_path, inputs="float[b, 6, 4, 3] input_0", outputs="float[b, 5] scores", labels=5):
    """A classifier of images as (batch, height, width, channels), as TensorFlow has them."""
    name = inputs.split()[-1]
    body = f"pooled = ReduceMean <axes: ints = [1, 2], keepdims: int = 0> ({name}) scores = MatMul(pooled, w)"
    return graph(tmp_path, inputs, body, outputs, {"w": normal(3, labels)})


def run(path, feed):
    """The outputs of a graph by name."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return dict(zip([each.name for each in session.get_outputs()], session.run(None, feed)))


def names_of(path):
    """The names of a graph's inputs and outputs."""
    found = onnx.load(path).graph
    return [each.name for each in found.input], [each.name for each in found.output]


def test_an_image_graph_of_other_names_and_layout_is_found_by_its_shapes(tmp_path):
    """The only image and the only row of numbers are the task's; NHWC follows where the shape takes nothing else, and
    the graph computes what it did.
    """
    path = image_graph(tmp_path)
    before = run(path, {"input_0": PIXELS["pixel_values"].transpose(0, 2, 3, 1)})["scores"]
    adapted = adapt(path, FREE, IMAGES)
    assert names_of(path) == (["pixel_values"], ["logits"])
    np.testing.assert_allclose(run(path, PIXELS)["logits"], before, rtol=1e-5)
    onnx.checker.check_model(str(path))
    (note,) = adapted.notes
    assert "`input_0` is `pixel_values`, in the layout NHWC" in note
    assert "`scores` is `logits`" in note


def test_a_graph_with_the_names_of_the_task_is_not_touched(tmp_path):
    """A graph that has all names already keeps its bytes, and there is no note."""
    body = "pooled = ReduceMean <axes: ints = [2, 3], keepdims: int = 0> (pixel_values) logits = MatMul(pooled, w)"
    path = graph(tmp_path, "float[b, 3, h, v] pixel_values", body, "float[b, n] logits", {"w": normal(3, 5)})
    before = path.read_bytes()
    assert adapt(path, FREE, IMAGES).notes == ()
    assert path.read_bytes() == before


def test_a_layout_that_the_shape_leaves_open_must_be_told(tmp_path):
    """With four dynamic axes NCHW is tried, and the message names the other; the layout that is told is used."""
    path = image_graph(tmp_path, "float[b, h, v, c] input_0")
    with pytest.raises(ArtifactError, match=r"`input_0` float32 \[1, 3, 6, 4\].*layout: NHWC"):
        adapt(path, FREE, IMAGES)
    path = image_graph(tmp_path, "float[b, h, v, c] input_0")
    adapt(path, Names({}, {}, "NHWC"), IMAGES)
    assert run(path, PIXELS)["logits"].shape == (1, 5)


@pytest.mark.parametrize(
    ("inputs", "layout", "message"),
    [
        (
            "float[b, 8, 8, 3] input_0",
            None,
            r"`input_0` float32 \[\?, 8, 8, 3\].*`pixel_values` float32 \[1, 3, 6, 4\]",
        ),
        ("float[b, 6, 4, 3] input_0", "NCHW", r"in the layout NCHW.*processor"),
        ("uint8[b, 6, 4, 3] input_0", None, r"`input_0` uint8 .*`pixel_values` float32"),
    ],
)
def test_images_that_the_graph_does_not_take_are_refused(inputs, layout, message, tmp_path):
    """Another size, layout or type than the processor makes is refused with both sides of it."""
    path = graph(tmp_path, inputs, "scores = Cast <to: int = 1> (input_0)", "float[b, h, v, c] scores")
    with pytest.raises(ArtifactError, match=message):
        adapt(path, Names({}, {}, layout), IMAGES)


def test_a_mapping_says_what_shapes_leave_open(tmp_path):
    """Of two inputs of one kind none is guessed; the message has the names in the graph, and the mapping decides."""
    path = graph(
        tmp_path, "int64[b, t] a, int64[b, t] ids", "out = Gather(w, ids)", "float[b, t, n] out", {"w": normal(50, 4)}
    )
    with pytest.raises(
        ArtifactError, match=r"`a` int64 \[\?, \?\], `ids` int64.*`input_ids` int64 \[1, 7\].*framework_args"
    ):
        adapt(path, FREE, TOKENS)
    adapt(path, Names({"input_ids": "ids", "token_type_ids": "a"}, {"logits": "out"}, None), TOKENS)
    assert names_of(path) == (["token_type_ids", "input_ids"], ["logits"])


def test_the_one_input_left_is_found_by_elimination(tmp_path):
    """The input of token ids is found beside inputs of the usual names, also those of TensorFlow."""
    path = graph(
        tmp_path,
        "int32[b, t] tokens, int64[b, t] attention_mask",
        "out = Gather(w, tokens)",
        "float[b, t, n] out",
        {"w": normal(50, 4)},
    )
    model = onnx.load(path)
    model.graph.input[1].name = "attention_mask:0"
    onnx.save(model, path)
    adapt(path, FREE, TOKENS)
    assert names_of(path) == (["input_ids", "attention_mask"], ["logits"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            Names({"pixel_values": "input_1"}, {}, None),
            r"found `input_1` \(did you mean `input_0`\?\) @ .*inputs\.pixel_values",
        ),
        (Names({"pixels": "input_0"}, {}, None), r"expected `pixel_values`, found .* @ .*inputs\.pixels"),
        (Names({}, {"logits": "score"}, None), r"did you mean `scores`\?\) @ .*outputs\.logits"),
        (Names({}, {"labels": "scores"}, None), r"expected `logits`, found `labels` @ .*outputs\.labels"),
    ],
)
def test_a_name_that_there_is_not_is_a_mistake_of_the_spec(names, message, tmp_path):
    """A name that the task or the graph does not have is named with its place in the spec and a near miss."""
    with pytest.raises(SpecError, match=message):
        adapt(image_graph(tmp_path), names, IMAGES)


def test_position_ids_and_token_types_are_computed_in_the_graph(tmp_path):
    """A graph that asks for positions gets 0, 1, 2, … for each text, and zeros for types that no tokenizer made."""
    path = graph(
        tmp_path,
        "int64[b, t] input_ids, int32[b, t] position_ids, int64[b, t] token_type_ids",
        "p = Cast <to: int = 7> (position_ids) s = Add(p, token_type_ids) one = Gather(w, s) logits = Identity(one)",
        "float[b, t, n] logits",
        {"w": normal(50, 4)},
    )
    weights = normal(50, 4)
    only_ids = Contract({"input_ids": IDS["input_ids"]}, ({"logits": 3},))
    adapted = adapt(path, FREE, only_ids)
    assert names_of(path) == (["input_ids"], ["logits"])
    outputs = run(path, {"input_ids": np.ones((2, 3), np.int64)})["logits"]
    np.testing.assert_array_equal(outputs, np.stack([weights[:3]] * 2))
    assert "`position_ids` is computed" in adapted.notes[0]


def position_graph(tmp_path, opset=11):
    """A graph that gives the positions which it is given as the scores of the tokens."""
    body = "p = Cast <to: int = 1> (position_ids) s = Cast <to: int = 1> (input_ids) z = Sub(s, s) y = Add(p, z) "
    text = (
        f'<ir_version: 5, opset_import: ["" : {opset}]> g (int32[b, t] input_ids, int64[b, t] position_ids) => '
        f"(float[b, t] start_logits) {{ {body} start_logits = Identity(y) }}"
    )
    return saved(written(text), tmp_path / "own.onnx")


def test_positions_are_counted_as_the_model_counts_them(tmp_path):
    """A model like RoBERTa counts from the padding id + 1, as transformers does, also beside padding on the left."""
    import torch
    from transformers.models.roberta.modeling_roberta import RobertaEmbeddings

    ids = np.array([[5, 6, 7, 1, 1], [1, 1, 5, 6, 7]], np.int32)
    contract = Contract({"input_ids": IDS["input_ids"]}, ({"start_logits": 2},))
    for padding_id in (1, 0):
        path = position_graph(tmp_path)
        adapted = adapt(path, FREE, replace(contract, padding_id=lambda value=padding_id: value))
        expected = RobertaEmbeddings.create_position_ids_from_input_ids(torch.from_numpy(ids), padding_id)
        np.testing.assert_array_equal(run(path, {"input_ids": ids})["start_logits"], expected)
        assert f"(from {padding_id + 1} on, without padding)" in adapted.notes[0]
    path = position_graph(tmp_path)
    adapt(path, FREE, contract)
    np.testing.assert_array_equal(run(path, {"input_ids": ids})["start_logits"], [[0, 1, 2, 3, 4]] * 2)


def test_positions_that_cannot_be_computed_are_refused(tmp_path):
    """An opset without the operators, and a model that transformers does not know, are named with what to do."""

    def unknown():
        raise ArtifactError("transformers makes no model of the type 'own'")

    contract = Contract({"input_ids": IDS["input_ids"]}, ({"start_logits": 2},))
    with pytest.raises(ArtifactError, match=r"`position_ids` cannot be computed in a graph of opset 10; .*convert"):
        adapt(position_graph(tmp_path, 10), FREE, contract)
    with pytest.raises(ArtifactError, match=r"`position_ids` is not known: .*'own'.*`model_type`"):
        adapt(position_graph(tmp_path), FREE, replace(contract, padding_id=unknown))


def test_a_fixed_length_and_batch_are_found_and_run(tmp_path):
    """The example is repeated to the sizes that a graph takes; the length is what texts are then padded to."""
    path = graph(
        tmp_path,
        "int64[2, 12] input_ids, int64[2, 12] attention_mask",
        "logits = Gather(w, input_ids)",
        "float[2, 12, 4] logits",
        {"w": normal(50, 4)},
    )
    assert adapt(path, FREE, TOKENS).input_length == 12
    assert adapt(path, FREE, TOKENS).notes == ()


@pytest.mark.parametrize(
    ("outputs", "body", "expected"),
    [
        ("float[b, t, n] token_embeddings, float[b, n] sentence_embedding", "", "sentence_embedding"),
        ("float[b, t, n] token_embeddings", "", "last_hidden_state"),
        ("float[b, t, n] token_embeddings, float[b, n] pooler_output", "", "last_hidden_state"),
        ("float[b, n] sentence_embedding", "", "sentence_embedding"),
        ("float[b, n] y", "y = Identity(sentence_embedding)", "sentence_embedding"),
        ("float[b, t, n] y", "y = Identity(token_embeddings)", "last_hidden_state"),
    ],
)
def test_outputs_of_embeddings(outputs, body, expected, tmp_path):
    """Embeddings of tokens and of sentences are known by their names, and each alone by its shape."""
    body = (
        "token_embeddings = Gather(w, input_ids) sentence_embedding = ReduceMean <axes: ints = [1], keepdims: int = 0> "
        f"(token_embeddings) pooler_output = Tanh(sentence_embedding) {body}"
    )
    path = graph(tmp_path, "int64[b, t] input_ids", body, outputs, {"w": normal(50, 4)})
    adapt(path, FREE, EMBEDDINGS)
    assert expected in names_of(path)[1]


def test_outputs_that_shapes_leave_open_are_refused(tmp_path):
    """Two outputs that could be start and end are not guessed; the message lists them as the graph names them."""
    body = "e = Gather(w, input_ids) a = ReduceMean <axes: ints = [2], keepdims: int = 0> (e) b_ = Neg(a)"
    path = graph(tmp_path, "int64[b, t] input_ids", body, "float[b, t] a, float[b, t] b_", {"w": normal(50, 4)})
    answers = Contract(IDS, ({"start_logits": 2, "end_logits": 2},))
    with pytest.raises(
        UnfitGraphError, match=r"own\.onnx gives `a` float32 \[1, 7\], `b_` .*`start_logits` or `end_logits`: say which"
    ):
        adapt(path, FREE, answers)
    adapt(path, Names({}, {"start_logits": "a"}, None), answers)
    assert names_of(path)[1] == ["start_logits", "end_logits"]


def test_the_number_of_labels_chooses_among_outputs_and_is_checked(tmp_path):
    """Of two rows of numbers the one with a number for each label is taken; logits of another number are refused."""
    body = "features = ReduceMean <axes: ints = [2, 3], keepdims: int = 0> (x) scores = MatMul(features, w) "
    outputs = "float[b, n] features, float[b, m] scores"
    path = graph(tmp_path, "float[b, 3, h, v] x", body, outputs, {"w": normal(3, 5)})
    adapt(path, FREE, IMAGES)
    assert names_of(path)[1] == ["features", "logits"]
    with pytest.raises(UnfitGraphError, match=r"`logits` float32 \[1, 5\].*the last one of 7.*id2label"):
        adapt(path, FREE, Contract(PIXELS, IMAGES.outputs, 7))


def test_a_tensor_inside_that_has_the_name_already_makes_room(tmp_path):
    """An inner tensor named as the task names an input keeps its values under another name, also in a subgraph."""
    body = (
        "pixel_values = Add(x, one) yes = Cast <to: int = 9> (one) "
        "inner = If (yes) <then_branch = t () => (float[b, 3, h, v] z) { z = Add(pixel_values, x) }, "
        "else_branch = e () => (float[b, 3, h, v] z2) { z2 = Neg(pixel_values) }> "
        "out = ReduceMean <axes: ints = [2, 3], keepdims: int = 0> (inner)"
    )
    path = graph(tmp_path, "float[b, 3, h, v] x", body, "float[b, 3] out", {"one": np.ones((), np.float32)})
    adapt(path, FREE, Contract(PIXELS, IMAGES.outputs))
    expected = (2 * PIXELS["pixel_values"] + 1).mean(axis=(2, 3))
    np.testing.assert_allclose(run(path, PIXELS)["logits"], expected, rtol=1e-5)


def test_a_graph_without_a_possible_output_is_refused_with_what_is_needed(tmp_path):
    """Where no output fits, the message has the axes and labels that are needed, and advises no mapping."""
    path = graph(tmp_path, "float[b, 3, h, v] x", "y = Neg(x)", "float[b, 3, h, v] y")
    with pytest.raises(UnfitGraphError, match=r"`logits` must have 2 axes .* the last one of 5: the labels") as caught:
        adapt(path, FREE, IMAGES)
    assert "framework_args" not in str(caught.value)


def test_messages_advise_what_can_help(tmp_path):
    """A layout that was given is not advised again, and messages on texts speak of the tokenizer and of inputs."""
    path = graph(tmp_path, "float[b, c, h, v] x", "out = MatMul(x, w)", "float out", {"w": normal(9, 5)})
    with pytest.raises(ArtifactError, match=r"Use a graph that takes these types and sizes") as caught:
        adapt(path, Names({}, {}, "NHWC"), IMAGES)
    assert "layout: NHWC" not in str(caught.value)
    body, weights = "e = Gather(w, ids) out = Add(e, v)", {"w": normal(50, 4), "v": normal(3, 4)}
    path = graph(tmp_path, "int64[b, t] ids", body, "float out", weights)
    with pytest.raises(ArtifactError, match=r"(?s)`ids` int64 \[1, 7\].* or correct `inputs`"):
        adapt(path, FREE, Contract({"input_ids": IDS["input_ids"]}))
    path = graph(tmp_path, "float[b, t] ids", "out = Neg(ids)", "float[b, t] out")
    with pytest.raises(ArtifactError, match=r"the model's tokenizer makes .*`model_input_names`") as caught:
        adapt(path, FREE, TOKENS)
    assert "layout" not in str(caught.value)


def test_a_graph_that_cannot_run_is_refused_with_its_own_names(tmp_path):
    """A failure of the runtime says which inputs, by the names in the graph, it was given."""
    path = graph(tmp_path, "float[b, c, h, v] x", "out = MatMul(x, w)", "float out", {"w": normal(9, 5)})
    with pytest.raises(ArtifactError, match=r"cannot run the graph with `x` float32 \[1, 3, 6, 4\]"):
        adapt(path, FREE, IMAGES)


def test_a_graph_that_cannot_be_loaded_is_not_one_of_wrong_inputs(tmp_path):
    """The message has the file's name and the runtime's reason, not the folder of the run or advice on inputs."""
    body = "half = Cast <to: int = 10> (x) out = MatMul(half, w)"
    path = graph(tmp_path, "float[b, c, h, v] x", body, "float out", {"w": normal(4, 5)})
    with pytest.raises(ArtifactError, match=r"ONNX Runtime cannot load own\.onnx: .*float16.*Make the file") as caught:
        adapt(path, FREE, IMAGES)
    assert str(tmp_path) not in str(caught.value)
    assert "framework_args" not in str(caught.value)
