"""A published card becomes a spec, frames and verdicts."""
