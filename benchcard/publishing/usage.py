"""The usage snippets of a published model: code that runs as printed, and gives what was measured.

This module owns their text. Which models are published is left to `weights`.

Source: https://huggingface.co/docs/transformers.js/guides/dtypes; `src/pipelines/feature-extraction.js` and
`src/pipelines/text-classification.js` of Transformers.js 4.3.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec
import onnx

from benchcard import registry
from benchcard.card.markdown.inline import escape
from benchcard.frameworks import Snippet
from benchcard.graphs.cache import PAST, PRESENT
from benchcard.graphs.signature import graph_inputs, only_batch_size, only_length
from benchcard.publishing.weights import DTYPES, FOLDER, Weights, external_weights, has_processor
from benchcard.tasks.pooling import Pooling

# Tasks whose pipelines of Transformers.js give what was measured, and names of pipelines that differ from the task's.
_PIPELINES_JS = ("image-classification", "token-classification", "question-answering", "text-classification")
_PIPELINES = dict.fromkeys(("sentence-similarity", "text-retrieval"), "feature-extraction")
_IMAGE_PROCESSOR = "AutoImageProcessor"
_IMAGE_TASKS = ("image-classification", "object-detection")
_TEXT = '"A text"'
_TEXTS = {"question-answering": '"Who wrote it?", "She wrote it."'}
# The expression of each pooling of the `tokens` `(tokens, numbers)` of a text; see `tasks.pooling`.
_POOLED = {
    "cls": "tokens[0]",
    "max": "tokens.max(axis=0)",
    "mean": "tokens.mean(axis=0)",
    "mean_sqrt_len_tokens": "tokens.sum(axis=0) / np.sqrt(len(tokens))",
    "weightedmean": "np.average(tokens, axis=0, weights=np.arange(1, len(tokens) + 1))",
    "lasttoken": "tokens[-1]",
}
# The poolings of Transformers.js. It ignores the mask in some of them, so they are right for a single text only.
_POOLED_JS = {"cls": "cls", "mean": "mean", "lasttoken": "last_token"}
_ACTIVATIONS = {"identity": "output", "sigmoid": "1 / (1 + np.exp(-output))", "tanh": "np.tanh(output)"}


@dataclass(frozen=True)
class _OneNumber:
    """How the measured task read a model with one output, which takes one or two texts."""

    activation: str
    texts: int
    maximum: int | None


@dataclass(frozen=True)
class _Detector:
    """How the measured task read an object detector: as its image processor does it."""

    image_mode: str


_Reading: TypeAlias = Pooling | _OneNumber | _Detector | None


@dataclass(frozen=True)
class _Graph:
    """What a graph takes and gives that matters to its caller: the mode of images, the only number of tokens and the
    only batch size, if there is only one, whether it gives the embedding of a sentence itself, the type of the keys
    and values of its cache, empty without one, and whether it takes positions.
    """

    image_mode: str
    length: int | None
    batch_size: int | None
    pools: bool
    cache: str = ""
    takes_positions: bool = False

    @property
    def is_usual(self) -> bool:
        """Whether libraries that know nothing of the graph call it right."""
        return self.image_mode == "RGB" and self.length is None and self.batch_size in (None, 1) and not self.pools

    @property
    def feed_lines(self) -> list[str]:
        """The lines that make `feed` of the `inputs` of one example, which fills a batch of the only size."""
        value = "inputs[each.name]"
        if self.batch_size in (None, 1):
            return [f"feed = {{each.name: {value} for each in session.get_inputs()}}"]
        return [
            f"# The graph takes {self.batch_size} examples a call: the only one is repeated.",
            f"feed = {{each.name: np.repeat({value}, {self.batch_size}, axis=0) for each in session.get_inputs()}}",
        ]


def section(
    repo_id: str,
    task: str,
    weights: Sequence[Weights],
    names: Sequence[str],
    root: Collection[str],
    original: str | None,
    context: Mapping[str, object],
) -> str:
    """Return Markdown on which rows the published models are, with usage snippets; empty where there are no models.

    `names` are those of all rows. The snippets load the first of `weights`. If `root`, the names of the files at the
    root of the repository, has no processor, they load that of `original`, the Hub id of the original model (None for a
    local one). `context` says how the outputs of the first model were read (`Prepared.context`); it is empty where they
    were not.
    """
    if not weights:
        return ""
    first = weights[0]
    reading: _Reading = None
    if "modes" in context:
        reading = msgspec.convert(context, Pooling)
    elif "activation" in context:
        reading = msgspec.convert(context, _OneNumber)
    elif task == "object-detection" and context:
        reading = msgspec.convert(context, _Detector)
    if first.home is None:
        graph = _graph(first, context)
        python = _python(repo_id, task, first, root, original, reading, graph)
        javascript = _javascript(task, reading) if graph.is_usual else None
    else:
        mode = str(context.get("image_mode", "RGB"))
        # A decoder with a cache is called for each token.
        callable_once = (reading is None or isinstance(reading, _Detector)) and not context.get("use_cache")
        python, javascript = _converted(repo_id, task, first, root, original, mode, callable_once), None
    files = [f"`{model.path}` is row {model.row} ({escape(names[model.row])})." for model in weights]
    rows = files if len(files) == 1 else [f"* {file}" for file in files]
    lines = ["### Load the model", "", *rows, "", *python, ""]
    if javascript is not None:
        # Without a name for a kind of file, the one that is loaded for float32 is replaced.
        dtype = DTYPES.get(first.name)
        options = f'dtype: "{dtype}"' if dtype else f'model_file_name: "{first.name[:-5]}", dtype: "fp32"'
        if external := external_weights(first.source):
            options += f", use_external_data_format: {len(external)}"
        lines += [
            "<details>",
            "<summary>In JavaScript, with Transformers.js</summary>",
            "",
            "```js",
            'import { pipeline } from "@huggingface/transformers";',
            f'const run = await pipeline("{_PIPELINES.get(task, task)}", "{repo_id}", {{ {options} }});',
            *javascript,
            "```",
            "",
            "</details>",
            "",
        ]
    return "\n".join(lines)


def _graph(weights: Weights, context: Mapping[str, object]) -> _Graph:
    graph = onnx.load(str(weights.source), load_external_data=False).graph
    pools = any(value.name == "sentence_embedding" for value in graph.output)
    inputs = graph_inputs(graph)
    dtypes = {entry.name: str(entry.dtype) for entry in inputs}
    return _Graph(
        str(context.get("image_mode", "RGB")),
        only_length(inputs),
        only_batch_size(inputs),
        pools,
        next((dtype for name, dtype in dtypes.items() if name.startswith(PAST)), ""),
        "position_ids" in dtypes,
    )


def _converted(
    repo_id: str,
    task: str,
    first: Weights,
    root: Collection[str],
    original: str | None,
    image_mode: str,
    callable_once: bool,
) -> list[str]:
    """Return the Python snippet that fetches a converted model and, where its framework tells how, opens it.

    It is called only where one call gives what was measured.
    """
    made = f"`{first.path}` is what the framework `{first.framework}` made of the ONNX graph, and opens:"
    framework: Any = registry.framework(first.framework) if first.framework in registry.frameworks() else None
    if not hasattr(framework, "snippet"):
        return [
            made,
            "",
            "```python",
            "from huggingface_hub import snapshot_download",
            "",
            f'folder = snapshot_download("{repo_id}", allow_patterns="{first.folder}/*")',
            f'model = f"{{folder}}/{first.path}"',
            "```",
        ]
    snippet: Snippet = framework.snippet(repo_id, first.path, task)
    loader, where = _processor(task, root, original)
    inputs = _inputs_line(task, loader, _Graph(image_mode, None, None, pools=False))
    return [
        made,
        "",
        "```python",
        *snippet.imports,
        "from huggingface_hub import snapshot_download",
        *(["from PIL import Image"] if loader == _IMAGE_PROCESSOR else []),
        f"from transformers import {loader}",
        "",
        f'folder = snapshot_download("{repo_id}", allow_patterns=["*.json", "*.txt", "*.model", "{first.folder}/*"])',
        f"processor = {loader}.from_pretrained({where})",
        *snippet.opening,
        *([inputs, *snippet.calling] if callable_once else []),
        "```",
    ]


def _processor(task: str, root: Collection[str], original: str | None) -> tuple[str, str]:
    """Return the class of the processor, and the expression of where it is loaded from."""
    is_image = "preprocessor_config.json" in root and "tokenizer_config.json" not in root
    loader = _IMAGE_PROCESSOR if task in _IMAGE_TASKS or is_image else "AutoTokenizer"
    return loader, "folder" if has_processor(root) or original is None else f'"{original}"'


def _inputs_line(task: str, loader: str, graph: _Graph) -> str:
    """Return the line that makes the `inputs` of one example."""
    example = f"{_TEXTS.get(task, _TEXT)}, {_limits(None, graph)}"
    if loader == _IMAGE_PROCESSOR:
        example = f'images=Image.open("image.png").convert("{graph.image_mode}"), '
    return f'inputs = processor({example}return_tensors="np")'


def _javascript(task: str, reading: _Reading) -> list[str] | None:
    """Return the lines that call a pipeline of Transformers.js; None where its results differ from those measured."""
    if not isinstance(reading, Pooling):
        # The pipeline of classification takes the softmax, which is 1 for a single output.
        return [] if task in _PIPELINES_JS and reading is None else None
    pooling = _POOLED_JS.get(reading.modes[0]) if len(reading.modes) == 1 else None
    if pooling is None or reading.truncate_dim is not None:
        return None
    text = f'{json.dumps(reading.prompt)} + "A text"' if reading.prompt else '"A text"'
    text = f"({text}).toLowerCase()" if reading.lower_case else text
    options = f'pooling: "{pooling}", normalize: {json.dumps(reading.normalize)}'
    limit = f"  // up to {reading.maximum} tokens: longer texts are cut in another way" if reading.maximum else ""
    return [f"const embedding = await run({text}, {{ {options} }});{limit}"]


def _python(
    repo_id: str,
    task: str,
    first: Weights,
    root: Collection[str],
    original: str | None,
    reading: _Reading,
    graph: _Graph,
) -> list[str]:
    """Return the Python snippet, which uses onnxruntime and the processor of transformers."""
    loader, where = _processor(task, root, original)
    if isinstance(reading, Pooling):
        body = _embedding_lines(reading, graph)
    elif isinstance(reading, _OneNumber):
        body = _number_lines(reading, graph)
    elif isinstance(reading, _Detector):
        body = _detection_lines(reading, graph, where)
    elif graph.cache:
        body = _generation_lines(graph)
    else:
        rows = "" if graph.batch_size in (None, 1) else "  # the first row of each is that of the example"
        body = [
            _inputs_line(task, loader, graph),
            *graph.feed_lines,
            f"outputs = session.run(None, feed){rows}",
        ]
    return [
        "```python",
        *(["from types import SimpleNamespace", ""] if isinstance(reading, _Detector) else []),
        *(["import numpy as np"] if any("np." in line for line in body) else []),
        "import onnxruntime",
        *(["import torch"] if isinstance(reading, _Detector) else []),
        "from huggingface_hub import snapshot_download",
        *(["from PIL import Image"] if loader == _IMAGE_PROCESSOR else []),
        f"from transformers import {'AutoConfig, ' if isinstance(reading, _Detector) else ''}{loader}",
        "",
        f'folder = snapshot_download("{repo_id}", allow_patterns=["*.json", "*.txt", "*.model", "{first.path}*"])',
        f"processor = {loader}.from_pretrained({where})",
        f'session = onnxruntime.InferenceSession(f"{{folder}}/{FOLDER}/{first.name}")',
        *body,
        "```",
    ]


def _embedding_lines(reading: Pooling, graph: _Graph) -> list[str]:
    """Return the lines that make embeddings, pooled without padding, with one text a call so that no other matters."""
    text = reading.text_code("text")
    poolings = [_POOLED[mode] for mode in reading.modes]
    pooled = poolings[0] if len(poolings) == 1 else f"np.concatenate([{', '.join(poolings)}])"
    padding = "" if graph.length else "padding=True, "
    options = f'{padding}{_limits(reading.maximum, graph)}return_attention_mask=True, return_tensors="np"'
    returned = "embeddings" if reading.truncate_dim is None else f"embeddings[:, :{reading.truncate_dim}]"
    lines = [
        *([] if text == "text" else [f"texts = [{text} for text in texts]"]),
        f"inputs = processor(texts, {options})",
        *_pooling_lines(pooled, graph),
        *(["embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)"] if reading.normalize else []),
        f"return {returned}",
    ]
    return [
        "",
        "",
        "def embed(texts):",
        *(f"    {line}" for line in lines),
        "",
        "",
        "# One text a call: in a batch, padding and the other texts may change what a quantized model gives.",
        'embeddings = np.concatenate([embed([text]) for text in ["A text", "Another, longer text"]])',
    ]


def _pooling_lines(pooled: str, graph: _Graph) -> list[str]:
    if graph.pools:
        return [
            *graph.feed_lines,
            '(embeddings,) = session.run(["sentence_embedding"], feed)',
            *([] if graph.batch_size in (None, 1) else ["embeddings = embeddings[:1]"]),
        ]
    return [
        *graph.feed_lines,
        '(outputs,) = session.run(["last_hidden_state"], feed)',
        'each = [tokens[mask == 1] for tokens, mask in zip(outputs, inputs["attention_mask"])]',
        f"embeddings = np.stack([{pooled} for tokens in each])",
    ]


def _generation_lines(graph: _Graph) -> list[str]:
    """Return the lines that generate text by greedy decoding: the prompt is read in the first call."""
    positions = '"position_ids": np.arange(text.shape[1])[None, -tokens.shape[1] :], ' if graph.takes_positions else ""
    return [
        'tokens = text = processor("A text", return_tensors="np")["input_ids"]',
        f'pasts = [each for each in session.get_inputs() if each.name.startswith("{PAST}")]',
        f"cache = {{each.name: np.zeros((1, each.shape[1], 0, each.shape[3]), np.{graph.cache}) for each in pasts}}",
        "names = [each.name for each in session.get_outputs()]",
        "for _ in range(20):",
        f'    feed = {{"input_ids": tokens, "attention_mask": np.ones_like(text), {positions}**cache}}',
        "    outputs = dict(zip(names, session.run(None, feed)))",
        f'    cache = {{name: outputs[name.replace("{PAST}", "{PRESENT}")] for name in cache}}',
        '    tokens = outputs["logits"][:, -1:].argmax(axis=-1)',
        "    text = np.concatenate([text, tokens], axis=1)",
        "    if tokens[0, 0] == processor.eos_token_id:",
        "        break",
        "print(processor.decode(text[0]))",
    ]


def _number_lines(reading: _OneNumber, graph: _Graph) -> list[str]:
    texts = ", ".join(('"A text"', '"Another text"')[: reading.texts])
    return [
        f'inputs = processor({texts}, {_limits(reading.maximum, graph)}return_tensors="np")',
        *graph.feed_lines,
        'output = session.run(["logits"], feed)[0][0, 0]',
        f"score = {_ACTIVATIONS[reading.activation]}",
    ]


def _detection_lines(reading: _Detector, graph: _Graph, where: str) -> list[str]:
    """Return the lines that print what is in an image, which transformers reads from the outputs."""
    first = "" if graph.batch_size in (None, 1) else "[:1]"
    return [
        f"names = AutoConfig.from_pretrained({where}).id2label",
        f'image = Image.open("image.png").convert("{reading.image_mode}")',
        'inputs = processor(images=image, return_tensors="np")',
        *graph.feed_lines,
        'logits, boxes = session.run(["logits", "pred_boxes"], feed)',
        f"outputs = SimpleNamespace(logits=torch.tensor(logits{first}), pred_boxes=torch.tensor(boxes{first}))",
        "(found,) = processor.post_process_object_detection(",
        "    outputs, threshold=0.5, target_sizes=[(image.height, image.width)]",
        ")",
        'for label, score, box in zip(found["labels"], found["scores"], found["boxes"]):',
        '    print(names[int(label)], round(float(score), 3), "left, top, right, bottom:", box.tolist())',
    ]


def _limits(maximum: int | None, graph: _Graph) -> str:
    """Return the tokenizer's arguments that cut texts as they were cut for the measurement, and pad them as the graph
    needs it.
    """
    if graph.length is not None:
        return f'padding="max_length", truncation=True, max_length={graph.length}, '
    return f"truncation=True, max_length={maximum}, " if maximum else ""
