"""Push a run to a Hub on this machine, to try it out, or with `--repo` to the real Hub.

    python examples/push_to_local_hub.py runs/quickstart
    python examples/push_to_local_hub.py runs/quickstart --repo me/vit-int8      # needs `hf auth login` or HF_TOKEN

The first form starts `benchcard.testing.LocalHub`, pushes as its user, shows what a push of all models would change,
and reads the card back. Nothing leaves this machine.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

# huggingface_hub reads this when it is imported. The local Hub accepts large files by LFS, not by Xet.
os.environ.setdefault("HF_HUB_DISABLE_XET", "1")

from benchcard import Results
from benchcard.testing import LocalHub


def publish(results: Results, repo_id: str, endpoint: str | None = None, token: str | None = None) -> None:
    """Push the results twice and print what happened."""
    pushed = results.push_to_hub(repo_id, endpoint=endpoint, token=token)
    print(f"{'pushed' if pushed.changed else 'unchanged'}: {pushed.commit_url}")
    for warning in pushed.warnings:
        print(f"note: {warning}")
    again = results.push_to_hub(repo_id, endpoint=endpoint, token=token)
    print(f"second push: {'one more commit' if again.changed else 'no commit'}")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="the run directory")
    parser.add_argument("--repo", help="a repository on the real Hub, such as me/name")
    arguments = parser.parse_args()
    results = Results.load(arguments.run)
    if arguments.repo:
        publish(results, arguments.repo)
        return
    with LocalHub(user="me") as hub:
        publish(results, "me/model", hub.endpoint, hub.token)
        for path in sorted(hub.files("me/model")):
            print(f"  {path}")
        print("a push of all models would add:")
        results.push_to_hub("me/model", artifacts="all", dry_run=True, endpoint=hub.endpoint, token=hub.token)
        print(f"\n{len(hub.commits('me/model'))} commits")
        read_back = Results.from_card(hub.read("me/model", "README.md").decode())
        print(f"the card has {len(read_back.quality)} rows")


if __name__ == "__main__":
    main()
