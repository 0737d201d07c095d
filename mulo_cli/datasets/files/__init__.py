"""Readers of image files in the formats people have them in."""
