"""Results: records as plain data, kept as JSON lines."""
