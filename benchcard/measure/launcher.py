"""The process that imports a framework once and forks a process for each model.

A fork takes a millisecond, the import of a framework a second. Each forked process is a `child` with one model. Leaves
starting this process, and what is asked of it, to `process`. It has one thread, because a fork copies only that one.

A fork shares pages: one that a forked process writes is copied first, and pages of files (the code of libraries) are
not resident until they are read. So a forked process begins by reading or copying the pages that the import has used;
else they would count as memory and time of the model.

Commands arrive as packets on the socket that is its standard input; `Fork` brings two descriptors.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import socket
from pathlib import Path
from typing import BinaryIO, NoReturn, TypeAlias

import numpy as np

from benchcard.measure.child import (
    Fork,
    Import,
    Opener,
    Reply,
    Wait,
    answer,
    answering_errors,
    decode_command,
    end_with,
    import_framework,
    serve,
    start,
)

_PACKET_BYTES = 1 << 20
_MADV_POPULATE_READ, _MADV_POPULATE_WRITE = 22, 23  # madvise(2), from Linux 5.14 on

Stretches: TypeAlias = list[tuple[int, int, int]]
"""Addresses and lengths in bytes, and the advice that makes them this process's own."""


def main(parent: int) -> None:
    """Carry out commands until they end.

    The process and all that it forked end with `parent`, the process id of its parent.
    """
    answers = start(parent)
    commands = socket.socket(fileno=0)
    opener: Opener | None = None
    stretches: Stretches = []
    while True:
        packet, descriptors, _, _ = socket.recv_fds(commands, _PACKET_BYTES, 2, socket.MSG_CMSG_CLOEXEC)
        if not packet:
            return
        command = decode_command(packet)
        with answering_errors(answers):
            if isinstance(command, Import):
                opener, reply = import_framework(command, lambda stage: answer(answers, {"stage": stage}))
                # No collection in a forked process needs to look at these objects, which would copy their pages.
                gc.collect()
                gc.freeze()
                try:
                    stretches = _resident_pages()
                    can_fork = len(os.listdir("/proc/self/task")) == 1 and _populate(stretches)
                except OSError:
                    can_fork = False  # Sandboxes lack files of /proc.
                answer(answers, {**reply, "can_fork": can_fork})
            elif isinstance(command, Fork) and opener is not None:
                answer(answers, _fork(opener, stretches, answers, *descriptors))
            elif isinstance(command, Wait):
                answer(answers, {"code": os.waitstatus_to_exitcode(os.waitpid(command.pid, 0)[1])})


def _resident_pages() -> Stretches:
    """Return the pages that this process has used.

    Source: proc(5), /proc/pid/maps and /proc/pid/pagemap, whose bit 63 says that a page is present.
    """
    size, stretches = os.sysconf("SC_PAGE_SIZE"), []
    with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
        for line in Path("/proc/self/maps").read_text().splitlines():
            addresses, rights, _, _, _, *name = line.split()
            if not rights.startswith("r") or any(part.startswith("[v") for part in name):
                continue  # pages without access, and those that the kernel shares with all processes
            first, last = (int(address, 16) for address in addresses.split("-"))
            pagemap.seek(first // size * 8)
            entries = np.frombuffer(pagemap.read((last - first) // size * 8), np.uint64)
            # Zeros at both ends, so that each stretch begins and ends.
            edges = np.flatnonzero(np.diff(np.pad((entries >> np.uint64(63)).astype(np.int8), 1)))
            advice = _MADV_POPULATE_WRITE if rights[1] == "w" else _MADV_POPULATE_READ
            stretches += [(first + int(a) * size, int(b - a) * size, advice) for a, b in edges.reshape(-1, 2)]
    return stretches


def _populate(stretches: Stretches) -> bool:
    """Make pages resident and this process's own, and return whether the system can do that.

    Stretches that the process has given back since are passed over.
    """
    madvise = ctypes.CDLL(None, use_errno=True).madvise
    for address, length, advice in stretches:
        if madvise(ctypes.c_void_p(address), ctypes.c_size_t(length), advice) and ctypes.get_errno() == errno.EINVAL:
            return False
    return True


def _fork(opener: Opener, stretches: Stretches, answers: BinaryIO, channel: int, log: int) -> Reply:
    """Start a process that serves one model on a socket; return its number as `pid`, or why not as `refused`."""
    launcher = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        reply: Reply = {"refused": [type(error).__name__, str(error)]}
    else:
        if pid == 0:
            try:
                _populate(stretches)
                _become_child(opener, answers, launcher, channel, log)
            finally:
                os._exit(1)
        reply = {"pid": pid}
    os.close(channel)
    os.close(log)
    return reply


def _become_child(opener: Opener, answers: BinaryIO, launcher: int, channel: int, log: int) -> NoReturn:
    """Serve one model, in a process group of its own, without the descriptors of the launcher."""
    os.setsid()
    end_with(launcher)
    nothing = os.open(os.devnull, os.O_RDWR)
    for target, descriptor in ((0, nothing), (1, log), (2, log), (answers.fileno(), nothing)):
        os.dup2(descriptor, target)
    os.close(log)
    os.close(nothing)
    connection = socket.socket(fileno=channel)
    own_answers = connection.makefile("wb")
    answer(own_answers, {"forked": True})
    serve(connection.makefile("rb"), own_answers, opener)
