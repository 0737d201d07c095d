"""`mulo rank`: average ranks of optimizers. Announced here, built in the next version."""

from mulo_cli.cli.outcome import Outcome


def rank() -> Outcome:
    """Rank the optimizers of `mulo evaluate` rows (not in this version)."""
    from mulo_cli.errors import UsageError

    raise UsageError(
        "rank is not part of this version",
        "it comes with the next one; `mulo evaluate` on a terminal prints a table with the best",
    )
