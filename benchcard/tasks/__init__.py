"""From a row to a prediction, one file per task."""

from __future__ import annotations

from benchcard.tasks.protocol import Prepared, Question, Row, Task, default_metrics

__all__ = ["Prepared", "Question", "Row", "Task", "default_metrics"]
