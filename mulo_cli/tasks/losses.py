"""Losses of tasks, and the ceiling under which evolution strategies see them."""

import math

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

CEILING_FACTOR = 1.5
"""A classification loss is bounded at 1.5 log C before differences are taken."""


def cross_entropy(logits: Float[Array, "B C"], targets: Int[Array, " B"]) -> Float[Array, ""]:
    """Return the mean cross-entropy of a batch, in nats."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()


def next_token_cross_entropy(
    logits: Float[Array, "B L C"], targets: Int[Array, "B L"]
) -> Float[Array, ""]:
    """Return the mean cross-entropy per token, in nats; padding (a negative target) is left out."""
    counts = targets >= 0
    each = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.where(counts, targets, 0))
    return _mean_of_counted(jnp.where(counts, each, 0.0), counts)


def accuracy(logits: Float[Array, "*B C"], targets: Int[Array, "*B"]) -> Float[Array, ""]:
    """Return the share of targets that have the largest logit; padding is left out."""
    hits = jnp.argmax(logits, axis=-1) == targets  # padding is negative: never hit
    return _mean_of_counted(hits.astype(jnp.float32), targets >= 0)


def _mean_of_counted(each: Float[Array, "*B"], counts: Bool[Array, "*B"]) -> Float[Array, ""]:
    return jnp.sum(each) / jnp.maximum(jnp.sum(counts, dtype=jnp.float32), 1.0)


def classification_ceiling(num_classes: int) -> float:
    """Return the bound of a classification loss: 1.5 times that of guessing."""
    return CEILING_FACTOR * math.log(num_classes)


def bounded(loss: Float[Array, "..."], ceiling: float | None) -> Float[Array, "..."]:
    """Bound a loss to [0, ceiling], non-finite values to the ceiling; the identity without one."""
    if ceiling is None:
        return loss
    return jnp.clip(jnp.where(jnp.isfinite(loss), loss, ceiling), 0.0, ceiling)
