"""How a published model is used: the lines that a card shows, which run as they stand and give what was measured.

Owns that text alone. Leaves what is published to `weights`.

Source: https://huggingface.co/docs/transformers.js/guides/dtypes; `src/pipelines/feature-extraction.js` and
`src/pipelines/text-classification.js` of Transformers.js 4.3.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from benchcard.publishing.weights import FOLDER, SENTENCES, Weights, external

# What a pipeline of Transformers.js is called where the task has another name there.
_PIPELINES = {"sentence-similarity": "feature-extraction"}
_TEXTS = {"question-answering": '"Who wrote it?", "She wrote it."'}
# What each pooling takes over the `tokens` `(tokens, numbers)` of a text; see `tasks.pooling`.
_POOLED = {
    "cls": "tokens[0]",
    "max": "tokens.max(axis=0)",
    "mean": "tokens.mean(axis=0)",
    "mean_sqrt_len_tokens": "tokens.sum(axis=0) / np.sqrt(len(tokens))",
    "weightedmean": "np.average(tokens, axis=0, weights=np.arange(1, len(tokens) + 1))",
    "lasttoken": "tokens[-1]",
}
# The poolings that a pipeline of Transformers.js knows: of one text alone, since it does not look at the mask for all.
_POOLED_JS = {"cls": "cls", "mean": "mean", "lasttoken": "last_token"}
_FEED = "{each.name: inputs[each.name] for each in session.get_inputs()}"
_ACTIVATIONS = {"identity": "output", "sigmoid": "1 / (1 + np.exp(-output))", "tanh": "np.tanh(output)"}


def section(
    repo_id: str,
    task: str,
    weights: Sequence[Weights],
    root: Collection[str],
    original: str | None,
    context: Mapping[str, Any],
) -> str:
    """Return Markdown that says how the published models are used; empty where there is none.

    Args:
        repo_id: Where they are published.
        task: What they do.
        weights: The models; the first one is shown.
        root: Names of the configuration and processor files at the root of the repository.
        original: The Hub id of the original model, for its processor where the repository has none; None for a local
            one.
        context: What decided how the outputs of the first model were read (`Prepared.context`); empty where they were
            not.
    """
    if not weights:
        return ""
    first = weights[0]
    lines = ["### Load the model", "", *_python(repo_id, task, first, root, original, context), ""]
    called = _javascript(task, context)
    if called is not None:
        options = f'dtype: "{"q8" if first.quantized else "fp32"}"'
        if outside := external(first.source):
            options += f", use_external_data_format: {len(outside)}"
        lines += [
            "The folders are laid out as Transformers.js reads them:",
            "",
            "```js",
            'import { pipeline } from "@huggingface/transformers";',
            f'const run = await pipeline("{_PIPELINES.get(task, task)}", "{repo_id}", {{ {options} }});',
            *called,
            "```",
            "",
        ]
    if len(weights) > 1:
        others = ", ".join(f"`{each.path}` (row {each.row})" for each in weights[1:])
        lines += [f"`{first.path}` is row {first.row}. Beside it: {others}.", ""]
    return "\n".join(lines)


def _javascript(task: str, context: Mapping[str, Any]) -> list[str] | None:
    """Return the lines for Transformers.js that follow the pipeline; None where it gives something else than what was
    measured.
    """
    if task in ("image-classification", "token-classification", "question-answering"):
        return []
    # Of one output its pipeline gives the softmax, which is 1.
    if task == "text-classification":
        return None if "activation" in context else []
    modes = context.get("modes", ())
    if len(modes) != 1 or modes[0] not in _POOLED_JS or context["truncate_dim"] is not None:
        return None
    text = f'{json.dumps(context["prompt"])} + "A text"' if context["prompt"] else '"A text"'
    text = f"({text}).toLowerCase()" if context["lower_case"] else text
    options = f'pooling: "{_POOLED_JS[modes[0]]}", normalize: {json.dumps(context["normalize"])}'
    limit = f"  // up to {context['maximum']} tokens: longer texts are cut in another way" if context["maximum"] else ""
    return [f"const embedding = await run({text}, {{ {options} }});{limit}"]


def _python(
    repo_id: str,
    task: str,
    first: Weights,
    root: Collection[str],
    original: str | None,
    context: Mapping[str, Any],
) -> list[str]:
    """Return the lines for Python, over onnxruntime alone."""
    text = task != "image-classification" and not (
        "preprocessor_config.json" in root and "tokenizer_config.json" not in root
    )
    loader = "AutoTokenizer" if text else "AutoImageProcessor"
    called = _TEXTS.get(task, '"A text"') if text else 'images=Image.open("image.png").convert("RGB")'
    has_processor = any(name not in ("config.json", *SENTENCES) for name in root)
    where = "folder" if has_processor or original is None else f'"{original}"'
    if "modes" in context:
        body = _embedding(context)
    elif "activation" in context:
        body = _number(context)
    else:
        body = [f'inputs = processor({called}, return_tensors="np")', f"outputs = session.run(None, {_FEED})"]
    return [
        "```python",
        *(["import numpy as np"] if any("np." in line for line in body) else []),
        "import onnxruntime",
        "from huggingface_hub import snapshot_download",
        *([] if text else ["from PIL import Image"]),
        f"from transformers import {loader}",
        "",
        f'folder = snapshot_download("{repo_id}", allow_patterns=["*.json", "*.txt", "*.model", "{first.path}*"])',
        f"processor = {loader}.from_pretrained({where})",
        f'session = onnxruntime.InferenceSession(f"{{folder}}/{FOLDER}/{first.name}")',
        *body,
        "```",
    ]


def _embedding(context: Mapping[str, Any]) -> list[str]:
    """Return the lines that make embeddings: texts are pooled without their padding, on whichever side it is, and each
    has a call of its own, so that no other text changes the result.
    """
    text = f"{context['prompt']!r} + text" if context["prompt"] else "text"
    text = f"({text}).lower()" if context["lower_case"] else text
    pools = [_POOLED[mode] for mode in context["modes"]]
    pooled = pools[0] if len(pools) == 1 else f"np.concatenate([{', '.join(pools)}])"
    lines = [
        "",
        "",
        "def embed(texts):",
        *([] if text == "text" else [f"    texts = [{text} for text in texts]"]),
        f'    inputs = processor(texts, padding=True, {_cut(context)}return_attention_mask=True, return_tensors="np")',
        f'    (outputs,) = session.run(["last_hidden_state"], {_FEED})',
        '    each = [tokens[mask == 1] for tokens, mask in zip(outputs, inputs["attention_mask"])]',
        f"    embeddings = np.stack([{pooled} for tokens in each])",
    ]
    if context["normalize"]:
        lines.append("    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)")
    returned = "embeddings" if context["truncate_dim"] is None else f"embeddings[:, :{context['truncate_dim']}]"
    return [
        *lines,
        f"    return {returned}",
        "",
        "",
        "# One text a call: in a batch, padding and the other texts may change what a quantized model gives.",
        'embeddings = np.concatenate([embed([text]) for text in ["A text", "Another, longer text"]])',
    ]


def _number(context: Mapping[str, Any]) -> list[str]:
    """Return the lines that make the number of a model with one output."""
    texts = ", ".join(('"A text"', '"Another text"')[: context["texts"]])
    return [
        f'inputs = processor({texts}, {_cut(context)}return_tensors="np")',
        f'((output,),) = session.run(["logits"], {_FEED})[0]',
        f"score = {_ACTIVATIONS[context['activation']]}",
    ]


def _cut(context: Mapping[str, Any]) -> str:
    """Return the tokenizer's arguments that cut texts to the most tokens that are read."""
    return f"truncation=True, max_length={context['maximum']}, " if context["maximum"] else ""
