"""Outputs of a model, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchcard.errors import ArtifactError


def output(outputs: Mapping[str, NDArray[Any]], name: str) -> NDArray[np.float32]:
    """The output of that name, as float32.

    Raises:
        ArtifactError: The model gives none of that name; the message has those that it gives.
    """
    if name not in outputs:
        raise ArtifactError(
            f"the model gives no output `{name}`, only {', '.join(outputs)}: it is no model for this task"
        )
    return outputs[name].astype(np.float32, copy=False)
