"""How a meta-training ends, in a sentence: what, how long, where saved, what to run next."""

from typing import TYPE_CHECKING

from mulo_cli.cli.outcome import ExitCode, Outcome

if TYPE_CHECKING:
    from mulo_cli.meta_training.meta_loop import Ended
    from mulo_cli.recipes.schema import Recipe
    from mulo_cli.results.run_directory import RunDirectory


def finished(
    directory: "RunDirectory", recipe: "Recipe", ended: "Ended", seconds: float
) -> Outcome:
    """Say what a run that is done has found, and where."""
    done = f"{ended.step - ended.begun} meta-steps in {seconds:.0f} s"
    whole = f" ({ended.step} in all)" if ended.begun else ""
    what = f"{recipe.name} ({recipe.parametrization}): {done}{whole}{_skipped(ended)}"
    best = f"best meta-validation loss {float(ended.best.loss):.4f} (step {int(ended.best.step)})"
    return Outcome(
        (
            f"{what}, {best}; saved in {directory.artefact}; "
            f"next: mulo evaluate --optimizer {directory.root}",
        )
    )


def interrupted(directory: "RunDirectory", ended: "Ended", total: int, code: ExitCode) -> Outcome:
    """Say how far a run came that somebody stopped."""
    return Outcome(
        (
            f"stopped after meta-step {ended.step} of {total}, saved in {directory.checkpoints}"
            f"{_without_trouble(ended)}; the same command resumes it",
        ),
        code,
    )


def _without_trouble(ended: "Ended") -> str:
    """Say what is saved, if that is not the last step: its gradients were not finite."""
    return "" if ended.saved == ended.step else f" as it was after step {ended.saved}"


def _skipped(ended: "Ended") -> str:
    """Say how many meta-steps moved nothing."""
    if not ended.skipped:
        return ""
    return f" ({ended.skipped} skipped: their gradients were not finite)"


def already_finished(directory: "RunDirectory") -> Outcome:
    """Say that there was nothing to do."""
    return Outcome(
        (
            f"the run in {directory.root} has finished already, nothing was done; next: mulo "
            f"evaluate --optimizer {directory.root} (or --overwrite to train it anew)",
        )
    )
