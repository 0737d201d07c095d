"""Recipes: everything a meta-training depends on, as data."""
