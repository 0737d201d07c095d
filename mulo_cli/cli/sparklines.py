"""Powers drawn with characters: flat is stable, from floor to ceiling is a power of one."""

import math
from collections.abc import Sequence

BLOCKS = "▁▂▃▄▅▆▇"
"""Heights on screens that know Unicode; an odd number, lest flat lines tremble."""

ASCII = "_.,-~=^"
"""Heights on all others."""

GAP = " "
"""Where there is no number."""


def sparkline(points: Sequence[tuple[int, float | None]], *, blocks: bool = True) -> str:
    """Draw numbers over sizes, a character each, both axes logarithmic.

    The height is not stretched to what the numbers span: it is that of a power of 1 over the sizes,
    so that the same slope looks the same in every line. What is beyond is drawn at the border.

    Args:
        points: size and number; null where there is none.
        blocks: whether Unicode blocks may be used.
    """
    known = [(size, math.log(y)) for size, y in points if y is not None and y > 0.0]
    if not known:
        return GAP * len(points)
    shades = BLOCKS if blocks else ASCII
    middle = sum(y for _, y in known) / len(known)
    span = math.log(max(size for size, _ in points) / min(size for size, _ in points)) or 1.0
    heights = dict(known)
    return "".join(
        shades[_level((heights[size] - middle) / span, len(shades))] if size in heights else GAP
        for size, _ in points
    )


def _level(height: float, levels: int) -> int:
    """Return the place of a height between -1/2 and 1/2 among so many levels."""
    return min(max(math.floor((height + 0.5) * levels), 0), levels - 1)
