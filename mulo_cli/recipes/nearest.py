"""The known name that was probably meant by an unknown one."""

import difflib
from collections.abc import Iterable

LISTED = 12
"""At most this many known names are spelled out in a hint."""


def nearest_hint(unknown: str, known: Iterable[str]) -> str:
    """Say which known name was probably meant, else which there are."""
    known = sorted(known)
    inside = [name for name in known if name.startswith(f"{unknown}.")]
    if inside:
        return f"{unknown} is a section: set {', '.join(inside)}"
    close = difflib.get_close_matches(unknown, known, n=1, cutoff=0.5)
    if not close:  # the section may be missing or wrong while the key is right
        last = unknown.rsplit(".", 1)[-1]
        close = [name for name in known if name.rsplit(".", 1)[-1] == last][:1]
    if close:
        return f"did you mean {close[0]!r}?"
    more = ", ..." if len(known) > LISTED else ""
    return f"known are: {', '.join(known[:LISTED]) or 'none'}{more}"
