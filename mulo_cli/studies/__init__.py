"""Studies: many inner trainings, yielded as records."""
