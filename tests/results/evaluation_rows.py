"""Rows as `mulo evaluate` writes them, made up for tests."""

from collections.abc import Mapping, Sequence

from mulo_cli.results.records import EvaluationRow


def evaluation_row(
    optimizer: str, losses: float | Mapping[int, float | None] | None = 1.0, **changes
) -> EvaluationRow:
    """Return a row.

    Args:
        optimizer: its name.
        losses: smoothed loss at the last step (500), or step -> smoothed loss.
        changes: any other field.
    """
    smoothed = losses if isinstance(losses, Mapping) else {500: losses}
    diverged = [step for step, loss in smoothed.items() if loss is None]
    fields = {
        "settings": {"learning_rate": 0.01},
        "parametrization": "sp",
        "recipe_digest": None,
        "task": "mlp",
        "dataset": "digits",
        "real": True,
        "width": 16,
        "depth": 3,
        "batch_size": 64,
        "seed": 0,
        "steps": 500,
        "at": tuple(sorted(smoothed)),
        "window": 50,
        "code_version": "0.1.0",
        "smoothed_loss": dict(smoothed),
        "status": "diverged" if diverged else "ok",
        "diverged_at": min(diverged, default=None),
        "test_accuracy": 0.9,
        "curve_every": 500,
        "curve": (1.0,),
        "parameters": 100,
        "optimizer_state_bytes": 800,
        "seconds_per_step": 1e-4,
    }
    return EvaluationRow(optimizer=optimizer, **{**fields, **changes})


def rows_of(losses: Mapping[str, Sequence[float | None]], **changes) -> list[EvaluationRow]:
    """Return a row for each optimizer and seed: optimizer -> losses of seeds 0, 1, ..."""
    return [
        evaluation_row(optimizer, loss, **{"seed": seed, **changes})
        for optimizer, of_seeds in losses.items()
        for seed, loss in enumerate(of_seeds)
    ]
