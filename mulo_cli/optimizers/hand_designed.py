"""Hand-designed optimizers made of optax's parts, behind the one optimizer interface.

Every one is the same chain: what optax makes of a gradient, the rule's factors, decay, the rate.
Under its rule for standard parametrization each is optax's optimizer of the same name. Factors and
their sources: `mulo_cli.mup.rules`. Hyper-parameters have optax's names; an optional one that is
not given is off. Two are ours: `hidden_lr_mult` multiplies the factor of hidden matrices (muLO,
B. Therien et al., version 2, 2024, appendix B.1), `eps_scaling` divides epsilon by the width to
this power.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from mulo_cli.errors import UsageError
from mulo_cli.mup.kinds import ParamRole, RoleKind, Roles
from mulo_cli.mup.rules import Rule
from mulo_cli.mup.scaling import scale_by_mup, scale_by_width
from mulo_cli.mup.sketches import named_leaves
from mulo_cli.optimizers.per_tensor import over_matrices
from mulo_cli.types import Hyper, Params

ADAM_DEFAULTS = {"learning_rate": 1e-3, "b1": 0.9, "b2": 0.999, "eps": 1e-8}
ADAMW_DEFAULTS = {**ADAM_DEFAULTS, "weight_decay": 1e-4}
ADOPT_DEFAULTS = {"learning_rate": 1e-3, "b1": 0.9, "b2": 0.9999, "eps": 1e-6}
LAMB_DEFAULTS = {**ADAM_DEFAULTS, "eps": 1e-6, "weight_decay": 0.0}
MUON_DEFAULTS = {
    "learning_rate": 0.02,
    "beta": 0.95,
    "eps": 1e-8,
    "adam_b1": 0.9,
    "adam_b2": 0.999,
}
SGD_DEFAULTS = {"learning_rate": 0.1}
SOPHIA_DEFAULTS = {
    "learning_rate": 1e-3,
    "b1": 0.965,
    "b2": 0.99,
    "eps": 1e-8,
    "gamma": 0.01,
    "clip_threshold": 1.0,
    "update_interval": 10,
    "weight_decay": 1e-4,
}
"""optax's own where it has any; learning rates that it wants to be told are ours."""

AS_IT_IS = -1.0
"""The learning rate at which one of optax's whole optimizers hands out its update unscaled."""


def adam(
    hyper: Hyper, roles: Roles, num_steps: Int[Array, ""], *, rule: Rule
) -> optax.GradientTransformationExtraArgs:
    """Build Adam, as in `optax.adam`; with `weight_decay` it is AdamW, as in `optax.adamw`.

    D. Kingma and J. Ba (2015); I. Loshchilov and F. Hutter, "Decoupled weight decay regularization"
    (2019). Under muP it is muAdam: G. Yang et al., "Tensor Programs V" (2022), Table 8.
    """
    del num_steps
    return _chain(hyper, roles, rule, optax.scale_by_adam(hyper["b1"], hyper["b2"], hyper["eps"]))


def adopt(
    hyper: Hyper, roles: Roles, num_steps: Int[Array, ""], *, rule: Rule
) -> optax.GradientTransformationExtraArgs:
    """Build ADOPT, as in `optax.contrib.adopt`: its first step only looks.

    S. Taniguchi et al., "ADOPT: modified Adam can converge with any beta_2 with the optimal rate"
    (2024).
    """
    del num_steps
    core = optax.contrib.scale_by_adopt(hyper["b1"], hyper["b2"], hyper["eps"])
    return _chain(hyper, roles, rule, core)


def lamb(
    hyper: Hyper, roles: Roles, num_steps: Int[Array, ""], *, rule: Rule
) -> optax.GradientTransformationExtraArgs:
    """Build LAMB, as in `optax.lamb`: an update is as large as its tensor.

    Y. You et al., "Large batch optimization for deep learning" (2020). Decay is part of what is
    measured, as they have it, and is the weaker the wider a hidden matrix.
    """
    del num_steps
    core = optax.chain(
        optax.scale_by_adam(hyper["b1"], hyper["b2"], hyper["eps"]),
        optax.add_decayed_weights(hyper["weight_decay"]),
        over_matrices(optax.scale_by_trust_ratio(), roles),
    )
    without_decay = {key: value for key, value in hyper.items() if key != "weight_decay"}
    return _chain(without_decay, roles, rule, core)


def muon(
    hyper: Hyper, roles: Roles, num_steps: Int[Array, ""], *, rule: Rule
) -> optax.GradientTransformationExtraArgs:
    """Build Muon on hidden matrices and Adam on all else, as in `optax.contrib.muon`.

    K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024).
    """
    del num_steps
    core = optax.contrib.muon(AS_IT_IS, beta=hyper["beta"], eps=hyper["eps"])
    adam = optax.scale_by_adam(hyper["adam_b1"], hyper["adam_b2"], hyper["eps"], nesterov=True)
    parts = {"hidden": over_matrices(core, roles), "others": adam}
    rates = {
        "hidden": hyper["learning_rate"],
        "others": hyper.get("adam_learning_rate", hyper["learning_rate"]),
    }
    decays = {
        "hidden": hyper.get("weight_decay", 0.0),
        "others": hyper.get("adam_weight_decay", 0.0),
    }

    def by_kind(
        transformations: Mapping[str, optax.GradientTransformation],
    ) -> optax.GradientTransformationExtraArgs:
        return optax.partition({**transformations}, lambda params: _parts(params, roles))

    return optax.chain(
        *_widened(hyper, roles),
        by_kind(parts),
        scale_by_mup(roles, rule, hyper.get("hidden_lr_mult", 1.0)),
        by_kind({part: optax.add_decayed_weights(decay) for part, decay in decays.items()}),
        by_kind({part: optax.scale_by_learning_rate(rate) for part, rate in rates.items()}),
    )


def sgd(
    hyper: Hyper, roles: Roles, num_steps: Int[Array, ""], *, rule: Rule
) -> optax.GradientTransformationExtraArgs:
    """Build stochastic gradient descent; without `momentum` it remembers nothing."""
    del num_steps
    core = optax.trace(hyper["momentum"]) if "momentum" in hyper else optax.identity()
    return _chain(hyper, roles, rule, core)


def sophia(
    hyper: Hyper, roles: Roles, num_steps: Int[Array, ""], *, rule: Rule
) -> optax.GradientTransformationExtraArgs:
    """Build Sophia-H, as in `optax.contrib.sophia`.

    H. Liu et al., "Sophia" (2024). Its Hessian needs the loss as a function of the params:
    `update(gradients, state, params, obj_fn=lambda params: loss(params, batch))`. Where it is
    mapped over seeds or hyper-parameters the Hessian is estimated at every step, and thrown away at
    all but one of `update_interval`.
    """
    del num_steps
    core = optax.contrib.sophia(
        AS_IT_IS,
        b1=hyper["b1"],
        b2=hyper["b2"],
        eps=hyper["eps"],
        weight_decay=0.0,
        gamma=hyper["gamma"],
        clip_threshold=hyper["clip_threshold"],
        update_interval=jnp.asarray(hyper["update_interval"]).astype(jnp.int32),
    )
    return _chain(hyper, roles, rule, _with_objective(core))


def _chain(
    hyper: Hyper, roles: Roles, rule: Rule, core: optax.GradientTransformation
) -> optax.GradientTransformationExtraArgs:
    """Put what every optimizer has around what is its own.

    Decay comes after the rule's factors, so that rate times decay does not depend on width.
    """
    decay = [optax.add_decayed_weights(hyper["weight_decay"])] if "weight_decay" in hyper else []
    return optax.chain(
        *_widened(hyper, roles),
        core,
        scale_by_mup(roles, rule, hyper.get("hidden_lr_mult", 1.0)),
        *decay,
        optax.scale_by_learning_rate(hyper["learning_rate"]),
    )


def _widened(hyper: Hyper, roles: Roles) -> list[optax.GradientTransformationExtraArgs]:
    return [scale_by_width(roles, hyper["eps_scaling"])] if "eps_scaling" in hyper else []


def _parts(params: Params, roles: Roles) -> Any:
    """Return which of Muon's parts trains each leaf."""
    known: dict[str, ParamRole] = named_leaves(roles)
    labels = [
        "hidden" if known[name].kind is RoleKind.HIDDEN else "others"
        for name in named_leaves(params)
    ]
    return jax.tree.unflatten(jax.tree.structure(params), labels)


def _with_objective(
    optimizer: optax.GradientTransformationExtraArgs,
) -> optax.GradientTransformationExtraArgs:
    """Ask for `obj_fn` in words."""

    def update(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        if extra.get("obj_fn") is None:
            raise UsageError(
                "sophia needs the loss as a function of the parameters",
                "call update(gradients, state, params, obj_fn=lambda params: loss(params, batch))",
            )
        return optimizer.update(updates, state, params, **extra)

    return optax.GradientTransformationExtraArgs(optimizer.init, update)
