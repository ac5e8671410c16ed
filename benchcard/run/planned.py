"""The steps that each row of a plan would ask for if no two models were the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchcard.quantization.outcomes import QuantizationReport
from benchcard.quantization.settings import Quantization
from benchcard.run.pipeline import Pipeline
from benchcard.run.record import Record
from benchcard.run.traits import Traits
from benchcard.sources.resolve import Sources
from benchcard.spec.plan import Plan
from benchcard.steps.data import ShapeOutcome, ShapeRequest
from benchcard.steps.models import (
    CastRequest,
    ConvertOutcome,
    ConvertRequest,
    ExportOutcome,
    ExportRequest,
    GraphReport,
)
from benchcard.steps.quantize import QuantizeOutcome, QuantizeRequest
from benchcard.steps.step import AnyRequest, Outcome


def planned_steps(plan: Plan, sources: Sources, traits: Traits, default_threads: int) -> list[list[AnyRequest]]:
    """Return the requests of each row as if no two models were the same. Nothing is done."""
    return [requests for requests, _ in planned_rows(plan, sources, traits, default_threads)]


def planned_rows(
    plan: Plan, sources: Sources, traits: Traits, default_threads: int
) -> list[tuple[list[AnyRequest], Record]]:
    """Return the requests and the record of each row as if no two models were the same. Nothing is done."""
    rows: list[tuple[list[AnyRequest], Record]] = []
    requests: list[AnyRequest] = []

    def ask(request: AnyRequest) -> Outcome[Any]:
        requests.append(request)
        return Outcome(request.kind, request.key, Path(), _placeholder(request), planned=True)

    pipeline = Pipeline(plan, sources, traits, ask, default_threads)
    for configuration in plan:
        requests = []
        record = pipeline.record(configuration)
        rows.append((requests, record))
    return rows


def _placeholder(request: AnyRequest) -> object:
    """Return the values that the pipeline of a row reads from an outcome, with the step's key as the digest."""
    match request:
        case ExportRequest() | CastRequest():
            return ExportOutcome(file="", digest=request.key, size_bytes=0, report=GraphReport())
        case ConvertRequest():
            return ConvertOutcome(file="", digest=request.key)
        case QuantizeRequest():
            how = Quantization(request.approach)
            report = QuantizationReport(request.key, 0, 0, 0, (), 0, 0, 0, 0, 0, is_float_model=False, notes=())
            return QuantizeOutcome(file="", digest=request.key, size_bytes=0, report=report, how=how, exclusions=())
        case ShapeRequest():
            return ShapeOutcome(input_length=request.input_length)
    return None
