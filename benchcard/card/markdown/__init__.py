"""Text as Markdown: inline values and tables."""
