"""The results of a run for users: its numbers, its card, and the push to the Hub."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from benchcard.analysis.run_results import RunResults

if TYPE_CHECKING:
    from benchcard.card import Card
    from benchcard.hub.faults import RetryPolicy
    from benchcard.hub.files import Pushed
    from benchcard.metrics.info import FidelityLimit
    from benchcard.publishing.weights import Artifacts
    from benchcard.reproduce.results import CardResults
    from benchcard.reproduce.verify import Verification


class Results(RunResults):
    """The results of a run, finished or not. They are read from its directory; nothing is measured.

    results = Results.load("runs/beans")
    results.quality; results.time; results.models
    results.best(max_drop=0.01)
    results.card().save("README.md")
    """

    @staticmethod
    def from_card(
        card: str | Path, section: str | None = None, *, token: str | bool | None = None, endpoint: str | None = None
    ) -> CardResults:
        """Return the results that a card shows, as frames `quality`, `time` and `plan`; older cards are read too.

        Args:
            card: Its text, a file, a folder with a README.md, or the id of a repository on the Hub.
            section: The name of the section, where a README has several.
            token: The token for the Hub; None for the one of `hf auth login`.
            endpoint: The URL of the Hub; None for that of huggingface_hub.

        Raises:
            CardError: There is no such card, or it cannot be read.
            HubError: The repository cannot be reached.
        """
        from benchcard.reproduce import results

        return results.from_card(card, section, token=token, endpoint=endpoint)

    def verify(
        self, card: str | Path | CardResults, *, token: str | bool | None = None, endpoint: str | None = None
    ) -> Verification:
        """Return for each figure of a card whether this run reproduces it; the arguments are those of `from_card`.

        Raises:
            CardError: The card cannot be read, it is of another task, model or data, or this run has none of its
                configurations.
            HubError: The repository cannot be reached.
        """
        from benchcard.reproduce import verify

        if isinstance(card, (str, Path)):
            card = self.from_card(card, token=token, endpoint=endpoint)
        return verify.verify(card, self)

    def card(
        self,
        layout: str = "full",
        slug: str | None = None,
        max_drop: float | None = None,
        fidelity: FidelityLimit = None,
    ) -> Card:
        """Return the card of the run.

        Args:
            layout: `full`, or `classic`, the layout of the cards of 2022.
            slug: The name of the run on the card; by default the data set and the digest of the spec.
            max_drop: How much of the first metric the row to ship may lose, as in `best`.
            fidelity: How far its outputs may be from the baseline's, as in `best`.

        Raises:
            CardError: There is no such layout, or `slug` cannot name a section.
            BenchcardError: `max_drop` is not a finite number of at least 0, or a limit of fidelity cannot be used.
        """
        from benchcard.card import Card
        from benchcard.publishing import file_table
        from benchcard.publishing.facts import default_slug, make_facts

        name, files = slug or default_slug(self), file_table.section(self, max_drop=max_drop)
        facts = make_facts(self, max_drop, name, fidelity)
        return Card.from_facts(facts, layout=layout, slug=name, usage=files)

    def report(self, path: str | Path, max_drop: float | None = None, fidelity: FidelityLimit = None) -> Path:
        """Write the report of the run, one HTML file to look at in a browser; return its path.

        Args:
            path: The file, as `report.html`. An existing one is replaced.
            max_drop: How much of the first metric the row to ship may lose, as in `best`.
            fidelity: How far its outputs may be from the baseline's, as in `best`.

        Raises:
            BenchcardError: The file cannot be written, or a limit is refused by `best`.
        """
        from benchcard.report import page, run

        return page.save(run.to_html(self, max_drop, fidelity), path)

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
        fidelity: FidelityLimit = None,
        force: bool = False,
        prune: bool = False,
        overwrite: Collection[str] = (),
        revision: str | None = None,
        endpoint: str | None = None,
        patience: RetryPolicy | None = None,
    ) -> Pushed:
        """Push the README with this card in it, the figures in `benchcard/<slug>/` and the chosen models in `onnx/` to
        a model repository, in one commit. Return what the repository holds then.

        All files are written to `publish/` in the run directory before the network is used. The author's text and files
        stay as they are. A second push of the same results changes nothing, or completes an interrupted one.

        Args:
            repo_id: The model repository, as `me/vit-base-beans-int8`; it is created where it does not exist.
            create_pr: True proposes a pull request, or adds to an open one of yours; "auto" does so only where the
                token may not write; False never does.
            private: Whether a repository that is created is private.
            artifacts: The models to push: "best" (the row of `best()`), "all", "none", or a list of rows.
            dry_run: Print what would change, and write nothing.
            token: The token for the Hub; None for the one of `hf auth login`. It is not stored.
            slug: The name of the section and of its folder; by default the data set and the digest of the spec.
            layout: The layout of the card; None for the default one.
            max_drop: How much of the first metric the best row may lose, on the card and for `artifacts`, as in `best`.
            fidelity: How far its outputs may be from the baseline's, likewise.
            force: Replace a section that was edited by hand, and models of the same names that others pushed.
            prune: Remove models that an earlier push of this section sent and that are no longer among `artifacts`.
            overwrite: The keys of the front matter whose values may be replaced.
            revision: The branch; None for the main one.
            endpoint: The URL of the Hub; None for that of huggingface_hub.
            patience: How often and how long temporary faults are waited out.

        Raises:
            HubError: The Hub refused or could not be reached; the message says whether anything was written.
            CardError: The card cannot be merged into the README, or the Hub would refuse its front matter.
        """
        from benchcard.publishing.push import PushOptions, push_to_hub

        options = PushOptions(
            create_pr=create_pr,
            private=private,
            artifacts=artifacts,
            dry_run=dry_run,
            token=token,
            slug=slug,
            layout=layout,
            max_drop=max_drop,
            fidelity=fidelity,
            force=force,
            prune=prune,
            overwrite=overwrite,
            revision=revision,
            endpoint=endpoint,
            patience=patience,
        )
        return push_to_hub(self, repo_id, options)

    def _repr_html_(self) -> str:
        """Return the choices, the plot if matplotlib is installed, and both frames, for a notebook."""
        from benchcard.card.layouts import plot
        from benchcard.publishing.facts import make_facts

        parts = [choice._repr_html_() for choice in self.choices()]
        if png := plot.render_png(make_facts(self)):
            parts.append(f'<p><img width="640" src="data:image/png;base64,{b64encode(png).decode()}"></p>')
        for title, frame in (("Quality", self.quality), ("Time", self.time)):
            parts.append(f"<h4>{title}</h4>{frame.to_html(index=False, na_rep='', escape=True)}")
        return "".join(parts)
