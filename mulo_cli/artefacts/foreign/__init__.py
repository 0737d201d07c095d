"""Meta-parameters as other projects publish them: read without trust, written for PyLO."""
