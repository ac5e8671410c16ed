"""One pass of the samples through the graph, and the ranges of every method from it."""
