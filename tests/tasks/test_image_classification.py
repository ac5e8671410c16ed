"""Image classification: images of every kind through the model's own processor, and what cannot be read."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import tiny
import tiny_text

from benchcard.errors import SpecError

TASK = "image-classification"
# Pillow's modes, each at an odd size.
KINDS = {"L": (5, 17), "P": (300, 7), "RGBA": (1, 1), "LA": (9, 8), "1": (64, 3), "CMYK": (8, 8), "RGB": (7, 31)}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny ViT of three labels."""
    return tiny.write_model(tmp_path_factory.mktemp("model"))


def images():
    """One image of each mode, of noise."""
    from PIL import Image

    generator = np.random.default_rng(3)
    noise = {mode: generator.integers(0, 256, (*size[::-1], 3), dtype=np.uint8) for mode, size in KINDS.items()}
    made = {mode: Image.fromarray(array).convert(mode) for mode, array in noise.items()}
    made["P"].info["transparency"] = 0
    return made


def packed(image):
    """The image as a file in memory: TIFF for CMYK, else PNG."""
    stream = io.BytesIO()
    image.save(stream, "TIFF" if image.mode == "CMYK" else "PNG")
    return {"bytes": stream.getvalue(), "path": None}


def write(folder, files, labels, names=tiny.LABELS, key="image", reference="label"):
    """A parquet folder of image files and labels."""
    import datasets

    features = {
        key: datasets.Image(),
        reference: datasets.ClassLabel(names=names) if names else datasets.Value("int64"),
    }
    return tiny_text.write_data(folder, {key: files, reference: labels}, features)


def directly(model, image):
    """The logits that transformers gives for an image, and for its RGB form alone."""
    import torch
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    pixels = AutoImageProcessor.from_pretrained(model, backend="pil")(images=image.convert("RGB"), return_tensors="pt")
    with torch.inference_mode():
        return AutoModelForImageClassification.from_pretrained(model).eval()(**pixels).logits[0].numpy()


def test_every_mode_and_size_at_every_batch_size(model, tmp_path):
    """Gray, palette, transparent and odd-sized images, in columns of any name, get the logits that transformers gives
    them alone, whether they go in one by one or together; top-k counts as numpy does.
    """
    made = images()
    labels = [index % 3 for index in range(len(made))]
    files = [packed(image) for image in made.values()]
    data = write(tmp_path / "data", files, labels, key="picture", reference="kind of shade")
    asked = {
        "data_keys": {"primary": "picture"},
        "ref_keys": ["kind of shade"],
        "task_args": {"metric_args": {"top_k_accuracy": {"k": 2}}},
    }
    metrics = ("accuracy", "top_k_accuracy")
    one, many = (tiny_text.passed(TASK, model, data, tmp_path / str(size), metrics, size, **asked) for size in (1, 32))
    np.testing.assert_allclose(one.kept["scores"], [directly(model, image) for image in made.values()], atol=1e-5)
    np.testing.assert_allclose(one.kept["scores"], many.kept["scores"], atol=1e-5)
    assert one.predictions == many.predictions == one.kept["scores"].argmax(axis=1).tolist()
    ranked = np.argsort(-one.kept["scores"], axis=1)
    assert one.scored.metrics == many.scored.metrics
    assert one.scored.metrics["accuracy"] == np.mean(ranked[:, 0] == labels)
    assert one.scored.metrics["top_k_accuracy"] == np.mean((ranked[:, :2] == np.array(labels)[:, None]).any(axis=1))
    assert not one.notes


def test_labels_are_aligned_by_name(model, tmp_path):
    """Another order and another way of writing the names come to the model's numbers; names that differ show both
    lists, and a mapping mends them.
    """
    files = [packed(image) for image in images().values()][:3]
    data = write(tmp_path / "a", files, [0, 1, 2], ["Light", "DARK", "mid-dling"])
    assert tiny_text.passed(TASK, model, data, tmp_path / "one").references == [2, 0, 1]
    data = write(tmp_path / "b", files, [0, 1, 2], ["day", "dark", "middling"])
    with pytest.raises(SpecError, match=r"\['day', 'dark', 'middling'\].*\['dark', 'middling', 'light'\].*`day`"):
        tiny_text.prepare(TASK, model, data, tmp_path / "two")
    mapping = {"label_mapping": {"day": "light"}}
    assert tiny_text.passed(TASK, model, data, tmp_path / "three", task_args=mapping).references == [2, 0, 1]


def test_the_positive_class_of_images_is_that_of_the_data(tmp_path):
    """Of two labels the second one that the data set declares is positive, whatever its id in the model."""
    model = tiny.write_model(tmp_path / "model", ["dark", "light"])
    made = list(images().values())
    names = [["dark", "light"][directly(model, image).argmax()] for image in made]
    right = ["light", *names[1:-1], "dark"]
    data = write(
        tmp_path / "data",
        [packed(image) for image in made],
        [["light", "dark"].index(name) for name in right],
        ["light", "dark"],
    )
    found = tiny_text.passed(TASK, model, data, tmp_path, ("recall",))
    recall = sum(one == other == "dark" for one, other in zip(names, right)) / right.count("dark")
    assert found.scored.metrics["recall"] == pytest.approx(recall)
    assert found.scored.positive_classes == {"recall": "dark"}


def test_images_of_more_bits_are_counted(model, tmp_path):
    """What Pillow cuts to 8 bits is said."""
    from PIL import Image

    deep = packed(Image.fromarray(np.full((8, 8), 40_000, dtype=np.uint16)))
    data = write(tmp_path / "data", [packed(images()["L"]), deep], [0, 1])
    assert any(
        note.startswith("1 of 2 images has more than 8 bits")
        for note in tiny_text.passed(TASK, model, data, tmp_path).notes
    )


def broken(kind):
    """A file that is no whole image."""
    whole = packed(images()["RGB"])["bytes"]
    return {
        "truncated": whole[: len(whole) // 2],
        "empty": b"",
        "text": b"<html>not found</html>",
        "damaged": whole[:40] + b"\0\0\0\0" + whole[44:],
    }[kind]


@pytest.mark.parametrize("kind", ["truncated", "empty", "text", "damaged"])
def test_a_broken_file_names_its_row(model, tmp_path, kind):
    """A truncated, empty or foreign file is an error with its column, its row and what to do."""
    files = [packed(images()["L"]), {"bytes": broken(kind), "path": None}]
    data = write(tmp_path / "data", files, [0, 1])
    with pytest.raises(SpecError, match=r"row 1 of `image`.*take the row out.*data_keys\.primary"):
        tiny_text.prepare(TASK, model, data, tmp_path / "prepared")


def test_a_row_without_an_image_or_a_label(model, tmp_path):
    """Nothing where an image should be, and labels that are not there or out of range, name their row."""
    file = packed(images()["L"])
    data = write(tmp_path / "a", [file, None], [0, 1])
    with pytest.raises(SpecError, match=r"row 1 of `image`.*there is none"):
        tiny_text.prepare(TASK, model, data, tmp_path / "a" / "prepared")
    for label in (-1, None):
        data = write(tmp_path / str(label), [file, file], [0, label])
        with pytest.raises(
            SpecError, match=f"the label {'null' if label is None else label} in row 1.*without a label"
        ):
            tiny_text.prepare(TASK, model, data, tmp_path / str(label) / "prepared")
    data = write(tmp_path / "c", [file, file], [0, 3], names=None)
    with pytest.raises(SpecError, match=r"\['0', '3'\].*'dark'"):
        tiny_text.prepare(TASK, model, data, tmp_path / "c" / "prepared")


def test_columns_of_another_kind(model, tmp_path):
    """A column that is not there or holds no images is named; one of paths is read, and a path to nothing named."""
    file = packed(images()["L"])
    data = write(tmp_path / "a", [file], [0])
    with pytest.raises(SpecError, match="did you mean `image`"):
        tiny_text.prepare(TASK, model, data, tmp_path / "a" / "1", data_keys={"primary": "imag"})
    with pytest.raises(SpecError, match=r"a column of images, found the column `label`"):
        tiny_text.prepare(TASK, model, data, tmp_path / "a" / "2", data_keys={"primary": "label"})
    images()["L"].save(tmp_path / "gray.png")
    paths = tiny_text.write_data(tmp_path / "b", {"image": [str(tmp_path / "gray.png")], "label": ["dark"]})
    assert tiny_text.passed(TASK, model, paths, tmp_path / "b").references == [0]
    paths = tiny_text.write_data(tmp_path / "c", {"image": [str(tmp_path / "none.png")], "label": ["dark"]})
    with pytest.raises(SpecError, match=r"row 0 of `image`.*none\.png"):
        tiny_text.prepare(TASK, model, paths, tmp_path / "c" / "prepared")


def test_a_model_without_an_image_processor(model, tmp_path):
    """The error says what was expected, which file is missing or damaged, and what to do."""
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_text(json.dumps(json.loads((model / "config.json").read_text())))
    data = write(tmp_path / "data", [packed(images()["L"])], [0])
    for content, reason in ((None, "the folder has no such file"), ("[", "It looks like")):
        if content:
            (tmp_path / "bare" / "preprocessor_config.json").write_text(content)
        with pytest.raises(SpecError, match=r"preprocessor_config\.json") as error:
            tiny_text.prepare(TASK, tmp_path / "bare", data, tmp_path / "prepared")
        (mistake,) = error.value.mistakes
        assert mistake.expected == "a model with its image processor, `preprocessor_config.json`"
        assert mistake.found.startswith(f"`{tmp_path / 'bare'}`, whose image processor cannot be loaded: {reason}")
        assert "save_pretrained" in mistake.hint


@pytest.mark.parametrize(
    ("processor", "settings", "names"),
    [
        ("ImageGPTImageProcessorPil", {"clusters": [[0.0, 0.0, 0.0]] * 4}, "input_ids"),
        ("Siglip2ImageProcessorPil", {}, "pixel_values, pixel_attention_mask, spatial_shapes"),
    ],
)
def test_a_model_that_is_fed_with_more_than_pixels_is_refused(tmp_path, processor, settings, names):
    """ImageGPT reads colours as tokens, SigLIP 2 patches with a mask: the message says so, before an image is read."""
    import transformers

    folder = tiny.write_model(tmp_path / "model")
    getattr(transformers, processor)(**settings).save_pretrained(folder)
    data = tiny.write_data(tmp_path / "data")
    with pytest.raises(SpecError, match=f"pixel_values alone, found `model`, which takes {names} @ \\$.model"):
        tiny_text.prepare(TASK, folder, data, tmp_path / "prepared", data_keys={"primary": "image"})


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (4, "RGBA")])
def test_images_of_one_and_of_four_channels(channels, mode, tmp_path):
    """A model of gray images, or of images with transparency, gets images of that mode, whatever the mode in the data
    set; its graph and its timed inputs have as many channels.
    """
    from transformers import AutoImageProcessor

    from benchcard import registry, testing

    model = testing.write_image_model(tmp_path / "model", num_channels=channels)
    made = images()
    data = write(tmp_path / "data", [packed(image) for image in made.values()], [0] * len(made))
    torch, graph = (
        testing.pass_through(TASK, model, data, tmp_path / name, framework=name) for name in ("pytorch", "onnxruntime")
    )
    np.testing.assert_allclose(torch.kept["scores"], graph.kept["scores"], atol=1e-4)
    processor = AutoImageProcessor.from_pretrained(model, backend="pil")
    pixels = [processor(image.convert(mode), return_tensors="np")["pixel_values"][0] for image in made.values()]
    stored = np.fromfile(tmp_path / "pytorch" / "prepare" / "pixel_values.bin", np.float32)
    np.testing.assert_array_equal(stored, np.stack(pixels).ravel())
    assert registry.task(TASK).inputs(model, 2, None, 0)[0]["pixel_values"].shape == (2, channels, 8, 8)


def test_channels_of_a_processor_that_does_not_normalize_are_the_models(tmp_path):
    """Without means the configuration of the model has the number of channels; one that no image has is refused."""
    from transformers import PretrainedConfig, ViTImageProcessorPil

    from benchcard.errors import ArtifactError
    from benchcard.export.images import image_mode

    plain = ViTImageProcessorPil(do_normalize=False)
    assert image_mode(plain, PretrainedConfig(num_channels=1)) == "L"
    assert image_mode(plain, PretrainedConfig()) == "RGB"
    assert image_mode(ViTImageProcessorPil(image_mean=[0.5]), PretrainedConfig(num_channels=3)) == "L"
    with pytest.raises(ArtifactError, match=r"images of 7 channels; expected 1.*: set `num_channels`"):
        image_mode(plain, PretrainedConfig(num_channels=7))


def test_the_size_of_images_is_that_of_the_vision_part_or_of_the_processor():
    """The configuration comes first, then its vision part, then the processor, if there is one."""
    from transformers import CLIPConfig, PretrainedConfig, ViTImageProcessorPil

    from benchcard.export.images import image_size

    processor = ViTImageProcessorPil(size={"height": 12, "width": 10})
    assert image_size(processor, PretrainedConfig(image_size=[8, 6])) == (8, 6)
    assert image_size(processor, PretrainedConfig()) == (12, 10)
    assert image_size(None, CLIPConfig(vision_config={"image_size": 32})) == (32, 32)
    assert image_size(None, PretrainedConfig()) == (224, 224)


@pytest.mark.parametrize(
    "settings", [{"do_resize": False}, {"size": {"shortest_edge": 32}, "do_center_crop": False}], ids=["as is", "edge"]
)
def test_images_of_many_sizes_pass_through_the_graph(settings, tmp_path):
    """A processor that keeps the sizes or the shapes of images gives the graph images of many sizes: its height and
    width are dynamic, and each image gets the scores that it gets alone in PyTorch.
    """
    import onnx
    import torch
    from PIL import Image
    from transformers import BitImageProcessorPil, ResNetConfig, ResNetForImageClassification

    from benchcard import testing

    torch.manual_seed(0)
    labels = dict(enumerate(tiny.LABELS))
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", id2label=labels)
    ResNetForImageClassification(config).eval().save_pretrained(tmp_path / "model")
    BitImageProcessorPil(**{"do_center_crop": False, **settings}).save_pretrained(tmp_path / "model")
    generator = np.random.default_rng(0)
    sizes = [(40, 64), (64, 40), (40, 64), (33, 35), (90, 50)]
    noise = [Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]
    data = write(tmp_path / "data", [packed(image) for image in noise], [0, 1, 2, 0, 1])
    graph = testing.pass_through(TASK, tmp_path / "model", data, tmp_path / "run", framework="onnxruntime")
    expected = [directly(tmp_path / "model", image) for image in noise]
    np.testing.assert_allclose(graph.kept["scores"], expected, atol=1e-4)
    exported = onnx.load(tmp_path / "run" / "export" / "model.onnx")
    assert [size.dim_param for size in exported.graph.input[0].type.tensor_type.shape.dim] == [
        "batch",
        "",
        "height",
        "width",
    ]


def test_a_model_of_one_size_keeps_it_where_nothing_is_resized(tmp_path):
    """A model with position embeddings is exported at its own size, also where its processor resizes nothing."""
    from benchcard import testing

    model = tiny.write_model(tmp_path / "model")
    file = model / "preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "do_resize": False}))
    data = tiny.write_data(tmp_path / "data", rows=3)
    torch, graph = (
        testing.pass_through(TASK, model, data, tmp_path / name, framework=name) for name in ("pytorch", "onnxruntime")
    )
    np.testing.assert_allclose(torch.kept["scores"], graph.kept["scores"], atol=1e-4)
