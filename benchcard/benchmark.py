"""`Benchmark`: from a spec to results."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from benchcard import registry
from benchcard.errors import BenchcardError, Mistake, SpecError
from benchcard.sources import in_memory, resolve
from benchcard.spec import spec as specs
from benchcard.spec.plan import Plan, make_plan
from benchcard.spec.spec import Spec
from benchcard.utils.events import Listener
from benchcard.utils.text import pluralize
from benchcard.utils.values import MEMORY_PREFIX

if TYPE_CHECKING:
    import datasets
    import pandas as pd

    from benchcard.drafting.draft import Draft
    from benchcard.results import Results


class Benchmark:
    """A model, a task, a data set and a grid of settings to benchmark.

    benchmark = Benchmark(
        task="image-classification", model="nateraw/vit-base-beans", dataset={"path": "AI-Lab-Makerere/beans",
        "eval_split": "validation", "data_keys": {"primary": "image"}, "ref_keys": ["labels"]}, metrics=["accuracy"],
        grid={"framework": ["onnxruntime", "pytorch"], "apply_quantization": [False, True]}, duration=15,
    )
    results = benchmark.run("runs/beans")
    """

    # Data sets in memory, by their names in the spec.
    _in_memory: in_memory.InMemory = MappingProxyType({})
    # The YAML of a drafted spec, which a run keeps.
    _yaml: str | None = None

    def __init__(
        self,
        *,
        task: str,
        model: str | Path | None = None,
        dataset: Mapping[str, object] | pd.DataFrame | datasets.Dataset | None = None,
        metrics: Sequence[str] | None = None,
        grid: Mapping[str, object] | str | None = None,
        fixed: Mapping[str, object] | None = None,
        **parameters: object,
    ) -> None:
        """Check a spec; nothing is loaded.

        Args:
            task: What the model does, such as `image-classification`.
            model: An id on the Hub, or a local folder.
            dataset: `path` (an id, a folder, a file, or the data itself: a `datasets.Dataset` or `DatasetDict`, a
                pandas data frame, or a mapping of split to these), `eval_split`, and as needed `name`,
                `calibration_split`, `data_keys`, `ref_keys`, `revision`. For data in memory and local files, `name` is
                their name on the card. A `Dataset` or a data frame alone stands for `{"path": ...}`.
            metrics: Ids of metrics; by default those of the task.
            grid: Benchmarked parameters, each with a list of values; or the name of a preset, such as `recommended`.
            fixed: Parameters with one value.
            **parameters: More fixed parameters, such as `batch_sizes`, `input_lengths`, `duration` (seconds per
                configuration), `warmup_runs`, `max_eval_samples`, `backend`; `model_name` and `base_model` (an id on
                the Hub) for the card of a local model.

        Raises:
            SpecError: The spec has mistakes; all of them are listed with their places.
        """
        arguments = {"task": task, "model": model, "dataset": dataset, "metrics": metrics, "grid": grid, "fixed": fixed}
        given = {name: value for name, value in arguments.items() if value is not None}
        values, self._in_memory = in_memory.extract_datasets({**given, **parameters})
        self.spec: Spec = specs.read_spec(values)

    @classmethod
    def for_model(
        cls, model: str | Path, dataset: str | Path | Mapping[str, object] | None = None, **parameters: object
    ) -> Benchmark:
        """Return the benchmark of a model whose spec is drafted from its files, its model card and its data set.

        Nothing runs, and no weights are downloaded. A run writes the spec to `spec.yaml` in the run directory, with
        comments on where each value was taken from.

        Args:
            model: An id on the Hub, or a local folder.
            dataset: An id on the Hub, a path, or a mapping as for `Benchmark`, of which any part may be missing.
            **parameters: Parameters to set in place of drafted ones, as for `Benchmark`: `task`, `metrics`, `grid`, …

        Raises:
            SpecError: The model or the data set does not exist, or values are unknown: each is listed, with what it
                could be and how to give it.
            HubError: The Hub refused, or could not be reached.
        """
        from benchcard.drafting.draft import draft_spec

        return cls._of_draft(draft_spec(model, dataset, **parameters))

    @classmethod
    def audit(
        cls, model: str | Path, dataset: str | Path | Mapping[str, object] | None = None, **parameters: object
    ) -> Benchmark:
        """Return the benchmark of all ONNX files of a model, each compared with the float graph among them, or else
        with PyTorch. `Results.files` of its run has a verdict on each.

        What is not given is drafted as by `for_model`. A model on the Hub is downloaded.

        Args:
            model: An id on the Hub, or a local folder.
            dataset: As for `for_model`.
            **parameters: As for `for_model`; `baseline={"framework_args.file_name": …}` names another reference.

        Raises:
            SpecError: There is no such model, it has no ONNX file, or as for `for_model`.
            HubError: The Hub refused, or could not be reached.
        """
        from benchcard.drafting.files import draft_audit

        return cls._of_draft(draft_audit(model, dataset, **parameters))

    @classmethod
    def _of_draft(cls, draft: Draft) -> Benchmark:
        benchmark = cls.from_spec(draft.values())
        benchmark._yaml = draft.to_yaml()
        return benchmark

    @classmethod
    def from_spec(
        cls,
        spec: str | Path | Mapping[str, object] | Spec,
        *,
        grid: Mapping[str, object] | str | None = None,
        budget: str | float | None = None,
        trust_remote_code: bool = False,
    ) -> Benchmark:
        """Return the benchmark of a YAML file, of a mapping of the same form, or of a `Spec`.

        `grid` (a mapping, or the name of a preset) and `budget` replace those of a file or a mapping.

        A file and a mapping are trusted as the caller's own. Code that the `Spec` of a card or of a run directory names
        may run with `trust_remote_code` only.

        Raises:
            SpecError: The spec has mistakes; all of them are listed with their places.
            BenchcardError: The `Spec` names code that may not run, or there is another grid or budget for it.
        """
        given = {"grid": grid, "budget": budget}
        changes = {name: value for name, value in given.items() if value is not None}
        if isinstance(spec, Spec) and changes:
            raise BenchcardError("a `Spec` has its own grid and budget: pass the file or mapping that it was read from")
        if isinstance(spec, (str, Path)):
            spec = specs.load_spec(Path(spec), changes)
        benchmark = cls.__new__(cls)
        if isinstance(spec, Mapping):
            values, benchmark._in_memory = in_memory.extract_datasets(specs.changed(spec, changes))
            spec = specs.read_spec(values)
        if not (spec.trusted or trust_remote_code) and (code := resolve.uninstalled_code(spec)):
            raise BenchcardError(resolve.untrusted_code_message(code))
        benchmark.spec = spec
        return benchmark

    @classmethod
    def from_card(
        cls,
        card: str | Path,
        section: str | None = None,
        *,
        trust_remote_code: bool = False,
        token: str | bool | None = None,
        endpoint: str | None = None,
        **changes: object,
    ) -> Benchmark:
        """Return the benchmark of a card, to run it again.

        The author of the card cannot make code run or files be read on this machine: paths in the card are resolved
        beside it only.

        Args:
            card: The text of the card, a file, a folder with a README.md, or the id of a repository on the Hub.
            section: The name of the section, where a README has several.
            trust_remote_code: Whether code that the card names may run: that of a model with the card's
                `trust_remote_code: true`, which stays as it is, the scripts of metrics that are not installed, and the
                files of tasks (`task_args`).
            token: The token to read the card from the Hub; None for the one of `hf auth login`.
            endpoint: The URL of the Hub with the card; None for that of huggingface_hub.
            **changes: Parameters that differ from the card, such as `model="./copy"` or `duration=3`.

        Raises:
            CardError: There is no such card, it cannot be read, the folder of its model or data is missing, or it names
                code that may not run.
            SpecError: The spec has mistakes; all of them are listed with their places.
            HubError: The repository cannot be reached.
        """
        from benchcard.reproduce import spec as card_spec
        from benchcard.reproduce.source import find_readme

        published = find_readme(card, token=token, endpoint=endpoint).card(section)
        spec = card_spec.spec_of(published, changes, trust_remote_code)[0]
        card_spec.expect_here(published, spec, "pass `{name}={value}`")
        return cls.from_spec(spec)

    @cached_property
    def configurations(self) -> Plan:
        """The configurations of the grid."""
        return make_plan(self.spec)

    def plan(self) -> pd.DataFrame:
        """Return one row per configuration: parameters, threads, baseline, the steps that it adds and those that it
        shares with earlier rows, and the seconds of timing. Nothing is loaded, downloaded or measured.
        """
        from benchcard.analysis.frames.plan import plan_frame

        return plan_frame(self.within_budget())

    def within_budget(self) -> Plan:
        """Return the configurations; with a budget, those that are expected to fit into it.

        Raises:
            SpecError: The least that can be run takes longer.
        """
        from benchcard.run.budget import within_budget

        return make_plan(within_budget(self.spec))

    def run(
        self, path: str | Path | None = None, *, timeout_s: float | None = None, progress: Listener | bool = True
    ) -> Results:
        """Run the benchmark and return its results. A run that was stopped continues; finished steps are not repeated.

        Args:
            path: The run directory; by default a folder in `runs/`, named after the model and the spec's digest.
            timeout_s: Seconds after which a step, or a timed process that does not respond, is stopped and counts as
                failed.
            progress: Whether to show progress; or a function that is called with each `Event`, in place of a display: a
                `StepEvent`, `RowEvent` or `RoundEvent`. All are logged under the name `benchcard` too.

        Raises:
            SpecError: A model, data set, split or column does not exist, or the directory has a run of another spec.
            MachineError: The machine cannot do what the spec asks, or has changed since the run began.
            HubError: The Hub cannot be reached.
            BenchcardError: The directory is not a run directory, another process uses it, or it cannot be written.
        """
        from benchcard.backends.remote import RemoteBackend
        from benchcard.results import Results
        from benchcard.run.budget import within_budget
        from benchcard.run.directory import DRAFT, RunDirectory
        from benchcard.run.machines import machine_plans

        folder = (Path(path) if path is not None else self.default_path).absolute()
        self._write_data(folder)
        plan = make_plan(within_budget(self.spec, folder))
        has_draft = self._yaml is not None and RunDirectory(folder).keep_draft(self._yaml)
        backend = registry.backend(self.spec.get("backend"))
        if machine_plans(plan) and not isinstance(backend, RemoteBackend):
            found, expected = (
                f"a grid of machines for `{self.spec.get('backend')}`",
                "a backend that starts a job for each",
            )
            raise SpecError(Mistake("$.grid.backend_args", found, expected))
        try:
            backend.run(plan, folder, timeout_s=timeout_s, progress=progress)
        except SpecError:
            if has_draft and not (folder / "run.json").exists():
                (folder / DRAFT).unlink()  # The corrected spec is another one.
            raise
        return Results.load(folder, plan)

    def _write_data(self, folder: Path) -> None:
        """Write the data sets in memory into a run directory, unless they are there."""
        from benchcard.run.directory import RunDirectory

        directory = RunDirectory(folder)
        if self._in_memory and (folder / "run.json").exists() and not directory.holds(self.spec):
            return  # A run of another spec stays unchanged; the backend raises an error.
        for name, splits in self._in_memory.items():
            with directory.new_memory_folder(name.removeprefix(MEMORY_PREFIX)) as target:
                if target is not None:
                    in_memory.write_splits(splits, target)

    @property
    def default_path(self) -> Path:
        """The run directory that `run` uses by default."""
        digest = specs.measured_digest(self.spec.as_dict(), resolve.freely_named(self.spec))
        return Path("runs") / f"{_short_name(self.spec, 'name_or_path')}-{digest[:8]}"

    @property
    def repository_name(self) -> str:
        """A name for a repository on the Hub with the results: that of the model."""
        name = _short_name(self.spec, "model_name", "name_or_path")
        return re.sub(r"([.-])[.-]+", r"\1", name).strip(".-") or self.spec.task

    def _repr_html_(self) -> str:
        plan = self.plan()
        summary = f"{self!r}: at most {plan['timed_s'].sum():g} s of timing"
        return f"<p>{html.escape(summary)}</p>{plan.to_html(index=False, na_rep='', escape=True)}"

    def __repr__(self) -> str:
        rows = pluralize(len(self.configurations), "configuration")
        return f"Benchmark({self.spec.task}, {rows}, {', '.join(self.spec.grid) or 'no grid'})"


def _short_name(spec: Spec, *parameters: str) -> str:
    """Return the last part of the name in the first of these parameters that is given, without unusual characters."""
    given = (str(spec.fixed[parameter]) for parameter in parameters if parameter in spec.fixed)
    return re.sub(r"[^A-Za-z0-9._-]+", "-", next(given, spec.task).rstrip("/").rsplit("/", 1)[-1])
