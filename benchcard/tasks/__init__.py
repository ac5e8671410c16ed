"""From a row of a data set to a prediction; one file per task.

Leaves the files of prepared rows to `benchcard.evaluation`, and figures to `benchcard.metrics`.
"""

from __future__ import annotations

from benchcard.tasks.protocol import (
    ComparedOutput,
    InputCode,
    Prepared,
    Question,
    Row,
    Task,
    Usage,
    default_metrics,
    task_phases,
)

__all__ = [
    "ComparedOutput",
    "InputCode",
    "Prepared",
    "Question",
    "Row",
    "Task",
    "Usage",
    "default_metrics",
    "task_phases",
]
