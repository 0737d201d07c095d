"""SGD, Adam and AdamW, made of optax's parts, behind the one optimizer interface.

AdamW: I. Loshchilov and F. Hutter, "Decoupled weight decay regularization" (2019). muAdam: G. Yang
et al., "Tensor Programs V" (2022), Table 8: Adam whose update is multiplied by the role's factor.
Under the rule `standard` each is optax's optimizer of the same name.
"""

import optax
from jaxtyping import Array, Int

from mulo_cli.mup.roles import Roles
from mulo_cli.mup.rules import Rule
from mulo_cli.mup.scaling import scale_by_mup
from mulo_cli.types import Hyper

ADAM_DEFAULTS = {"learning_rate": 1e-3, "b1": 0.9, "b2": 0.999, "eps": 1e-8}
ADAMW_DEFAULTS = {**ADAM_DEFAULTS, "weight_decay": 1e-4}
SGD_DEFAULTS = {"learning_rate": 0.1}


def adamw(
    hyper: Hyper, roles: Roles, num_steps: Int[Array, ""], *, rule: Rule
) -> optax.GradientTransformationExtraArgs:
    """Build AdamW; hyper-parameters as in `optax.adamw`.

    Decay is added after the rule's factors, so that rate times decay does not depend on width.
    """
    del num_steps
    return optax.chain(
        optax.scale_by_adam(hyper["b1"], hyper["b2"], hyper["eps"]),
        scale_by_mup(roles, rule),
        optax.add_decayed_weights(hyper["weight_decay"]),
        optax.scale_by_learning_rate(hyper["learning_rate"]),
    )


def adam(
    hyper: Hyper, roles: Roles, num_steps: Int[Array, ""], *, rule: Rule
) -> optax.GradientTransformationExtraArgs:
    """Build Adam, without weight decay; hyper-parameters as in `optax.adam`."""
    del num_steps
    return optax.chain(
        optax.scale_by_adam(hyper["b1"], hyper["b2"], hyper["eps"]),
        scale_by_mup(roles, rule),
        optax.scale_by_learning_rate(hyper["learning_rate"]),
    )


def sgd(
    hyper: Hyper, roles: Roles, num_steps: Int[Array, ""], *, rule: Rule
) -> optax.GradientTransformationExtraArgs:
    """Build stochastic gradient descent; without `momentum` it remembers nothing."""
    del num_steps
    remembering = [optax.trace(hyper["momentum"])] if "momentum" in hyper else []
    return optax.chain(
        *remembering,
        scale_by_mup(roles, rule),
        optax.scale_by_learning_rate(hyper["learning_rate"]),
    )
