"""The process that imports a framework once and forks a process for each model.

A fork takes a millisecond, the import of a framework a second. Each forked process is a `child` with one model. Leaves
starting this process, and what is asked of it, to `process`. It has one thread, because a fork copies only that one.

Commands arrive as packets on the socket that is its standard input; `Fork` brings two descriptors.
"""

from __future__ import annotations

import gc
import os
import socket
from typing import BinaryIO, NoReturn

from benchcard.measure.child import (
    Fork,
    Import,
    Opener,
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


def main(parent: int) -> None:
    """Carry out commands until they end.

    The process and all that it forked end with `parent`, the process id of its parent.
    """
    answers = start(parent)
    commands = socket.socket(fileno=0)
    opener: Opener | None = None
    while True:
        packet, descriptors, _, _ = socket.recv_fds(commands, _PACKET_BYTES, 2)
        if not packet:
            return
        command = decode_command(packet)
        with answering_errors(answers):
            if isinstance(command, Import):
                opener, reply = import_framework(command, lambda stage: answer(answers, {"stage": stage}))
                # No collection in a forked process needs to look at these objects, which would copy their pages.
                gc.collect()
                gc.freeze()
                answer(answers, {**reply, "threads": len(os.listdir("/proc/self/task"))})
            elif isinstance(command, Fork) and opener is not None:
                answer(answers, {"pid": _fork(opener, answers, *descriptors)})
            elif isinstance(command, Wait):
                answer(answers, {"code": os.waitstatus_to_exitcode(os.waitpid(command.pid, 0)[1])})


def _fork(opener: Opener, answers: BinaryIO, channel: int, log: int) -> int:
    """Return the number of a new process that serves one model on a socket."""
    launcher, pid = os.getpid(), os.fork()
    if pid == 0:
        try:
            _become_child(opener, answers, launcher, channel, log)
        finally:
            os._exit(1)
    os.close(channel)
    os.close(log)
    return pid


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
    serve(connection.makefile("rb"), connection.makefile("wb"), opener)
