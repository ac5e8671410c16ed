"""Steps done by several child processes at a time."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from benchcard.workers.worker import Reply, Worker

# Quantizing or comparing a model takes its file so many times over at the most (as it is read, as it is written, and in
# sessions of its float and its quantized form), and its process this much. Of a ViT-base, 0.34 GB, quantizing takes 1.2
# GB and comparing 1.4 GB; what is left is for larger activations.
_TIMES_MODEL = 8
_PROCESS_BYTES = 400 << 20
_MEMORY_SHARE = 0.8
# Another child is worth its start where there are so many steps for each.
_STEPS_EACH = 2
_LOOK_S = 0.02


def children(steps: int, cores: int, model_bytes: int, available_bytes: int) -> int:
    """How many children do so many steps: one at least.

    Args:
        steps: Number of steps.
        cores: Physical cores.
        model_bytes: Size of the largest model that one of them reads.
        available_bytes: Memory that new processes may take.
    """
    room = int(available_bytes * _MEMORY_SHARE) // (_PROCESS_BYTES + _TIMES_MODEL * model_bytes)
    return max(1, min(steps // _STEPS_EACH, cores, room))


def do_all(
    requests: Sequence[Mapping[str, Any]],
    workers: Sequence[Worker],
    timeout_s: float | None,
    done: Callable[[int, Reply, float], None],
) -> None:
    """Have every request done; each one's log is `log.txt` in the folder that is its target.

    Whatever `done` raises ends the others: no child is at work when this has returned, or raised.

    Args:
        requests: What `Worker.do` takes.
        workers: The children that do it, each one at a time.
        timeout_s: Seconds after which one is stopped; None for no limit.
        done: Called in the caller's thread with the place of each request, its reply and the seconds it took, in the
            order in which they end.
    """
    idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def do(request: Mapping[str, Any]) -> tuple[Reply, float]:
        worker = idle.get()
        try:
            begun = time.monotonic()
            log = Path(request["target"], "log.txt")
            reply = worker.do(request, log, lambda done, total: None, timeout_s)
            return reply, time.monotonic() - begun
        finally:
            idle.put(worker)

    with ThreadPoolExecutor(len(workers), thread_name_prefix="side-by-side") as pool:
        places: dict[Future[tuple[Reply, float]], int] = {}
        try:
            places.update((pool.submit(do, request), place) for place, request in enumerate(requests))
            for future in as_completed(places):
                done(places[future], *future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            # One that had taken a request, and not begun it, would start its child again.
            while not all(future.done() for future in places):
                for worker in workers:
                    worker.stop()
                time.sleep(_LOOK_S)
            raise
