"""Compare how precise ratios are, and how long one waits for them, by four protocols.

    python benchmarks/precision.py [--models 8] [--seconds 1] [--run RUN] [--vit-base]

Several copies of one model are timed, so that every true ratio is 1:

- `benchcard`: the protocol of `benchcard.measure`.
- `before`: that of version 0.1.0: five launches of six blocks, processes started afresh, threads that sleep between
  calls, and Student's interval over the launches.
- `loop`: a plain loop over the models, five times, in one process, with Student's interval over the five.
- `pyperf`: twenty processes for each model, one after the other, with one value each, and Welch's interval.

Each gives every copy the same recorded seconds. For each the script prints the wall time, the median half-width of the
ratios' 95 % intervals, the largest distance of a ratio from 1, and the half-width at the wall time of the first, by the
square root of time. Models: the float graph of the digits run in RUN, a perceptron of about 50 ms, and a ViT-base.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TypeAlias

import numpy as np
from noise import make_model
from scipy.stats import t as student

from benchcard.measure.blocks import Round, Subject
from benchcard.measure.conductor import time_group
from benchcard.measure.latency import block_medians
from benchcard.measure.noise import ratios
from benchcard.measure.process import Launchers, TimedProcess
from benchcard.utils.values import Interval

WARMUP_RUNS = 10
Protocol: TypeAlias = Callable[[Sequence[Subject], float], list[Interval]]


class Afresh(Launchers):
    """Processes that are started afresh, and not stopped between blocks."""

    def start(self, members, processes, affordable_ns):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
        """Return a new process for each member."""
        started = [processes.enter_context(TimedProcess(*member, self.timeout_s)) for member in members]
        for process in started:
            process.pause = process.resume = lambda: None
            process.start_import()
        for process in started:
            process.finish_import()
        return started


def benchcard(subjects: Sequence[Subject], seconds: float) -> list[Interval]:
    """Return the ratios by the protocol of `benchcard.measure`."""
    rounds: list[Round] = []
    time_group(subjects, 0, duration_s=seconds, keep=rounds.append)
    return [ratio.interval() for ratio in ratios(rounds, subjects[0].name, [each.name for each in subjects]).values()]


def before(subjects: Sequence[Subject], seconds: float) -> list[Interval]:
    """Return the ratios by the protocol of version 0.1.0."""
    rounds: list[Round] = []
    asleep = [_with(subject, allow_spinning=False) for subject in subjects]
    block_s = min(0.1, seconds / 30)
    time_group(asleep, 0, duration_s=seconds, keep=rounds.append, block_s=block_s, launchers=Afresh())
    baseline = block_medians(rounds, subjects[0].name)
    intervals = []
    for subject, twin in [(subjects[0], True), *((subject, False) for subject in subjects[1:])]:
        logs: dict[int, list[float]] = {}
        for place, median in block_medians(rounds, subject.name, twin=twin).items():
            logs.setdefault(place[0], []).append(math.log(baseline[place] / median))
        intervals.append(_interval([float(np.median(launch)) for launch in logs.values()]))
    return intervals


def loop(subjects: Sequence[Subject], seconds: float) -> list[Interval]:
    """Return the ratios of a plain loop over the models, made five times in one process."""
    import onnxruntime

    sessions = []
    for subject in subjects:
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = int(str(subject.options["intra_op_num_threads"]))
        session = onnxruntime.InferenceSession(str(subject.model), settings, providers=["CPUExecutionProvider"])
        with np.load(subject.inputs) as arrays:
            inputs = {entry.name: arrays[entry.name] for entry in session.get_inputs()}
        sessions.append((session, inputs))
    means: list[list[float]] = [[] for _ in subjects]
    for _ in range(5):
        for place, (session, inputs) in enumerate(sessions):
            for _ in range(WARMUP_RUNS):
                session.run(None, inputs)
            latencies, stop = [], time.perf_counter() + seconds / 5
            while time.perf_counter() < stop:
                start = time.perf_counter()
                session.run(None, inputs)
                latencies.append(time.perf_counter() - start)
            means[place].append(float(np.mean(latencies)))
    return [_interval(list(np.log(np.array(means[0]) / np.array(other)))) for other in means[1:]]


def pyperf(subjects: Sequence[Subject], seconds: float) -> list[Interval]:
    """Return the ratios of values from twenty processes for each model, one after the other."""
    values = []
    for subject in subjects:
        logs = []
        for _ in range(20):
            with Afresh(600.0) as launchers, ExitStack() as stack:
                (process,) = launchers.start([(subject, False)], stack, 0.0)
                process.open(0, WARMUP_RUNS, 10**9)
                logs.append(math.log(process.time_block(round(seconds / 20 * 1e9), 0).latencies_ns.mean()))
        values.append(np.array(logs))
    first = values[0]
    intervals = []
    for other in values[1:]:
        log = float(first.mean() - other.mean())
        half = float(student.ppf(0.975, 38)) * math.sqrt((first.var(ddof=1) + other.var(ddof=1)) / 20)
        intervals.append(Interval(math.exp(log), math.exp(log - half), math.exp(log + half)))
    return intervals


def _with(subject: Subject, **options: object) -> Subject:
    return Subject(subject.name, subject.framework, subject.model, subject.inputs, 1, {**subject.options, **options})


def _interval(logs: Sequence[float]) -> Interval:
    """Return Student's interval of a ratio."""
    mean = float(np.mean(logs))
    half = float(student.ppf(0.975, len(logs) - 1)) * float(np.std(logs, ddof=1)) / math.sqrt(len(logs))
    return Interval(math.exp(mean), math.exp(mean - half), math.exp(mean + half))


def compare(name: str, model: Path, inputs: Path, options: argparse.Namespace) -> None:
    """Print a line for each protocol."""
    settings = {"intra_op_num_threads": options.threads}
    subjects = [
        Subject(f"copy{number}", "onnxruntime", model.resolve(), inputs.resolve(), 1, settings)
        for number in range(options.models)
    ]
    protocols: list[Protocol] = [benchcard, before, loop, pyperf]
    first_s = 0.0
    for protocol in protocols[: options.protocols]:
        started = time.perf_counter()
        intervals = protocol(subjects, options.seconds)
        wall_s = time.perf_counter() - started
        first_s = first_s or wall_s
        half = float(np.median([((each.high or 0) - (each.low or 0)) / 2 / each.value for each in intervals]))
        worst = max(abs(math.log(each.value)) for each in intervals)
        print(
            f"{name:<12} {protocol.__name__:<10} {wall_s:>6.1f} s  ± {half:>6.2%}  off by {worst:>6.2%} at most  "
            f"± {half * math.sqrt(wall_s / first_s):>6.2%} at equal wall time",
            flush=True,
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=8, help="copies of each model")
    parser.add_argument("--seconds", type=float, default=1.0, help="recorded seconds of each copy")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--run", type=Path, help="the run directory of examples/digits.yaml")
    parser.add_argument("--vit-base", action="store_true", help="also time a ViT-base with random weights")
    parser.add_argument("--protocols", type=int, default=4, help="only the first so many protocols")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if options.run:
            graph = max(options.run.glob("steps/export-*/model.onnx"), key=lambda path: path.stat().st_size)
            compare("digits", graph, next(iter(options.run.glob("steps/shape-*/inputs.npz"))), options)
        model, inputs = make_model(folder, width=1024, layers=16, rows=64)
        compare("perceptron", model, inputs, options)
        if options.vit_base:
            compare("vit-base", *make_vit_base_graph(folder), options)
    return 0


def make_vit_base_graph(folder: Path) -> tuple[Path, Path]:
    """Write the graph of a ViT-base with random weights and its inputs, and return both paths."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    pixels = torch.zeros(1, 3, 224, 224)
    graph = folder / "vit-base.onnx"
    torch.onnx.export(ViTForImageClassification(ViTConfig()).eval(), (pixels,), graph, input_names=["pixel_values"])
    np.savez(folder / "vit-base.npz", pixel_values=pixels.numpy())
    return graph, folder / "vit-base.npz"


if __name__ == "__main__":
    sys.exit(main())
