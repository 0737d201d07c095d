"""Meta-learned optimizers on disk: theta and the card that says what it is."""
