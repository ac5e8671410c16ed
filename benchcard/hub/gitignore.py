"""Which files a repository's `.gitignore` excludes from a commit."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Final

GITIGNORE: Final = ".gitignore"


def is_ignored(path: str, rules: str) -> bool:
    """Return whether the text of a `.gitignore` excludes a file; the last matching rule decides.

    Source: https://git-scm.com/docs/gitignore. Unlike there, `*` also matches a slash.
    """
    parts, ignored = path.split("/"), False
    folders = ["/".join(parts[:depth]) for depth in range(1, len(parts))]
    for line in map(str.strip, rules.splitlines()):
        rule = line.removeprefix("!")
        names = folders if rule.endswith("/") else [*folders, path]
        pattern = rule.rstrip("/")
        if "/" not in pattern:
            names = [name.rsplit("/", 1)[-1] for name in names]
        # A leading `**/` matches any number of folders, or none.
        patterns = pattern.lstrip("/"), pattern.removeprefix("**/")
        matches = any(fnmatchcase(name, pattern) for name in names for pattern in patterns)
        if rule and not line.startswith("#") and matches:
            ignored = rule == line
    return ignored
