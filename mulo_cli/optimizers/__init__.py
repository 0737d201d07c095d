"""Hand-designed optimizers, made of optax, under standard parametrization and muP."""
