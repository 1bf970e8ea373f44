"""The optimizer and the learning-rate scheduler of a recipe, timm's but for a plateau."""

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch.optim.lr_scheduler import ReduceLROnPlateau

from dr.networks.build import GradingNetwork
from dr.recipes.schema import Recipe


def build_optimizer(recipe: Recipe, model: GradingNetwork) -> torch.optim.Optimizer:
    """Holds the parameters that are trained. With `layer_decay` each layer of the backbone is a group, which timm's
    schedulers scale by its `lr_scale`."""
    options = {"amsgrad": recipe.amsgrad} if recipe.optimizer in ("adam", "adamw") else {"momentum": recipe.momentum}
    if recipe.optimizer == "rmsprop":
        options["alpha"] = 0.99  # torch's; timm's is TensorFlow's
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = create_optimizer_v2(
        trained if recipe.layer_decay is None else model.backbone,
        # timm's "sgd" is Nesterov's, its "momentum" is not
        opt="momentum" if recipe.optimizer == "sgd" and not recipe.nesterov else recipe.optimizer,
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        filter_bias_and_bn=False,
        layer_decay=recipe.layer_decay,
        **options,
    )
    if recipe.scheduler in ("none", "plateau"):  # not timm's: the groups keep their own learning rates
        for group in optimizer.param_groups:
            group["lr"] *= group.get("lr_scale", 1.0)
    return optimizer


def build_scheduler(
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
        # timm's multistep decays one update early: half an update more moves it to the first of the next epoch
        decay_milestones=[epoch + 0.5 / updates_per_epoch for epoch in recipe.milestones],
        decay_rate=recipe.gamma,
        warmup_epochs=recipe.warmup_fraction * recipe.epochs,
        warmup_lr=recipe.lr / 100,
        step_on_epochs=False,
        updates_per_epoch=updates_per_epoch,
    )[0]
