"""`mulo coord-check`: is my parametrization right? Announced here, built in the next version."""

from mulo_cli.cli.outcome import Outcome


def coord_check() -> Outcome:
    """Check a parametrization by the size of activations across widths (not in this version)."""
    from mulo_cli.errors import UsageError

    raise UsageError(
        "coord-check is not part of this version",
        "it comes with the next one; CHANGELOG.md says what is there",
    )
