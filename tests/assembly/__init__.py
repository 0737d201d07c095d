"""Building live objects from words."""
