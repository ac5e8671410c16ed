"""The configuration in a model's folder, also of a graph that is no model of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from benchcard.errors import ArtifactError
from benchcard.tasks.pooling import read_json
from benchcard.tasks.trust import trusted

if TYPE_CHECKING:
    import transformers


def load_config(model: Path) -> transformers.PretrainedConfig:
    """Return the configuration of the model in a folder; without a `model_type`, as a graph has, only what it says.

    Raises:
        ArtifactError: The folder has no configuration.
    """
    from transformers import AutoConfig, PretrainedConfig

    own = read_json(model / "config.json", dict[str, object])
    if own is None:
        advice = 'Add one; for a graph without a transformers model, {"id2label": {"0": "no", "1": "yes"}} is enough.'
        raise ArtifactError(f"{model} has no config.json, which names the model's labels. {advice}")
    try:
        return AutoConfig.from_pretrained(model, trust_remote_code=trusted())
    except ValueError:
        if "model_type" in own:
            raise
        return PretrainedConfig.from_pretrained(model)
