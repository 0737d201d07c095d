"""`mulo roles`: the table of one's own network, and what goes wrong in one's own code."""

import itertools
import json
import re
from pathlib import Path

import pytest

from tests.cli.programs import inside, mulo

MODELS = """
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from mulo_cli import Readout


class Network(nn.Module):
    width: int

    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(11, self.width, name="tokens")(tokens)
        x = x + nn.MultiHeadDotProductAttention(4, name="attention")(x, x)
        return Readout(11, name="readout")(x)


class Blocks(nnx.Module):
    def __init__(self, width, rngs):
        self.first = nnx.Linear(3, width, rngs=rngs)
        self.head = nnx.Linear(width, 2, kernel_init=nnx.initializers.zeros, rngs=rngs)


def linen(width):
    return Network(width), jnp.zeros((1, 6), int)


def of_shapes_alone(width):
    return Network(width), jax.ShapeDtypeStruct((1, 6), jnp.int32)


def model(width):
    return lambda key: Blocks(width, nnx.Rngs(key))


def tree(width, depth=2):
    return lambda key: {
        "blocks": {"w": jax.random.normal(key, (depth, width, width))},
        "head": jnp.zeros((width, 5)),
    }


def ambiguous(width):
    return lambda key: {"blocks/w": jnp.zeros((3, width, width))}


def bare(width):
    return lambda key: {"head": jax.random.normal(key, (width, 5))}


def raising(width):
    raise RuntimeError("no heads\\nfor this width")


def raising_later(width):
    def init(key):
        return {"w": jnp.zeros((width, 2)) @ jnp.zeros((3, width))}

    return init


def exiting(width):
    raise SystemExit("good bye")


def without_key(width):
    return lambda: {}


def of_words(width):
    return lambda key: {"w": "many"}


def of_nothing(width):
    return lambda key: {}


def alone(width):
    return Network(width)


class House:
    @staticmethod
    def network(width):
        return linen(width)


constant = 3
"""

NUMBERS = itertools.count()
WIDTHS = ("--widths", "8,16")


@pytest.fixture
def models(tmp_path) -> str:
    """Write the networks where the command runs, each time under a name not yet imported."""
    name = f"models_of_roles_{next(NUMBERS)}"
    (tmp_path / f"{name}.py").write_text(MODELS)
    return name


def rows(done) -> dict[str, dict]:
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert {row["kind"] for row in found} == {"role"}
    return {row["leaf"]: row for row in found}


def test_a_pipe_gets_a_line_for_each_leaf(models, tmp_path):
    found = rows(inside("roles", f"{models}:linen", *WIDTHS, cwd=tmp_path))
    query, readout = found["attention/query/kernel"], found["readout/kernel"]
    assert query["shape"] == [16, 4, 4]
    assert (query["role"], query["in_axes"], query["out_axes"]) == ("hidden", [0], [1, 2])
    assert (query["fan_in"], query["fan_out"], query["multiplier"]) == (16, 16, 1 / 16)
    assert query["readout"] is query["remark"] is None
    assert query["scale_large"] == pytest.approx(16**-0.5, rel=0.1)
    assert (readout["role"], readout["readout"], readout["multiplier"]) == ("output", "forward", 1)
    assert readout["scale_small"] == readout["scale_large"] == 0
    remarks = {leaf for leaf, row in found.items() if row["remark"]}
    assert remarks == {"tokens/embedding"}, "flax's embedding shrinks with the width"


def watched(models, folder, columns: int) -> str:
    screen = {"COLUMNS": str(columns), "TERM": "xterm"}
    done = inside("roles", f"{models}:linen", *WIDTHS, cwd=folder, watched=True, **screen)
    assert done.returncode == 0, done.stderr
    return re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)


def test_a_screen_gets_a_table_and_the_remarks_below_it(models, tmp_path):
    shown = watched(models, tmp_path, 120)
    lines = shown.splitlines()
    assert "fan-in" in shown
    (query,) = [line for line in lines if "attention/query/kernel" in line]
    assert re.search(r"16x4x4 +in,out,out +hidden +16 +16 +0.0625 +- ", query)
    (readout,) = [line for line in lines if "readout/kernel" in line]
    assert "forward" in readout
    assert lines[-2] == "11 parameters: 6 input, 4 hidden, 1 output"
    assert lines[-1].startswith("! tokens/embedding starts like width^-0.")
    assert max(map(len, lines)) <= 120


def test_a_narrow_screen_does_without_some_columns(models, tmp_path):
    shown = watched(models, tmp_path, 80)
    lines = shown.splitlines()
    assert "fan-out" not in shown
    assert "…" not in shown
    for kept in ("fan-in", "role", "hidden", "0.0625"):
        assert kept in shown
    assert max(map(len, lines[1:-1])) <= 80


def test_what_the_function_may_return(models, tmp_path):
    bare = rows(inside("roles", f"{models}:linen", *WIDTHS, cwd=tmp_path))
    for name in ("of_shapes_alone", "House.network"):
        assert rows(inside("roles", f"{models}:{name}", *WIDTHS, cwd=tmp_path)) == bare
    of_nnx = rows(inside("roles", f"{models}:model", *WIDTHS, cwd=tmp_path))
    assert {leaf.removesuffix("/value"): row["role"] for leaf, row in of_nnx.items()} == {
        "first/kernel": "input",
        "first/bias": "input",
        "head/kernel": "output",
        "head/bias": "input",
    }
    assert of_nnx["head/kernel"]["readout"] == "update"


def test_depths_axes_and_roles_tell_what_shapes_do_not(models, tmp_path):
    def run(*options):
        return inside("roles", f"{models}:tree", *WIDTHS, *options, cwd=tmp_path)

    refused = run()
    assert refused.returncode == 1
    assert "'blocks/w' with shapes (2, 8, 8) and (2, 16, 16)" in refused.stderr
    assert "hint: " in refused.stderr
    deep = rows(run("--depths", "2,4"))
    assert deep == rows(run("--axes", "blocks/w=stack,in,out"))
    stack = deep["blocks/w"]
    assert (stack["stack_axes"], stack["fan_in"], stack["multiplier"]) == ([0], 16, 1 / 16)
    assert re.fullmatch(r"starts like fan-in\^[+-]0.0\d, muP wants fan-in\^-0.5", stack["remark"])
    assert deep["head"]["readout"] == "update"
    first = rows(run("--axes", "blocks/*=in,out,out", "--role", "head=input"))
    assert (first["blocks/w"]["role"], first["head"]["role"]) == ("input", "input")
    relative = rows(run("--depths", "2,4", "--base-width", "4"))
    assert relative["blocks/w"]["multiplier"] == 4 / 16
    turned = rows(
        run("--axes", "blocks/w=stack,out,in", "--layout", "out_in", "--role", "head=input")
    )
    assert turned["blocks/w"]["in_axes"] == [2]


def test_a_bare_output_that_starts_wrong_is_an_error_unless_the_user_knows_better(models, tmp_path):
    refused = inside("roles", f"{models}:bare", *WIDTHS, cwd=tmp_path)
    assert refused.returncode == 1
    assert "output 'head' starts with standard deviation" in refused.stderr
    assert "--readout forward" in refused.stderr
    found = rows(inside("roles", f"{models}:bare", *WIDTHS, "--readout", "forward", cwd=tmp_path))
    assert found["head"]["readout"] == "forward"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("raising", "failed with RuntimeError: no heads (MODELS.py, line "),
        ("raising_later", "failed with TypeError: dot_general requires"),
        ("exiting", "failed with SystemExit: good bye"),
        ("alone", "which is no network with its inputs"),
        ("without_key", "takes 0 positional arguments but 1 was given\n"),
        ("of_words", "returned 'many' as 'w' instead of parameters"),
        ("of_nothing", "returned nothing instead of parameters"),
    ],
)
def test_what_goes_wrong_in_the_users_code_is_one_clear_error(models, tmp_path, name, said):
    done = inside("roles", f"{models}:{name}", *WIDTHS, cwd=tmp_path)
    assert done.returncode == 1
    assert said.replace("MODELS", models) in done.stderr
    assert "Traceback" not in done.stderr
    if name == "raising_later":
        assert f"({models}.py, line " in done.stderr, "where it happened"


def test_a_function_that_takes_no_depth_is_told(models, tmp_path):
    done = inside("roles", f"{models}:linen", *WIDTHS, "--depths", "2,4", cwd=tmp_path)
    assert done.returncode == 1
    assert "unexpected keyword argument 'depth'" in done.stderr
    assert "defect of mulo" not in done.stderr


def test_the_traceback_of_the_users_code_is_there_for_who_asks(models, tmp_path):
    done = inside("roles", f"{models}:raising", *WIDTHS, cwd=tmp_path, MULO_DEBUG="1")
    assert "Traceback" in done.stderr
    assert "in raising" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["models"], "is not MODULE:FUNCTION"),
        (["path/models.py:f"], "is not MODULE:FUNCTION"),
        (["MODELS:lines"], "did you mean 'linen'?"),
        (["MODELS:constant"], "is not a function"),
        (["no_such_module:f"], "there is no module 'no_such_module'"),
        (["MODELS.inner:f"], "there is no module"),
        (["MODELS:linen", "--widths", "8"], "names 1 different numbers"),
        (["MODELS:linen", "--widths", "8,16,32"], "names 3 different numbers"),
        (["MODELS:linen", "--widths", "8,x"], "'x' is not a positive whole number"),
        (["MODELS:tree", "--depths", "2"], "--depths '2' names 1 different"),
        (["MODELS:linen", "--role", "hidden"], "is not LEAF=..."),
        (["MODELS:linen", "--role", "w=hiden"], "unknown role 'hiden'"),
        (["MODELS:linen", "--axes", "w=in,up"], "an axis is not for 'up'"),
        (["MODELS:linen", "--role", "w=input", "--axes", "w=in,out"], "was given before"),
        (["MODELS:linen", "--readout", "backward"], "backward"),
    ],
)
def test_a_command_that_cannot_be_meant_is_a_usage_error(models, tmp_path, arguments, said):
    words = [word.replace("MODELS", models) for word in arguments]
    done = inside("roles", *words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "hint: " in done.stderr


def test_a_module_that_cannot_be_imported_says_where(tmp_path):
    Path(tmp_path / "half_of_roles.py").write_text("import no_such_library_at_all\n")
    done = inside("roles", "half_of_roles:f", cwd=tmp_path)
    assert done.returncode == 1
    assert "ModuleNotFoundError: No module named 'no_such_library_at_all'" in done.stderr
    assert "(half_of_roles.py, line 1)" in done.stderr
    Path(tmp_path / "broken_of_roles.py").write_text("def f(:\n")
    done = inside("roles", "broken_of_roles:f", cwd=tmp_path)
    assert done.returncode == 1
    assert "SyntaxError" in done.stderr
    assert "line 1)" in done.stderr


def test_an_unknown_leaf_is_named(models, tmp_path):
    done = inside("roles", f"{models}:tree", *WIDTHS, "--role", "haed=output", cwd=tmp_path)
    assert done.returncode == 1
    assert "no parameter is called 'haed'" in done.stderr


def test_the_example_of_the_manual_runs_in_a_process_of_its_own(tmp_path):
    page = Path(__file__).parents[2] / "docs/how-to/tell-the-roles-of-your-model.md"
    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)
    (tmp_path / "models.py").write_text(blocks[0])
    found = rows(mulo("roles", "models:network", cwd=tmp_path))
    assert not any(row["remark"] for row in found.values()), "it shows how it is done"
    scope: dict = {}
    exec("\n".join(blocks[:2]), scope)
    assert scope["roles"]["Readout_0"]["kernel"].fan_in == 512
