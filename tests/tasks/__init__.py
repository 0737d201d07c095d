"""Tasks, and what is seen of their networks."""
