"""Learned optimizers: update rules that are small networks, with meta-parameters theta."""
