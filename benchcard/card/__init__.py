"""Model cards: facts rendered as text, parsed from text, and merged into a README. Leaves measuring to others."""

from __future__ import annotations

from benchcard.card.card import Card
from benchcard.card.facts import Facts

__all__ = ["Card", "Facts"]
