"""Recipe: every choice of a training run in one place, checked when it is built."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from dr import UsageError

OPTIONS = {
    "objective": ("regression", "ordinal", "classification", "binary"),
    "head": ("linear", "relu_256", "leaky_relu_256"),
    "activation": ("own", "silu"),
    "stem": ("own", "no_pool", "small", "cifar"),
    "pooling": ("own", "gem"),
    "normalisation": ("own", "measured"),
    "augmentation": ("published", "rotation_colour", "d4_colour", "retinamnist", "flips", "small", "none"),
    "sampling": ("shuffle", "sqrt", "balanced"),
    "class_weights": ("none", "inverse"),
    "optimizer": ("adamw", "adam", "sgd", "rmsprop"),
    "scheduler": ("step", "multistep", "exponential", "plateau", "cosine", "none"),
    "best_by": ("macro_f1_cross_fitted", "kappa_cross_fitted", "accuracy", "auc", "val_loss", "last"),
    "thresholds": ("calibrated", "optimal", "bagged", "kappa", "round", "argmax"),
    "tta": ("none", "flips", "d4", "five", "ten"),
    "tta_by": ("mean", "vote"),
    "precision": ("auto", "fp32", "bf16", "fp16"),
}
MIN_IMAGE_SIZE = 16  # what a network that halves its pictures five times can still take
LOSSES = {  # of each objective, its own first
    "regression": ("smooth_l1", "l1", "mse"),
    "ordinal": ("bce",),
    "classification": ("cross_entropy", "focal"),
    "binary": ("bce",),
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every choice of a run. The defaults are the published method but for its cuts; a value that cannot work raises
    UsageError."""

    # network
    backbone: str = "efficientnet_v2_m"  # a name of torchvision, else of timm
    pretrained: str = "imagenet"  # imagenet, none, or a path
    head: str = "linear"  # relu_256, leaky_relu_256: a hidden layer of 256 before it, the latter with dropout 0.5
    dropout: float | None = None  # before the last layer; None keeps the backbone's own
    activation: str = "own"  # silu takes the place of every ReLU
    stem: str = "own"  # no_pool: a ResNet without its max-pool; small: no halving in it; cifar: 3 x 3, no halving
    pooling: str = "own"  # gem: generalised mean in place of the mean
    # probability that a sample skips a residual block, from 0 at the first to about this; None keeps the backbone's own
    stochastic_depth: float | None = None
    shakedrop: float | None = None  # depth-linear probability that the last residual block is dropped
    normalisation: str = "own"  # measured: mean and std are those of the training photographs
    mean: tuple[float, ...] | None = None  # of the input in 0..1, by channel RGB; None takes the backbone's own
    std: tuple[float, ...] | None = None
    # objective
    objective: str = "regression"
    loss: str | None = None  # None becomes the objective's own: smooth_l1, bce, cross_entropy, bce
    focal_gamma: float = 3.0
    class_weights: str = "none"  # inverse: losses weighted by the inverse of the class frequency
    label_smoothing: float = 0.0  # share of the target spread over all classes
    neighbour_smoothing: float = 0.0  # share of the target given to each neighbouring grade
    mixup: float | None = None  # of Beta(mixup, mixup)
    cutmix: float | None = None
    positive_from: int = 1  # binary: grades from this one on are positive
    # photographs
    image_size: int = 380
    crop_size: int | None = None  # cut out of image_size: anywhere to train, the centre to evaluate
    augmentation: str = "published"
    sampling: str = "shuffle"  # sqrt, balanced: grades are drawn by the square root of their frequency, or equally
    # optimisation
    batch_size: int = 18  # of each process, where torchrun starts several
    accumulate: int = 1  # batches to an update: the gradient of a batch so many times as large, in the memory of one
    grad_checkpointing: bool = False  # activations are computed twice instead of kept: less memory, a third more time
    epochs: int = 30
    optimizer: str = "adamw"
    lr: float = 0.001
    weight_decay: float = 0.01
    amsgrad: bool = True
    momentum: float = 0.9  # of sgd and rmsprop
    nesterov: bool = False  # of sgd
    scheduler: str = "step"
    step_epochs: int = 10  # step: epochs between decays
    milestones: tuple[int, ...] = (10, 20)  # multistep: epochs of decays
    gamma: float = 0.1  # what lr is multiplied with at a decay
    plateau_epochs: int = 5  # plateau: epochs without a lower validation loss that are tolerated; the next one decays
    warmup_fraction: float = 0.0  # share of the run during which lr grows linearly from 1/100
    # exponential moving average of the weights, by update; at update n at most 1 - n^(-2/3), which averages short runs
    ema_decay: float | None = None
    clip_norm: float | None = 1.0  # greatest norm of the gradient of an update
    precision: str = "auto"
    seed: int = 10
    # which epoch, which decision
    best_by: str = "macro_f1_cross_fitted"
    patience: int | None = None  # epochs without a better one before training ends
    keep_epochs: tuple[int, ...] = ()  # weights of these epochs are kept as NAME__epoch_N.pt
    # calibrated: of highest expected macro-F1, grades being as likely as a model fitted to the scores says; optimal: of
    # highest macro-F1 on the very photographs; bagged: their mean over bootstrap samples; kappa: of highest quadratic
    # kappa on the very photographs; round: none fitted; likeliest: ordinal, uncut
    thresholds: str = "calibrated"
    # views of a photograph to test and predict with: its flips, its eight orientations, or five or ten shifted ones
    tta: str = "none"
    tta_by: str = "mean"  # vote: the grade that most views get

    def __post_init__(self):
        for name, allowed in OPTIONS.items():
            if getattr(self, name) not in allowed:
                raise UsageError(f"recipe: {name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        if self.loss is None:
            object.__setattr__(self, "loss", LOSSES[self.objective][0])  # the class is frozen
        if self.loss not in LOSSES[self.objective]:
            allowed = ", ".join(LOSSES[self.objective])
            raise UsageError(f"recipe: loss of objective {self.objective} must be one of {allowed}, got {self.loss!r}")
        if self.thresholds == "argmax" and self.objective in ("regression", "binary"):
            raise UsageError(
                f"recipe: cuts likeliest is for objective ordinal, {self.objective} has none; use --set cuts=calibrated"
            )
        self._check_ranges()
        if self.shakedrop is not None and self.stochastic_depth is not None:
            raise UsageError("recipe: shakedrop takes the place of stochastic_depth; leave one of them out")
        if self.crop_size is not None and self.crop_size > self.image_size:
            raise UsageError(f"recipe: crop_size {self.crop_size} is greater than image_size {self.image_size}")
        for name in ("mean", "std"):
            value = getattr(self, name)
            if value is not None and len(value) != 3:
                raise UsageError(f"recipe: {name} needs three values (R, G, B), got {len(value)}")
        if self.std is not None and min(self.std) <= 0:
            raise UsageError(f"recipe: std must be greater than 0, got {min(self.std)}")

    def _check_ranges(self) -> None:
        for name, value in self.to_dict().items():
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, float) and math.isnan(number):
                    raise UsageError(f"recipe: {name} must be a number, got nan")
        positive = ("batch_size", "epochs", "lr", "step_epochs", "plateau_epochs", "gamma")
        for name in (*positive, "accumulate", "patience", "mixup", "cutmix", "clip_norm", "positive_from"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UsageError(f"recipe: {name} must be greater than 0, got {value}")
        for name in ("image_size", "crop_size"):
            value = getattr(self, name)
            if value is not None and value < MIN_IMAGE_SIZE:
                raise UsageError(f"recipe: {name} must be at least {MIN_IMAGE_SIZE} pixels, got {value}")
        for name in ("weight_decay", "momentum", "seed", "focal_gamma"):
            if getattr(self, name) < 0:
                raise UsageError(f"recipe: {name} must not be negative, got {getattr(self, name)}")
        if self.momentum >= 1 or (self.nesterov and self.optimizer == "sgd" and not self.momentum):
            lowest = "above 0, for nesterov, and" if self.nesterov else "from 0 to"
            raise UsageError(f"recipe: momentum must be {lowest} below 1, got {self.momentum}")
        if self.seed >= 2**32:
            raise UsageError(f"recipe: seed must be less than 2**32, got {self.seed}")
        if self.scheduler == "plateau" and self.gamma >= 1:
            raise UsageError(f"recipe: gamma of scheduler plateau must be below 1, got {self.gamma}")
        if self.warmup_fraction and self.scheduler in ("none", "plateau"):
            raise UsageError(f"recipe: scheduler {self.scheduler} has no warm-up; leave out warmup_fraction")
        for name in ("keep_epochs", "milestones"):
            epochs = list(getattr(self, name))
            if any(epoch < 1 for epoch in epochs) or epochs != sorted(set(epochs)):
                raise UsageError(f"recipe: {name} must be epochs from 1 that rise, got {epochs}")
        for name in ("dropout", "stochastic_depth", "shakedrop", "ema_decay", "warmup_fraction", "label_smoothing"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise UsageError(f"recipe: {name} must lie between 0 and 1, got {value}")
        if not 0 <= self.neighbour_smoothing < 0.5:
            raise UsageError(f"recipe: neighbour_smoothing must lie between 0 and 0.5, got {self.neighbour_smoothing}")

    def to_dict(self) -> dict[str, Any]:
        """As primitives, for a checkpoint or TOML."""
        return dataclasses.asdict(self)
