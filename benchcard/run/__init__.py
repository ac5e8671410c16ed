"""Which steps there are, in which order, and what is kept of them on disk."""
