"""One training of one network: its state, one step, and many steps."""
