"""One training run: what changes while it goes on, and how it is saved and continued."""

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from dr import UsageError
from dr.core import distributed
from dr.datasets.preprocessed import PreprocessedData, name_hashes, seen_name_hashes
from dr.grading import objectives
from dr.inference import checkpoint
from dr.networks import build as models
from dr.networks import surgery
from dr.recipes.schema import Recipe


@dataclass
class Run:
    """Everything that changes while training, and what it was made from."""

    recipe: Recipe
    data: PreprocessedData
    accelerator: Accelerator
    objective: objectives.Objective
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: Scheduler | ReduceLROnPlateau | None
    ema: ModelEmaV3 | None
    epoch: int = 0  # epochs finished
    updates: int = 0
    history: list[dict] = dataclasses.field(default_factory=list)
    # prepared.name_hash of what the weights that it started from were trained and validated with
    inherited: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0, np.int64))

    def update(self) -> None:
        """Moves the weights by the gradients gathered since the last time."""
        if isinstance(self.scheduler, Scheduler):
            self.scheduler.step_update(self.updates)
        if self.recipe.clip_norm is not None:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.updates += 1
        if self.ema:
            self.ema.update(self.bare_model, step=self.updates)

    def after_epoch(self, val_loss: float) -> None:
        """Lowers the learning rate where it waits for a validation loss that falls no more."""
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(val_loss)

    @property
    def bare_model(self) -> models.GradingNetwork:
        """The network that learns, without what accelerate wrapped around it."""
        return self.accelerator.unwrap_model(self.model)

    @property
    def evaluated(self) -> models.GradingNetwork:
        """The network that is validated and saved, the averaged one where there is one: it shares its tensors, but not
        the autocast that accelerate has put around its forward."""
        network = copy.copy(self.ema.module if self.ema else self.bare_model)
        vars(network).pop("forward", None)
        return network


def _optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    extra = {"amsgrad": recipe.amsgrad} if recipe.optimizer in ("adam", "adamw") else {"momentum": recipe.momentum}
    if recipe.optimizer == "rmsprop":
        extra["alpha"] = 0.99  # torch's own; timm's is TensorFlow's
    # timm's "sgd" is Nesterov's, its "momentum" is not
    name = "momentum" if recipe.optimizer == "sgd" and not recipe.nesterov else recipe.optimizer
    return create_optimizer_v2(
        model, opt=name, lr=recipe.lr, weight_decay=recipe.weight_decay, filter_bias_and_bn=False, **extra
    )


def _scheduler(
    recipe: Recipe, optimizer: torch.optim.Optimizer, *, updates_per_epoch: int
) -> Scheduler | ReduceLROnPlateau | None:
    if recipe.scheduler == "plateau":  # torch's: timm's own does not save its state
        return ReduceLROnPlateau(optimizer, factor=recipe.gamma, patience=recipe.plateau_epochs)
    exponential = recipe.scheduler == "exponential"  # a step every epoch
    return create_scheduler_v2(
        optimizer,
        sched="step" if exponential else recipe.scheduler,
        num_epochs=recipe.epochs,
        decay_epochs=1 if exponential else recipe.step_epochs,
        # timm's multistep decays one update early: the half an update more makes it the first of the next epoch
        decay_milestones=[epoch + 0.5 / updates_per_epoch for epoch in recipe.milestones],
        decay_rate=recipe.gamma,
        warmup_epochs=recipe.warmup_fraction * recipe.epochs,
        warmup_lr=recipe.lr / 100,
        step_on_epochs=False,
        updates_per_epoch=updates_per_epoch,
    )[0]


def _class_weights(recipe: Recipe, data: PreprocessedData) -> torch.Tensor | None:
    if recipe.class_weights == "none":
        return None
    return objectives.inverse_frequency(data.train["diagnosis"].to_numpy(), len(data.classes))


def start(
    recipe: Recipe, *, data: PreprocessedData, accelerator: Accelerator, updates_per_epoch: int, pretrained: bool
) -> Run:
    """A run before its first epoch, from pretrained weights unless saved ones follow. Raises UsageError for weights or
    a backbone that are not there."""
    objective = objectives.build(recipe, num_classes=len(data.classes), class_weights=_class_weights(recipe, data))
    with accelerator.local_main_process_first():  # one download for each machine; the others find it
        model = models.build(
            recipe,
            num_outputs=objective.num_outputs,
            pretrained=pretrained,
            # without it the statistics are of one process's batch, however many there are; torch has it for GPUs only
            sync_batch_norm=distributed.world_size > 1 and accelerator.device.type == "cuda",
        )
    models.check(model, recipe, num_outputs=objective.num_outputs)
    if accelerator.device.type == "cpu" and accelerator.mixed_precision == "bf16":
        surgery.widen_slow_convolutions(model.backbone)
    if recipe.grad_checkpointing:
        surgery.checkpoint_gradients(model.backbone, recipe.backbone)
    optimizer = _optimizer(recipe, model)
    scheduler = _scheduler(recipe, optimizer, updates_per_epoch=updates_per_epoch)
    model, optimizer = accelerator.prepare(model, optimizer)
    ema = None
    if recipe.ema_decay is not None:
        ema = ModelEmaV3(accelerator.unwrap_model(model), decay=recipe.ema_decay, use_warmup=True)
    run = Run(recipe, data, accelerator, objective, model, optimizer, scheduler, ema)
    if pretrained and recipe.pretrained not in ("imagenet", "none"):
        run.inherited = _hashed(models.load_tensors(recipe.pretrained), "names")
    return run


def _hashed(saved: Mapping, key: str) -> np.ndarray:
    """The fields of a checkpoint -> the hashed names that its `data` keeps under `key`; none of a bare state_dict."""
    data = saved.get("data")
    names = data.get(key) if isinstance(data, Mapping) else None
    return names.numpy() if isinstance(names, torch.Tensor) else np.empty(0, np.int64)


def seen_before(run: Run) -> list[str]:
    """A line for each side that the run's figures are of and that the weights it started from have seen."""
    lines = []
    for side, table in (("validation", run.data.val), ("test", run.data.test)):
        count = 0 if table is None else int(np.isin(name_hashes(table), run.inherited).sum())
        if count:
            lines.append(
                f"{count} of {len(table)} {side} photographs have names that {run.recipe.pretrained} was trained or "
                "validated with: what is measured on them flatters"
            )
    return lines


def content(run: Run, *, thresholds: np.ndarray | None, metrics: dict) -> dict:
    """The fields of a checkpoint, tensors and primitives only."""
    fold = {} if run.data.fold is None else {"fold": run.data.fold._asdict()}
    return {
        "model": {key: value.detach().cpu().clone() for key, value in run.evaluated.backbone.state_dict().items()},
        "recipe": run.recipe.to_dict(),
        "thresholds": None if thresholds is None else [float(value) for value in thresholds],
        "classes": list(run.data.classes),
        "metrics": metrics,
        "versions": checkpoint.versions(),
        "data": {
            "fingerprint": run.data.fingerprint,
            "size": run.data.size_px,
            "crop": run.data.crop,
            "names": torch.from_numpy(np.union1d(seen_name_hashes(run.data), run.inherited)),
            "inherited": torch.from_numpy(run.inherited),
            **fold,
        },
        "seen_before": seen_before(run),
    }


def random_states(run: Run) -> list[dict]:
    """Where the random numbers of each process stand: dropout and mixing differ between them."""
    on_gpu = run.accelerator.device.type == "cuda"
    cuda = torch.cuda.get_rng_state(run.accelerator.device) if on_gpu else None
    return distributed.all_gather({"torch": torch.get_rng_state(), "cuda": cuda})


def save_last(path: Path, run: Run, fields: dict, random: list[dict]) -> None:
    """The checkpoint `fields` with all that an unbroken run would still have in memory."""
    state = {
        "raw_model": run.bare_model.backbone.state_dict() if run.ema else None,
        "optimizer": run.optimizer.state_dict(),
        "scheduler": run.scheduler.state_dict() if run.scheduler is not None else None,
        "scaler": run.accelerator.scaler.state_dict() if run.accelerator.scaler is not None else None,
        "random": random,
        "epoch": run.epoch,
        "updates": run.updates,
        "history": run.history,
    }
    checkpoint.save(path, fields | state)


def other_choice(saved: Mapping, recipe: Recipe) -> str | None:
    """The first choice of a saved recipe that is another one, in words, None where all are the same; a mean and
    deviation that are measured follow from the data."""
    measured = ("mean", "std") if recipe.normalisation == "measured" else ()
    for key, value in recipe.to_dict().items():
        if saved.get(key) != value and key not in measured:
            return f"{key}={saved.get(key)}, not {value}"
    return None


def mismatch(saved: Mapping, *, recipe: Recipe, fingerprint: str) -> str | None:
    """The fields of a NAME__last.pt, the recipe and the data of a run -> why the run cannot go on from there, None
    where it can."""
    if "optimizer" not in saved or "recipe" not in saved or not isinstance(saved.get("random"), list):
        return "it is not a checkpoint that training can go on from; start without --resume"
    if other := other_choice(saved["recipe"], recipe):
        return f"it was trained with {other}; resume with the same choices"
    if saved["data"]["fingerprint"] != fingerprint:
        return (
            "it was trained on other label tables, on photographs prepared in another way, or by an earlier version; "
            "resume with the --data of before, or start without --resume"
        )
    if len(saved["random"]) != distributed.world_size:
        return f"{len(saved['random'])} processes trained it, not {distributed.world_size}; resume with as many"
    return None


def resume(path: Path, run: Run) -> None:
    """Puts `run` where the run that wrote `path` stopped. Raises UsageError when recipe, data or the number of
    processes are not the same."""
    if not path.is_file():
        raise UsageError(f"{path}: there is nothing to resume; start without --resume")
    saved = models.load_tensors(path)
    if reason := mismatch(saved, recipe=run.recipe, fingerprint=run.data.fingerprint):
        raise UsageError(f"{path}: {reason}")
    run.bare_model.backbone.load_state_dict(saved["raw_model"] or saved["model"])
    if run.ema:
        run.ema.module.backbone.load_state_dict(saved["model"])
    run.optimizer.load_state_dict(saved["optimizer"])
    if run.scheduler is not None:
        run.scheduler.load_state_dict(saved["scheduler"])
    if run.accelerator.scaler is not None and saved["scaler"]:
        run.accelerator.scaler.load_state_dict(saved["scaler"])
    random = saved["random"][distributed.rank]
    torch.set_rng_state(random["torch"])
    if random["cuda"] is not None and run.accelerator.device.type == "cuda":
        torch.cuda.set_rng_state(random["cuda"], run.accelerator.device)
    run.inherited = _hashed(saved, "inherited")
    run.epoch, run.updates, run.history = saved["epoch"], saved["updates"], saved["history"]
