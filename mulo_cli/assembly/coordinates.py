"""What a coordinate check measures, built from words: ours by name, the user's own by import."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from mulo_cli.assembly.code_digest import code_digest
from mulo_cli.assembly.optimizers import build_named_optimizer
from mulo_cli.assembly.shelves import look_up
from mulo_cli.assembly.tasks import NOTHING, build_evaluation_task, with_option
from mulo_cli.assembly.user_code import UserCodeError, load_function, user_code
from mulo_cli.assembly.user_networks import PAGE, UserNetwork, refuse_depth, user_network
from mulo_cli.datasets.base import Dataset
from mulo_cli.errors import RoleError, shortened
from mulo_cli.mup.kinds import ParamRole, RoleKind
from mulo_cli.mup.readouts import ReadoutForm
from mulo_cli.mup.roles import Init, Roles, infer_roles, leaf_name
from mulo_cli.mup.sketches import named_leaves, sketch, told_by_modules
from mulo_cli.optimizees.catalogue import OPTIMIZEES
from mulo_cli.recipes.references import (
    UserFunction,
    is_user_function,
    parse_named,
    parse_optimizer,
    parse_user_function,
)
from mulo_cli.recipes.schema import TaskSection
from mulo_cli.studies.evaluate import EvaluationTask, NamedOptimizer
from mulo_cli.tasks.base import Task
from mulo_cli.tasks.losses import classification_ceiling
from mulo_cli.types import Hyper

HEADS = "heads"
"""The option of transformers that says how many attention heads a block has."""


def build_coordinate_task(
    section: TaskSection,
    dataset: Dataset,
    width: int,
    depth: int | None,
    parametrization: str,
    *,
    readout: ReadoutForm = "auto",
    asked: Mapping[str, str] = NOTHING,
) -> EvaluationTask:
    """Build the task of one size, of a network of ours or of the user's own.

    Args:
        section: `optimizee` is a name with options, or MODULE:FUNCTION; its widths do not matter.
        dataset: on what it is trained.
        width: of the network.
        depth: of the network; None: the section's for ours, and the user's function is not told
            any (the task's depth is 0 then).
        parametrization: of the network; the user's own are what they are, and under `sp` roles ask
            for no factors.
        readout: where the factor 1/fan_in of the user's own outputs acts; `auto`: in the network
            where it has a `Readout`, else in the update.
        asked: options that an optimizer asks of networks of ours (`NamedOptimizer.network`).

    Raises:
        UsageError: a word that does not fit, or no such module or function.
        UserCodeError: the user's own code fails, or returns something else than it is asked for.
        RoleError: the part that a parameter plays cannot be told.
    """
    if not is_user_function(section.optimizee):
        sized = section if depth is None else dataclasses.replace(section, depth=depth)
        return build_evaluation_task(sized, dataset, width, parametrization, asked)
    return _user_task(section, dataset, width, depth, parametrization, readout)


def with_equal_heads(optimizee: str, widths: Sequence[int], asked: Mapping[str, str]) -> str:
    """Return a network's name under which it has equally many attention heads at every width.

    Else heads would grow in number and not in size, and a wrong power of the head size would never
    show. The number is the usual one at the smallest width, or the next lower one that divides all.

    Args:
        optimizee: name with options; unchanged where these name `heads`, where the number does not
            depend on the width, or where it is the user's own.
        widths: that are compared.
        asked: options that an optimizer asks of networks.

    Raises:
        UsageError: there is no such network.
    """
    if is_user_function(optimizee):
        return optimizee
    reference = parse_named(optimizee)
    entry = look_up("optimizee", reference.name, OPTIMIZEES)
    usual = entry.usual_options(min(widths)).get(HEADS)
    if usual is None or HEADS in {**asked, **reference.options}:
        return optimizee
    heads = next(
        number for number in range(usual, 0, -1) if not any(width % number for width in widths)
    )
    return with_option(optimizee, HEADS, heads)


def build_coordinate_optimizer(
    text: str, width: int, parametrization: str | None = None
) -> NamedOptimizer:
    """Build an optimizer for networks of one width: by name, an artefact, or the user's own.

    Args:
        text: NAME[:KEY=VALUE,...], a path, or MODULE:FUNCTION.
        width: of the network; ours do not depend on it.
        parametrization: of the networks, where that is not to be the optimizer's own; those of a
            user's optimizer are under muP unless this says otherwise.

    Raises:
        UsageError: a word that does not fit, or no such module or function.
        UserCodeError: the user's own code fails, or returns no optimizer.
    """
    if not is_user_function(text):
        reference = parse_optimizer(text)
        if parametrization is not None:
            reference = dataclasses.replace(reference, parametrization=parametrization)
        return build_named_optimizer(reference)
    reference = parse_user_function(text)
    make = load_function(reference)
    with user_code(reference):
        made = make(width)
    if not isinstance(made, optax.GradientTransformation):
        raise UserCodeError(
            f"{text} returned {shortened(made)}, which is no optimizer",
            f"return an optax.GradientTransformation from make(width) ({PAGE})",
        )
    return NamedOptimizer(
        name=text,
        parametrization=parametrization or "mup",
        make=_UserOptimizer(optax.with_extra_args_support(made), reference),
        hyper={},
        settings={},
        recipe_digest=None,
        code=code_digest(reference.module),
    )


@dataclasses.dataclass(frozen=True)
class _UserOptimizer:
    """The user's own optimizer as a MakeOptimizer: nothing about it is traced."""

    made: optax.GradientTransformationExtraArgs
    reference: UserFunction

    def __call__(
        self, hyper: Hyper, roles: Roles, num_steps: Int[Array, ""]
    ) -> optax.GradientTransformationExtraArgs:
        """Return the optimizer; what goes wrong in it is one clear error."""
        del hyper, roles, num_steps

        def init(params: optax.Params) -> optax.OptState:
            with user_code(self.reference):
                return self.made.init(params)

        def update(
            updates: optax.Updates,
            state: optax.OptState,
            params: optax.Params | None = None,
            **extra: Any,
        ) -> tuple[optax.Updates, optax.OptState]:
            with user_code(self.reference):
                made = self.made.update(updates, state, params, **extra)
            if not isinstance(made, tuple) or len(made) != 2:
                raise self._misfit(f"returned {shortened(made)}, not (updates, state)")
            for what, new, old in zip(("updates", "state"), made, (updates, state), strict=True):
                difference = _difference(new, old)
                if difference:
                    raise self._misfit(f"returned {what} {difference}")
            return made

        return optax.GradientTransformationExtraArgs(init, update)

    def _misfit(self, what: str) -> UserCodeError:
        return UserCodeError(
            f"the update of {self.reference.text} {what}",
            "update(updates, state, params) returns updates like the gradients, and a state like "
            f"the one it was given: same tree, same shapes, same dtypes ({PAGE})",
        )


def _difference(new: Any, old: Any) -> str | None:
    """Say how a tree differs from what it must be like; None: it does not."""
    structures = jax.tree.structure(new), jax.tree.structure(old)
    if structures[0] != structures[1]:
        return f"with the tree {shortened(structures[0])} instead of {shortened(structures[1])}"
    for (path, one), other in zip(
        jax.tree.leaves_with_path(new), jax.tree.leaves(old), strict=True
    ):
        kinds = [f"{jnp.result_type(x)}{list(jnp.shape(x))}" for x in (one, other)]
        if kinds[0] != kinds[1]:
            return f"whose {leaf_name(path) or 'value'!r} is {kinds[0]} instead of {kinds[1]}"
    return None


def _user_task(
    section: TaskSection,
    dataset: Dataset,
    width: int,
    depth: int | None,
    parametrization: str,
    readout: ReadoutForm,
) -> EvaluationTask:
    reference = parse_user_function(section.optimizee)
    make = load_function(reference)
    if depth is not None:
        refuse_depth(make, reference)

    def network(width: int, depth: int | None = depth) -> UserNetwork:
        return user_network(make, reference, dataset, width, depth)

    own = network(width)
    inits = network(2 * width).init, own.init
    deep = None if depth is None else network(width, depth + 1).init
    form = "forward" if parametrization == "sp" else readout  # SP scales nothing
    roles, notes = roles_to_measure(inits, deep, form)
    task = Task(
        name=f"{section.optimizee}-{dataset.name}-w{width}",
        roles=roles,
        data=dataset.splits["train"],
        batch=dataset.make_batch(section.batch_size),
        init=own.init,
        loss=own.loss,
        loss_ceiling=classification_ceiling(dataset.num_classes),
        test_batch=dataset.make_test_batch and dataset.make_test_batch(section.batch_size),
    )
    _trace(task)
    return EvaluationTask(
        task=task,
        test_data=dataset.splits["test"],
        optimizee=section.optimizee,
        dataset=dataset.name,
        real=dataset.real,
        width=width,
        depth=depth or 0,
        batch_size=section.batch_size,
        digest=dataset.digest,
        code=code_digest(reference.module),
        notes=notes,
        readout=form,
    )


def _trace(task: Task) -> None:
    """Trace a task's loss once, so that what is wrong in it is told before anything is compiled."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    batch = jax.eval_shape(task.batch, task.data, key, jnp.int32(0))
    jax.eval_shape(task.loss, jax.eval_shape(task.init, key), batch)


def roles_to_measure(
    inits: tuple[Init, Init], deep: Init | None, readout: ReadoutForm
) -> tuple[Roles, tuple[str, ...]]:
    """Tell the roles of a network that may be wrong: it is to be measured, not to be refused.

    Args:
        inits: of the network at another width, and at its own.
        deep: of the network with another number of layers, where that is known.
        readout: where the factor 1/fan_in of outputs acts.

    Returns:
        The roles, and what had to be assumed: where an output's update is multiplied by 1/fan_in,
        and its initial scale does not suit that, a sentence says so.

    Raises:
        RoleError: for any other reason than an initial scale; above all, the user wants the factor
            in the update, and a `Readout` has it already.
    """
    try:
        return infer_roles(*inits, init_deep=deep, readout=readout), ()
    except RoleError as error:
        if readout == "forward":
            raise
        refused = error
    try:
        roles = infer_roles(*inits, init_deep=deep, readout="forward")
    except RoleError:
        raise refused from None
    divided = _divided(inits)
    if divided and readout == "update":
        raise refused
    scaled = {
        name
        for name, role in named_leaves(roles).items()
        if role.kind is RoleKind.OUTPUT and name not in divided
    }

    def measured(path: tuple, role: ParamRole) -> ParamRole:
        forward = role.forward_multiplier and leaf_name(path) not in scaled
        return dataclasses.replace(role, forward_multiplier=forward)

    roles = jax.tree.map_with_path(measured, roles, is_leaf=lambda x: isinstance(x, ParamRole))
    return roles, (
        f"muP wants {' and '.join(map(repr, sorted(scaled)))} to start at zero or at "
        "N(0, 1/fan_in^2), for no Readout divides it by its fan-in; it does not, and is measured "
        "all the same, its update multiplied by 1/fan_in",
    )


def _divided(inits: tuple[Init, Init]) -> set[str]:
    """Return the names of the leaves whose product a `Readout` divides by its fan-in."""
    narrow, wide = map(sketch, inits)
    return {
        name for name in wide.shapes if any(x.forward for x in told_by_modules(name, narrow, wide))
    }
