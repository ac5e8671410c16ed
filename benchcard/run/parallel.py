"""Steps that several child processes do in parallel."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path

from benchcard.steps.step import AnyRequest
from benchcard.workers.worker import Reply, Worker

# Memory to quantize or compare a model: at most this many times its file (as read, as written, and in sessions of both
# forms), and this much for the process. For a ViT-base of 0.34 GB, quantizing takes 1.2 GB and comparing 1.4 GB; the
# rest is for larger activations.
_TIMES_MODEL = 8
_PROCESS_BYTES = 400 << 20
_MEMORY_SHARE = 0.8
# A further child is started only if each child then has this many steps.
_STEPS_EACH = 2
_POLL_S = 0.02


def children(steps: int, cores: int, model_bytes: int, available_bytes: int) -> int:
    """Return the number of children for these steps, at least one, which read models of at most `model_bytes`."""
    room = int(available_bytes * _MEMORY_SHARE) // (_PROCESS_BYTES + _TIMES_MODEL * model_bytes)
    return max(1, min(steps // _STEPS_EACH, cores, room))


def do_all(
    work: Sequence[tuple[AnyRequest, Path]],
    workers: Sequence[Worker],
    timeout_s: float | None,
    done: Callable[[int, Reply, float], None],
) -> None:
    """Do all steps of `work`, each a request and the folder for its files. Each worker does one at a time.

    `done` is called in the caller's thread with the index of each step, its reply and the seconds that it took, in the
    order in which the steps end. If it raises, the other steps are stopped; no child is left working.
    """
    idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def do(request: AnyRequest, target: Path) -> tuple[Reply, float]:
        worker = idle.get()
        try:
            started = time.monotonic()
            return worker.do(request, target, lambda *_: None, timeout_s), time.monotonic() - started
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
                time.sleep(_POLL_S)
            raise
