"""A Ray cluster in a network namespace of its own, since Ray listens beyond the loopback interface.

The job of the backend is started in it too. Nothing in it can reach another machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from benchcard.backends import ray as backend

PORT = 6399
_READY = "ip link set lo up && echo ready && exec sleep infinity"


@dataclass
class Network:
    """A namespace in which only the loopback interface is up.

    Attributes:
        inside: What is put before a command to run it there.
        folder: The folder of Ray's own files.
        jobs: The commands of all jobs that the backend has started.
    """

    inside: list[str]
    folder: Path
    jobs: list[list[str]] = field(default_factory=list)
    nodes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def address(self) -> str:
        """The address of a cluster that was started here."""
        return f"127.0.0.1:{PORT}"

    def start_node(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a node, the first one with the cluster, and return its process when it is ready."""
        where = (
            ["--address", self.address] if self.nodes else ["--head", "--port", str(PORT), "--include-dashboard=false"]
        )
        command = [*self.inside, sys.executable, "-m", "ray.scripts.scripts", "start", *where]
        options = ["--block", "--num-cpus=1", "--disable-usage-stats"]
        options += ["--node-ip-address=127.0.0.1", "--object-store-memory=100000000", *arguments]
        node = subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
        assert node.stdout is not None
        self.nodes.append(node)
        said = []
        for line in node.stdout:
            said.append(line.decode())
            if "Ray runtime started" in said[-1]:
                return node
        raise AssertionError("".join(said))


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all that it has started."""
    if process.poll() is None:
        for each in [*psutil.Process(process.pid).children(recursive=True), process]:
            with suppress(psutil.NoSuchProcess):
                each.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


@contextmanager
def network(monkeypatch: pytest.MonkeyPatch) -> Iterator[Network]:
    """Yield a namespace in which the jobs of the backend are started; skip the test where Ray or namespaces lack."""
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("a network namespace cannot be made here: there is no `unshare` or no `ip`")
    options = ["-n"] if os.geteuid() == 0 else ["-n", "-r"]
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True))
        holder = subprocess.Popen(["unshare", *options, "sh", "-c", _READY], stdout=subprocess.PIPE)
        stack.callback(kill, holder)
        assert holder.stdout is not None
        if holder.stdout.readline().strip() != b"ready":
            pytest.skip("a network namespace cannot be made here (`unshare -n`)")
        user = [] if os.geteuid() == 0 else ["-U", "--preserve-credentials"]
        found = Network(["nsenter", "-t", str(holder.pid), "-n", *user, "--"], Path(folder))
        monkeypatch.setenv("RAY_TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        (found.folder / "token").write_text("0" * 64)
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", f"{folder}/token")

        def inside(command: list[str], **options: Any) -> Any:
            found.jobs.append(command)
            return subprocess.run([*found.inside, *command], **options)

        monkeypatch.setattr(backend, "subprocess", SimpleNamespace(run=inside, PIPE=subprocess.PIPE))
        yield found
        for node in found.nodes:
            kill(node)
