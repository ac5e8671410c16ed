"""Words for messages, plain data and its digest, files written whole, ends of processes."""
