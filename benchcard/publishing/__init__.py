"""Results become facts, files and one push."""
