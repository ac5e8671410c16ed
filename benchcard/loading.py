"""How a published model is loaded: the lines that a card shows, which run as they stand.

Owns that text alone. Leaves what is published to `weights`.

Source: https://huggingface.co/docs/transformers.js/guides/dtypes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from benchcard.weights import FOLDER, Weights, external

# What a pipeline of Transformers.js is called where the task has another name there.
_PIPELINES = {"sentence-similarity": "feature-extraction"}
_TEXTS = {"question-answering": '"Who wrote it?", "She wrote it."'}


def section(repo_id: str, task: str, weights: Sequence[Weights], root: Collection[str], original: str | None) -> str:
    """Markdown that says how the published models are loaded; empty where there is none.

    Args:
        repo_id: where they are published.
        task: what they do.
        weights: the models; the first one is shown.
        root: names of the configuration and processor files at the root of the repository.
        original: the Hub id of the original model, for its processor where the repository has none; None for a local
            one.
    """
    if not weights:
        return ""
    first = weights[0]
    lines = ["### Load the model", "", *_python(repo_id, task, first, root, original), ""]
    if task in ("image-classification", "text-classification", "token-classification", "question-answering") or (
        "feature-extraction" in (task, _PIPELINES.get(task))
    ):
        options = f'dtype: "{"q8" if first.quantized else "fp32"}"'
        if outside := external(first.source):
            options += f", use_external_data_format: {len(outside)}"
        lines += [
            "The folders are laid out as Transformers.js reads them:",
            "",
            "```js",
            'import { pipeline } from "@huggingface/transformers";',
            f'const run = await pipeline("{_PIPELINES.get(task, task)}", "{repo_id}", {{ {options} }});',
            "```",
            "",
        ]
    if len(weights) > 1:
        others = ", ".join(f"`{each.path}` (row {each.row})" for each in weights[1:])
        lines += [f"`{first.path}` is row {first.row}. Beside it: {others}.", ""]
    return "\n".join(lines)


def _python(repo_id: str, task: str, first: Weights, root: Collection[str], original: str | None) -> list[str]:
    """The lines for Python, over onnxruntime alone."""
    text = task != "image-classification" and not (
        "preprocessor_config.json" in root and "tokenizer_config.json" not in root
    )
    loader = "AutoTokenizer" if text else "AutoImageProcessor"
    called = _TEXTS.get(task, '"A text"') if text else 'images=Image.open("image.png").convert("RGB")'
    has_processor = any(name != "config.json" for name in root)
    where = "folder" if has_processor or original is None else f'"{original}"'
    return [
        "```python",
        "import onnxruntime",
        "from huggingface_hub import snapshot_download",
        *([] if text else ["from PIL import Image"]),
        f"from transformers import {loader}",
        "",
        f'folder = snapshot_download("{repo_id}", allow_patterns=["*.json", "*.txt", "*.model", "{first.path}*"])',
        f"processor = {loader}.from_pretrained({where})",
        f'session = onnxruntime.InferenceSession(f"{{folder}}/{FOLDER}/{first.name}")',
        f'inputs = processor({called}, return_tensors="np")',
        "outputs = session.run(None, {each.name: inputs[each.name] for each in session.get_inputs()})",
        "```",
    ]
