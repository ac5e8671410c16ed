"""A published card, read back as facts."""
