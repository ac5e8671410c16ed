"""The results of a run, as people use them: its numbers, the card, and the push to the Hub."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from benchcard.analysis.run_results import RunResults

if TYPE_CHECKING:
    from benchcard.card import Card
    from benchcard.hub.faults import Patience
    from benchcard.hub.files import Pushed
    from benchcard.publishing.weights import Artifacts
    from benchcard.reproduce.results import CardResults
    from benchcard.reproduce.verify import Verification


FRAMES = ("quality", "time", "models", "kernels", "noise")


class Results(RunResults):
    """The results of a run, finished or not: everything is read from its directory, and nothing is measured.

    results = Results.load("runs/beans")
    results.quality; results.time; results.models
    results.best(max_drop=0.01)
    results.card().save("README.md")
    """

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
        from benchcard.reproduce import results

        return results.from_card(card, section, token=token)

    def verify(self, card: str | Path | CardResults) -> Verification:
        """Whether the figures of a card are what its configurations came to in this run: figure by figure.

        Raises:
            CardError: The card cannot be read, or this run has none of its configurations.
            HubError: The repository cannot be reached.
        """
        from benchcard.reproduce import results
        from benchcard.reproduce import verify as verifying

        found = results.from_card(card) if isinstance(card, (str, Path)) else card
        return verifying.verify(found, self)

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
        from benchcard.card import Card
        from benchcard.publishing import facts

        name = slug or facts.slug(self)
        return Card.from_facts(facts.facts(self, max_drop, name), layout=layout, slug=name)

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
        from benchcard.publishing import push

        return push.push_to_hub(
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

    def _repr_html_(self) -> str:
        """Each choice, the picture where there is matplotlib to draw it, and both frames, as a notebook shows them."""
        from base64 import b64encode

        from benchcard.card.layouts import plot
        from benchcard.publishing import facts

        drawn = plot.render_png(facts.facts(self))
        picture = f'<p><img width="640" src="data:image/png;base64,{b64encode(drawn).decode()}"></p>' if drawn else ""
        tables = "".join(
            f"<h4>{title}</h4>{frame.to_html(index=False, na_rep='', escape=True)}"
            for title, frame in (("Quality", self.quality), ("Time", self.time))
        )
        best = "".join(choice._repr_html_() for choice in self.choices())
        return f"{best}{picture}{tables}"
