"""A framework for tests of timing: busy for a known time, or broken at a chosen stage."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from types import MappingProxyType


class Model:
    """Busy for `ms` in each call. It breaks at `stage` in the way `how`."""

    def __init__(self, model, options):
        self.options = options
        self.calls = 0
        self.facts = {
            "options": options,
            "environment": {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY")},
            "modules": sorted(sys.modules),
        }
        if "grandchild" in options:
            start_grandchild(options["grandchild"])
        self.break_at("load")
        self.ballast = bytearray(options.get("bytes", 0))

    def break_at(self, stage):
        if self.options.get("stage") == stage and self.is_due():
            how = self.options["how"]
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
        """Whether it was launched `after` times before, by a count in the file `counter`; True without such a file."""
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


def start_grandchild(file):
    """Start a process that holds all files of this one open, and write its process id to a file."""
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
    """A model that fails if garbage is collected after its warm-up."""

    def __call__(self, inputs):
        super().__call__(inputs)
        if self.calls > 4 and gc.isenabled():
            raise RuntimeError("garbage is collected while the clock runs")


class Forkable:
    """A framework whose models are those above, and whose processes may be forked."""

    parameters = running = frozenset()
    arguments = MappingProxyType({})
    engine, format = "fake", "transformers"
    forkable = True

    def import_runtime(self):
        """Import nothing more."""

    def open(self, model, options):
        """Return the model."""
        return Model(model, options)


class Threaded(Forkable):
    """A framework that starts a thread when it is imported."""

    def import_runtime(self):
        """Start the thread."""
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
