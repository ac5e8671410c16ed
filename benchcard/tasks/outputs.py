"""Outputs of a model, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchcard.errors import ArtifactError

if TYPE_CHECKING:
    from benchcard.tasks.protocol import Arrays


def output(outputs: Arrays, name: str) -> NDArray[np.float32]:
    """Return the output of that name, as float32.

    Raises:
        ArtifactError: The model has no such output.
    """
    if name not in outputs:
        raise ArtifactError(f"The model has no output `{name}`, only {', '.join(outputs)}. Use a model for this task.")
    return outputs[name].astype(np.float32, copy=False)
