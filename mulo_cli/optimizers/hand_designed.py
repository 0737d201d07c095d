"""AdamW and muAdam, as optax has them, behind the one optimizer interface.

AdamW: I. Loshchilov and F. Hutter, "Decoupled weight decay regularization" (2019). muAdam: G. Yang
et al., "Tensor Programs V" (2022), Table 8: Adam whose update is multiplied by the role's factor.
"""

import optax
from jaxtyping import Array, Int

from mulo_cli.mup.roles import Roles
from mulo_cli.mup.rules import adam_like
from mulo_cli.mup.scaling import scale_by_mup
from mulo_cli.types import Hyper

ADAM_DEFAULTS = {"learning_rate": 1e-3, "b1": 0.9, "b2": 0.999, "eps": 1e-8}


def adamw(
    hyper: Hyper, roles: Roles, num_steps: Int[Array, ""]
) -> optax.GradientTransformationExtraArgs:
    """Build AdamW under standard parametrization; hyper-parameters as in `optax.adamw`."""
    del roles, num_steps
    return optax.with_extra_args_support(optax.adamw(**hyper))


def muadam(
    hyper: Hyper, roles: Roles, num_steps: Int[Array, ""]
) -> optax.GradientTransformationExtraArgs:
    """Build Adam under muP, without weight decay; hyper-parameters as in `optax.adam`."""
    del num_steps
    return optax.chain(optax.adam(**hyper), scale_by_mup(roles, adam_like))
