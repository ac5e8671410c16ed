"""The digits example: its data set, its trained model, and the script that made both."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from datasets import DatasetDict

EXAMPLE = Path(__file__).parents[1] / "examples" / "digits"
SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    """`train.py` as a module, since the script is not on the import path."""
    spec = importlib.util.spec_from_file_location("digits_train", EXAMPLE / "train.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DatasetDict:
    """The data set of the example, loaded into its own cache."""
    from datasets import load_dataset

    return load_dataset(str(EXAMPLE / "data"), cache_dir=str(tmp_path_factory.mktemp("datasets")))


@pytest.fixture(scope="module")
def model() -> Any:
    """The model of the example, loaded by transformers."""
    from transformers import AutoModelForImageClassification

    return AutoModelForImageClassification.from_pretrained(EXAMPLE / "model").eval()


@pytest.fixture(scope="module")
def processor() -> Any:
    """The image processor of the example; the PIL backend needs no torchvision."""
    from transformers import AutoImageProcessor

    return AutoImageProcessor.from_pretrained(EXAMPLE / "model", backend="pil")


@pytest.fixture
def torch_settings() -> Iterator[None]:
    """Restore torch's global settings after the test, since `train` changes them."""
    import torch

    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=[]):
        yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


def pixels(data: DatasetDict, split: str) -> np.ndarray:
    """Return the gray values `(rows, 8, 8) uint8` of a split."""
    return np.stack([np.asarray(image) for image in data[split]["image"]])


def source_rows(data: DatasetDict, split: str) -> list[int]:
    """Return the row number in scikit-learn's data of each row of a split, from the file names of its images."""
    from datasets import Image

    return [int(Path(image["path"]).stem) for image in data[split].cast_column("image", Image(decode=False))["image"]]


def measured_accuracy(model: Any, processor: Any, rows: Any) -> float:
    """Return the accuracy on `rows`, measured with plain transformers."""
    import torch

    inputs = processor(images=list(rows["image"]), return_tensors="pt")
    with torch.inference_mode():
        predictions = model(**inputs).logits.argmax(-1).numpy()
    return float(np.mean(predictions == np.asarray(rows["label"])))


def test_data_has_three_splits_of_images_and_named_labels(data: DatasetDict) -> None:
    """`load_dataset` gives train, validation and test, with the features that were written to parquet."""
    from datasets import ClassLabel, Image

    assert {split: len(rows) for split, rows in data.items()} == {"train": 1097, "validation": 350, "test": 350}
    for rows in data.values():
        assert list(rows.features) == ["image", "label"]
        assert isinstance(rows.features["image"], Image)
        assert isinstance(rows.features["label"], ClassLabel)


def test_data_is_all_of_the_source_and_no_row_twice(data: DatasetDict) -> None:
    """Every row of scikit-learn's digits is in exactly one split, with its label and its gray values."""
    from sklearn.datasets import load_digits

    source = load_digits()
    rows = [row for split in SPLITS for row in source_rows(data, split)]
    images = np.concatenate([pixels(data, split) for split in SPLITS])
    labels = np.concatenate([data[split]["label"] for split in SPLITS])

    assert sorted(rows) == list(range(len(source.target)))
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images)
    assert np.array_equal(labels, source.target[rows])
    assert np.array_equal(np.rint(images * (16 / 255)), source.images[rows])


@pytest.mark.parametrize("split", SPLITS)
def test_split_is_stratified_and_its_rows_are_mixed(data: DatasetDict, split: str) -> None:
    """Each label has its share of a split, and the first 128 rows, used for calibration, contain all labels."""
    labels = np.asarray(data[split]["label"])
    everything = np.concatenate([data[name]["label"] for name in SPLITS])
    fair = np.bincount(everything) * len(labels) / len(everything)

    assert np.all(np.abs(np.bincount(labels) - fair) <= 1)
    assert np.bincount(labels[:128], minlength=10).min() >= 5


def test_label_names_of_model_and_data_agree(data: DatasetDict, model: Any) -> None:
    """The model's labels are those of the data set, in the same order, both ways."""
    names = data["train"].features["label"].names

    assert [model.config.id2label[label] for label in range(len(names))] == names
    assert model.config.label2id == {name: label for label, name in enumerate(names)}


def test_weights_are_small() -> None:
    """The weights are one safetensors file of less than 2 MB."""
    assert [path.name for path in (EXAMPLE / "model").glob("*.safetensors")] == ["model.safetensors"]
    assert (EXAMPLE / "model" / "model.safetensors").stat().st_size < 2_000_000


def test_processor_makes_model_inputs_of_gray_images(data: DatasetDict, model: Any, processor: Any) -> None:
    """An 8 x 8 gray image becomes three equal channels of the model's size, from -1 (paper) to 1 (ink)."""
    inputs = processor(images=data["test"][0]["image"], return_tensors="np")["pixel_values"]

    assert inputs.shape == (1, 3, model.config.image_size, model.config.image_size)
    assert inputs.dtype == np.float32
    assert (inputs.min(), inputs.max()) == (-1.0, 1.0)
    assert np.array_equal(inputs[0, 0], inputs[0, 1])
    assert np.array_equal(inputs[0, 0], inputs[0, 2])


@pytest.mark.parametrize("split", ["validation", "test"])
def test_model_is_accurate_on_held_out_rows_and_its_card_says_so(
    data: DatasetDict, model: Any, processor: Any, split: str
) -> None:
    """The accuracy on held-out rows is at least 0.97, and the model card has the measured figure."""
    from huggingface_hub import ModelCard

    accuracy = measured_accuracy(model, processor, data[split])
    results = ModelCard.load(EXAMPLE / "model" / "README.md").data.eval_results
    published = next(result.metric_value for result in results if result.dataset_split == split)

    assert accuracy >= 0.97
    # The prediction of one row of 350 may differ on another CPU.
    assert published == pytest.approx(accuracy, abs=0.003)


def test_script_measures_the_accuracy_that_transformers_gives(
    script: ModuleType, data: DatasetDict, model: Any, processor: Any
) -> None:
    """`train.py` and plain transformers measure the same accuracy."""
    rows = data["test"].select(range(100))

    assert script.accuracy(model, processor, rows) == pytest.approx(measured_accuracy(model, processor, rows))


def test_data_is_written_the_same_twice_and_as_shipped(script: ModuleType, tmp_path: Path) -> None:
    """Writing the data set twice gives the same bytes, and those of the repository with the same parquet writer."""
    import pyarrow.parquet as pq

    script.write_data(tmp_path / "one")
    script.write_data(tmp_path / "two")
    committed = sorted((EXAMPLE / "data").glob("*.parquet"))

    assert [path.name for path in committed] == sorted(path.name for path in (tmp_path / "one").iterdir())
    for path in committed:
        one, two = tmp_path / "one" / path.name, tmp_path / "two" / path.name
        assert one.read_bytes() == two.read_bytes()
        assert pq.read_table(one).equals(pq.read_table(path), check_metadata=True)
        if pq.read_metadata(one).created_by == pq.read_metadata(path).created_by:
            assert one.read_bytes() == path.read_bytes()


@pytest.mark.usefixtures("torch_settings")
def test_training_is_reproducible_to_the_bit(script: ModuleType, data: DatasetDict) -> None:
    """Two steps of training give equal weights for the same seed, and different ones for another."""
    from safetensors.torch import save

    small = {"train": data["train"].select(range(32))}
    recipe = script.Recipe(epochs=1, batch_size=16)

    def weights(recipe: Any) -> bytes:
        return save(script.train(small, recipe)[0].state_dict())

    first = weights(recipe)
    assert weights(recipe) == first
    assert weights(replace(recipe, seed=1)) != first


def test_augmentation_moves_ink_and_leaves_paper(script: ModuleType, data: DatasetDict, processor: Any) -> None:
    """With zero limits images stay the same; with those of the recipe all change, but not their range and channels."""
    import torch

    images = processor(images=list(data["train"][:8]["image"]), return_tensors="pt")["pixel_values"]
    recipe = script.Recipe()
    unchanged = replace(recipe, max_rotation_deg=0.0, max_shift_fraction=0.0, max_scale_fraction=0.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        moved = script._augment(images, recipe)

    torch.testing.assert_close(script._augment(images, unchanged), images, atol=1e-4, rtol=0)
    assert (moved - images).abs().amax(dim=(1, 2, 3)).min() > 0.1
    assert moved.min() >= images.min()
    assert moved.max() <= images.max()
    assert torch.equal(moved[:, 0], moved[:, 2])
