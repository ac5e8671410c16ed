"""Tasks of lm-eval, EleutherAI's lm-evaluation-harness (the extra `lm-eval`), over rows that benchcard has loaded.

Owns where the file of a task is, and the task object with its prompts, requests and scores. Leaves the tokens of
requests to `tasks.lm_eval`, and figures to `metrics.lm_eval`. lm-eval is imported where a task is loaded.

Source: https://github.com/EleutherAI/lm-evaluation-harness/blob/main/docs/task_guide.md
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchcard.errors import BenchcardError

if TYPE_CHECKING:
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

OUTPUT_TYPES = ("multiple_choice", "loglikelihood")
"""The types of tasks that are supported: those whose requests are the log-probabilities of continuations."""

# The seed of lm-eval's own evaluations for few-shot examples. Source: lm_eval/defaults.py, DEFAULT_OTHER_SEED.
_FEWSHOT_SEED = 1234


def is_task_path(value: object) -> bool:
    """Return whether a value is the path of a task's file, whose functions and templates run, and not a name."""
    return isinstance(value, str) and Path(value).suffix in (".yaml", ".yml")


def task_file(name: str | Path) -> Path | None:
    """Return the YAML file of a task of lm-eval, given by its name or by a path; None where there is none.

    A text is a name, and never opened as a path: which file a text of the spec stands for, and whether it may be read,
    is decided where the spec is read. The index of lm-eval itself takes 20 seconds.

    Raises:
        BenchcardError: lm-eval is not installed.
    """
    package = find_spec("lm_eval")
    if package is None or not package.submodule_search_locations:
        raise BenchcardError("the task `lm-eval` needs lm-eval: pip install 'benchcard[lm-eval]'")
    if isinstance(name, Path):
        return name if is_task_path(str(name)) and name.is_file() else None
    if is_task_path(name):
        return None
    named = re.compile(rf"^task:\s*[\"']?{re.escape(name)}[\"']?\s*$", re.MULTILINE)
    files = sorted((Path(package.submodule_search_locations[0]) / "tasks").glob("**/*.yaml"))
    files.sort(key=lambda file: file.stem != name)  # most files have the name of their task
    return next((file for file in files if named.search(file.read_text(encoding="utf-8"))), None)


def output_type(file: Path, including: tuple[Path, ...] = ()) -> str:
    """Return the type of a task, from its file or one that it includes; `class` for a task that is written in Python.

    `including` are the files whose types the search began with, so that files that include each other end it.

    Source: lm_eval/config/task.py, for the type of a task that names none.
    """
    text = file.read_text(encoding="utf-8")
    if found := re.search(r"^output_type:\s*[\"']?(\w+)", text, re.MULTILINE):
        return found[1]
    if re.search(r"^class:", text, re.MULTILINE):
        return "class"
    included = re.search(r"^include:\s*[\"']?([^\s\"']+)", text, re.MULTILINE)
    base = (file.parent / included[1]).resolve() if included else None
    including = (*including, file.resolve())
    if base is None or base in including or not base.is_file():
        return "generate_until"
    return output_type(base, including)


def dataset_of(name: str | Path) -> str:
    """Return the data set that the file of a task names."""
    from lm_eval.tasks._yaml_loader import load_yaml

    file = task_file(name)
    settings = load_yaml(file, resolve_func=False) if file else {}
    return ", ".join(str(settings[key]) for key in ("dataset_path", "dataset_name") if settings.get(key))


def load_task(
    name: str | Path, rows: Dataset, num_fewshot: int | None = None, *, prepared: bool = False
) -> ConfigurableTask:
    """Return a task of lm-eval whose documents are these rows, after its own `process_docs` unless they are `prepared`.

    Few-shot examples come from the task's own data set, if they are of another split, which is loaded then.
    """
    from datasets import load_dataset
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    class Splits(dict[str, Any]):
        def __missing__(self, split: str) -> object:
            if not shots:
                return rows
            config = settings.get("dataset_kwargs") or {}
            return load_dataset(settings["dataset_path"], settings.get("dataset_name"), split=split, **config)

    class OverRows(ConfigurableTask):  # type: ignore[misc]  # lm-eval is not typed
        def download(self, dataset_kwargs: Mapping[str, object] | None = None, **_: object) -> None:
            self.dataset = Splits({self.config.test_split or self.config.validation_split: rows})

    file = task_file(name)
    if file is None:
        raise BenchcardError(f"lm-eval has no task `{name}` any more")
    settings: dict[str, Any] = load_yaml(file)
    settings = {key: value for key, value in settings.items() if key not in ("tag", "group", "task_list")}
    shots = settings.get("num_fewshot") if num_fewshot is None else num_fewshot
    without = {"process_docs": None} if prepared else {}
    task = OverRows(config={**settings, **without, "num_fewshot": 0 if prepared else shots})
    task.set_fewshot_seed(_FEWSHOT_SEED)
    return task
