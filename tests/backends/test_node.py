"""What is sent of a run directory that grows meanwhile."""

from __future__ import annotations

import os
import shutil

from benchcard.backends.node import files_to_send
from benchcard.backends.worker import copy_new


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


def test_a_file_that_grows_while_it_is_copied_is_copied_again(monkeypatch, tmp_path):
    """A store that took it for complete would keep the rounds of a table without the last one."""
    run, store, seen = tmp_path / "run", tmp_path / "store", {}
    run.mkdir()
    (run / "rounds.bin").write_bytes(b"1")
    copy = shutil.copyfile

    def copy_and_grow(source, target):
        copy(source, target)
        if source.read_bytes() == b"1":
            # The file system may not tell these times from each other otherwise.
            source.write_bytes(b"12")
            os.utime(source, ns=(0, target.stat().st_mtime_ns - 1))

    monkeypatch.setattr(shutil, "copyfile", copy_and_grow)
    for _ in range(2):
        copy_new(run, store, seen)
    assert (store / "rounds.bin").read_bytes() == b"12"
    (run / "rounds.bin").unlink()
    copy_new(run, store, seen)
