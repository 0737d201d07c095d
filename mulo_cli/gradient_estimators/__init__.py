"""Estimators of the meta-gradient from losses of perturbed unrolls."""
