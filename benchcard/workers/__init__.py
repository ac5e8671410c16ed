"""Who does a step: a child process, and what it answers."""
