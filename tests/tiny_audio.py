"""Tiny models of audio, and sounds as data sets have them, for tests."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

RATE = 16_000


def write_model(folder: Path, kind: str, **settings: Any) -> Path:
    """A seeded one-layer wav2vec 2.0 with its feature extractor: `kind` is the end of its class's name, as `ForCTC`."""
    import torch
    import transformers

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    convolutions = {"conv_dim": (8,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
    fixed = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "initializer_range": 0.5}
    config = transformers.Wav2Vec2Config(**{**sizes, **convolutions, **fixed, **settings})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        getattr(transformers, f"Wav2Vec2{kind}")(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    return folder


def sounds(count: int, seed: int = 0) -> list[np.ndarray]:
    """Sounds of different lengths, of up to a quarter of a second: tones with noise."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(RATE // 10, RATE // 4, count)
    return [
        (
            0.3 * np.sin(np.arange(length) * generator.uniform(0.02, 0.6)) + 0.05 * generator.standard_normal(length)
        ).astype(np.float32)
        for length in lengths
    ]


def wav(samples: np.ndarray, rate: int = RATE) -> bytes:
    """A WAV file of samples, of their own type."""
    from scipy.io import wavfile

    file = io.BytesIO()
    wavfile.write(file, rate, samples)
    return file.getvalue()
