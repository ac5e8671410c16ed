"""The frame `models`: what each model is."""

from __future__ import annotations

from dataclasses import replace

from benchcard.analysis.frames.models import model_columns
from benchcard.run.failures import Failures
from benchcard.utils.values import Failure


def test_a_row_that_failed_at_quantization_has_no_bits(results):
    """The float graph was made for it, but is not its model."""
    records = results.records
    record = next(record for record in records.records if record.configuration.quantized)
    assert model_columns(records, record)["bits_per_weight"] < 32
    failures = Failures(model=Failure("quantize", "ValueError", "no scale"))
    failed = replace(record, outcomes=replace(record.outcomes, quantize=None), digest=None, cells={}, failures=failures)
    columns = model_columns(records, failed)
    assert columns["bits_per_weight"] is columns["size_saved"] is columns["size_mb"] is None
