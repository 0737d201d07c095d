"""Speed as ratios within one run; by name (`python -m tests.benchmarks.pes_speed`) only."""
