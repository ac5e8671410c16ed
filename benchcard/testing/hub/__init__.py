"""A Hugging Face Hub on the loopback."""
