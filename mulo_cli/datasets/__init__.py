"""Data sets: arrays at rest, and batches that are pure functions of a key and a step."""
