"""Where the user's machine keeps files that can be made again."""

import os
import sys
from pathlib import Path


def below_home(said: str) -> Path:
    """Return a path in which a leading `~` is the user's folder; as it is where there is none.

    Somebody may have a file of this name, and nobody a user.
    """
    path = Path(said)
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def user_caches() -> Path:
    """Return the user's folder for caches, as the operating system has it.

    On Linux `XDG_CACHE_HOME`, unless it is relative (XDG Base Directory Specification: "consider
    the path invalid and ignore it"), else `~/.cache`.

    Raises:
        RuntimeError: nobody knows where home is.
    """
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    said = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return said if said.is_absolute() else Path.home() / ".cache"
