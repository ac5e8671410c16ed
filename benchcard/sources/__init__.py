"""Which model, which data and which metric script, exactly."""
