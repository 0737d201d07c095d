"""The errors a user can cause or meet: each says what happened, where, and what to do about it."""


class MuloError(Exception):
    """Anything that ends a command with one clear sentence instead of a traceback.

    Args:
        message: what happened, with the name and the value of the thing concerned.
        hint: what to do about it.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(MuloError):
    """The command, an option or a configuration cannot be meant as it stands (exit code 2)."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe is malformed, or names something that does not exist."""


class DataError(MuloError):
    """A data set is missing or is not what it claims to be."""


class ArtefactError(MuloError):
    """Stored meta-parameters are missing, half-written, or of another architecture."""


class CheckpointError(MuloError):
    """A run's checkpoints cannot be written or read back."""


class OutputError(MuloError):
    """Something could not be written where the user asked for it."""


class NumericalError(MuloError):
    """A number that must be finite is not."""


class RoleError(MuloError):
    """The muP role of a parameter cannot be told from its shapes."""


SHOWN = 80
"""Characters of a wrong value that an error shows."""


def shortened(value: object) -> str:
    """Return a value as it is shown in an error: its repr, cut where it gets tiring."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # thousands of digits, or of levels
        text = f"({type(value).__name__})"
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def shortened_path(path: object) -> str:
    """Return a path as it is shown in an error: its repr; of a long one the end, with the name."""
    text = str(path)
    return repr(text) if len(text) <= SHOWN else repr("..." + text[-SHOWN:])


def printable(text: str, keep: str = "") -> str:
    """Return foreign text such that no terminal obeys it.

    Args:
        text: of a file, an archive, a class ...
        keep: control characters that are let through.
    """
    return "".join(c if c.isprintable() or c in keep else "\N{REPLACEMENT CHARACTER}" for c in text)
