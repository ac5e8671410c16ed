"""The inputs of a graph in calibration, and where its outputs are compared."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_graphs import saved, written

from benchcard.evaluation import features
from benchcard.evaluation.feeds import feeds


@pytest.fixture
def items(tmp_path):
    """Five texts of different lengths, as the task prepares them."""
    folder = tmp_path / "items"
    folder.mkdir()
    rows = [
        {"input_ids": np.arange(size), "attention_mask": np.ones(size, np.int64), "token_type_ids": np.zeros(size, int)}
        for size in (3, 1, 4, 1, 5)
    ]
    features.write_features(rows, folder, pad={"input_ids": 9, "attention_mask": 0, "token_type_ids": 0})
    return features.Features(folder)


def graph(tmp_path, inputs):
    """A graph with these inputs and no operators that use them."""
    return saved(written(f'<ir_version: 8, opset_import: ["" : 13]> g ({inputs}) => () {{ }}'), tmp_path / "g.onnx")


def test_a_graph_gets_the_inputs_that_it_has_in_its_types(items, tmp_path):
    """Each run has one item, in their order, without inputs that the graph does not have."""
    model = graph(tmp_path, "int32[b, s] input_ids, float16[b, s] attention_mask")
    found = list(feeds(items, model))
    assert [each["input_ids"].shape for each in found] == [(1, size) for size in (3, 1, 4, 1, 5)]
    for each in found:
        assert {name: array.dtype.name for name, array in each.items()} == {
            "input_ids": "int32",
            "attention_mask": "float16",
        }
    np.testing.assert_array_equal(found[2]["input_ids"], [[0, 1, 2, 3]])
    assert len(list(feeds(items, model, 2))) == 2
    assert len(list(feeds(items, model, 99))) == 5


def test_a_graph_of_one_batch_size_gets_as_many_items(tmp_path):
    """Neighbors of equal length share a run, the last one is repeated to fill it, and nothing is padded."""
    folder = tmp_path / "items"
    folder.mkdir()
    rows = [
        {"input_ids": np.arange(size) + index, "attention_mask": np.ones(size, np.int64)}
        for index, size in enumerate((3, 2, 2, 2, 4))
    ]
    features.write_features(rows, folder, pad={"input_ids": 9, "attention_mask": 0})
    model = graph(tmp_path, "int64[2, s] input_ids, int64[2, s] attention_mask")
    found = list(feeds(features.Features(folder), model))
    assert [each["input_ids"].tolist() for each in found] == [
        [[0, 1, 2], [0, 1, 2]],
        [[1, 2], [2, 3]],
        [[3, 4], [3, 4]],
        [[4, 5, 6, 7], [4, 5, 6, 7]],
    ]
    assert all(each["attention_mask"].all() for each in found)


def test_a_graph_of_one_length_gets_items_padded_to_it(items, tmp_path):
    """Each item is padded to the length of the graph, with the values of the task, on the side of the tokenizer."""
    model = graph(tmp_path, "int64[b, 6] input_ids, int64[b, 6] attention_mask")
    found = list(feeds(items, model))
    assert found[1]["input_ids"].tolist() == [[0, 9, 9, 9, 9, 9]]
    assert found[1]["attention_mask"].tolist() == [[1, 0, 0, 0, 0, 0]]
    assert {each["input_ids"].shape for each in found} == {(1, 6)}
    _, batch = next(items.padded_to(7).batches(2))
    assert batch["input_ids"].shape == (2, 7)
    assert next(items.batches(2))[1]["input_ids"].shape == (2, 5)
