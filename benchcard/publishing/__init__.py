"""What a run publishes: the facts of its card, the files of a bundle, and the push to the Hub.

The layout of a card is left to `card`, the commit to `hub`.
"""
