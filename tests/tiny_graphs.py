"""Small ONNX graphs with seeded weights for the tests of quantization, exported or written by hand.

Exports by `torch.onnx.export(dynamo=False)` take a fraction of a second; those by `transformers.exporters`, seconds.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime.quantization import calibrate

from benchcard.quantization.loading import check_loads

IMAGE = (3, 32, 32)
TOKENS = 8
LAYERS = 2
# onnxruntime 1.23 can neither save ranges nor be given any.
takes_ranges = pytest.mark.skipif(
    not hasattr(calibrate, "save_tensors_data"), reason="this onnxruntime accepts no ranges"
)


@contextmanager
def _quiet() -> Iterator[None]:
    """Exporters warn of their own age and of everything that they trace."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def _model(kind: str, attention: str) -> Any:
    import torch
    import transformers as t

    torch.manual_seed(0)
    torch.set_num_threads(1)
    how = {"attn_implementation": attention}
    text = {"vocab_size": 50, "max_position_embeddings": 32}
    if kind == "vit":
        config = t.ViTConfig(
            hidden_size=32,
            num_hidden_layers=LAYERS,
            num_attention_heads=2,
            intermediate_size=64,
            image_size=IMAGE[1],
            patch_size=8,
            num_labels=5,
            **how,
        )
        return t.ViTForImageClassification(config).eval()
    if kind == "resnet":
        config = t.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[2, 1], layer_type="basic", num_labels=3)
        model = t.ResNetForImageClassification(config).eval()
        with torch.no_grad():
            # Biases that are all zero would be one weight, copied wherever it is used.
            for parameter in model.parameters():
                parameter.normal_(std=0.3)
        return model
    if kind == "convnext":
        return t.ConvNextForImageClassification(
            t.ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, num_labels=3)
        ).eval()
    if kind in ("bert", "bert-tanh"):
        config = t.BertConfig(
            hidden_size=32,
            num_hidden_layers=LAYERS,
            num_attention_heads=2,
            intermediate_size=64,
            hidden_act="gelu_new" if kind == "bert-tanh" else "gelu",
            **text,
            **how,
        )
        return t.BertForSequenceClassification(config).eval()
    if kind == "distilbert":
        config = t.DistilBertConfig(dim=32, n_layers=LAYERS, n_heads=2, hidden_dim=64, **text, **how)
        return t.DistilBertForSequenceClassification(config).eval()
    if kind == "gpt2":
        config = t.GPT2Config(
            n_embd=32, n_layer=LAYERS, n_head=2, n_positions=32, vocab_size=50, use_cache=False, pad_token_id=0, **how
        )
        return t.GPT2ForTokenClassification(config).eval()
    raise ValueError(kind)


def samples(kind: str, count: int) -> list[dict[str, np.ndarray]]:
    """Inputs of batch size one."""
    draw = np.random.default_rng(0)
    if kind in ("vit", "resnet", "convnext"):
        return [{"pixel_values": draw.standard_normal((1, *IMAGE), dtype=np.float32)} for _ in range(count)]
    return [
        {
            "input_ids": draw.integers(0, 50, (1, TOKENS)),
            "attention_mask": np.ones((1, TOKENS), np.int64),
        }
        for _ in range(count)
    ]


def export(kind: str, opset: int, target: Path) -> Path:
    """A graph by PyTorch's older exporter, which knows every opset up to 20."""
    import torch

    inputs = {name: torch.from_numpy(value) for name, value in samples(kind, 1)[0].items()}
    with _quiet():
        torch.onnx.export(
            _model(kind, "eager"),
            (),
            str(target),
            kwargs=inputs,
            opset_version=opset,
            dynamo=False,
            input_names=list(inputs),
            output_names=["logits"],
            dynamic_axes={name: {0: "batch"} for name in (*inputs, "logits")},
        )
    return target


def export_dynamo(kind: str, opset: int, target: Path, **options: Any) -> Path:
    """A graph by the exporter of transformers, which knows opsets from 18 on; a test of options it lacks is skipped."""
    import onnx_ir
    import torch
    from transformers.exporters import OnnxConfig, OnnxExporter

    if unknown := options.keys() - {field.name for field in fields(OnnxConfig)}:
        pytest.skip(f"the exporter of this transformers has no option {', '.join(unknown)}")
    inputs = {name: torch.from_numpy(np.concatenate([value, value])) for name, value in samples(kind, 1)[0].items()}
    with _quiet():
        exported = OnnxExporter().export(
            _model(kind, "sdpa"), inputs, OnnxConfig(dynamic=True, opset_version=opset, **options)
        )
        onnx_ir.save(exported.program if hasattr(exported, "program") else exported.model, str(target))
    return target


def written(text: str, weights: Mapping[str, np.ndarray] | None = None) -> onnx.ModelProto:
    """A graph written by hand, in the textual form of ONNX, with weights by name."""
    model = onnx.parser.parse_model(text)
    for name, values in (weights or {}).items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return model


def saved(model: onnx.ModelProto, target: Path) -> Path:
    """The file of a model."""
    onnx.save(model, str(target))
    return target


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Seeded normal numbers, `shape` float32."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def check_runs(model: Path, feeds: Mapping[str, np.ndarray]) -> None:
    """Check that ONNX Runtime loads and runs a model, and that each floating-point output has a finite number."""
    check_loads(model)
    outputs = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, dict(feeds))
    assert all(np.isfinite(values).any() for values in outputs if values.dtype.kind == "f" and values.size)


def calibrated(model: Path, feeds: Sequence[Mapping[str, np.ndarray]], folder: Path) -> Any:
    """Ranges (`TensorsData`) of all tensors of a model, by ONNX Runtime's own calibrator of minima and maxima."""
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, create_calibrator

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.feeds = iter(feeds)

        def get_next(self) -> Any:
            return next(self.feeds, None)

    calibrator = create_calibrator(
        model,
        None,
        augmented_model_path=str(folder / "augmented.onnx"),
        calibrate_method=CalibrationMethod.MinMax,
    )
    calibrator.collect_data(Reader())
    return calibrator.compute_data()


@dataclass(frozen=True)
class Case:
    """A float model with ranges of all its tensors, measured on a few samples."""

    kind: str
    path: Path
    ranges: Any
    feeds: list[dict[str, np.ndarray]]


def case(kind: str, opset: int, folder: Path, count: int = 2) -> Case:
    """An exported model, calibrated."""
    path, feeds = export(kind, opset, folder / "float.onnx"), samples(kind, count)
    return Case(kind, path, calibrated(path, feeds, folder), feeds)
