"""Pages to look at: the results of a run, and the figures of many cards, each as one HTML file without a network."""
