"""How a child process of Python is started: it imports what its parent can import, and nothing that merely lies in the
working directory.

Python puts the working directory, or the folder of the script that it runs, first on its path, where a file
`datasets.py` hides the package of that name. Children do without both folders. Where something was registered by a
call, its module may lie in one of them: they are searched then, after everything else.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

import benchcard

# The child's own path goes last: it holds the standard library and what is installed, which the parent's may lack only
# where one of these is the working directory. `filter` drops the empty entry that Python 3.10 puts first, before
# anything is imported from there. The package is loaded from where the parent has it, be it the working directory.
_PROGRAM = """\
import sys
sys.path[:] = dict.fromkeys([*{path}, *filter(None, sys.path), *{last}])
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("benchcard", {package})
sys.modules["benchcard"] = package = module_from_spec(spec)
spec.loader.exec_module(package)
from benchcard.{module} import main
main({argument})
"""


def command(module: str, argument: int | None = None, *, search_own: bool) -> list[str]:
    """Return the command that runs `main` of a module of this package in a child, to be started with `environment`.

    Args:
        module: The module's name within the package, as `measure.child`.
        argument: What `main` takes; None where it takes nothing.
        search_own: Whether the working directory and the folder of the program are searched, after everything else.
    """
    own = _own_folders()
    program = _PROGRAM.format(
        path=ascii(_without(own, sys.path)),
        last=ascii(sorted(own) if search_own else []),
        package=ascii(os.path.abspath(benchcard.__file__)),
        module=module,
        argument="" if argument is None else argument,
    )
    return [sys.executable, "-c", program]


def environment() -> dict[str, str]:
    """Return the variables of this process, with none that make Python look into the working directory."""
    variables = {**os.environ, "PYTHONSAFEPATH": "1"}
    path = _without(_own_folders(), variables.pop("PYTHONPATH", "").split(os.pathsep))
    return {**variables, "PYTHONPATH": os.pathsep.join(path)} if path else variables


def _own_folders() -> set[str]:
    """Return the working directory and the folder of the program that runs."""
    program = getattr(sys.modules.get("__main__"), "__file__", None)
    try:
        here = os.getcwd()
    except FileNotFoundError:
        here = ""  # It was removed, and nothing can be imported from it.
    return {os.path.realpath(folder) for folder in (here, program and os.path.dirname(program)) if folder}


def _without(folders: set[str], path: Iterable[object]) -> list[str]:
    """Return the entries of a path without some folders, unless PYTHONPATH names one from the root: relative entries
    are made absolute, and what is no text is left out, as imports do.
    """
    named = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if os.path.isabs(entry)]
    entries = [entry for entry in path if isinstance(entry, str)]
    kept = [entry for entry in entries if entry in named or os.path.realpath(entry) not in folders]
    # Hooks of editable installations put entries on the path that are no files.
    return [str(Path(entry).absolute()) if os.path.exists(entry) else entry for entry in kept]
