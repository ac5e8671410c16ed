"""Values, text and tables as Markdown, and back. Leaves what a card shows to the layouts."""
