"""Whether a run may continue from its NAME__last.pt, and how it does."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from dr import UsageError
from dr.core import distributed
from dr.inference.checkpoint import Checkpoint
from dr.inference.fields import one_line
from dr.inference.training_state import TrainingState, check_like, check_optimizer
from dr.recipes.load import from_dict, load_recipe, option_text
from dr.recipes.schema import Recipe
from dr.training import resumable
from dr.training.resumable import Request
from dr.training.state import Run

CHANGEABLE = ("epochs", "patience")  # options that affect no epoch before they are changed


class Continued(NamedTuple):
    """What a resumed run goes on with: its recipe, the columns of runs.csv on its command, its fold (K, N)."""

    recipe: Recipe
    recorded: dict[str, str]
    fold: tuple[int, int] | None


def continued(request: Request) -> Continued:
    """The run of a NAME__last.pt, with the flags that were passed: they may change the options in CHANGEABLE. Raises
    UsageError for others, and where the schedule depends on the number of epochs."""
    path = request.paths.last
    saved = Checkpoint.load(path, network=False)
    if saved.training_state is None:
        raise UsageError(f"{path}: no training state in this checkpoint; start without --resume")
    if other := _contradiction(saved, request):
        raise UsageError(f"{path}: trained with {other}; resume with the same options, or leave them out")
    changed = {key: value for key, value in request.given.items() if key in CHANGEABLE}
    recipe = from_dict(saved.recipe.to_dict() | changed, place="--set")
    recorded = dict(saved.training_state.recorded)
    own = saved.data.fold
    fold = None if own is None else (own.number, own.of)
    if recipe.epochs < (trained := saved.training_state.epoch):
        raise UsageError(f"{path}: already trained for {trained} epochs; pass more than {trained} with --epochs")
    if fault := _fixed_epochs(saved, recipe):
        command = resumable.new_run_command(replace(request, fold=fold), recorded, trained=trained)
        raise UsageError(f"{path}: {fault}; to start a new run from its weights: {command}")
    if recorded:
        recorded["overrides"] = resumable.text_of(resumable.options_of(recorded.get("overrides", "")) | changed)
    return Continued(recipe, recorded, fold)


def _contradiction(saved: Checkpoint, request: Request) -> str | None:
    """The first flag that differs from what a run was trained with, as "lr=0.1, not 0.2"."""
    before = saved.recipe.to_dict()
    for key, value in request.given.items():
        value = tuple(value) if isinstance(value, list) else value
        if key not in CHANGEABLE and before[key] != value:
            return f"{key}={option_text(before[key])}, not {option_text(value)}"
    own = saved.data.fold
    if request.fold is not None and (own is None or request.fold != (own.number, own.of)):
        trained = "no --fold" if own is None else f"--fold {own.number}/{own.of}"
        return f"{trained}, not --fold {request.fold[0]}/{request.fold[1]}"
    if request.recipe is None:
        return None
    overrides = resumable.options_of(saved.training_state.recorded.get("overrides", "")) | dict(request.given)
    return changed_option(saved.recipe, load_recipe(request.recipe, overrides=overrides), changeable=CHANGEABLE)


def depends_on_epochs(recipe: Recipe) -> str | None:
    """What makes the learning rate of an epoch depend on the number of epochs; None where nothing does."""
    if recipe.scheduler == "cosine":
        return "scheduler=cosine"
    return f"warmup_fraction={recipe.warmup_fraction}" if recipe.warmup_fraction else None


def _fixed_epochs(saved: Checkpoint, recipe: Recipe) -> str | None:
    """Why a run cannot go on for the epochs of `recipe`, which is otherwise its own; None where it can."""
    before, after = saved.recipe.epochs, recipe.epochs
    reason = depends_on_epochs(recipe)
    return None if before == after or reason is None else f"{reason} depends on epochs={before}, not {after}"


def changed_option(saved: Recipe, recipe: Recipe, *, changeable: tuple[str, ...] = ()) -> str | None:
    """The first option of a recipe that differs from the saved one, as "lr=0.1, not 0.2"; None where all are equal but
    for those in `changeable`. A measured mean and deviation follow from the data."""
    measured = ("mean", "std") if recipe.normalisation == "dataset" else ()
    before = saved.to_dict()
    for key, value in recipe.to_dict().items():
        if before[key] != value and key not in (*measured, *changeable):
            return f"{key}={before[key]}, not {value}"
    return None


def mismatch(saved: Checkpoint, *, recipe: Recipe, fingerprint: str, changeable: tuple[str, ...] = ()) -> str | None:
    """Why a run with this recipe and data cannot continue from a NAME__last.pt; None where it can."""
    if saved.training_state is None:
        return "no training state in this checkpoint; start without --resume"
    if other := changed_option(saved.recipe, recipe, changeable=changeable):
        return f"trained with {other}; resume with the same options"
    if fault := _fixed_epochs(saved, recipe):
        return f"{fault}; start another run from its NAME__best.pt with --pretrained"
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
    if reason := mismatch(saved, recipe=run.recipe, fingerprint=run.data.fingerprint, changeable=CHANGEABLE):
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
    run.earlier_s = sum(row["seconds"] for row in state.history)
    run.history = [row | {"epoch": int(row["epoch"])} for row in state.history]
