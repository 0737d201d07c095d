"""Short spellings on the command line: `adamw:learning_rate=1e-3`, `128..8192:x4`, `100,300`."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from mulo_cli.errors import UsageError, shortened

MAX_WIDTHS = 64

EXAMPLES = {
    "--widths": "for example 128..8192 (doubling), 128..8192:x4 or 128,512,1024",
    "--at": "for example --at 100,300,1000",
    "--depths": "for example --depths 2..64 (doubling) or 2,4,8",
}
"""Hints for numbers that cannot be read."""

_NUMBER = re.compile("0*[1-9][0-9]{0,8}", re.ASCII)
"""Up to a thousand million: beyond that it is a slip, not a network."""


@dataclass(frozen=True)
class OptimizerReference:
    """An optimizer as named by a user: a name or a path, and what is said about it.

    Attributes:
        text: as written.
        name: of a hand-designed optimizer, or the path of a learned one.
        settings: hyper-parameters given by their numbers.
        tuned: file of `mulo tune-adam` that holds the others.
        preset: name of published values that hold the others.
        schedule: of the learning rate.
        parametrization: of the networks it trains, where it is not to be the optimizer's own.
        rule: name of its rule for muP, where it has several.
    """

    text: str
    name: str
    settings: Mapping[str, float] = field(default_factory=dict)
    tuned: str | None = None
    preset: str | None = None
    schedule: str | None = None
    parametrization: str | None = None
    rule: str | None = None


@dataclass(frozen=True)
class NamedReference:
    """A data set or a network as named by a user, with what is said about it.

    Attributes:
        text: as written.
        name: on its shelf, or a path.
        options: key -> value, as written.
    """

    text: str
    name: str
    options: Mapping[str, str] = field(default_factory=dict)


def parse_named(text: str) -> NamedReference:
    """Read `NAME[:key=value,...]`, as in `vit:heads=4` or `corpus.txt:tokens=bytes`.

    Raises:
        UsageError: an option without a value, or one that is given twice.
    """
    match = _SETTINGS.fullmatch(text)
    if match is None:
        return NamedReference(text, text)
    options: dict[str, str] = {}
    for item in _BORDER.split(match["settings"]):
        key, _, value = (part.strip() for part in item.partition("="))
        if not key or not value:
            raise UsageError(
                f"{item!r} in {text!r} is not key=value", "for example vit:heads=4,patch=4"
            )
        if key in options:
            raise UsageError(f"{text!r} gives {key!r} twice", "give it once")
        options[key] = value
    return NamedReference(text, match["name"], options)


WORDS = ("tuned", "preset", "schedule", "parametrization", "rule")
"""Keys whose value is a word; every other key is a hyper-parameter, with a number."""

_SETTINGS = re.compile(r"(?P<name>.+?):(?P<settings>\s*+\w*+\s*+=.*)", re.DOTALL)
"""Runs of spaces are taken whole (`*+`): tried in all their parts, long ones would take minutes."""

_BORDER = re.compile(r"[,:](?=\s*\w+\s*=)")


def parse_optimizer(text: str) -> OptimizerReference:
    """Read `NAME[:key=value,...]`; a further colon does as well as a comma.

    Raises:
        UsageError: a hyper-parameter without a number, an empty word, a key that is given twice.
    """
    match = _SETTINGS.fullmatch(text)
    if match is None:
        return OptimizerReference(text, text)
    settings: dict[str, float] = {}
    words: dict[str, str] = {}
    for item in _BORDER.split(match["settings"]):
        key, _, value = (part.strip() for part in item.partition("="))
        if key in settings or key in words:
            raise UsageError(f"optimizer {text!r} gives {key!r} twice", "give it once")
        if key in WORDS and value:
            words[key] = value
        else:
            settings[key] = _number(key, value, item, text)
    return OptimizerReference(text, match["name"], settings, **words)


def _number(key: str, value: str, item: str, text: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not key or not math.isfinite(number):
        raise UsageError(
            f"{item!r} in optimizer {text!r} is not key=number",
            "for example adamw:learning_rate=1e-3,weight_decay=0.01 or adamw:tuned=FILE",
        )
    return number


def parse_steps(text: str, option: str) -> tuple[int, ...]:
    """Read `100,300,1000`.

    Raises:
        UsageError: not positive whole numbers.
    """
    return tuple(sorted({_positive(part.strip(), text, option) for part in text.split(",")}))


def parse_widths(text: str, option: str = "--widths") -> tuple[int, ...]:
    """Read `128,512,1024`, `128..8192` (doubling) or `128..8192:x4`; depths are written alike.

    Raises:
        UsageError: not a number, not positive, an empty range, a factor below 2.
    """
    widths: list[int] = []
    for part in text.split(","):
        widths += _parse_range(part.strip(), text, option)
    if len(widths) > MAX_WIDTHS:
        named = f"{len(widths)} {option.removeprefix('--')}"
        raise UsageError(f"{option} {text!r} names {named}", f"at most {MAX_WIDTHS}")
    return tuple(sorted(set(widths)))


def _parse_range(part: str, text: str, option: str) -> list[int]:
    start_text, dots, rest = part.partition("..")
    start = _positive(start_text, text, option)
    if not dots:
        return [start]
    end_text, colon, factor_text = rest.partition(":")
    end = _positive(end_text, text, option)
    factor = _positive(factor_text.removeprefix("x"), text, option) if colon else 2
    if end < start or factor < 2 or (colon and not factor_text.startswith("x")):
        raise UsageError(
            f"{option} {shortened(text)} is not an ascending range",
            EXAMPLES[option],
        )
    widths = [start]
    while widths[-1] * factor <= end:
        widths.append(widths[-1] * factor)
    return widths


def _positive(digits: str, text: str, option: str) -> int:
    if not _NUMBER.fullmatch(digits):
        raise UsageError(
            f"{option} {shortened(text)}: {shortened(digits)} is not a positive whole number",
            EXAMPLES[option],
        )
    return int(digits)


@dataclass(frozen=True)
class UserFunction:
    """A function of the user's own code.

    Attributes:
        text: as written.
        module: as in `import`.
        name: of the function in the module.
    """

    text: str
    module: str
    name: str


_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


def is_user_function(text: str) -> bool:
    """Say whether a text names a function of the user's own: `MODULE:FUNCTION`, no `key=value`."""
    module, colon, name = text.partition(":")
    return bool(colon and _DOTTED.fullmatch(module) and _DOTTED.fullmatch(name))


def parse_user_function(text: str) -> UserFunction:
    """Read `MODULE:FUNCTION`, as in `models.transformer:network`.

    Raises:
        UsageError: it is something else.
    """
    module, _, name = text.partition(":")
    if not is_user_function(text):
        raise UsageError(
            f"{shortened(text)} is not MODULE:FUNCTION",
            "for example models.transformer:network for the function network in the file "
            "models/transformer.py",
        )
    return UserFunction(text, module, name)
