"""A float graph becomes an int8 graph. Ranges come from `calibration`; what it cost each layer, from `sensitivity`."""
