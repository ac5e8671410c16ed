"""Data sets of the Hub in the cache of `datasets`, for runs without the network (HF_HUB_OFFLINE).

Owns which commits are there, and the reader of one. `datasets` itself would take the newest, whichever was asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from benchcard.errors import Mistake, SpecError
from benchcard.utils.text import join_names

if TYPE_CHECKING:
    from datasets import DatasetBuilder

_COMMIT = re.compile(r"[0-9a-f]{40}")


def cached_commit(location: str, revision: str | None) -> str:
    """Return the commit of a data set that is in the cache: the one asked for, else the one that was read last.

    Raises:
        SpecError: The cache has no rows of it, or of `revision`. Without the network, only a commit is a revision.
    """
    folders = sorted(_folders(location), key=lambda folder: folder.stat().st_mtime, reverse=True)
    commits = [folder.name for folder in folders]
    if revision not in (None, *commits) or not commits:
        raise _not_cached(location, f"revision {revision}" if revision else "", dict.fromkeys(commits))
    return revision or commits[0]


def cached_builder(location: str, name: str | None, commit: str | None, settings: dict[str, object]) -> DatasetBuilder:
    """Return the reader of a configuration of a data set at a commit, read with these settings if it ever was.

    Raises:
        SpecError: The cache does not have it.
    """
    import datasets
    from datasets.packaged_modules.cache.cache import Cache

    folders = {folder.parent.parent.name: folder for folder in _folders(location) if folder.name == commit}
    infos = [json.loads((folder / "dataset_info.json").read_text(encoding="utf-8")) for folder in folders.values()]
    names = dict.fromkeys(info["config_name"] for info in infos)
    config = name or (next(iter(names)) if len(names) == 1 else "default")
    as_asked = datasets.BuilderConfig(config).create_config_id(settings)
    folder = folders.get(as_asked) or folders.get(config)
    if folder is None:
        raise _not_cached(location, f"name {config} at commit {commit}", names)
    identity = {"config_name": folder.parent.parent.name, "version": folder.parent.name, "hash": commit}
    return Cache(repo_id=location, dataset_name=location.rpartition("/")[2], **identity)


def _folders(location: str) -> list[Path]:
    """Return the folders with rows of a data set: `<cache>/<owner>___<name>/<configuration>/<version>/<commit>`."""
    import datasets
    from datasets.naming import camelcase_to_snakecase

    *owner, name = location.split("/")
    root = Path(datasets.config.HF_DATASETS_CACHE).expanduser() / "___".join([*owner, camelcase_to_snakecase(name)])
    infos = root.glob("*/*/*/dataset_info.json")
    return [info.parent for info in infos if _COMMIT.fullmatch(info.parent.name)]


def _not_cached(location: str, part: str, cached: Iterable[str]) -> SpecError:
    found = f"`{location}`" + (f" with {part}" if part else "")
    expected = "rows in the cache of `datasets` (HF_HUB_OFFLINE is set)"
    has = join_names(cached)
    hint = f"{f'the cache has {has}: ask for that, or ' if has else ''}read it once with the network"
    return SpecError(Mistake("$.dataset", found, expected, hint))
