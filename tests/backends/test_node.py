"""What is sent of a run directory that grows meanwhile."""

from __future__ import annotations

import os

from benchcard.backends.node import files_to_send


def test_a_folder_may_be_renamed_while_files_are_listed(monkeypatch, tmp_path):
    """A step's folder gets its final name when it is done. What says that others are there comes last."""
    for name in (
        "steps/export-1/outcome.json",
        "steps/export-1/model.onnx",
        "steps/.unfinished-2/x",
        "lock",
        "run.json",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "steps/gone").mkdir()
    scan = os.scandir

    def scandir(folder):
        if str(folder).endswith("gone"):
            raise FileNotFoundError(folder)
        return scan(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    found = [file.relative_to(tmp_path).as_posix() for file in files_to_send(tmp_path)]
    assert found == [*kept]
