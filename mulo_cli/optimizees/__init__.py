"""Networks to be trained: ordinary flax modules with a width field."""
