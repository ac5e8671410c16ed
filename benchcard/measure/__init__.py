"""Raw latencies, their intervals, and the machine they were measured on."""
