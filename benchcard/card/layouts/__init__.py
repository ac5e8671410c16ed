"""The layouts of a card, `full` and `classic`, and their parts. Leaves reading a card to `reading`."""
