"""A task: a data set, an optimizee and a loss."""
