"""From the id of a model to a spec: what its files, its model card and a data set say, and where each value is from."""
