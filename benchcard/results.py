"""The results of a run, as people read them: frames, the configuration to ship, and the card."""

from __future__ import annotations

import json
from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from benchcard import choice, frames, front, gains, readings, reasons, two_runs
from benchcard import records as read_back
from benchcard.errors import BenchcardError
from benchcard.failures_frame import failures_frame, lacking
from benchcard.kinds import counted
from benchcard.noise_frame import noise_frame
from benchcard.plan import Plan, unheeded
from benchcard.spec import Spec

if TYPE_CHECKING:
    import pandas as pd

    from benchcard.card import Card
    from benchcard.card_results import CardResults
    from benchcard.choice import Choice
    from benchcard.hub_faults import Patience
    from benchcard.hub_files import Pushed
    from benchcard.two_runs import TwoRuns
    from benchcard.verifying import Verification
    from benchcard.weights import Artifacts

FRAMES = ("quality", "time", "models", "kernels", "noise")


class Results:
    """The results of a run, finished or not: everything is read from its directory, and nothing is measured.

    results = Results.load("runs/beans")
    results.quality; results.time; results.models
    results.best(max_drop=0.01)
    results.card().save("README.md")
    """

    def __init__(self, records: read_back.Records) -> None:
        self.records = records
        self._known_gains: dict[str, gains.Gains] = {}

    @classmethod
    def load(cls, path: str | Path) -> Results:
        """The results in a run directory.

        Raises:
            BenchcardError: The directory holds no run.
        """
        return cls(read_back.read(Path(path)))

    @staticmethod
    def from_card(card: str | Path, section: str | None = None, *, token: str | bool | None = None) -> CardResults:
        """The results that a card shows, as frames `quality`, `time` and `plan`; of both layouts and of older cards.

        Args:
            card: Its text, a file, a folder with a README.md, or the id of a repository on the Hub.
            section: The name of the section, where a README has several.
            token: Of the Hub.

        Raises:
            CardError: There is no such card, or it cannot be read.
            HubError: The repository cannot be reached.
        """
        from benchcard import card_results

        return card_results.from_card(card, section, token=token)

    def verify(self, card: str | Path | CardResults) -> Verification:
        """Whether the figures of a card are what its configurations came to in this run: figure by figure.

        Raises:
            CardError: The card cannot be read, or this run has none of its configurations.
            HubError: The repository cannot be reached.
        """
        from benchcard import card_results, verifying

        found = card_results.from_card(card) if isinstance(card, (str, Path)) else card
        return verifying.verify(found, self)

    @property
    def path(self) -> Path:
        """The run directory."""
        return self.records.path

    @property
    def spec(self) -> Spec:
        """What was asked."""
        return self.records.plan.spec

    @property
    def plan(self) -> Plan:
        """The configurations."""
        return self.records.plan

    @cached_property
    def quality(self) -> pd.DataFrame:
        """One row per configuration: parameters, metrics, figures of the evaluation pass, and why some are missing."""
        return frames.quality(self.records)

    @cached_property
    def time(self) -> pd.DataFrame:
        """One row per configuration, batch size and input length: latencies, throughput, and the ratio to the baseline
        with its interval.
        """
        return frames.time(self.records)

    @cached_property
    def models(self) -> pd.DataFrame:
        """One row per configuration: its model, its size, what was quantized in it, and which row is the same model."""
        return frames.models(self.records)

    @cached_property
    def kernels(self) -> pd.DataFrame:
        """One row per configuration and kernel that its model comes to when it runs: in what numbers it computes, how
        many nodes there are, and their share of a call's time.
        """
        return frames.kernels(self.records)

    @cached_property
    def noise(self) -> pd.DataFrame:
        """The noise certificate: for each group of models timed together, what the baseline differs from itself by."""
        return noise_frame(self.records)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know: of the data, as that labels were matched by number or texts were cut, and of what
        was asked for in vain.
        """
        kinds = ("prepare", "sample", "score")
        values = (
            record.outcomes[kind].values for record in self.records.records for kind in kinds if kind in record.outcomes
        )
        said = [note for each in values for note in each.get("notes", ())]
        unread = [
            choice.unsaid(name)
            for name in self.metrics
            if all(value is None for value in readings.of(self.records, name).values())
        ]
        told = [*said, *unread, *frames.timing_notes(self.records), *reasons.notes(self.records)]
        told += [*readings.short_of_draws(self.records), *unheeded(self.records.plan)]
        return tuple(dict.fromkeys(told))

    @property
    def failures(self) -> pd.DataFrame:
        """What is missing of which row, each with stage, type, message and the end of the log."""
        return failures_frame(self.records)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the quality metrics, in the order of their columns."""
        return readings.names(self.records)

    @property
    def baseline(self) -> int | None:
        """The first of `baselines`: that of all rows, where these are of one model, on the same data, timed alike."""
        return self.baselines[0]

    @property
    def baselines(self) -> tuple[int | None, ...]:
        """The rows that others are compared with, in the order of the table; None alone where there are none."""
        return tuple(dict.fromkeys(self._baselines.values())) or (None,)

    def best(
        self,
        max_drop: float | None = None,
        objective: str = "latency",
        metric: str | None = None,
        baseline: int | None = None,
    ) -> Choice:
        """The configuration to ship, why, and what it was chosen over; the baseline where nothing is surely better.

        Looking at many rows is allowed for: see `Choice.method` and docs/choosing.md. Where there are several
        `baselines`, it is chosen among the rows of one of them, and the reason says of which.

        Args:
            max_drop: How much of the metric may be lost against the baseline, in the metric's own unit; None for a
                point: 0.01, or 1 of a metric in %.
            objective: What is to be gained: `latency`, `memory` or `size`.
            metric: The metric that decides; the first one by default.
            baseline: The baseline among whose rows is chosen, of `baselines`; the first one by default.

        Raises:
            BenchcardError: No such metric, objective or baseline, or `max_drop` is no finite number of at least 0.
        """
        if baseline is not None and baseline not in self.baselines:
            there = ", ".join(map(str, self.baselines)).lower()
            raise BenchcardError(f"row {baseline} is no baseline; there is {there}")
        deciding = self._deciding(metric)
        reading = readings.of(self.records, deciding)
        return choice.best(
            self.quality,
            self._gains(objective),
            self._baselines,
            self.baseline if baseline is None else baseline,
            self._axes,
            deciding,
            readings.allowed_loss(reading.get("unit"), max_drop),
            reading.get("higher_is_better"),
        )

    def choices(self, max_drop: float | None = None) -> tuple[Choice, ...]:
        """What is best beside each of `baselines`, in their order."""
        return tuple(self.best(max_drop, baseline=baseline) for baseline in self.baselines)

    def pareto(self, objective: str = "latency", metric: str | None = None) -> pd.DataFrame:
        """The rows that no other row of the same examples beats in both quality and the objective, the cheapest first.

        Args:
            objective: `latency`, `memory` or `size`.
            metric: The metric that stands for quality; the first one by default.

        Raises:
            BenchcardError: There is no such metric or objective.
        """
        deciding = self._deciding(metric)
        data = {row.row: row.evaluated_on for row in self.plan}
        higher = readings.of(self.records, deciding).get("higher_is_better")
        return front.pareto(self.quality, self._gains(objective), self._baselines, data, self._axes, deciding, higher)

    def compare(
        self,
        other: Results,
        *,
        across_machines: bool = False,
        times: bool = True,
        trust_remote_code: bool = False,
    ) -> TwoRuns:
        """A later run against this one, row by row: what became better and what worse, with intervals.

        Args:
            other: The later run.
            across_machines: Whether to compare times although they are of two machines.
            times: Whether to compare times at all.
            trust_remote_code: Whether scripts of metrics that the runs name may run: their changes have no interval
                else.

        Raises:
            BenchcardError: The runs are of two machines, or have no row in common.
        """
        return two_runs.compare(
            self.records,
            other.records,
            across_machines=across_machines,
            times=times,
            trust_remote_code=trust_remote_code,
        )

    @property
    def _baselines(self) -> dict[int, int | None]:
        return {row.row: row.baseline for row in self.plan}

    @property
    def _axes(self) -> list[str]:
        return list(self.spec.grid) or ["framework"]

    def _gains(self, objective: str) -> gains.Gains:
        if objective not in self._known_gains:
            self._known_gains[objective] = gains.gains(self.records, objective, self.time, self.models)
        return self._known_gains[objective]

    def _deciding(self, metric: str | None) -> str | None:
        """The metric that decides."""
        known = self.metrics
        if metric is not None and metric not in known:
            raise BenchcardError(f"no metric `{metric}` was measured; there is {', '.join(known) or 'none'}")
        return metric or next(iter(known), None)

    def explain(self, row: int) -> str:
        """A few sentences on why a row is as it is: what was quantized, what it lost and where, which row it equals,
        and what to do.

        Raises:
            BenchcardError: There is no such row.
        """
        if not 0 <= row < len(self.plan):
            raise BenchcardError(f"there is no row {row}: the rows are 0 to {len(self.plan) - 1}")
        metric = self._deciding(None)
        known = self.quality[self.quality[metric].notna()] if metric else self.quality.iloc[:0]
        value = {int(each): float(figure) for each, figure in zip(known["row"], known[metric or "row"])}
        told = reasons.sentences(self.records, self.records.records[row], value, metric)
        return " ".join([f"Row {row} ({self.plan[row].label}).", *told])

    def card(self, layout: str = "full", slug: str | None = None, max_drop: float | None = None) -> Card:
        """The card of the run.

        Args:
            layout: `full`, or `classic`, the layout of the cards of 2022.
            slug: Name of the run on the card; by default made from the data set, and the spec's digest.
            max_drop: How much of the first metric the row to ship may lose, as in `best`.

        Raises:
            CardError: There is no such layout, or `slug` cannot name a section.
            BenchcardError: `max_drop` is no finite number of at least 0.
        """
        from benchcard import card_facts
        from benchcard.card import Card

        name = slug or card_facts.slug(self)
        return Card.from_facts(card_facts.facts(self, max_drop, name), layout=layout, slug=name)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        create_pr: bool | Literal["auto"] = "auto",
        private: bool = True,
        artifacts: Artifacts = "best",
        dry_run: bool = False,
        token: str | bool | None = None,
        slug: str | None = None,
        layout: str | None = None,
        max_drop: float | None = None,
        force: bool = False,
        overwrite: Collection[str] = (),
        revision: str | None = None,
        endpoint: str | None = None,
        patience: Patience | None = None,
    ) -> Pushed:
        """What the Hub holds after one commit: the README with this card in it, `benchcard/<slug>/` with the figures,
        and the chosen models below `onnx/`.

        Everything is written to `publish/` in the run directory before the network is touched. The author's text and
        files stay as they are. The same push again changes nothing, and goes on where one was cut off.

        Args:
            repo_id: The model repository, as `me/vit-base-beans-int8`; it is made where it is not there.
            create_pr: True proposes a pull request, onto an own open one where there is one; "auto" only where this
                token may not write; False never.
            private: Whether a repository that is made is private.
            artifacts: Which models go with it: "best" (the row of `best()`), "all", "none", or a list of rows.
            dry_run: Prints what would change, and writes nothing.
            token: Of the Hub; None takes the one of `hf auth login`. It is kept nowhere.
            slug: The name of the section and its folder; by default the data set and the spec's digest.
            layout: The layout of the card; None is the default one.
            max_drop: How much of the first metric the best row may lose, on the card and for `artifacts`, as in `best`.
            force: Replaces a section that was edited by hand, and models of that name that others put there.
            overwrite: Keys of the front matter whose values may be replaced.
            revision: The branch; None is the main one.
            endpoint: Of the Hub; None takes huggingface_hub's.
            patience: How often and how long faults that pass are waited out.

        Raises:
            HubError: The Hub refused or could not be reached; the text says whether anything was written.
            CardError: The card cannot be merged into the README there, or the Hub would not take its front matter.
        """
        from benchcard import publishing

        return publishing.push_to_hub(
            self,
            repo_id,
            create_pr=create_pr,
            private=private,
            artifacts=artifacts,
            dry_run=dry_run,
            token=token,
            slug=slug,
            layout=layout,
            max_drop=max_drop,
            force=force,
            overwrite=overwrite,
            revision=revision,
            endpoint=endpoint,
            patience=patience,
        )

    def to_csv(self, folder: str | Path) -> list[Path]:
        """A file for each frame but `failures`, as `quality.csv`, written into a folder."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        written = []
        for name in FRAMES:
            path = target / f"{name}.csv"
            getattr(self, name).to_csv(path, index=False)
            written.append(path)
        return written

    def to_json(self) -> dict[str, Any]:
        """`spec`, `machine`, `versions`, and each frame but `failures` as a list of rows: plain data."""
        told: dict[str, Any] = {
            "spec": self.spec.as_dict(),
            "machine": self.records.about["machine"],
            "versions": self.records.about["versions"],
        }
        for name in FRAMES:
            told[name] = json.loads(getattr(self, name).to_json(orient="records", double_precision=12))
        return told

    def __repr__(self) -> str:
        failed = len(lacking(self.failures))
        said = f"Results of {counted(len(self.plan), 'configuration')} in {self.path}"
        said += f", {failed} with failures" if failed else ""
        tables = [frame.to_string(index=False, na_rep="") for frame in (self.quality, self.time)]
        return "\n\n".join([said, *tables])

    def _repr_html_(self) -> str:
        """Each choice, the picture where there is matplotlib to draw it, and both frames, as a notebook shows them."""
        from base64 import b64encode

        from benchcard import card_facts
        from benchcard.card import plot

        drawn = plot.png(card_facts.facts(self))
        picture = f'<p><img width="640" src="data:image/png;base64,{b64encode(drawn).decode()}"></p>' if drawn else ""
        tables = "".join(
            f"<h4>{title}</h4>{frame.to_html(index=False, na_rep='', escape=True)}"
            for title, frame in (("Quality", self.quality), ("Time", self.time))
        )
        best = "".join(choice._repr_html_() for choice in self.choices())
        return f"{best}{picture}{tables}"
