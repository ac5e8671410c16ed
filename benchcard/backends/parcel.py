"""A parcel: all files that a run needs at another place, and the worker's command.

    parcel/
    ├── run.sh                        installs what is needed and starts `benchcard.backends.worker`
    ├── parcel.json                   the spec, and where its local models, data and scripts lie in the parcel
    ├── requirements.txt              the libraries of this environment, with their versions
    ├── code/benchcard/…              this package
    ├── sources/<digest>/…            local models, data sets and metric scripts
    └── data/<digest>/…               data sets that were passed in memory

Equal content gives an equal digest. No secret is in it: the spec has none, and the environment is not sent.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

import benchcard
from benchcard import registry
from benchcard.run.directory import MEMORY_FOLDER
from benchcard.sources.resolve import Source, Sources
from benchcard.spec.spec import Spec
from benchcard.utils.files import content_digest, list_files
from benchcard.utils.plain import as_plain, digest
from benchcard.utils.values import MEMORY_PREFIX

DESCRIPTION, COMMAND = "parcel.json", "run.sh"
_DIGITS = 16
_SCRIPT = """#!/bin/bash
# Runs a benchcard parcel: bash run.sh RUN-DIRECTORY JOB [STORE]
set -e
cd "$(dirname "$0")"
{setup}
export PYTHONPATH="$PWD/code${{PYTHONPATH:+:$PYTHONPATH}}"
exec python -m benchcard.backends.worker . "$@"
"""
_SETUP = "python -m pip install --quiet --no-input -r requirements.txt"


@dataclass(frozen=True, kw_only=True)
class Description:
    """The content of `parcel.json`. `places` are paths in the parcel by the name that the spec gives."""

    spec: Mapping[str, Any]
    places: Mapping[str, str]
    timeout_s: float | None = None


@dataclass(frozen=True)
class Parcel:
    """The files of a parcel by their path in it: a file of this machine, or its content."""

    files: Mapping[str, Path | bytes]
    digest: str

    def write(self, folder: Path) -> None:
        """Write all files into a folder."""
        for name, content in self.files.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                target.write_bytes(content)
            else:
                shutil.copyfile(content, target)


def pack(spec: Spec, sources: Sources, setup: str | None = None, timeout_s: float | None = None) -> Parcel:
    """Return the parcel of a spec.

    Args:
        spec: The spec.
        sources: What its names stand for.
        setup: The shell command that installs what is needed; by default pip with the libraries of this environment.
        timeout_s: The time limit of a step.
    """
    files: dict[str, Path | bytes] = {}
    places: dict[str, str] = {}
    contents: dict[str, str] = {}
    for source in sources.by_name().values():
        if source.local:
            place = _place(source)
            contents[place] = source.digest
            if not source.name.startswith(MEMORY_PREFIX):
                places[source.name] = place
            files |= {f"{place}{name}": file for name, file in _files(source.folder).items()}
    code = Path(benchcard.__file__).parent
    own = {f"code/benchcard/{name}": file for name, file in list_files(code).items() if "__pycache__" not in file.parts}
    description = Description(spec=spec.as_dict(), places=places, timeout_s=timeout_s)
    frameworks = spec.values("framework") or [spec.get("framework")]
    texts = {
        DESCRIPTION: json.dumps(as_plain(description), indent=1),
        COMMAND: _SCRIPT.format(setup=_SETUP if setup is None else setup),
        "requirements.txt": "".join(f"{line}\n" for line in requirements(frameworks, spec.task)),
    }
    files |= own | {name: text.encode() for name, text in texts.items()}
    return Parcel(files, digest([contents, content_digest(code), texts])[:_DIGITS])


def requirements(frameworks: Iterable[str], task: str) -> list[str]:
    """Return the libraries that benchcard, these frameworks and this task need, with the versions of this environment,
    as pip reads them; without a version where one is not installed here.
    """
    needed = [Requirement(line) for line in metadata.requires("benchcard") or []]
    names = [*(each.name for each in needed if not each.marker), *registry.libraries(frameworks, task)]
    versions = {name: _version(name) for name in names}
    return [f"{name}=={version}" if version else name for name, version in versions.items()]


def _version(name: str) -> str:
    try:
        # A local version, as `+cpu`, stands on no index.
        return metadata.version(name).partition("+")[0]
    except metadata.PackageNotFoundError:
        return ""


def _place(source: Source) -> str:
    if source.name.startswith(MEMORY_PREFIX):
        return f"{MEMORY_FOLDER}/{source.name.removeprefix(MEMORY_PREFIX)}"
    place = f"sources/{source.digest[:_DIGITS]}"
    # The loader of a data set goes by the name of its file.
    return place if source.folder.is_dir() else f"{place}/{source.folder.name}"


def _files(path: Path) -> dict[str, Path]:
    """Return the files of a source, by what follows its place; the README of a data set says how to read it."""
    if not path.is_dir():
        return {"": path}
    readme = {"README.md": path / "README.md"} if (path / "README.md").is_file() else {}
    return {f"/{name}": file for name, file in {**readme, **list_files(path)}.items()}
