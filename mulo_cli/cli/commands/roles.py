"""`mulo roles`: which part every parameter of a network plays under muP, and what follows."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mulo_cli.cli.outcome import Outcome
from mulo_cli.cli.terminal import Terminal

if TYPE_CHECKING:
    from mulo_cli.mup.descriptions import RoleRow
    from mulo_cli.mup.roles import Init, Override
    from mulo_cli.recipes.references import UserFunction

EXAMPLES = """
[bold]Examples[/bold]

mulo roles models:transformer --widths 64,128

mulo roles models:scanned --widths 64,128 --depths 2,4

mulo roles models:torch_like --layout out_in --role head/weight=output --axes q=in,out,out

mulo roles models:transformer --base-width 32 --format jsonl
"""

AXIS_WORDS = ("in", "out", "stack")


def roles(
    function: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:FUNCTION",
            help="Width -> (linen module, example inputs), or width -> (key -> params); imported "
            "from the working directory.",
        ),
    ],
    widths: Annotated[str, typer.Option(help="Two widths at which shapes are compared.")] = (
        "64,128"
    ),
    depths: Annotated[
        str | None,
        typer.Option(
            help="Two depths, told FUNCTION as depth=; an axis that changes counts layers.",
            show_default="FUNCTION is not told any",
        ),
    ] = None,
    base_width: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Width to which multipliers are relative.",
            show_default="none: 1/fan-in, absolute",
        ),
    ] = None,
    layout: Annotated[
        Literal["in_out", "out_in"],
        typer.Option(help="How matrices are stored, where no flax module tells."),
    ] = "in_out",
    role: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LEAF=KIND",
            help="input, hidden or output, for a leaf or a pattern. Repeatable.",
        ),
    ] = None,
    axes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LEAF=in,out,...",
            help="What each axis of a leaf is for: in, out or stack. Repeatable.",
        ),
    ] = None,
    readout: Annotated[
        Literal["auto", "forward", "update"],
        typer.Option(
            help="What divides outputs by their fan-in: the network's forward pass, the update, "
            "or (auto) the forward pass where a Readout is found."
        ),
    ] = "auto",
    format_: Annotated[
        Literal["table", "jsonl"] | None,
        typer.Option("--format", show_default="table on a terminal, jsonl in a pipe"),
    ] = None,
) -> Outcome:
    """Show the role of every parameter under muP, read off the shapes at two widths.

    What cannot be told is an error that names the leaf. Initial scales that do not suit muP get a
    remark.
    """
    from mulo_cli.assembly.user_code import load_function, network_init
    from mulo_cli.mup.descriptions import describe_roles
    from mulo_cli.mup.roles import infer_roles
    from mulo_cli.recipes.references import parse_user_function

    terminal = Terminal()
    reference = parse_user_function(function)
    narrow, wide = _two(widths, "--widths")
    shallow, deep = (None, None) if depths is None else _two(depths, "--depths")
    said = _overrides(role or [], axes or [])
    make = load_function(reference)

    def init(width: int, depth: int | None = shallow) -> "Init":
        return network_init(make, reference, width, depth)

    inits = init(narrow), init(wide)
    told = infer_roles(
        *inits,
        said,
        init_deep=None if deep is None else init(wide, deep),
        base=None if base_width is None else init(base_width),
        layout=layout,
        readout=readout,
    )
    rows = describe_roles(*inits, told)
    lines = terminal.piped if format_ is None else format_ == "jsonl"
    return _show(terminal, rows, (narrow, wide), reference, lines=lines)


def _two(text: str, option: str) -> tuple[int, int]:
    """Read two numbers, the smaller first."""
    from mulo_cli.errors import UsageError
    from mulo_cli.recipes.references import parse_steps

    numbers = parse_steps(text, option)
    if len(numbers) != 2:
        raise UsageError(
            f"{option} {text!r} names {len(numbers)} different numbers, two are compared",
            f"for example {option} {'64,128' if option == '--widths' else '2,4'}",
        )
    return numbers[0], numbers[1]


def _overrides(kinds: Sequence[str], axes: Sequence[str]) -> dict[str, "Override"]:
    """Read `--role LEAF=KIND` and `--axes LEAF=in,out`."""
    from mulo_cli.errors import UsageError

    said: dict[str, Override] = {}
    for option, texts, read in (("--role", kinds, _kind), ("--axes", axes, _layout)):
        for text in texts:
            leaf, equals, value = text.rpartition("=")
            if not equals or not leaf:
                raise UsageError(f"{option} {text!r} is not LEAF=...", _example(option))
            if leaf in said:
                raise UsageError(f"{option} {text!r}: {leaf!r} was given before", "give it once")
            said[leaf] = read(value, text)
    return said


def _example(option: str) -> str:
    value = "hidden" if option == "--role" else "in,out,out"
    return f"for example {option} attention/query/kernel={value}"


def _kind(value: str, text: str) -> "Override":
    from mulo_cli.errors import UsageError
    from mulo_cli.mup.kinds import RoleKind

    known = [kind.value for kind in RoleKind]
    if value not in known:
        raise UsageError(f"--role {text!r}: unknown role {value!r}", f"known: {', '.join(known)}")
    return RoleKind(value)


def _layout(value: str, text: str) -> "Override":
    from mulo_cli.errors import UsageError
    from mulo_cli.mup.kinds import Layout

    words = [word.strip() for word in value.split(",")]
    wrong = [word for word in words if word not in AXIS_WORDS]
    if wrong:
        raise UsageError(
            f"--axes {text!r}: an axis is not for {wrong[0]!r}",
            f"one word for each axis: {', '.join(AXIS_WORDS)}; {_example('--axes')}",
        )
    of_word = [tuple(i for i, word in enumerate(words) if word == known) for known in AXIS_WORDS]
    return Layout(*of_word)


def _show(
    terminal: Terminal,
    rows: Sequence["RoleRow"],
    widths: tuple[int, int],
    reference: "UserFunction",
    *,
    lines: bool,
) -> Outcome:
    from mulo_cli.cli.role_tables import role_table, roles_in_words
    from mulo_cli.results.store import to_line

    if lines:
        for row in rows:
            terminal.line(to_line(row))
        return Outcome()
    terminal.result(role_table(rows, widths, reference.text, terminal.out.width))
    return Outcome(roles_in_words(rows))
