"""How a card looks: the layouts `full` and `classic`, and their parts."""
