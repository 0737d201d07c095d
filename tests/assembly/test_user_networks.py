"""The user's own networks and optimizers are measured in every form that the contract names."""

import itertools
import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from mulo_cli.assembly.code_digest import code_digest
from mulo_cli.assembly.coordinates import (
    build_coordinate_optimizer,
    build_coordinate_task,
    with_equal_heads,
)
from mulo_cli.assembly.datasets import build_dataset
from mulo_cli.assembly.user_code import UserCodeError
from mulo_cli.errors import MuloError, UsageError
from mulo_cli.mup.sketches import named_leaves
from mulo_cli.recipes.schema import TaskSection
from mulo_cli.results.coordinate_records import CoordinateRecord, coordinate_hash
from mulo_cli.studies.check_programs import anatomy_of
from mulo_cli.studies.coord_check import (
    CoordinateConfig,
    compile_check,
    estimate_memory,
    identity,
    measure,
)

MODELS = '''
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

import mulo_cli
from {helper} import RATE


class Network(nn.Module):
    """The names of its layers are not in the order of their calls; the readout has its own."""

    width: int
    depth: int = 1
    start: nn.initializers.Initializer = nn.initializers.zeros

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(self.width, name="stem")(x.reshape(len(x), -1)))
        for number in range(self.depth):
            x = nn.relu(nn.Dense(self.width, name=f"body_{{number}}")(x))
        self.sow("intermediates", "features", x)
        return nn.Dense(10, kernel_init=self.start, name="head")(x)


def module(width, depth=1):
    return Network(width, depth)


def wide_start(width):
    return Network(width, start=nn.initializers.lecun_normal())


def with_loss(width):
    return Network(width), lambda logits, targets: 2.0 * mean_loss(logits, targets)


def mean_loss(logits, targets):
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()


def params(width, pixels, key):
    keys = jax.random.split(key, 2)
    return {{
        "stem": jax.random.normal(keys[0], (pixels, width)) / pixels**0.5,
        "body": jax.random.normal(keys[1], (width, width)) / width**0.5,
        "a_head": jnp.zeros((width, 10)),
    }}


def apply(params, x):
    x = jax.nn.relu(x.reshape(len(x), -1) @ params["stem"])
    return jax.nn.relu(x @ params["body"]) @ params["a_head"]


def of_key(width):
    return lambda key: params(width, 64, key), apply


def of_key_and_inputs(width):
    return lambda key, x: params(width, x[0].size, key), apply


def with_everything(width):
    return lambda key: params(width, 64, key), apply, mean_loss


def readout(width):
    class Ours(nn.Module):
        @nn.compact
        def __call__(self, x):
            return mulo_cli.Readout(10)(nn.Dense(width)(x.reshape(len(x), -1)))

    return Ours()


def optimizer(width):
    return optax.adam(RATE / width)


def planted(width):
    def move(path, p):
        return -0.1 * p if "kernel" in str(path) else jnp.full_like(p, 0.25)

    return optax.stateless(lambda updates, p: jax.tree.map_with_path(move, p))


# what goes wrong


def of_nothing(width):
    return {{"width": width}}


def raising(width):
    raise RuntimeError("no luck\\nat all")


def raising_in_apply(width):
    return lambda key: params(width, 64, key), lambda params, x: params["missing"]


def of_five_classes(width):
    return lambda key: params(width, 64, key), lambda params, x: apply(params, x)[:, :5]


def of_each_example(width):
    return lambda key: params(width, 64, key), apply, lambda logits, targets: logits[:, 0]


def of_whole_numbers(width):
    return lambda key: {{"w": jnp.zeros((width, 2), int)}}, apply


def with_running_means(width):
    class Normed(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.BatchNorm(use_running_average=True)(x.reshape(len(x), -1))
            return nn.Dense(10)(nn.Dense(width)(x))

    return Normed()


def failing_optimizer(width):
    def update(updates, state, params=None):
        raise ValueError("lost")

    return optax.GradientTransformation(lambda params: (), update)


def _misfitting(change):
    def update(updates, state, params=None):
        return change(updates, state)

    return optax.GradientTransformation(lambda params: jnp.zeros(3), update)


def scalar_updates(width):
    return _misfitting(lambda u, s: (jax.tree.map(jnp.mean, u), s))


def halved_updates(width):
    return _misfitting(lambda u, s: (jax.tree.map(lambda x: x.astype(jnp.float16), u), s))


def flat_updates(width):
    return _misfitting(lambda u, s: (jax.tree.leaves(u), s))


def longer_state(width):
    return _misfitting(lambda u, s: (u, jnp.zeros(4)))


def updates_alone(width):
    return _misfitting(lambda u, s: u)
'''

MANUAL = Path(__file__).parents[2] / "docs" / "reference" / "user-code.md"
NUMBERS = itertools.count()
CONFIG = CoordinateConfig(steps=2)


@pytest.fixture(autouse=True, scope="module")
def optax_promotes():
    """Let optax raise a weak float to an int32 power, which strict promotion forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def models(tmp_path, monkeypatch) -> str:
    """Write the code where it is looked for, each time under names not yet imported."""
    number = next(NUMBERS)
    name, helper = f"networks_of_users_{number}", f"helper_of_users_{number}"
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{name}.py").write_text(MODELS.format(helper=helper))
    (tmp_path / f"{helper}.py").write_text("RATE = 0.1\n")
    return name


@pytest.fixture(scope="module")
def digits():
    return build_dataset("digits")


def task_of(digits, reference, width=8, depth=None, parametrization="mup", readout="auto"):
    section = TaskSection("digits", reference, [width], 3, 16)
    return build_coordinate_task(section, digits, width, depth, parametrization, readout=readout)


def anatomy(task):
    params = jax.eval_shape(task.task.init, jax.eval_shape(lambda: jax.random.key(0)))
    key = jax.eval_shape(lambda: jax.random.key(0))
    probe = jax.eval_shape(lambda d, k: task.task.batch(d, k, jnp.int32(0)), task.task.data, key)
    return anatomy_of(task.task, params, probe)


def record_of(task, optimizer) -> CoordinateRecord:
    programs = compile_check(task, optimizer, CONFIG)
    told = list(measure(task, optimizer, programs, CONFIG, [0], "0"))
    assert isinstance(told[-1], CoordinateRecord)
    return told[-1]


OF_FLAX = ["stem", "body_0", "features", "logits"]
LEAVES_OF_FLAX = [
    f"{part}/{kind}" for part in ("stem", "body_0", "head") for kind in ("kernel", "bias")
]


@pytest.mark.parametrize(
    ("function", "layers", "tensors"),
    [
        ("module", OF_FLAX, LEAVES_OF_FLAX),
        ("with_loss", OF_FLAX, LEAVES_OF_FLAX),
        ("of_key", ["logits"], ["stem", "body", "a_head"]),
        ("of_key_and_inputs", ["logits"], ["stem", "body", "a_head"]),
        ("with_everything", ["logits"], ["stem", "body", "a_head"]),
    ],
)
def test_every_form_of_a_network_has_its_layers_and_tensors_in_forward_order(
    models, digits, function, layers, tensors
):
    task = task_of(digits, f"{models}:{function}")
    found = anatomy(task)
    assert list(found.layers) == layers
    assert list(found.tensors) == tensors
    kinds = {leaf.names[0]: leaf.role.kind.value for leaf in found.leaves}
    assert [kinds[name] for name in tensors if "bias" not in name] == ["input", "hidden", "output"]
    assert (task.width, task.depth, task.notes) == (8, 0, ())


def test_a_planted_shift_and_planted_decay_are_measured_exactly(models, digits):
    """A step adds 0.25 to biases and takes a tenth of all kernels; the readout is random."""
    task = task_of(digits, f"{models}:wide_start", parametrization="sp")
    record = record_of(task, build_coordinate_optimizer(f"{models}:planted", 8, "sp"))
    assert (record.optimizer, record.task) == (f"{models}:planted", f"{models}:wide_start")
    assert (record.parametrization, record.settings, len(record.code)) == ("sp", {}, 64)
    assert list(record.layers) == OF_FLAX
    assert list(record.tensors) == LEAVES_OF_FLAX
    for name, tensor in record.tensors.items():
        if tensor.vector:
            assert tensor.change == pytest.approx((0.25, 0.5), rel=1e-6), name
            continue
        assert tensor.shrinkage == pytest.approx((0.1, 0.19), rel=1e-5), name
        # tolerance: fifteen iterations tell the norm of a full matrix to some percent
        told = (0.1 * tensor.spectral_start, 0.19 * tensor.spectral_start)
        assert tensor.spectral_change == pytest.approx(told, rel=0.05), name
    hidden, readout = record.tensors["body_0/kernel"], record.tensors["head/kernel"]
    assert hidden.change == hidden.spectral_change
    assert hidden.start == hidden.spectral_start / 2.0
    # a tenth of what it adds by itself; but what it reads has moved in the meantime
    assert readout.change[0] == pytest.approx(0.1 * readout.start / math.sqrt(8), rel=0.3)
    # biases have moved all alike, kernels shrunk: the first layer's change is known
    stem, images = record.layers["stem"], record.layers["stem"].reads
    assert images == pytest.approx(1.0, abs=0.1), "standardised"
    assert stem.mean[1] == pytest.approx(0.9 * stem.mean[0] + 0.25, rel=1e-4)
    assert stem.mean[2] == pytest.approx(0.81 * stem.mean[0] + 0.5, rel=1e-4)


def test_the_loss_is_the_users_own(models, digits):
    losses = []
    for function in ("module", "with_loss"):
        task = task_of(digits, f"{models}:{function}").task
        shapes = jax.eval_shape(task.init, jax.eval_shape(lambda: jax.random.key(0)))
        params = jax.tree.map(lambda x: jnp.zeros(x.shape), shapes)
        batch = task.batch(task.data, jax.random.key(1), jnp.int32(0))
        losses.append(float(jax.jit(task.loss)(params, batch)[0]))
    assert losses == pytest.approx([math.log(10), 2.0 * math.log(10)], rel=1e-5)


def forward(task) -> list[bool]:
    roles = named_leaves(task.task.roles)
    return [role.forward_multiplier for role in roles.values() if role.kind.value == "output"]


def test_a_readout_with_a_wrong_start_is_measured_with_a_note(models, digits):
    """The check is to find such mistakes; training by `mulo roles` would refuse them."""
    task = task_of(digits, f"{models}:wide_start")
    assert forward(task) == [False]
    assert "muP wants 'head/kernel' to start at zero" in task.notes[0]
    told = task_of(digits, f"{models}:wide_start", width=16, readout="update")
    assert (forward(told), told.notes) == (forward(task), task.notes), "it is said once"


def test_where_an_outputs_factor_acts_can_be_said(models, digits):
    for function, readout, parametrization, expected in (
        ("module", "auto", "mup", False),
        ("module", "forward", "mup", True),
        ("module", "auto", "sp", True),  # SP scales nothing
        ("wide_start", "forward", "mup", True),
        ("readout", "auto", "mup", True),
    ):
        task = task_of(
            digits, f"{models}:{function}", readout=readout, parametrization=parametrization
        )
        assert (forward(task), task.notes) == ([expected], ())
    with pytest.raises(MuloError, match="part of a Readout"):
        task_of(digits, f"{models}:readout", readout="update")


def test_a_depth_is_told_to_functions_that_take_it(models, digits):
    task = task_of(digits, f"{models}:module", depth=3)
    assert task.depth == 3
    assert [layer for layer in anatomy(task).layers if "body" in layer] == [
        "body_0", "body_1", "body_2"
    ]  # fmt: skip
    with pytest.raises(UsageError, match="cannot be told a depth"):
        task_of(digits, f"{models}:of_key", depth=3)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("of_nothing", "returned {'width': 8}, which is no network"),
        ("raising", r"failed with RuntimeError: no luck \(networks_of_users_\d+.py, line \d+\)"),
        ("raising_in_apply", r"failed with KeyError: 'missing' \(networks_of_users_\d+.py, line"),
        ("of_five_classes", r"logits of .* are float32 of shape \(16, 5\)"),
        ("of_each_example", r"the loss of .* is float32 of shape \(16,\)"),
        ("of_whole_numbers", r"the init of .* returned .* as 'w' instead of parameters"),
        ("with_running_means", "variables in 'batch_stats' beside its params"),
    ],
)
def test_what_goes_wrong_in_a_network_is_one_clear_error(models, digits, function, said):
    with pytest.raises(UserCodeError, match=said) as raised:
        task_of(digits, f"{models}:{function}")
    assert f"{models}:{function}" in raised.value.message
    assert "\n" not in raised.value.message


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("scalar_updates", r"updates whose '.*' is float32\[\] instead of float32\["),
        ("halved_updates", r"updates whose '.*' is float16\["),
        ("flat_updates", "updates with the tree"),
        ("longer_state", r"state whose '.*' is float32\[4\] instead of float32\[3\]"),
        ("updates_alone", r"not \(updates, state\)"),
    ],
)
def test_an_update_that_returns_something_else_is_refused_when_memory_is_told(
    models, digits, function, said
):
    """That is before anything is compiled or trained."""
    optimizer = build_coordinate_optimizer(f"{models}:{function}", 8)
    with pytest.raises(UserCodeError, match=said) as raised:
        estimate_memory(task_of(digits, f"{models}:module"), optimizer, CONFIG)
    assert f"{models}:{function}" in raised.value.message
    assert "\n" not in raised.value.message
    assert "update(updates, state, params)" in raised.value.hint


def test_a_record_tells_where_the_factor_was_said_to_act(models, digits):
    optimizer = build_coordinate_optimizer(f"{models}:optimizer", 8)
    hashes = set()
    for readout in ("auto", "forward", "update"):
        task = task_of(digits, f"{models}:module", readout=readout)
        told = identity(task, optimizer, CONFIG, 0, "0")
        assert told.readout == readout
        hashes.add(coordinate_hash(told))
    assert len(hashes) == 3
    ours = build_coordinate_task(TaskSection("digits", "mlp", [8], 3, 16), digits, 8, 3, "mup")
    assert identity(ours, optimizer, CONFIG, 0, "0").readout == ""


@pytest.mark.parametrize(
    ("optimizee", "widths", "asked", "expected"),
    [
        ("vit", [64, 512], {}, "vit:heads=1"),
        ("lm:length=16", [128, 1024], {}, "lm:length=16,heads=2"),
        ("vit", [192, 256, 512], {}, "vit:heads=2"),
        ("vit:heads=4", [64, 512], {}, "vit:heads=4"),
        ("vit", [64, 512], {"heads": "2"}, "vit"),
        ("gpt", [64, 512], {}, "gpt"),
        ("mlp", [64, 512], {}, "mlp"),
        ("models:network", [64, 512], {}, "models:network"),
    ],
)
def test_heads_are_as_many_at_every_width_unless_the_user_says_how_many(
    optimizee, widths, asked, expected
):
    assert with_equal_heads(optimizee, widths, asked) == expected


def test_what_goes_wrong_in_an_optimizer_is_one_clear_error(models, digits):
    with pytest.raises(UserCodeError, match="which is no optimizer"):
        build_coordinate_optimizer(f"{models}:module", 8)
    with pytest.raises(UsageError, match="there is no module 'nowhere'"):
        build_coordinate_optimizer("nowhere:optimizer", 8)
    failing = build_coordinate_optimizer(f"{models}:failing_optimizer", 8)
    with pytest.raises(UserCodeError, match="failed with ValueError: lost"):
        compile_check(task_of(digits, f"{models}:of_key"), failing, CONFIG)


def test_the_digest_follows_the_users_code_and_nothing_else(models, digits, tmp_path):
    build_coordinate_optimizer(f"{models}:optimizer", 8)
    before = code_digest(models)
    (tmp_path / "unrelated.py").write_text("RATE = 0.3\n")
    assert code_digest(models) == before
    assert task_of(digits, f"{models}:of_key").code == before
    (helper,) = tmp_path.glob("helper_of_users_*.py")
    helper.write_text("RATE = 0.2\n")
    assert code_digest(models) != before, "what a module imports belongs to it"
    helper.write_text("RATE = 0.1\n")
    assert code_digest(models) == before


def test_names_of_ours_are_built_as_elsewhere(digits):
    task = task_of(digits, "mlp", depth=2)
    assert (task.depth, task.code, task.notes) == (2, "", ())
    assert task_of(digits, "mlp").depth == 3, "the section's"
    ours = build_coordinate_optimizer("adamw:learning_rate=0.5", 8, "mup")
    assert (ours.parametrization, ours.code) == ("mup", "")
    assert ours.hyper["learning_rate"] == 0.5


def test_the_examples_of_the_manual_are_what_they_say(digits, tmp_path, monkeypatch):
    (code,) = re.findall(r"^```python\n(.*?)^```$", MANUAL.read_text("utf-8"), re.DOTALL | re.M)
    monkeypatch.chdir(tmp_path)
    name = f"examples_of_the_manual_{next(NUMBERS)}"
    (tmp_path / f"{name}.py").write_text(code)
    for function in ("network", "with_loss", "plain"):
        task = task_of(digits, f"{name}:{function}")
        assert task.notes == ()
        assert len(anatomy(task).tensors) == (3 if function == "plain" else 8)
    assert task_of(digits, f"{name}:network", depth=1).depth == 1
    assert build_coordinate_optimizer(f"{name}:optimizer", 8).code
