"""Inputs: sound files with a few things wrong, and files that somebody has thought about."""

import copy
import json
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

INTERESTING = (
    b"\0", b"\xff", b"\x7f", b"\x80", b"\n", b'"', b"[" * 200, b"{" * 200, b"../", b"\xed\xa0\x80",
    b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0\0\0\0\x80", b"9" * 400, b"-1", b"NaN",
    b"Infinity", b"1e400", b"\xe2\x80\xae", b"\x1b[2J",
)  # fmt: skip

TEXTS = (
    "",
    " ",
    "\0",
    "\x1b[2J",
    "\u202e",
    "\ud800",
    "\udcff",
    "a" * 5_000,
    "../../evil",
    "/etc/passwd",
    "~nobody-has-this-name/x",
    "~",
    "null",
    "-",
    "--",
    "=",
    ":",
    "a:b=c",
    "%s%n{0}",
    "[bold]",
    "мю",
    "😀",
)

NUMBERS = (
    0, -1, 1, 2, 2**31, 2**63, 2**64, -(2**63), 10**30, 10**400, 0.0, -0.0, 0.5, 1e-320, 1e308,
    float("nan"), float("inf"), float("-inf"), True, False,
)  # fmt: skip


def deep(levels: int) -> Any:
    """Return lists in lists."""
    tree: Any = []
    for _ in range(levels):
        tree = [tree]
    return tree


odd_values = st.one_of(
    st.sampled_from(NUMBERS),
    st.sampled_from(TEXTS),
    st.none(),
    st.text(max_size=20),
    st.integers(),
    st.floats(),
    st.lists(st.sampled_from((*NUMBERS, *TEXTS)), max_size=4),
    st.dictionaries(st.sampled_from(TEXTS), st.sampled_from(NUMBERS), max_size=3),
    st.sampled_from((20, 90, 300)).map(deep),
)
"""What stands where something else was expected."""


@st.composite
def mutated_bytes(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """Draw a file with some bytes flipped, lost, doubled, cut off or put in."""
    content = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 6))):
        size = len(content)
        at = draw(st.integers(0, size))
        what = draw(st.integers(0, 6))
        if what == 0 and size:
            content[min(at, size - 1)] ^= 1 << draw(st.integers(0, 7))
        elif what == 1 and size:
            content[min(at, size - 1)] = draw(st.integers(0, 255))
        elif what == 2:
            content[at:at] = draw(st.sampled_from(INTERESTING))
        elif what == 3:
            del content[at : at + draw(st.integers(1, 64))]
        elif what == 4:
            content[at:at] = content[at : at + draw(st.integers(1, 64))]
        elif what == 5:
            new = draw(st.sampled_from(INTERESTING))
            content[at : at + len(new)] = new
        elif draw(st.booleans()):
            del content[at:]
    return bytes(content)


@st.composite
def mutated_tree(draw: st.DrawFn, seeds: Sequence[Any]) -> Any:
    """Draw a tree of plain values in which some are others, missing or too many."""
    holder = [copy.deepcopy(draw(st.sampled_from(seeds)))]
    for _ in range(draw(st.integers(1, 3))):
        node, key = _somewhere(draw, holder)
        what = draw(st.integers(0, 5))
        if what <= 3:
            node[key] = draw(odd_values)
        elif what == 4 and node is not holder:
            del node[key]
        elif isinstance(node, dict):
            node[draw(st.sampled_from(TEXTS))] = draw(odd_values)
    return holder[0]


def _somewhere(draw: st.DrawFn, holder: list[Any]) -> tuple[Any, Any]:
    """Walk down a tree by chance; return a branch and a key in it."""
    node, key = holder, 0
    for _ in range(12):
        inner = node[key]
        if not isinstance(inner, dict | list) or not inner or draw(st.integers(0, 3)) == 0:
            break
        node = inner
        keys = sorted(node, key=repr) if isinstance(node, dict) else range(len(node))
        key = draw(st.sampled_from(list(keys)))
    return node, key


def mutated_json(seeds: Sequence[Any]) -> st.SearchStrategy[bytes]:
    """Draw JSON (or what was JSON) of mutated trees, and mutated text of sound ones."""
    texts = [json.dumps(seed, indent=1).encode() for seed in seeds]
    trees = mutated_tree(seeds).map(lambda tree: json.dumps(tree).encode())
    return st.one_of(trees, trees, mutated_bytes(texts), st.sampled_from(ODD_JSON))


ODD_JSON = (
    b"", b"null", b"[]", b"{}", b"1", b'"text"', b"{" * 100_000, b"[" * 100_000, b"9" * 5_000,
    b'{"kind": ' + b"9" * 5_000 + b"}", b'{"kind": 1e999}', b'{"a": 1, "a": 2}', b"\xef\xbb\xbf{}",
    b"\xff\xfe{\0}\0", b'{"\\ud800": "\\udfff"}', b"\n\n\n", b"\0" * 64,
)  # fmt: skip

TOML_VALUES = (
    "0", "-1", "1e400", "nan", "inf", "-inf", "9" * 400, "9" * 5_000, "0x" + "f" * 5_000, "1e-400",
    '""', '"\\u0000"', '"\\ud800"', '"..\\u002f..\\u002fevil"', '"~nobody-has-this-name/x"',
    "'a'", '"""\n"""', "true", "[]", "[[]]", "{}", "{a = 1}", "1979-05-27T07:32:00Z", "07:32:00",
    "[" * 500 + "]" * 500, "[" * 50_000, "{a = " * 300 + "1" + "}" * 300, '"' + "x" * 10_000 + '"',
    "[1, 1]", "[0]", "[-1]", "[1, 'a']", "1_000_000_000_000", "0b1", "18446744073709551616", '"мю"',
)  # fmt: skip

TOML_LINES = (
    "a.b.c.d = 1",
    ".".join(["a"] * 3_000) + " = 1",
    "[" + ".".join(["a"] * 3_000) + "]",
    "[variants]",
    "variants = 1",
    "[variants.desk]",
    "variants.desk = 3",
    "[[task]]",
    "[task]",
    "extends = 3",
    'extends = "multi-width"',
    'extends = ""',
    'extends = "nowhere.toml"',
    'extends = "recipe.toml"',
    "extends = 0x" + "f" * 5_000,
    '"\\u0000" = 1',
    '"" = 1',
    "= 1",
    "]",
    "\0",
    "scale = []",
    "scale = {}",
    "[families.x]",
    "[tasks.x]",
    "tasks = 1",
    "families = []",
    "at = [5, 1]",
)


@st.composite
def mutated_toml(draw: st.DrawFn, seeds: Sequence[str]) -> bytes:
    """Draw a TOML file with other values, other lines, lines lost or doubled, or other bytes."""
    lines = draw(st.sampled_from(seeds)).splitlines()
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(lines) - 1)))
        what = draw(st.integers(0, 5))
        if what <= 2 and lines:
            name, equals, _ = lines[at].partition("=")
            value = draw(st.one_of(st.sampled_from(TOML_VALUES), st.floats().map(str)))
            lines[at] = f"{name}= {value}" if equals else lines[at]
        elif what == 3:
            lines.insert(at, draw(st.sampled_from(TOML_LINES)))
        elif what == 4 and lines:
            del lines[at]
        elif lines:
            lines.insert(at, lines[at])
    text = "\n".join(lines).encode("utf-8", "surrogatepass")
    return draw(mutated_bytes([text])) if draw(st.integers(0, 4)) == 0 else text
