"""Pushes a run to a Hub: to one on this machine, for trying out, or with `--repo` to the real one.

    python examples/push_to_local_hub.py runs/digits
    python examples/push_to_local_hub.py runs/digits --repo me/digits-int8      # needs `hf auth login` or HF_TOKEN

The first form starts `benchcard.testing.LocalHub`, pushes as its user, shows the difference that a second push of other
models makes, and reads the card back; nothing leaves this machine.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

# huggingface_hub reads it once, when it is imported: a local Hub takes large files by LFS.
os.environ.setdefault("HF_HUB_DISABLE_XET", "1")

from benchcard import Results
from benchcard.testing import LocalHub


def publish(results: Results, repo_id: str, endpoint: str | None = None, token: str | None = None) -> None:
    """Pushes the results and says what came of it."""
    pushed = results.push_to_hub(repo_id, endpoint=endpoint, token=token)
    print(f"{'pushed' if pushed.changed else 'nothing new'}: {pushed.commit_url}")
    for warning in pushed.warnings:
        print(f"note: {warning}")
    again = results.push_to_hub(repo_id, endpoint=endpoint, token=token)
    print(f"the same again: {'a commit' if again.changed else 'no commit'}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="the run directory")
    parser.add_argument("--repo", help="a repository on the real Hub, as me/name")
    arguments = parser.parse_args()
    results = Results.load(arguments.run)
    if arguments.repo:
        publish(results, arguments.repo)
        return
    with LocalHub(user="me") as hub:
        publish(results, "me/model", hub.endpoint, hub.token)
        for path in sorted(hub.files("me/model")):
            print(f"  {path}")
        print("what all models would add:")
        results.push_to_hub("me/model", artifacts="all", dry_run=True, endpoint=hub.endpoint, token=hub.token)
        print(f"\n{len(hub.commits('me/model'))} commits")
        read_back = Results.from_card(hub.read("me/model", "README.md").decode())
        print(f"the card holds {len(read_back.quality)} rows")


if __name__ == "__main__":
    main()
