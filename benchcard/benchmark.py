"""`Benchmark`: from a spec to results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from benchcard.errors import BenchcardError
from benchcard.sources import in_memory, resolve
from benchcard.spec import spec as specs
from benchcard.spec.plan import Plan, make_plan
from benchcard.spec.spec import Spec
from benchcard.utils.text import pluralize

if TYPE_CHECKING:
    import datasets
    import pandas as pd

    from benchcard.results import Results


class Benchmark:
    """A model, a task, a data set and a grid of settings: planned, run, and read.

    benchmark = Benchmark(
        task="image-classification", model="nateraw/vit-base-beans", dataset={"path": "AI-Lab-Makerere/beans",
        "eval_split": "validation", "data_keys": {"primary": "image"}, "ref_keys": ["labels"]}, metrics=["accuracy"],
        grid={"framework": ["onnxruntime", "pytorch"], "apply_quantization": [False, True]}, duration=15,
    )
    results = benchmark.run("runs/beans")
    """

    # Data sets in memory, by their names in the spec.
    _handed: in_memory.Handed = MappingProxyType({})

    def __init__(
        self,
        *,
        task: str,
        model: str | Path | None = None,
        dataset: Mapping[str, Any] | pd.DataFrame | datasets.Dataset | None = None,
        metrics: Sequence[str] | None = None,
        grid: Mapping[str, Any] | None = None,
        fixed: Mapping[str, Any] | None = None,
        **parameters: Any,
    ) -> None:
        """A checked benchmark; nothing is loaded.

        Args:
            task: What the model does, as `image-classification`.
            model: An id on the Hub, or a local folder.
            dataset: `path` (an id, a folder, a file, or the data itself: a `datasets.Dataset` or `DatasetDict`, a
                pandas frame, or a mapping of split to these), `eval_split`, and as needed `name`, `calibration_split`,
                `data_keys`, `ref_keys`, `revision`. A `Dataset` or a frame alone stands for `{"path": ...}`.
            metrics: Ids of metrics; the task's own by default.
            grid: Benchmarked parameters, each with a list of values.
            fixed: Parameters that have one value.
            **parameters: More fixed parameters: `batch_sizes`, `input_lengths`, `duration` (seconds a configuration),
                `warmup_runs`, `max_eval_samples`, `backend` and all others of the vocabulary.

        Raises:
            SpecError: With every mistake, and the place of each.
        """
        given = {"model": model, "dataset": dataset, "metrics": metrics, "grid": grid, "fixed": fixed}
        told, self._handed = in_memory.as_splits(
            {"task": task, **{name: value for name, value in given.items() if value is not None}, **parameters}
        )
        self.spec: Spec = specs.read_spec(told)

    @classmethod
    def from_spec(cls, spec: str | Path | Mapping[str, Any] | Spec, *, trust_remote_code: bool = False) -> Benchmark:
        """The benchmark of a YAML file, of a mapping in the same form, or of a `Spec`.

        Args:
            spec: The spec.
            trust_remote_code: Whether code may run that the `Spec` of a card or of a run directory names. A file and a
                mapping are taken as the caller's own word.

        Raises:
            SpecError: With every mistake, and the place of each.
            BenchcardError: The `Spec` of a card or of a run directory names code that may not run.
        """
        if isinstance(spec, (str, Path)):
            spec = specs.load_spec(Path(spec))
        handed: in_memory.Handed = MappingProxyType({})
        if isinstance(spec, Mapping):
            told, handed = in_memory.as_splits(spec)
            spec = specs.read_spec(told)
        if not (spec.trusted or trust_remote_code) and (code := resolve.code_of(spec)):
            raise BenchcardError(resolve.refusal(code))
        benchmark = cls.__new__(cls)
        benchmark.spec, benchmark._handed = spec, handed
        return benchmark

    @classmethod
    def from_card(
        cls, card: str | Path, section: str | None = None, *, trust_remote_code: bool = False, **changes: Any
    ) -> Benchmark:
        """The benchmark that a card tells of, so that it can be run again.

        Whoever wrote the card decides neither that code runs here nor which files of this machine are read: its paths
        are looked for beside it only.

        Args:
            card: Its text, a file, a folder with a README.md, or the id of a repository on the Hub.
            section: The name of the section, where a README has several.
            trust_remote_code: Whether code that the card names may run: that of a model, where the card says
                `trust_remote_code: true`, and the scripts of metrics that are not installed. The card's own
                `trust_remote_code` stays what it is.
            **changes: Parameters that are to be other than in the card, as `model="./copy"` or `duration=3`.

        Raises:
            CardError: There is no such card, it cannot be read, its model or data were a folder that is not here, or it
                names code that may not run; the message says which.
            SpecError: It asks for what cannot be, with the place of each mistake.
            HubError: The repository cannot be reached.
        """
        from benchcard.reproduce import spec as card_spec
        from benchcard.reproduce.source import read_card

        published = read_card(card, section)
        spec = card_spec.spec_of(published, changes, trust_remote_code)[0]
        card_spec.expect_here(published, spec, "pass `{name}={value}`")
        return cls.from_spec(spec)

    @cached_property
    def configurations(self) -> Plan:
        """The configurations, as objects."""
        return make_plan(self.spec)

    def plan(self) -> pd.DataFrame:
        """One row per configuration: benchmarked parameters, threads, baseline, the steps it adds, the steps it shares
        with earlier rows, and seconds timed.

        Nothing is loaded, downloaded or measured for it.
        """
        from benchcard.analysis.frames.plan import plan_frame

        return plan_frame(self.configurations)

    def run(self, path: str | Path | None = None, *, timeout_s: float | None = None, progress: bool = True) -> Results:
        """Results of the run in the directory `path`; a run that was stopped goes on where it was, and nothing finished
        is done again.

        Args:
            path: The run directory; by default `runs/` and a name from the model and the spec's digest.
            timeout_s: Seconds after which a step is stopped and counts as failed. Where models are timed it bounds each
                answer of a process, not the timing, which lasts as long as `duration` says.
            progress: Whether to show progress bars.

        Raises:
            SpecError: The model, the data set, a split or a column is not there, or the directory holds a run of
                another spec.
            MachineError: This machine cannot do what was asked, or is not as it was when the run was begun.
            HubError: The Hub cannot be reached.
            BenchcardError: The directory is no run's, another process works on it, or the disk refuses.
        """
        from benchcard import registry
        from benchcard.results import Results

        folder = (Path(path) if path is not None else self.default_path).absolute()
        self._write(folder)
        backend = registry.backend(self.spec.get("backend"))
        backend.run(self.configurations, folder, timeout_s=timeout_s, show_progress=progress)
        return Results.load(folder, self.configurations)

    def _write(self, folder: Path) -> None:
        """Write what was handed over in memory into a run directory, unless it is there."""
        from benchcard.run.directory import RunDirectory

        directory = RunDirectory(folder)
        if self._handed and (folder / "run.json").exists() and directory.info.digest != self.spec.digest:
            return  # Somebody else's run: whoever runs this spec says so, and nothing is changed there.
        for name, splits in self._handed.items():
            with directory.handed(in_memory.folder_name(name)) as target:
                if target is not None:
                    in_memory.write_splits(splits, target)

    @property
    def default_path(self) -> Path:
        """Where a run goes when nobody says."""
        import re

        name = str(self.spec.fixed.get("name_or_path", self.spec.task)).rstrip("/").rsplit("/", 1)[-1]
        return Path("runs") / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}-{self.spec.digest[:8]}"

    def _repr_html_(self) -> str:
        """What it is, and its plan, as a notebook shows them."""
        import html

        plan = self.plan()
        seconds = f"{plan['timed_s'].sum():g}" if len(plan) else "0"
        said = f"{self!r}: {seconds} s of timing at the most"
        return f"<p>{html.escape(said)}</p>{plan.to_html(index=False, na_rep='', escape=True)}"

    def __repr__(self) -> str:
        rows = pluralize(len(self.configurations), "configuration")
        return f"Benchmark({self.spec.task}, {rows}, {', '.join(self.spec.grid) or 'no grid'})"
