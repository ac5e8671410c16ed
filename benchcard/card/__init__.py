"""Facts become text and text becomes facts: no clock, no network, no model."""

from __future__ import annotations

from benchcard.card.card import Card
from benchcard.card.facts import Facts

__all__ = ["Card", "Facts"]
