"""The state of a training run: its start, and the checkpoint and training state that it saves."""

import copy
import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from dr import SPLIT_NAMES
from dr.core import distributed
from dr.datasets.preprocessed import PreprocessedData, name_hashes
from dr.grading import objectives
from dr.grading.objective import Objective
from dr.grading.registry import EVALUATED_SPLITS
from dr.grading.targets import inverse_frequency
from dr.inference.checkpoint import Checkpoint
from dr.inference.records import DataRecord, Predictions
from dr.inference.training_state import RandomState, TrainingState
from dr.inference.versions import versions
from dr.networks import architecture, surgery
from dr.networks.build import GradingNetwork, build, check
from dr.networks.weight_files import load_tensors
from dr.recipes.schema import Recipe
from dr.training.optimizer import build_optimizer, build_scheduler


@dataclass
class Run:
    """Everything that changes during training, with its recipe and data."""

    recipe: Recipe
    data: PreprocessedData
    accelerator: Accelerator
    objective: Objective
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: Scheduler | ReduceLROnPlateau | None
    ema: ModelEmaV3 | None
    epoch: int = 0  # epochs finished
    updates: int = 0
    history: list[dict] = dataclasses.field(default_factory=list)
    began: float = dataclasses.field(default_factory=time.monotonic)  # by time.monotonic
    earlier_s: float = 0.0  # of the epochs before it was resumed
    batch_done: Callable[[], None] = lambda: None  # called after each batch of training
    recorded: Mapping[str, str] = dataclasses.field(default_factory=dict)  # columns of runs.csv on its command
    # name_hash of the images that the initial weights were trained and validated on
    pretrained_name_hashes: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0, np.int64))

    def update(self) -> None:
        """One optimizer step with the accumulated gradients."""
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
        """Steps a plateau scheduler, which lowers the learning rate when the validation loss stops falling."""
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(val_loss)

    @property
    def seconds(self) -> float:
        """How long it has taken: since it began, or was resumed, and the epochs before."""
        return self.earlier_s + time.monotonic() - self.began

    @property
    def bare_model(self) -> GradingNetwork:
        """The network that learns, without the wrappers of accelerate."""
        return self.accelerator.unwrap_model(self.model)

    @property
    def evaluated(self) -> GradingNetwork:
        """The network that is validated and saved: the moving average, where there is one. It shares the tensors,
        but not the autocast that accelerate wraps around `forward`."""
        network = copy.copy(self.ema.module if self.ema else self.bare_model)
        vars(network).pop("forward", None)
        return network


def _class_weights(recipe: Recipe, data: PreprocessedData) -> torch.Tensor | None:
    if recipe.class_weights == "none":
        return None
    return inverse_frequency(data.train["diagnosis"].to_numpy(), len(data.classes))


def start(
    recipe: Recipe, *, data: PreprocessedData, accelerator: Accelerator, updates_per_epoch: int, pretrained: bool
) -> Run:
    """A run before its first epoch, with pretrained weights unless saved ones replace them. Raises UsageError for an
    unknown backbone or missing weights."""
    objective = objectives.build(recipe, num_classes=len(data.classes), class_weights=_class_weights(recipe, data))
    with accelerator.local_main_process_first():  # one download per machine, then read from disk
        model = build(
            recipe,
            num_outputs=objective.num_outputs,
            pretrained=pretrained,
            architecture=architecture.resolve(recipe.backbone),
            # otherwise the statistics are those of one process's batch; torch supports it on GPUs only
            sync_batch_norm=distributed.world_size > 1 and accelerator.device.type == "cuda",
        )
    check(model, recipe, num_outputs=objective.num_outputs)
    if accelerator.device.type == "cpu" and accelerator.mixed_precision == "bf16":
        surgery.widen_slow_convolutions(model.backbone)
    if recipe.grad_checkpointing:
        surgery.checkpoint_gradients(model.backbone, recipe.backbone)
    optimizer = build_optimizer(recipe, model)
    scheduler = build_scheduler(recipe, optimizer, updates_per_epoch=updates_per_epoch)
    model, optimizer = accelerator.prepare(model, optimizer)
    ema = None
    if recipe.ema_decay is not None:
        ema = ModelEmaV3(accelerator.unwrap_model(model), decay=recipe.ema_decay, use_warmup=True)
    run = Run(recipe, data, accelerator, objective, model, optimizer, scheduler, ema)
    if pretrained and recipe.pretrained not in ("imagenet", "none"):
        run.pretrained_name_hashes = _pretrained_name_hashes(recipe.pretrained)
    return run


def _pretrained_name_hashes(path: str) -> np.ndarray:
    """The names that a checkpoint was trained and validated with (N,) int64, none for a bare state_dict."""
    data = load_tensors(path).get("data")
    names = data.get("name_hashes") if isinstance(data, Mapping) else None
    known = isinstance(names, torch.Tensor) and names.dtype == torch.int64 and names.ndim == 1
    return names.numpy() if known else np.empty(0, np.int64)


def pretraining_overlap(run: Run) -> list[str]:
    """A line for each evaluated split that shares images with the training of the weights that the run started from."""
    lines = []
    for split in EVALUATED_SPLITS:
        table = getattr(run.data, split)
        count = 0 if table is None else int(np.isin(name_hashes(table), run.pretrained_name_hashes).sum())
        if count:
            lines.append(
                f"{count} of {len(table)} {SPLIT_NAMES[split]} images match, by name, images that "
                f"{run.recipe.pretrained} was trained or validated on; metrics on them are optimistic"
            )
    return lines


def checkpoint(
    run: Run, path: Path, *, thresholds: np.ndarray | None, predictions: np.ndarray | None = None
) -> Checkpoint:
    """The checkpoint of the last epoch, to be saved as `path`, with its validation predictions (N, P)."""
    kept = {}
    if predictions is not None:
        kept["val"] = Predictions(predictions=predictions, truth=run.data.val["diagnosis"].to_numpy(copy=True))
    metrics = {name: float(value) for name, value in run.history[-1].items() if name != "epoch"}
    return Checkpoint(
        path=path,
        model={key: value.detach().cpu().clone() for key, value in run.evaluated.backbone.state_dict().items()},
        recipe=run.recipe,
        architecture=run.bare_model.architecture,
        thresholds=None if thresholds is None else tuple(thresholds.tolist()),
        classes=tuple(run.data.classes),
        data=DataRecord(
            fingerprint=run.data.fingerprint,
            size_px=run.data.size_px,
            crop=run.data.crop,
            name_hashes=np.union1d(name_hashes(run.data.train, run.data.val), run.pretrained_name_hashes),
            pretrained_name_hashes=run.pretrained_name_hashes,
            fold=run.data.fold,
        ),
        epoch=run.epoch,
        metrics={"val": metrics},
        predictions=kept,
        versions=versions(),
        notes=tuple(pretraining_overlap(run)),
    )


def random_states(run: Run) -> list[RandomState]:
    """The random generators of each process: dropout and mixing differ between processes."""
    on_gpu = run.accelerator.device.type == "cuda"
    cuda = torch.cuda.get_rng_state(run.accelerator.device) if on_gpu else None
    return distributed.all_gather(RandomState(torch=torch.get_rng_state(), cuda=cuda))


def training_state(run: Run, random: list[RandomState]) -> TrainingState:
    """What an unbroken run would still have in memory, beside its checkpoint."""
    return TrainingState(
        raw_model=dict(run.bare_model.backbone.state_dict()) if run.ema else None,
        optimizer=run.optimizer.state_dict(),
        scheduler=run.scheduler.state_dict() if run.scheduler is not None else None,
        scaler=run.accelerator.scaler.state_dict() if run.accelerator.scaler is not None else None,
        random=random,
        epoch=run.epoch,
        updates=run.updates,
        history=run.history,
        recorded=dict(run.recorded),
    )
