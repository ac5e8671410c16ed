"""What is sent of a run directory that grows meanwhile."""

from __future__ import annotations

import os

from benchcard.backends.node import files_to_send


def test_a_folder_may_be_renamed_while_files_are_listed(monkeypatch, tmp_path):
    """A step's folder gets its final name when it is done. What says that others are there comes last."""
    kept = ["run.json", "steps/export-1/model.onnx", "steps/export-1/outcome.json"]
    for name in (*kept, "steps/.unfinished-2/x", "lock"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "steps/gone").mkdir()
    scan = os.scandir

    def scandir(folder):
        if str(folder).endswith("gone"):
            raise FileNotFoundError(folder)
        return scan(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    assert [file.relative_to(tmp_path).as_posix() for file in files_to_send(tmp_path)] == kept
