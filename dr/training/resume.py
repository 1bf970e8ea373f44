"""Whether a run may continue from its NAME__last.pt, and how it does."""

from pathlib import Path

import numpy as np
import torch

from dr import UsageError
from dr.core import distributed
from dr.inference.checkpoint import Checkpoint
from dr.inference.fields import one_line
from dr.inference.training_state import TrainingState, check_like, check_optimizer
from dr.recipes.schema import Recipe
from dr.training.state import Run


def changed_option(saved: Recipe, recipe: Recipe) -> str | None:
    """The first option of a recipe that differs from the saved one, as "lr=0.1, not 0.2"; None where all are equal. A
    measured mean and deviation follow from the data."""
    measured = ("mean", "std") if recipe.normalisation == "dataset" else ()
    before = saved.to_dict()
    for key, value in recipe.to_dict().items():
        if before[key] != value and key not in measured:
            return f"{key}={before[key]}, not {value}"
    return None


def mismatch(saved: Checkpoint, *, recipe: Recipe, fingerprint: str) -> str | None:
    """Why a run with this recipe and data cannot continue from a NAME__last.pt; None where it can."""
    if saved.training_state is None:
        return "no training state in this checkpoint; start without --resume"
    if other := changed_option(saved.recipe, recipe):
        return f"trained with {other}; resume with the same options"
    if saved.data.fingerprint != fingerprint:
        return (
            "trained on other label tables, or on images preprocessed in another way; resume with the same --data, or "
            "start without --resume"
        )
    processes = len(saved.training_state.random)
    if processes != distributed.world_size:
        return f"trained by {processes} processes, not {distributed.world_size}; resume with as many"
    return None


def resume(path: Path, run: Run) -> None:
    """Continues in `run` where the run that wrote `path` stopped. Raises UsageError where recipe, data or the number of
    processes differ, or the file is damaged."""
    if not path.is_file():
        raise UsageError(f"{path}: not found, nothing to resume; start without --resume")
    saved = Checkpoint.load(path, network=False)
    if reason := mismatch(saved, recipe=run.recipe, fingerprint=run.data.fingerprint):
        raise UsageError(f"{path}: {reason}")
    try:
        _restore(saved, saved.training_state, run)
    except (ValueError, TypeError, LookupError, RuntimeError, AttributeError) as exc:  # torch's and timm's own checks
        reason = one_line((str(exc) or type(exc).__name__).splitlines()[0])
        raise UsageError(f"{path}: its training state is damaged ({reason}); start without --resume") from exc
    names = saved.data.pretrained_name_hashes
    run.pretrained_name_hashes = np.empty(0, np.int64) if names is None else names


def _restore(saved: Checkpoint, state: TrainingState, run: Run) -> None:
    """Puts the saved state into `run`. Raises ValueError, or what torch and timm raise, for a state of another run."""
    check_optimizer(state.optimizer, run.optimizer)
    for name, own in (("scheduler", run.scheduler), ("scaler", run.accelerator.scaler)):
        if own is not None and (name == "scheduler" or state.scaler):
            check_like(getattr(state, name), own.state_dict(), place=name)
    for row in state.history:
        if "epoch" not in row or "seconds" not in row:
            raise ValueError("history: a row has no epoch or seconds")
    random = state.random[distributed.rank]
    weights = state.raw_model if run.ema else saved.model
    check_like(weights, run.bare_model.backbone.state_dict(), place="raw_model")
    run.bare_model.backbone.load_state_dict(weights)
    if run.ema:
        run.ema.module.backbone.load_state_dict(saved.model)
    run.optimizer.load_state_dict(state.optimizer)
    if run.scheduler is not None:
        run.scheduler.load_state_dict(state.scheduler)
    if run.accelerator.scaler is not None and state.scaler:
        run.accelerator.scaler.load_state_dict(state.scaler)
    torch.set_rng_state(random.torch)
    if random.cuda is not None and run.accelerator.device.type == "cuda":
        torch.cuda.set_rng_state(random.cuda, run.accelerator.device)
    run.epoch, run.updates = state.epoch, state.updates
    run.history = [row | {"epoch": int(row["epoch"])} for row in state.history]
