"""A framework for the processes that tests time: busy for a known time by the clock, or broken at a chosen stage."""

from __future__ import annotations

import gc
import os
import sys
import time


class Model:
    """Busy for `ms` in each call; `stage` and `how` say where and how it breaks."""

    def __init__(self, model, options):
        self.options = options
        self.calls = 0
        self.facts = {
            "options": options,
            "environment": {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY")},
            "modules": sorted(sys.modules),
        }
        self.break_at("load")
        self.ballast = bytearray(options.get("bytes", 0))

    def break_at(self, stage):
        if self.options.get("stage") == stage and self.is_due():
            how = self.options["how"]
            if "grandchild" in self.options:
                leave(self.options["grandchild"])
            if how == "surrogate":
                raise RuntimeError("half of \ud83d")
            if how == "raise":
                raise RuntimeError("out of luck")
            if how == "exit":
                os.write(1, b"leaving now\n")
                os._exit(7)
            if how == "hang":
                time.sleep(3600)
            os.kill(os.getpid(), how)

    def is_due(self):
        """Whether it was launched `after` times before, as a file at `counter` counts; True where nobody asks."""
        if "counter" not in self.options:
            return True
        with open(self.options["counter"], "a+") as file:
            file.write(".")
            return file.tell() > self.options["after"]

    def __call__(self, inputs):
        self.calls += 1
        self.break_at("first call" if self.calls == 1 else "time" if self.calls > 4 else "warm-up")
        if self.options.get("chatty"):
            os.write(1, b"not an answer\n")
        stop = time.perf_counter_ns() + int(self.options.get("ms", 1) * 1e6)
        while time.perf_counter_ns() < stop:
            pass


def leave(file):
    """Leave a process behind that holds all that this one has open; its number is written to a file."""
    pid = os.fork()
    if pid == 0:
        while True:
            time.sleep(3600)
    with open(file, "w") as written:
        written.write(str(pid))


class Prepared(Model):
    """A model that prepares its inputs, and runs on nothing else."""

    def prepare(self, inputs):
        self.facts["prepared"] = sorted(inputs)
        return "prepared"

    def run(self, prepared):
        assert prepared == "prepared"
        self(prepared)


class WithoutCollection(Model):
    """A model that cannot bear the collection of garbage once its warm-up is over."""

    def __call__(self, inputs):
        super().__call__(inputs)
        if self.calls > 4 and gc.isenabled():
            raise RuntimeError("garbage is collected while the clock runs")
