"""Object detection: boxes as the image processors of transformers give them, references of every form, hostile ones."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import tiny_text

from benchcard import testing
from benchcard.errors import ArtifactError, SpecError
from benchcard.evaluation.rows import Rows
from benchcard.tasks.object_detection import ObjectDetection, post_process

TASK = "object-detection"
NAMES = ["cat", "dog", "bird"]
MAPS = {"id2label": dict(enumerate(NAMES)), "label2id": {name: index for index, name in enumerate(NAMES)}}
NAMED = datasets.ClassLabel(names=NAMES)
BOX = datasets.List(datasets.Value("float64"))
SIZES = [(60, 40), (60, 40), (31, 64), (50, 50)]  # width and height
BOXES = [[[1, 2, 20, 30], [30, 5, 25, 12]], [], [[0, 0, 31, 64]], [[10, 10, 5, 5]]]
CATEGORIES = [[0, 2], [], [1], [2]]


def write_model(folder, kind="Yolos", **size):
    """A tiny detector with random weights and its image processor, which keeps the ratio of sides by default."""
    import torch
    import transformers

    if kind == "Yolos":
        sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
        sizes |= {"num_detection_tokens": 7, "image_size": [32, 48], "initializer_range": 0.3}
    else:
        backbone = transformers.ResNetConfig(
            embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic", out_features=["stage2"]
        )
        sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "num_queries": 7, "init_xavier_std": 3.0}
        sizes |= {f"{part}_ffn_dim": 16 for part in ("encoder", "decoder")}
        sizes |= {f"{part}_attention_heads": 2 for part in ("encoder", "decoder")}
        sizes |= {"use_timm_backbone": False, "backbone_config": backbone}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        config = getattr(transformers, f"{kind}Config")(**sizes, **MAPS)
        network = getattr(transformers, f"{kind}ForObjectDetection")(config)
        if kind == "Yolos":  # whose scores are then far apart
            network.class_labels_classifier.layers[-1].weight.data *= 10
        network.save_pretrained(folder)
    processor = getattr(transformers, f"{kind}ImageProcessorPil")
    processor(size=size or {"shortest_edge": 32, "longest_edge": 64}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny YOLOS."""
    return write_model(tmp_path_factory.mktemp("model"))


def images():
    """An image of each size, the second one gray."""
    from PIL import Image

    draw = np.random.default_rng(0)
    made = [Image.fromarray(draw.integers(0, 256, (height, width, 3), np.uint8)) for width, height in SIZES]
    return [made[0], made[1].convert("L"), *made[2:]]


def packed(image):
    """The image as a file in memory."""
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return {"bytes": stream.getvalue(), "path": None}


def write_data(folder, columns=None, features=None, rows=4):
    """A data set of images and objects."""
    columns = columns or {"objects": [{"bbox": b, "category": c} for b, c in zip(BOXES, CATEGORIES)]}
    features = features or {"objects": {"bbox": datasets.List(BOX), "category": datasets.List(NAMED)}}
    files = {"image": [packed(image) for image in images()[:rows]]}
    return tiny_text.write_data(folder, {**files, **columns}, {"image": datasets.Image(), **features})


def directly(model, threshold=0.0):
    """What transformers gives for each image alone."""
    import torch
    from transformers import AutoImageProcessor, AutoModelForObjectDetection

    network = AutoModelForObjectDetection.from_pretrained(model).eval()
    processor = AutoImageProcessor.from_pretrained(model, backend="pil")
    found = []
    for image in images():
        inputs = processor(images=image.convert("RGB"), return_tensors="pt")
        if "Yolos" in type(network).__name__:
            inputs.pop("pixel_mask", None)
        with torch.inference_mode():
            outputs = network(**inputs)
        target = [(image.height, image.width)]
        found += processor.post_process_object_detection(outputs, threshold=threshold, target_sizes=target)
    return [{name: values.numpy() for name, values in each.items()} for each in found]


@pytest.mark.parametrize(
    ("kind", "framework"),
    [
        ("Yolos", "pytorch"),
        ("Yolos", "onnxruntime"),
        ("Detr", "pytorch"),
        pytest.param("Detr", "onnxruntime", marks=pytest.mark.slow),
        ("ConditionalDetr", "pytorch"),
    ],
)
def test_boxes_are_those_of_transformers(tmp_path, kind, framework):
    """For images of several sizes in one batch each, at sizes that were not exported; gray ones, too."""
    model = write_model(tmp_path / "model", kind)
    asked = {"metrics": (), "framework": framework, "task_args": {"threshold": 0.2}}
    passed = testing.pass_through(TASK, model, write_data(tmp_path / "data"), tmp_path, **asked)
    expected = directly(model, 0.2)
    assert sum(len(each["scores"]) for each in expected) > 4
    for prediction, own in zip(passed.predictions, expected, strict=True):
        assert prediction["labels"] == own["labels"].tolist()
        np.testing.assert_allclose(prediction["scores"], own["scores"], atol=1e-4)
        np.testing.assert_allclose(np.reshape(prediction["boxes"], (-1, 4)), own["boxes"], atol=1e-2)


@pytest.mark.parametrize("kind", ["Yolos", "Detr", "ConditionalDetr", "DeformableDetr", "RTDetr"])
@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_post_processing_is_that_of_the_processor(kind, threshold):
    """Scores, labels and boxes of random outputs, in the same order."""
    import torch
    import transformers

    from benchcard.tasks.object_detection import _POST_PROCESSING

    draw = np.random.default_rng(2)
    logits = draw.normal(0, 3, (2, 50, 6)).astype(np.float32)
    boxes = draw.random((2, 50, 4), dtype=np.float32)
    sizes = [(480, 640), (33, 7)]
    processor = getattr(transformers, f"{kind}ImageProcessorPil")()
    outputs = SimpleNamespace(logits=torch.tensor(logits), pred_boxes=torch.tensor(boxes))
    expected = processor.post_process_object_detection(outputs, threshold=threshold, target_sizes=sizes)
    for index, own in enumerate(expected):
        found = post_process(logits[index], boxes[index], sizes[index], *_POST_PROCESSING[kind], threshold)
        assert found["labels"] == own["labels"].tolist()
        np.testing.assert_allclose(found["scores"], own["scores"].numpy(), atol=1e-6)
        np.testing.assert_allclose(found["boxes"], own["boxes"].numpy(), rtol=1e-5, atol=1e-3)
        assert len(found["labels"]) > 0


def references(model, data, folder, **asked):
    """The references of prepared rows, and the notes on them."""
    outcome = tiny_text.prepare(TASK, model, data, folder, **asked)
    return Rows(folder).references, outcome.notes


CORNERS = [[[1, 2, 21, 32], [30, 5, 55, 17]], [], [[0, 0, 31, 64]], [[10, 10, 15, 15]]]


def in_shares(rows):
    """Boxes of corners as centre, width and height in shares of the images."""
    return [
        [[(a + c) / 2 / w, (b + d) / 2 / h, (c - a) / w, (d - b) / h] for a, b, c, d in boxes]
        for boxes, (w, h) in zip(rows, SIZES)
    ]


@pytest.mark.parametrize(
    ("columns", "features", "asked"),
    [
        (None, None, {}),
        (
            {"objects": [[{"bbox": b, "label": n} for b, n in zip(*row)] for row in zip(BOXES, CATEGORIES)]},
            {"objects": datasets.List({"bbox": BOX, "label": NAMED})},
            {},
        ),
        (
            {"found": [{"at": b, "what": c} for b, c in zip(CORNERS, CATEGORIES)]},
            {"found": {"at": datasets.List(BOX), "what": datasets.List(datasets.Value("int64"))}},
            {"ref_keys": ["found.at", "found.what"], "task_args": {"box_format": "pascal_voc"}},
        ),
        (
            {"boxes": in_shares(CORNERS), "names": [[NAMES[index].upper() for index in row] for row in CATEGORIES]},
            {"boxes": datasets.List(BOX), "names": datasets.List(datasets.Value("string"))},
            {"ref_keys": ["boxes", "names"], "task_args": {"box_format": "yolo"}},
        ),
    ],
)
def test_references_are_the_same_in_every_form(model, tmp_path, columns, features, asked):
    """As lists of boxes and labels, as a list of objects, and as two columns; images may have no objects."""
    found, _ = references(model, write_data(tmp_path / "data", columns, features), tmp_path / "prepared", **asked)
    for reference, corners, labels in zip(found, CORNERS, CATEGORIES, strict=True):
        np.testing.assert_allclose(np.reshape(reference["boxes"], (-1, 4)), np.reshape(corners, (-1, 4)), atol=1e-9)
        assert reference["labels"] == labels
        assert reference["crowds"] == [0] * len(labels)
    assert found[0]["areas"] == pytest.approx([600, 300])


def test_areas_and_crowds_of_the_data_are_kept(model, tmp_path):
    """Also where the fields of boxes and labels are named; and calibration reads no references."""
    columns = {"objects": [{"bbox": [[0, 0, 9, 9]], "category": [1], "area": [12.5], "iscrowd": [True]}]}
    fields = {"area": datasets.List(datasets.Value("float64")), "iscrowd": datasets.List(datasets.Value("bool"))}
    objects = {"bbox": datasets.List(BOX), "category": datasets.List(NAMED), **fields}
    data = write_data(tmp_path / "data", columns, {"objects": objects}, rows=1)
    for index, keys in enumerate((["objects"], ["objects.bbox", "objects.category"])):
        ((reference,), _) = references(model, data, tmp_path / f"prepared{index}", ref_keys=keys)
        assert (reference["areas"], reference["crowds"]) == ([12.5], [1])
    assert references(model, data, tmp_path / "without", ref_keys=[])[0] == [None]


@pytest.mark.parametrize(
    ("boxes", "asked", "message"),
    [
        ([[0, 0, 80, 20]], {}, r"row 0 of `objects.bbox`.*larger than the image of 60 x 40"),
        ([[70, 0, 5, 5]], {}, "outside the image"),
        ([[5, 5, -3, 5]], {}, "negative width"),
        ([[5, 5, float("nan"), 5]], {}, "not finite"),
        ([[30, 30, 10, 10]], {"box_format": "pascal_voc"}, "negative width.*box_format: coco"),
        ([[30, 30, 10, 10]], {"box_format": "yolo"}, "larger than the image.*box_format: coco"),
        ([[30, 20, 59, 39]], {}, r"1 of 1 boxes.*over the edge.*box_format: pascal_voc"),
        ([[0.5, 0.5, 0.2, 0.2]], {}, "no number above 1.*box_format: yolo"),
        ([[1, 2, 3]], {}, "four numbers for each of its 1 labels"),
        ([[1, 2, 3, 4]] * 2, {}, "four numbers for each of its 1 labels"),
    ],
)
def test_boxes_that_cannot_be_are_refused(model, tmp_path, boxes, asked, message):
    """With their row, and the format that they may have."""
    data = write_data(tmp_path / "data", {"objects": [{"bbox": boxes, "category": [0]}]}, rows=1)
    with pytest.raises(SpecError, match=message):
        references(model, data, tmp_path / "prepared", task_args=asked)


def test_an_image_may_have_no_objects_in_place_of_empty_lists(model, tmp_path):
    """As data sets from several sources have it."""
    columns = {"objects": [{"bbox": BOXES[0], "category": CATEGORIES[0]}, {"bbox": None, "category": None}]}
    found, _ = references(model, write_data(tmp_path / "data", columns, rows=2), tmp_path / "prepared")
    assert found[1] == {"boxes": [], "labels": [], "areas": [], "crowds": []}


def test_boxes_over_the_edge_and_without_area_are_counted(model, tmp_path):
    """Few of them are no other format."""
    boxes = [[[1, 1, 5, 5]] * 6 + [[50, 30, 14, 5], [3, 3, 0, 4]]]
    data = write_data(tmp_path / "data", {"objects": [{"bbox": boxes[0], "category": [0] * 8}]}, rows=1)
    _, notes = references(model, data, tmp_path / "prepared")
    assert "1 of 8 boxes reaches over the edge of the image" in notes
    assert "1 of 8 boxes has no area: no prediction can match them" in notes


def test_labels_and_columns_that_do_not_fit(model, tmp_path):
    """A category that the model does not know, a column without objects, and one that is not there."""
    unknown = {"bbox": datasets.List(BOX), "category": datasets.List(datasets.ClassLabel(names=["cat", "dog", "cow"]))}
    data = write_data(tmp_path / "a", None, {"objects": unknown})
    with pytest.raises(SpecError, match="say what `cow` is in the model: label_mapping"):
        references(model, data, tmp_path / "a" / "prepared")
    mapped = {"label_mapping": {"cow": "bird"}}
    assert references(model, data, tmp_path / "b", task_args=mapped)[0][0]["labels"] == [0, 2]
    with pytest.raises(SpecError, match=r"`object`.*did you mean `objects`"):
        references(model, data, tmp_path / "c", ref_keys=["object"])
    with pytest.raises(SpecError, match="no field `box` in `objects`"):
        references(model, data, tmp_path / "d", ref_keys=["objects.box", "objects.category"])
    with pytest.raises(SpecError, match=r"without fields.*ref_keys: \[image.boxes, image.labels\]"):
        references(model, data, tmp_path / "e", ref_keys=["image"])
    numbered = {"bbox": datasets.List(BOX), "category": datasets.List(datasets.Value("int64"))}
    data = write_data(
        tmp_path / "f", {"objects": [{"bbox": [[0, 0, 9, 9]], "category": [3]}]}, {"objects": numbered}, 1
    )
    with pytest.raises(SpecError, match=r"\['3'\].*'cat'"):
        references(model, data, tmp_path / "f" / "prepared")


def test_models_that_do_not_fit(model, tmp_path):
    """One whose processor says nothing of boxes, and outputs of another number of labels."""
    settings = json.loads((model / "preprocessor_config.json").read_text())
    (tmp_path / "vit").mkdir()
    vit = {**settings, "image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
    (tmp_path / "vit" / "preprocessor_config.json").write_text(json.dumps(vit))
    (tmp_path / "vit" / "config.json").write_text((model / "config.json").read_text())
    with pytest.raises(SpecError, match=r"`DetrImageProcessor`.*with the processor ViTImageProcessorPil"):
        references(tmp_path / "vit", write_data(tmp_path / "data"), tmp_path / "prepared")
    outputs = {"logits": np.zeros((1, 7, 3), np.float32), "pred_boxes": np.zeros((1, 7, 4), np.float32)}
    with pytest.raises(ArtifactError, match="gives 3 scores for each box, and needs 4 for the 3 labels"):
        ObjectDetection().kept(outputs, {}, {"labels": NAMES, "scores": "softmax"})


def test_timed_inputs_are_those_of_the_processor(model, tmp_path):
    """At the size that it makes of an image of the model's size, with a mask only for a model that reads one."""
    inputs, length = ObjectDetection().inputs(model, 2, None, 0)
    assert {name: array.shape for name, array in inputs.items()} == {"pixel_values": (2, 3, 32, 48)}
    assert length == 48
    detr = write_model(tmp_path / "detr", "Detr", height=32, width=64)
    inputs, _ = ObjectDetection().inputs(detr, 1, None, 0)
    assert inputs["pixel_mask"].tolist() == [[[1] * 64] * 32]


def test_the_lines_of_a_card_print_the_measured_boxes(model, tmp_path, monkeypatch, capsys):
    """The snippet runs as it is printed, and prints labels, scores and boxes above 0.5."""
    from benchcard.publishing import usage
    from benchcard.publishing.weights import Weights

    passed = testing.pass_through(
        TASK, model, write_data(tmp_path / "data"), tmp_path, framework="onnxruntime", metrics=()
    )
    graph, context = tmp_path / "export" / "model.onnx", Rows(tmp_path / "prepare").context
    weights = [Weights(0, False, "model.onnx", graph)]
    root = ["preprocessor_config.json"]
    card = usage.section("me/it", TASK, weights, ["as it is"], root, None, context)
    (model / "onnx").mkdir(exist_ok=True)
    (model / "onnx" / "model.onnx").write_bytes(graph.read_bytes())
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda repo_id, allow_patterns: str(model))
    monkeypatch.chdir(tmp_path)
    seen = 0
    for image, prediction in zip(images(), passed.predictions):
        image.save("image.png")
        exec(card.split("```python\n")[1].split("```")[0], {})
        printed = capsys.readouterr().out.splitlines()
        sure = [index for index, score in enumerate(prediction["scores"]) if score > 0.5]
        seen += len(sure)
        for line, index in zip(printed, sure, strict=True):
            label, score, rest = line.split(" ", 2)
            assert label == NAMES[prediction["labels"][index]]
            assert float(score) == pytest.approx(prediction["scores"][index], abs=1e-3)
            box = json.loads(rest.removeprefix("left, top, right, bottom: "))
            assert box == pytest.approx(prediction["boxes"][index], abs=1e-2)
    assert seen
    assert "Transformers.js" not in card
