"""Kills, full disks and damaged files: what was saved is never lost."""
