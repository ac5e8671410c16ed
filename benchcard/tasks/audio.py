"""What the tasks on audio share: the model's feature extractor, the sounds of a data set, and generated sounds.

Sounds are WAV files, or arrays of samples; another sampling rate than the model's is converted. Leaves the use of the
features to each task.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchcard.errors import ArtifactError, Mistake, SpecError
from benchcard.tasks import Question, data
from benchcard.tasks.trust import trusted
from benchcard.utils.text import first_line

if TYPE_CHECKING:
    import datasets

    from benchcard.tasks.protocol import TimedInputs

TALLIES = {"converted": "{converted} of {sounds} sounds {converted:was|were} converted to the model's sampling rate"}
"""The sentence of `Prepared.tallies` for rows whose counts are `converted` and `sounds`."""

_PLACE = "$.dataset.data_keys.primary"
_HINT = "take such rows out of the data set"
Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Sounds:
    """The feature extractor of a model, and the number of samples in a second that it takes."""

    model: Path
    extractor: Any
    rate: int

    def features(self, samples: Samples) -> dict[str, np.ndarray]:
        """Return the inputs for one sound, without a batch axis; a mask of samples, where the model knows one, has no
        padding.
        """
        masks = {"return_attention_mask": True} if "attention_mask" in self.extractor.model_input_names else {}
        made = self.extractor(samples, sampling_rate=self.rate, return_tensors="np", **masks)
        arrays = {name: np.asarray(values)[0] for name, values in made.items()}
        types = {name: np.float32 if array.dtype.kind == "f" else np.int64 for name, array in arrays.items()}
        return {name: array.astype(types[name], copy=False) for name, array in arrays.items()}

    def pad(self) -> dict[str, float]:
        """Return the value that pads a shorter sound, by input; empty for a model without a mask."""
        names = self.features(np.zeros(self.rate, np.float32))
        return dict.fromkeys(names, 0.0) if "attention_mask" in names else {}

    def timed(self, batch_size: int, length: int | None, seed: int) -> TimedInputs:
        """Return the inputs for quiet noise of `length` samples each, a second by default, and that length.

        Raises:
            ArtifactError: The feature extractor takes no sound of that length.
        """
        length = self.rate if length is None else length
        noise = 0.1 * np.random.default_rng(seed).standard_normal((batch_size, length), dtype=np.float32)
        try:
            items = [self.features(samples) for samples in noise]
        except (ValueError, RuntimeError, IndexError, ZeroDivisionError) as error:
            reason = f"the feature extractor of {self.model} fails on it: {first_line(error)}"
            raise ArtifactError(f"The input length {length} (samples) is not possible: {reason}") from error
        return {name: np.stack([item[name] for item in items]) for name in items[0]}, length


def load_sounds(model: Path) -> Sounds:
    """Load the feature extractor of the model in a folder.

    Raises:
        ArtifactError: The folder has none.
    """
    from transformers import AutoFeatureExtractor

    try:
        extractor = AutoFeatureExtractor.from_pretrained(model, trust_remote_code=trusted())
        return Sounds(model, extractor, int(extractor.sampling_rate))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        advice = "Save that of its training into the folder: `feature_extractor.save_pretrained(folder)`."
        raise ArtifactError(
            f"The feature extractor of {model} cannot be loaded: {first_line(error)}. {advice}"
        ) from error


def numbered_sounds(
    rows: datasets.Dataset, question: Question, sounds: Sounds, column: str, reference: str = ""
) -> Iterator[tuple[int, dict[str, Any], dict[str, np.ndarray], dict[str, int]]]:
    """Yield the number in the split, the values, the features and the counts for `TALLIES` of each row."""
    import datasets

    if isinstance(rows.features[column], datasets.Audio):
        rows = rows.cast_column(column, datasets.Audio(decode=False))
    for block in data.numbered_blocks(rows, [column, *([reference] if reference else [])], question):
        for number, row in block:
            try:
                samples, rate = _samples(row[column], sounds.rate)
                if not samples.size or not np.isfinite(samples).all():
                    raise ValueError("it is silent for want of samples, or they are not finite")
                features = sounds.features(_resampled(samples, rate, sounds.rate))
            except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
                actual, expected = f"row {number} of `{column}`", "a sound: a WAV file, or a list of samples"
                raise SpecError(Mistake(_PLACE, actual, expected, f"{first_line(error)}: {_HINT}")) from error
            yield number, row, features, {"sounds": 1, "converted": int(rate != sounds.rate)}


def _samples(value: object, rate: int) -> tuple[Samples, int]:
    """Return the samples `(samples,) float32` from -1 to 1 of one value, the mean of its channels, and their rate: that
    of the model where the value names none.
    """
    if isinstance(value, Mapping):
        if value.get("array") is not None:
            return _mono(np.asarray(value["array"])), int(value.get("sampling_rate") or rate)
        return _read_wav(value)
    if isinstance(value, list):
        return _mono(np.asarray(value, dtype=np.float32)), rate
    raise ValueError("there is none" if value is None else f"it is of the type {type(value).__name__}")


def _read_wav(value: Mapping[str, Any]) -> tuple[Samples, int]:
    from scipy.io import wavfile

    content = value.get("bytes") or Path(str(value["path"])).read_bytes()
    if content[:4] not in (b"RIFF", b"RIFX", b"RF64"):
        raise ValueError("it is no WAV file, and other formats are not read: convert it, or give a list of samples")
    rate, samples = wavfile.read(io.BytesIO(content))
    if samples.dtype.kind in "iu":
        # Bytes are around 128, larger integers around 0.
        info = np.iinfo(samples.dtype)
        middle = 0 if samples.dtype.kind == "i" else (info.max + 1) // 2
        samples = (samples.astype(np.float64) - middle) / (info.max + 1 - middle)
    return _mono(samples.T if samples.ndim == 2 else samples), int(rate)


def _mono(samples: np.ndarray) -> Samples:
    """Return the mean of channels `(channels, samples)`, or samples as they are."""
    if samples.ndim not in (1, 2) or samples.dtype.kind not in "fiu":
        raise ValueError(f"it has the shape {list(samples.shape)} of {samples.dtype}")
    return np.asarray(samples.mean(axis=0) if samples.ndim == 2 else samples, dtype=np.float32)


def _resampled(samples: Samples, rate: int, wanted: int) -> Samples:
    """Return samples at another rate, by a polyphase filter."""
    if rate == wanted:
        return samples
    from scipy.signal import resample_poly

    if rate <= 0:
        raise ValueError(f"its sampling rate is {rate}")
    divisor = math.gcd(rate, wanted)
    return np.asarray(resample_poly(samples, wanted // divisor, rate // divisor), dtype=np.float32)
