"""Child processes that do the steps of a run. What a step does is left to `steps`, the order of steps to `run`."""
