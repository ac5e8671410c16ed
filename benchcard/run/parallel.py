"""Steps that several child processes do in parallel."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from benchcard.steps.step import Request
from benchcard.workers.worker import Reply, Worker

# To quantize or compare a model takes at most this many times its file (as read, as written, and in sessions of its
# float and its quantized form), and this much for the process. For a ViT-base of 0.34 GB, quantizing takes 1.2 GB and
# comparing 1.4 GB; the rest is for larger activations.
_TIMES_MODEL = 8
_PROCESS_BYTES = 400 << 20
_MEMORY_SHARE = 0.8
# Another child is worth its start only with this many steps for each.
_STEPS_EACH = 2
_LOOK_S = 0.02


def children(steps: int, cores: int, model_bytes: int, available_bytes: int) -> int:
    """Return the number of children that do these steps, at least one.

    Args:
        steps: Number of steps.
        cores: Physical cores.
        model_bytes: Size of the largest model that a step reads.
        available_bytes: Memory that new processes may take.
    """
    room = int(available_bytes * _MEMORY_SHARE) // (_PROCESS_BYTES + _TIMES_MODEL * model_bytes)
    return max(1, min(steps // _STEPS_EACH, cores, room))


def do_all(
    work: Sequence[tuple[Request[Any], Path]],
    workers: Sequence[Worker],
    timeout_s: float | None,
    done: Callable[[int, Reply, float], None],
) -> None:
    """Do all steps, each worker one at a time.

    If `done` raises, the other steps are stopped. No child works any more when this function returns or raises.

    Args:
        work: For each step its request and the folder for its files.
        workers: The children.
        timeout_s: Seconds after which a step is stopped; None for no limit.
        done: Called in the caller's thread with the index of each step, its reply and the seconds that it took, in the
            order in which the steps end.
    """
    idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def do(request: Request[Any], target: Path) -> tuple[Reply, float]:
        worker = idle.get()
        try:
            started = time.monotonic()
            reply = worker.do(request, target, lambda done, total: None, timeout_s)
            return reply, time.monotonic() - started
        finally:
            idle.put(worker)

    with ThreadPoolExecutor(len(workers), thread_name_prefix="step") as pool:
        futures: dict[Future[tuple[Reply, float]], int] = {}
        try:
            futures.update((pool.submit(do, request, target), index) for index, (request, target) in enumerate(work))
            for future in as_completed(futures):
                done(futures[future], *future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            # A thread that has taken a step, but not begun it, would start its child again.
            while not all(future.done() for future in futures):
                for worker in workers:
                    worker.stop()
                time.sleep(_LOOK_S)
            raise
