"""`mulo tune-adam`: tuned AdamW and muAdam baselines. Announced here, built in the next version."""

from mulo_cli.cli.outcome import Outcome


def tune_adam() -> Outcome:
    """Tune AdamW and muAdam over a grid (not in this version)."""
    from mulo_cli.errors import UsageError

    raise UsageError(
        "tune-adam is not part of this version",
        "it comes with the next one; `mulo evaluate --optimizer adamw:learning_rate=...` "
        "tries one configuration",
    )
