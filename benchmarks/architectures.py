"""Compare PyTorch, every exporter and benchcard's batches on small models of the architectures of transformers.

    python benchmarks/architectures.py [--only NAME ...] [--at-once 1] [--rows FILE] [--out docs/architectures.md]

Each model has two layers and random weights, large enough that a wrong mask, length or position changes the outputs.
The script compares for each:

- batch: PyTorch on a batch of equal lengths with its members alone;
- padded right, padded left: PyTorch on short and long texts in one batch with its members alone;
- exporters: each graph that benchcard accepts, by each exporter, with PyTorch at several batch sizes and lengths,
  unpadded and padded on both sides. An image model is also exported at a second image size;
- evaluation: the scores that benchcard's steps `prepare` and `evaluate` keep for a small data set, in PyTorch and in
  ONNX Runtime, with a tokenizer that pads right and one that pads left, with those of each text or image alone.

The comparisons share no code with the checks in benchcard. The exit status is 1 if benchcard accepts a graph that
differs, keeps a score that differs, reports the effect of padding wrongly, or raises anything but a `BenchcardError`.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import inspect
import json
import multiprocessing
import os
import pkgutil
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing import connection
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]

TOLERANCE = 5e-4  # as a share of the largest output
TIME_LIMIT_S = 900
MEMORY_LIMIT_BYTES = 12 << 30
LABELS = ("bad", "dull", "good")
WORDS = tuple(f"word{index}" for index in range(19))
LONGEST = 48  # tokens
WORD_COUNTS = (1, 12, 3, 30, 2, 7, 20, 5, 12, 3)  # words of the evaluated texts
EQUAL = ((3,), (12, 12, 12), (LONGEST, LONGEST))  # lengths in batches without padding
RAGGED = ((5, 17, 3, 9), (7, LONGEST - 1, 30))  # and with it: short texts before and after the longest
SIDES = ("right", "left")
EXPORTERS = {  # the opsets to export with each exporter
    "torchscript": (14, 20),
    "torchscript-converted": (22,),
    "transformers": (23,),
    "torch-dynamo": (18,),
}
SECOND_SIZE = {"torchscript": (20,), "torch-dynamo": (18,)}
PRELOADED = [  # slow to import and used by every child process
    "torch.onnx._internal.exporter._core",
    "onnxscript",
    "transformers.exporters.exporter_onnx",
    "optimum.exporters.tasks",
    "onnxruntime",
    "datasets",
    "benchcard.steps.quantize",
]

SMALL: dict[str, Any] = {  # applied to configurations that have the setting
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "n_positions": 64,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "embedding_size": 32,
    "image_size": 32,
    "patch_size": 8,
    "sliding_window": 6,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "sep_token_id": 3,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
}
STAGES: dict[str, Any] = {"hidden_sizes": [8, 16], "depths": [1, 1]}
FOUR: dict[str, Any] = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}
PYRAMID: dict[str, Any] = {**FOUR, "num_attention_heads": [1, 2, 2, 4]}
WINDOWS: dict[str, Any] = {
    "embed_dim": 8,
    "depths": [2, 2],
    "num_heads": [2, 4],
    "window_size": 4,
    "patch_size": 2,
    **dict.fromkeys(("hidden_size", "num_hidden_layers", "num_attention_heads")),
}
RELATIVE: dict[str, Any] = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}
VISION: dict[str, Any] = {
    "vision_config": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "image_size": 32,
        "patch_size": 8,
    }
}
T5: dict[str, Any] = {
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
}

TEXTS: dict[str, dict[str, Any]] = {
    "albert": {},
    "bart": {},
    "bert": {},
    "big_bird": {"block_size": 4, "num_random_blocks": 1},
    "bigbird_pegasus": {"block_size": 4, "num_random_blocks": 1},
    "biogpt": {},
    "bloom": {"n_head": 4},
    "camembert": {},
    "convbert": {"conv_kernel_size": 3},
    "ctrl": {"n_embd": 32, "dff": 48, "n_layer": 2, "n_head": 4},
    "data2vec-text": {},
    "deberta": {**RELATIVE, "max_relative_positions": 16, "pooler_hidden_size": 32},
    "deberta-v2": {**RELATIVE, "position_buckets": 8, "position_biased_input": False, "pooler_hidden_size": 32},
    "distilbert": {"n_layers": 2, "n_heads": 4, "dim": 32, "hidden_dim": 48},
    "electra": {},
    "ernie": {},
    "esm": {"token_dropout": True, "mask_token_id": 4, "position_embedding_type": "rotary"},
    "eurobert": {},
    "falcon": {"ffn_hidden_size": 48, "head_dim": None},
    "flaubert": {"emb_dim": 32, "n_layers": 2, "n_heads": 4},
    "fnet": {},
    "funnel": {
        "num_hidden_layers": None,
        "block_sizes": [1, 1],
        "num_decoder_layers": 1,
        "n_head": 4,
        "d_head": 8,
        "d_inner": 48,
    },
    "gemma": {},
    "gemma2": {"query_pre_attn_scalar": 8},
    "gemma3_text": {"query_pre_attn_scalar": 8},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4},
    "gpt_bigcode": {"n_embd": 32, "n_layer": 2, "n_head": 4},
    "gpt_neo": {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 6},
    "gpt_neox": {},
    "gptj": {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4},
    "gte": {},
    "helium": {},
    "ibert": {},
    "jina_embeddings_v3": {},
    "layoutlm": {},
    "lilt": {"hidden_size": 48},
    "llama": {},
    "longformer": {"attention_window": 4},
    "luke": {"entity_vocab_size": 8, "entity_emb_size": 8},
    "markuplm": {"max_depth": 4},
    "mbart": {},
    "megatron-bert": {},
    "mistral": {},
    "mixtral": {"num_local_experts": 4},
    "mobilebert": {"intra_bottleneck_size": 32, "true_hidden_size": 32, "num_feedforward_networks": 2},
    "modernbert": {"local_attention": 8, "cls_token_id": 2, "layer_types": ["full_attention", "sliding_attention"]},
    "mpnet": {},
    "mpt": {"n_heads": 4, "n_layers": 2, "max_seq_len": 512},
    "mvp": {},
    "nomic_bert": {},
    "nystromformer": {"num_landmarks": 4, "segment_means_seq_len": 4, "conv_kernel_size": 3},
    "olmo2": {},
    "openai-gpt": {"n_embd": 32, "n_layer": 2, "n_head": 4},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "phi": {},
    "phi3": {"original_max_position_embeddings": 64},
    "plbart": {},
    "qwen2": {},
    "qwen3": {},
    "reformer": {
        "attn_layers": ["local", "lsh"],
        "attention_head_size": 8,
        "axial_pos_shape": [8, 8],
        "axial_pos_embds_dim": [8, 24],
        "feed_forward_size": 48,
        "local_attn_chunk_length": 4,
        "lsh_attn_chunk_length": 4,
        "num_buckets": 4,
    },
    "rembert": {"input_embedding_size": 16, "output_embedding_size": 16},
    "roberta": {},
    "roberta-prelayernorm": {},
    "roc_bert": {"pronunciation_vocab_size": 32, "shape_vocab_size": 32},
    "roformer": {},
    "smollm3": {},
    "squeezebert": {"embedding_size": 32},
    "stablelm": {},
    "starcoder2": {},
    "t5": T5,
    "umt5": T5,
    "xlm": {"emb_dim": 32, "n_layers": 2, "n_heads": 4},
    "xlm-roberta": {},
    "xlm-roberta-xl": {},
    "xlnet": {"max_position_embeddings": None, "n_layer": 2, "n_head": 4, "d_head": 8, "d_inner": 48},
    "xmod": {"default_language": "en_XX"},
    "yoso": {"num_hash": 4, "hash_code_len": 4},
}
IMAGES: dict[str, dict[str, Any]] = {
    "beit": {"use_relative_position_bias": True},
    "bit": {**STAGES, "embedding_size": 8, "num_groups": 4},
    "clip": VISION,
    "convnext": {**STAGES, "num_stages": 2, "patch_size": 4},
    "convnextv2": {**STAGES, "num_stages": 2, "patch_size": 4},
    "cvt": {"embed_dim": [8, 16, 16], "depth": [1, 2, 3], "num_heads": [1, 2, 2]},
    "data2vec-vision": {"use_relative_position_bias": True},
    "deit": {"architectures": ["DeiTForImageClassification"]},
    "dinov2": {},
    "dinov2_with_registers": {},
    "dinov3_vit": {},
    "donut-swin": WINDOWS,
    "efficientnet": {
        "width_coefficient": 0.25,
        "depth_coefficient": 0.25,
        "kernel_sizes": [3, 5],
        "in_channels": [32, 16],
        "out_channels": [16, 24],
        "strides": [1, 2],
        "num_block_repeats": [1, 1],
        "expand_ratios": [1, 6],
        "hidden_dim": 320,
    },
    "focalnet": {**STAGES, "embed_dim": 8, "focal_levels": [2, 2], "focal_windows": [3, 3], "patch_size": 4},
    "hgnet_v2": {
        "stem_channels": [3, 8, 8],
        "stage_in_channels": [8, 16],
        "stage_mid_channels": [8, 8],
        "stage_out_channels": [16, 16],
        "stage_num_blocks": [1, 1],
        "stage_downsample": [False, True],
        "stage_downsample_strides": [2, 2],
        "stage_light_block": [False, True],
        "stage_kernel_size": [3, 5],
        "stage_numb_of_layers": [2, 2],
        **STAGES,
        "embedding_size": 8,
    },
    "hiera": {
        "embed_dim": 8,
        "image_size": [64, 64],
        "depths": [1, 1, 1],
        "num_heads": [1, 2, 2],
        "num_query_pool": 2,
        "masked_unit_size": [4, 4],
        "masked_unit_attention": [True, True, False],
        "patch_size": [7, 7],
    },
    "ijepa": {},
    "levit": {
        "architectures": ["LevitForImageClassification"],
        "hidden_sizes": [16, 16, 16],
        "num_attention_heads": [2, 2, 2],
        "depths": [1, 1, 1],
        "key_dim": [8, 8, 8],
        "down_ops": [["Subsample", 8, 2, 4, 2, 2], ["Subsample", 8, 2, 4, 2, 2]],
        "image_size": 64,
        "patch_size": 16,
    },
    "metaclip_2": VISION,
    "mobilenet_v1": {"depth_multiplier": 0.25, "image_size": 64},
    "mobilenet_v2": {"depth_multiplier": 0.25, "image_size": 64},
    "mobilevit": {
        "hidden_sizes": [16, 16, 16],
        "neck_hidden_sizes": [8, 8, 8, 8, 8, 8, 16],
        "patch_size": 2,
        "image_size": 64,
    },
    "mobilevitv2": {
        "patch_size": 2,
        "width_multiplier": 0.25,
        "base_attn_unit_dims": [16, 16, 16],
        "n_attn_blocks": [1, 1, 1],
        "image_size": 64,
    },
    "perceiver": {
        "architectures": ["PerceiverForImageClassificationLearned"],
        "num_latents": 8,
        "d_latents": 16,
        "num_self_attends_per_block": 1,
        "num_self_attention_heads": 2,
        "num_cross_attention_heads": 1,
        "image_size": 16,
    },
    "poolformer": {**FOUR, "patch_size": 16},
    "pp_lcnet": {"scale": 0.25},
    "pvt": {**PYRAMID, "patch_sizes": [4, 2, 2, 2]},
    "pvt_v2": {**PYRAMID, "image_size": [32, 32]},
    "regnet": {**STAGES, "embedding_size": 8, "groups_width": 4},
    "resnet": {**STAGES, "embedding_size": 8, "layer_type": "basic"},
    "segformer": PYRAMID,
    "siglip": VISION,
    "swiftformer": {"embed_dims": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "image_size": 64},
    "swin": WINDOWS,
    "swinv2": WINDOWS,
    "textnet": {
        "stem_out_channels": 8,
        "conv_layer_kernel_sizes": [[[3, 3]], [[1, 3]], [[3, 1]], [[3, 3]]],
        "conv_layer_strides": [[1], [2], [2], [2]],
        "hidden_sizes": [8, 8, 8, 16, 16],
    },
    "vit": {},
    "vit_msn": {},
}


def write_model(name: str, folder: Path) -> None:
    """Write a model of the architecture with seeded weights, and its tokenizer or image processor, into a folder.

    The weights keep the scale of activations from layer to layer. They differ from their initial values, layer scales,
    biases and statistics of batch normalization included, so that every part of a model changes its outputs.
    """
    import torch
    import transformers

    from benchcard import testing

    text = name in TEXTS
    defaults = transformers.AutoConfig.for_model(name)
    small = {key: value for key, value in SMALL.items() if hasattr(defaults, key)}
    settings = {key: value for key, value in {**small, **(TEXTS | IMAGES)[name]}.items() if value is not None}
    if text:
        tokenizer = testing.write_tokenizer(folder, WORDS, maximum=LONGEST)
        settings["vocab_size"] = len(tokenizer)
    config = transformers.AutoConfig.for_model(
        name, **settings, id2label=dict(enumerate(LABELS)), label2id={label: id for id, label in enumerate(LABELS)}
    )
    torch.manual_seed(0)
    model = _auto_class(name).from_config(config)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for key, weight in model.named_parameters():
            fan_in = weight[0].numel() if weight.shape[0] > 1 else weight.shape[-1]
            if weight.ndim > 1 and fan_in > 1:
                weight.normal_(0.0, 1.5 / fan_in**0.5, generator=draw)
            else:  # the initial value of a layer scale is almost zero
                start = 0.5 if "scale" in key or "gamma" in key else weight
                weight.copy_(start + 0.2 * torch.randn(weight.shape, generator=draw))
        norms = [layer for layer in model.modules() if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm)]
        if norms:  # other statistics would let activations vanish or grow from layer to layer
            for layer in norms:
                layer.train().momentum = 1.0
            model(torch.randn(32, 3, *_size(config), generator=draw))
            for layer in norms:
                layer.running_var.clamp_(min=0.01)
    if not text:
        write_image_processor(folder, _size(config))
    model.save_pretrained(folder)


def write_image_processor(folder: Path, size: tuple[int, int]) -> None:
    """Write an image processor that resizes images to a height and width."""
    import transformers

    height, width = size
    transformers.ViTImageProcessorPil(size={"height": height, "width": width}).save_pretrained(folder)


def _auto_class(name: str) -> Any:
    import transformers

    return (
        transformers.AutoModelForSequenceClassification
        if name in TEXTS
        else transformers.AutoModelForImageClassification
    )


def _size(config: Any) -> tuple[int, int]:
    """Return height and width of the images of a configuration, 32 by default."""
    size = getattr(getattr(config, "vision_config", config), "image_size", 32)
    return (size, size) if isinstance(size, int) else tuple(size)


@dataclass
class Export:
    """The result of one exporter at one opset.

    Attributes:
        exporter: Its name.
        opset: The requested opset.
        difference: The largest difference of the graph from PyTorch, as a share of the largest output; None if
            benchcard refuses the graph.
        reason: Why benchcard refuses it.
    """

    exporter: str
    opset: int
    difference: float | None = None
    reason: str = ""


@dataclass
class Row:
    """The measurements of one architecture. Differences are shares of the largest output.

    Attributes:
        name: The `model_type` of its configuration.
        model_class: The class of the model.
        repeated: PyTorch, two calls with the same inputs.
        batch: PyTorch, a batch of equal lengths and its members alone.
        padded: PyTorch, a batch of different lengths and its members alone, by side of the padding.
        exports: Each exporter at each of its opsets.
        second_size: The same for images of a second size; empty if the model accepts one size only.
        evaluation: The scores that benchcard keeps and those of each item alone, by framework and side of the padding.
        batches: How benchcard batches, by the same names as `evaluation`.
        refusals: The rows that benchcard cannot run, by the reason.
        refused: Why benchcard accepts no model of this architecture.
        problems: Errors of benchcard.
        duration_s: Processor time of all measurements.
    """

    name: str
    model_class: str = ""
    repeated: float = 0.0
    batch: float = 0.0
    padded: dict[str, float] = field(default_factory=dict)
    exports: list[Export] = field(default_factory=list)
    second_size: list[Export] = field(default_factory=list)
    evaluation: dict[str, float] = field(default_factory=dict)
    batches: dict[str, str] = field(default_factory=dict)
    refusals: dict[str, list[str]] = field(default_factory=dict)
    refused: str = ""
    problems: list[str] = field(default_factory=list)
    duration_s: float = 0.0


def difference(outputs: NDArray[Any], expected: NDArray[Any]) -> float:
    """Return the largest difference as a share of the largest expected value; infinite for another shape or NaN."""
    if outputs.shape != expected.shape or not np.isfinite(outputs).all():
        return float("inf")
    return float(np.abs(outputs - expected).max() / np.abs(expected).max())


class Reference:
    """The model as transformers loads it, with generated inputs.

    Attributes:
        output: The name of the last output.
    """

    output = ""

    def __init__(self, name: str, folder: Path) -> None:
        import torch

        self._torch = torch
        self.text = name in TEXTS
        self.task = "text-classification" if self.text else "image-classification"
        self.model = _auto_class(name).from_pretrained(folder).eval()
        self.size = _size(self.model.config)
        self._draw = np.random.default_rng(7)
        self._types = max(1, getattr(self.model.config, "type_vocab_size", None) or 1)
        self._parameters = inspect.signature(self.model.forward).parameters

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Return the logits `(batch, labels)`."""
        with self._torch.no_grad():
            fields = self.model(**{name: self._torch.tensor(array) for name, array in inputs.items()})
        self.output = "logits" if "logits" in fields else next(iter(fields))  # PP-LCNet has another name for its logits
        return fields[self.output].numpy()

    def alone(self, items: Sequence[Arrays]) -> NDArray[Any]:
        """Return the logits of each item, computed in batches of one."""
        return np.concatenate([self({name: array[None] for name, array in item.items()}) for item in items])

    def texts(self, lengths: Sequence[int]) -> list[Arrays]:
        """Return token ids of these lengths, as `[CLS] ... [SEP]`, and the other inputs of the model."""
        items = []
        for length in lengths:
            ids = np.concatenate([[2], self._draw.integers(5, 5 + len(WORDS), length - 2), [3]]).astype(np.int64)
            types = (np.arange(length) > length // 2).astype(np.int64) % self._types
            item = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": types}
            items.append({name: array for name, array in item.items() if name in self._parameters})
        return items

    def images(self, count: int, size: tuple[int, int]) -> list[Arrays]:
        """Return images of normal noise, as `pixel_values` `(channels, height, width) float32`."""
        return [{"pixel_values": self._draw.standard_normal((3, *size), dtype=np.float32)} for _ in range(count)]


def batch_of(items: Sequence[Arrays], side: str = "right") -> Arrays:
    """Return the items as one batch; shorter ones are padded with zeros, which is also the id of the padding token."""
    longest = max(len(next(iter(item.values()))) for item in items)
    batch = {}
    for name in items[0]:
        widths = [longest - len(item[name]) for item in items]
        pads = [(0, width) if side == "right" else (width, 0) for width in widths]
        batch[name] = np.stack(
            [np.pad(item[name], [pad, *[(0, 0)] * (item[name].ndim - 1)]) for item, pad in zip(items, pads)]
        )
    return batch


def measure(name: str) -> Row:
    """Measure one architecture."""
    import torch

    torch.set_num_threads(1)
    row = Row(name)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "model")
        try:
            write_model(name, folder)
        except ValueError as error:
            row.refused = f"transformers has no classifier for it: {error}".split("\n")[0]
            return row
        reference = Reference(name, folder)
        row.model_class = type(reference.model).__name__
        _compare_batches(row, reference)
        _compare_graphs(row, reference, folder, Path(place, "graphs"))
        _compare_evaluation(row, reference, folder, Path(place, "evaluation"))
    if not row.evaluation:
        row.refused = next(iter(row.refusals), row.refused)
    row.duration_s = time.process_time()
    return row


def _compare_batches(row: Row, reference: Reference) -> None:
    """Compare batches in PyTorch with their members alone."""
    equal = reference.texts([12] * 4) if reference.text else reference.images(4, reference.size)
    alone = reference.alone(equal)
    if np.ptp(alone, axis=0).max() < 0.01 * np.abs(alone).max():
        row.problems.append("the outputs hardly depend on the inputs, so the comparisons mean nothing")
    row.repeated = difference(reference.alone(equal), alone)
    row.batch = difference(reference(batch_of(equal)), alone)
    for side in SIDES if reference.text else ():
        ragged = [reference.texts(lengths) for lengths in RAGGED]
        row.padded[side] = max(difference(reference(batch_of(items, side)), reference.alone(items)) for items in ragged)


def _compare_graphs(row: Row, reference: Reference, folder: Path, target: Path) -> None:
    """Export with each exporter of benchcard, and compare the accepted graphs with PyTorch."""
    if reference.text:
        # Pad as the tokenizer does, and on the other side too unless outputs depend on the padding there.
        sides = [side for side in SIDES if side == "right" or row.padded[side] <= TOLERANCE]
        batches = [batch_of(reference.texts(lengths)) for lengths in EQUAL]
        batches += [batch_of(reference.texts(lengths), side) for lengths in RAGGED for side in sides]
    else:
        batches = [batch_of(reference.images(count, reference.size)) for count in (1, 5)]
    row.exports = list(_exports(row, reference, folder, target, batches, EXPORTERS))
    if reference.text:
        return
    height, width = reference.size
    for size in ((height * 5 // 4, width * 7 // 4), (height * 2, width * 3)):
        other = batch_of(reference.images(3, size))
        try:
            reference(other)
        except (ValueError, RuntimeError):  # the model does not accept this size
            continue
        folder = folder.with_name("other")
        reference.model.save_pretrained(folder)
        write_image_processor(folder, size)
        row.second_size = list(_exports(row, reference, folder, target.with_name("others"), [other], SECOND_SIZE))
        return


def _exports(
    row: Row,
    reference: Reference,
    folder: Path,
    target: Path,
    batches: Sequence[Arrays],
    opsets_of: Mapping[str, Sequence[int]],
) -> Iterator[Export]:
    """Yield the result of each exporter at each opset, with the difference of an accepted graph from PyTorch."""
    from benchcard.errors import ArtifactError
    from benchcard.export import export as exporting
    from benchcard.export import exporters, loading

    target.mkdir()
    expected = [reference(batch) for batch in batches]
    try:
        model = loading.load_model(folder, reference.task)
        traceable = exporting._traceable(model, loading.load_processor(model, folder, False, []))
    except ArtifactError as error:
        row.refused = str(error)
        return
    for name, opsets in opsets_of.items():
        for opset in opsets:
            only = tuple(exporter for exporter in exporters.exporters(opset) if exporter.name == name)
            try:
                with exporters.noted([]), mock.patch.object(exporters, "exporters", return_value=only):
                    made, reasons = exporting._try_exporters(traceable, opset, target)
            except Exception as error:  # noqa: BLE001 - the check is that no other exception occurs
                made, reasons = None, [f"{type(error).__name__}: {error}"]
                row.problems.append(f"{name} {opset}: raised {reasons[0]}")
            if made is None:
                yield Export(name, opset, reason=reasons[0].removeprefix(f"{name}: "))
                continue
            export = Export(
                name,
                opset,
                difference=_graph_difference(made.folder / made.files[0], reference.output, batches, expected),
            )
            if export.difference > TOLERANCE:
                row.problems.append(f"{name} {opset}: accepted, but differs from PyTorch by {export.difference:.1g}")
            yield export


def _graph_difference(graph: Path, output: str, batches: Sequence[Arrays], expected: Sequence[NDArray[Any]]) -> float:
    """Return the difference of a graph in ONNX Runtime, with all graph optimizations."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options)
    names = [value.name for value in session.get_inputs()]
    results = [session.run([output], {name: batch[name] for name in names})[0] for batch in batches]
    return max(difference(outputs, logits) for outputs, logits in zip(results, expected))


def _compare_evaluation(row: Row, reference: Reference, folder: Path, target: Path) -> None:
    """Compare the scores that benchcard's steps keep with those of each text or image alone."""
    from benchcard import testing

    draw = np.random.default_rng(11)
    if reference.text:
        labels = [LABELS[index % len(LABELS)] for index in range(len(WORD_COUNTS))]
        texts = [" ".join(draw.choice(WORDS, count)) for count in WORD_COUNTS]
        testing.write_data(target / "data", {"validation": {"text": texts, "label": labels}})
    else:
        testing.write_image_data(target / "data", rows=len(WORD_COUNTS), labels=LABELS)
    for side in SIDES if reference.text else ("",):
        model = folder
        if side == "left":
            model = Path(shutil.copytree(folder, target / "left"))
            settings = json.loads((model / "tokenizer_config.json").read_text())
            (model / "tokenizer_config.json").write_text(json.dumps({**settings, "padding_side": side}))
        _evaluate(row, reference, model, target, side)


def _evaluate(row: Row, reference: Reference, model: Path, target: Path, side: str) -> None:
    """Run the steps of two rows in this process, without timing, and compare the kept scores."""
    from benchcard.errors import BenchcardError
    from benchcard.evaluation.rows import Rows, read_predictions
    from benchcard.export import export as exporting
    from benchcard.run.pipeline import Pipeline
    from benchcard.run.traits import traits_of
    from benchcard.sources import resolve
    from benchcard.spec import plan, spec
    from benchcard.steps import MODULES
    from benchcard.steps.step import Outcome, Request
    from benchcard.utils.values import Failure

    results: dict[str, Outcome[Any] | Failure] = {}

    def ask(request: Request[Any]) -> Outcome[Any] | Failure:
        if request.key not in results:
            folder = target / f"{side}-{request.kind}-{len(results)}"
            folder.mkdir()
            try:
                with mock.patch.object(exporting, "_SEARCH_S", 0.0):  # skip the search for other opsets
                    action = pkgutil.resolve_name(f"{MODULES[request.kind]}:{request.kind}")
                    values = action(request, folder, lambda done, total: None)
                results[request.key] = Outcome(request.kind, request.key, folder, values)
            except Exception as error:  # noqa: BLE001 - the check is that only benchcard's errors occur
                results[request.key] = failure = Failure(request.kind, type(error).__name__, str(error))
                if not isinstance(error, BenchcardError):
                    row.problems.append(f"{request.kind}: raised {failure}")
        return results[request.key]

    data = {"path": str(target / "data"), "eval_split": "validation"}
    data |= {"data_keys": {"primary": "text" if reference.text else "image"}, "ref_keys": ["label"]}
    settings = {"model": str(model), "task": reference.task, "dataset": data, "duration": 0}
    rows = plan.make_plan(spec.read_spec({**settings, "grid": {"framework": ["pytorch", "onnxruntime"]}}))
    for configuration in rows:
        record = Pipeline(rows, resolve.resolve_sources(rows.spec), traits_of(rows), ask, 1).record(configuration)
        name = f"{configuration['framework']} {side}".strip()
        for _, failure in record.failures.items():
            row.refusals.setdefault(failure.message, []).append(name)
        if record.outcomes.evaluate and record.outcomes.prepare:
            items = Rows(record.outcomes.prepare.folder).items
            alone = reference.alone([items.item(index) for index in range(len(items))])
            _, kept = read_predictions(record.outcomes.evaluate.folder)
            row.evaluation[name] = difference(np.stack(kept["scores"]), alone)
            row.batches[name] = record.outcomes.evaluate.values.batches
            expected = _batches(row, side if "attention_mask" in items.item(0) else "")
            if row.batches[name] != expected:
                row.problems.append(f"{name}: benchcard batches {row.batches[name]!r}, expected {expected!r}")
            if row.evaluation[name] > TOLERANCE and expected != "random":
                row.problems.append(f"{name}: scores differ by {row.evaluation[name]:.1g} from those of each alone")


def _batches(row: Row, side: str) -> str:
    """Return how benchcard should batch, by the comparisons of this script."""
    if row.repeated > TOLERANCE:
        return "random"
    if row.batch > TOLERANCE:
        return "alone"
    return "equal shapes" if row.padded.get(side, 0.0) > TOLERANCE else "padded"


def _child(name: str, answers: connection.Connection) -> None:
    """Measure one architecture and send its row; an exception becomes a problem of that row."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # exporters print graphs and progress
    os.dup2(1, 2)
    try:
        row = measure(name)
    except Exception:  # noqa: BLE001 - the other architectures continue
        row = Row(name, problems=[traceback.format_exc()])
    answers.send(row)


def rows_of(names: Sequence[str], at_once: int) -> Iterator[Row]:
    """Yield the row of each architecture when it is complete, each from its own child process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    waiting = list(reversed(names))
    running: dict[connection.Connection, tuple[str, Any, float]] = {}
    while waiting or running:
        while waiting and len(running) < at_once:
            name = waiting.pop()
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_child, args=(name, sender))
            process.start()
            sender.close()
            running[receiver] = name, process, time.monotonic()
        ready = connection.wait(list(running), timeout=1.0)
        for pipe, (name, process, started) in list(running.items()):
            late = time.monotonic() - started > TIME_LIMIT_S
            if pipe not in ready and not late:
                continue
            if late:
                process.kill()
            try:
                row = pipe.recv() if not late else Row(name, problems=[f"not complete within {TIME_LIMIT_S} s"])
            except EOFError:
                row = Row(name, problems=["its process died"])
            process.join()
            del running[pipe]
            yield row


def note(row: Row) -> str:
    """Return what a user of the architecture must know: why it is refused, or what is unusual; else an empty text."""
    if row.refused:
        return row.refused
    notes = []
    if "random" in row.batches.values():
        notes.append("outputs differ from call to call, so a figure holds for one run only")
    elif "alone" in row.batches.values():
        notes.append("each example is evaluated alone")
    elif sides := [side for side in SIDES if row.padded.get(side, 0.0) > TOLERANCE]:
        notes.append(f"padded {' or '.join(sides)}, only equal lengths share a batch")
    refused: dict[str, list[str]] = {}
    for export in row.exports:
        if export.difference is None:
            refused.setdefault(export.exporter, []).append(str(export.opset))
    if not any(name.startswith("onnxruntime") for name in row.evaluation):
        notes.append("no graph: PyTorch only")
    elif refused:
        notes.append("no graph by " + ", ".join(f"{name} ({', '.join(opsets)})" for name, opsets in refused.items()))
    if row.name in IMAGES and not row.second_size:
        notes.append("one image size")
    return "; ".join(notes)


def status(row: Row) -> str:
    """Return whether benchcard supports the architecture, and whether there is a note."""
    if row.problems:
        return "**fails**"
    if row.refused:
        return "refused"
    return "with a note" if note(row) else "supported"


def document(rows: Sequence[Row]) -> str:
    """Return the page of the documentation."""
    counts = Counter(map(status, rows))
    packages = ("transformers", "torch", "onnxruntime", "onnxscript")
    parts = [
        "# Architectures",
        f"{len(rows)} architectures of transformers, {sum(row.name in TEXTS for row in rows)} for texts and "
        f"{sum(row.name in IMAGES for row in rows)} for images: "
        f"{counts['supported']} supported, {counts['with a note']} supported with a note, {counts['refused']} refused. "
        f"{counts['**fails**'] or 'None'} of them has a graph that benchcard accepts, or a score that it keeps, which "
        "differs from PyTorch on each example alone.",
        "Measured by [benchmarks/architectures.py](../benchmarks/architectures.py) with "
        + ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
        + ", on two-layer models with random weights. benchcard makes the same checks on every model that it runs.",
        f"Numbers are the largest differences as shares of the largest output; up to {TOLERANCE:g} counts as equal, "
        "and `-` means no graph (the reasons are at the end; benchcard then uses the next exporter at the same opset). "
        "*Batch*: examples of equal length or size in a batch against each alone, in PyTorch. *Right*, *left*: "
        "examples of different lengths, padded on that side. *Exporters*, by opset: the graph against PyTorch, at "
        f"several batch sizes and lengths up to {LONGEST} tokens. *Evaluated*: the scores that a run keeps against "
        "each example alone.",
    ]
    for title, architectures in (("Texts", TEXTS), ("Images", IMAGES)):
        chosen = [row for row in rows if row.name in architectures]
        parts += [f"## {title}", "\n".join(_table(chosen, title == "Texts"))]
    parts += ["## Reasons", "\n".join(line for row in rows for line in _reasons(row))]
    return "\n\n".join(parts) + "\n"


def _table(rows: Sequence[Row], text: bool) -> Iterator[str]:
    middle = SIDES if text else ("other size",)
    exporters = [f"{name} {', '.join(map(str, opsets))}" for name, opsets in EXPORTERS.items()]
    heads = ["architecture", "status", "batch", *middle, *exporters, "evaluated", "note"]
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for row in rows:
        cells = [row.name, status(row)]
        if row.refused:
            cells += ["" for _ in heads[2:-1]]
        else:
            cells += [_number(row.batch)]
            cells += [_number(row.padded[side]) for side in SIDES] if text else [_differences(row.second_size) or "-"]
            for name in EXPORTERS:
                cells.append(_differences([export for export in row.exports if export.exporter == name]))
            cells.append(_number(max(row.evaluation.values(), default=None)))
        yield f"| {' | '.join([*cells, note(row)])} |"


def _differences(exports: Sequence[Export]) -> str:
    return ", ".join(_number(export.difference) for export in exports)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1g}".replace("e-0", "e-")


def _reasons(row: Row) -> Iterator[str]:
    """Yield why there is no graph of an architecture, one line for each reason."""
    reasons: dict[str, list[str]] = {}
    for export in row.exports:
        if export.difference is None:
            reasons.setdefault(export.reason, []).append(f"{export.exporter} {export.opset}")
    if not reasons:
        reasons = row.refusals
    for reason, names in reasons.items():
        yield f"- {row.name}, {', '.join(names)}: `{reason.replace('`', '')}`"


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[*TEXTS, *IMAGES], default=[*TEXTS, *IMAGES])
    parser.add_argument("--at-once", type=int, default=1, help="number of child processes")
    parser.add_argument("--rows", type=Path, help="a file that keeps the measurements; those in it are not repeated")
    parser.add_argument("--out", type=Path, help="the Markdown file to write")
    arguments = parser.parse_args()
    rows = {}
    if arguments.rows is not None and arguments.rows.exists():
        rows = {row.name: row for row in map(_read, arguments.rows.read_text().splitlines())}
    for row in rows_of([name for name in arguments.only if name not in rows], arguments.at_once):
        rows[row.name] = row
        line = f"{row.name}: {status(row)} ({note(row)}), {row.duration_s:.0f} s"
        print(line, *row.problems, sep="\n    ", flush=True)
        if arguments.rows is not None:
            with arguments.rows.open("a") as file:
                file.write(json.dumps(asdict(row)) + "\n")
    measured_rows = [rows[name] for name in (*TEXTS, *IMAGES) if name in rows]
    if arguments.out is not None:
        arguments.out.write_text(document(measured_rows), encoding="utf-8")
    return int(any(row.problems for row in measured_rows))


def _read(line: str) -> Row:
    row = Row(**json.loads(line))
    row.exports, row.second_size = (
        [Export(**fields) for fields in exports] for exports in (row.exports, row.second_size)
    )
    return row


if __name__ == "__main__":
    sys.exit(main())
