"""Where the user's machine keeps files that can be made again."""

import os
import sys
from pathlib import Path


def user_caches() -> Path:
    """Return the user's folder for caches, as the operating system has it."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
