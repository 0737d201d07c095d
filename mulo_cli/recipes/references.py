"""Short spellings on the command line: `adamw:learning_rate=1e-3`, `128..8192:x4`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from mulo_cli.errors import UsageError
from mulo_cli.recipes.nearest import shortened

MAX_WIDTHS = 64

_WIDTH = re.compile("0*[1-9][0-9]{0,8}", re.ASCII)
"""Up to a thousand million: beyond that it is a slip, not a network."""


@dataclass(frozen=True)
class OptimizerReference:
    """An optimizer as named by a user: a name or a path, and settings."""

    text: str
    name: str
    settings: Mapping[str, float] = field(default_factory=dict)


def parse_optimizer(text: str) -> OptimizerReference:
    """Read `NAME[:key=value,...]`; values are numbers.

    Raises:
        UsageError: a setting without a number.
    """
    name, colon, tail = text.rpartition(":")
    if not colon or "=" not in tail:
        return OptimizerReference(text, text)
    settings = {}
    for item in tail.split(","):
        key, equals, value = item.partition("=")
        try:
            settings[key.strip()] = float(value)
        except ValueError:
            equals = ""
        if not equals or not key.strip():
            raise UsageError(
                f"{item!r} in optimizer {text!r} is not key=number",
                "for example adamw:learning_rate=1e-3,weight_decay=0.01",
            )
    return OptimizerReference(text, name, settings)


def parse_widths(text: str) -> tuple[int, ...]:
    """Read `128,512,1024`, `128..8192` (doubling) or `128..8192:x4`.

    Raises:
        UsageError: not a number, not positive, an empty range, a factor below 2.
    """
    widths: list[int] = []
    for part in text.split(","):
        widths += _parse_range(part.strip(), text)
    if len(widths) > MAX_WIDTHS:
        raise UsageError(f"--widths {text!r} names {len(widths)} widths", f"at most {MAX_WIDTHS}")
    return tuple(sorted(set(widths)))


def _parse_range(part: str, text: str) -> list[int]:
    start_text, dots, rest = part.partition("..")
    start = _positive(start_text, text)
    if not dots:
        return [start]
    end_text, colon, factor_text = rest.partition(":")
    end = _positive(end_text, text)
    factor = _positive(factor_text.removeprefix("x"), text) if colon else 2
    if end < start or factor < 2 or (colon and not factor_text.startswith("x")):
        raise UsageError(
            f"--widths {shortened(text)} is not an ascending range",
            "for example 128..8192 (doubling), 128..8192:x4 or 128,512,1024",
        )
    widths = [start]
    while widths[-1] * factor <= end:
        widths.append(widths[-1] * factor)
    return widths


def _positive(digits: str, text: str) -> int:
    if not _WIDTH.fullmatch(digits):
        raise UsageError(
            f"--widths {shortened(text)}: {shortened(digits)} is not a positive whole number",
            "for example 128..8192 (doubling), 128..8192:x4 or 128,512,1024",
        )
    return int(digits)
