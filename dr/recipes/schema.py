"""Recipe: every option of a training run, checked when it is built."""

import dataclasses
import reprlib
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from dr import UsageError
from dr.recipes.synonyms import nearest_options, nearest_value

MIN_IMAGE_SIZE = 16  # five halvings must leave a pixel
LOSSES = {  # allowed for each objective; its default first
    "regression": ("smooth_l1", "l1", "mse"),
    "ordinal": ("bce",),
    "classification": ("cross_entropy", "focal"),
    "binary": ("bce",),
}

Count = Annotated[int, Field(gt=0, le=10**6)]
Pixels = Annotated[int, Field(ge=MIN_IMAGE_SIZE, le=8192)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Epochs = Annotated[tuple[Count, ...], Field(strict=False)]  # a list of TOML becomes a tuple


@dataclass(frozen=True, kw_only=True, config=ConfigDict(strict=True, extra="forbid", allow_inf_nan=False))
class Recipe:
    """Every option of a run. The defaults are the published method, except for its thresholds.

    Raises UsageError for a value that cannot work; `dataclasses.replace` checks the new values, too.
    """

    # network
    # a name of torchvision, else of timm; hf-hub:OWNER/NAME of the Hugging Face Hub; local-dir:PATH of a timm export
    backbone: Annotated[str, Field(min_length=1, max_length=256)] = "efficientnet_v2_m"
    # imagenet (the library's default weights; those of the repository for hf-hub:), none, or a path
    pretrained: Annotated[str, Field(min_length=1, max_length=4096)] = "imagenet"
    freeze: Literal["none", "backbone"] = "none"  # backbone: only the head is trained (linear probe)
    head: Literal["linear", "relu_256", "leaky_relu_256"] = "linear"  # *_256: a hidden layer of 256; leaky: dropout 0.5
    dropout: Fraction | None = None  # before the last layer; None keeps the backbone's
    activation: Literal["default", "silu"] = "default"  # silu replaces every ReLU
    # no_pool: a ResNet without its max-pool; small: no halving in the stem; cifar: 3 x 3, no halving
    stem: Literal["default", "no_pool", "small", "cifar"] = "default"
    pooling: Literal["default", "gem"] = "default"  # gem: generalised mean in place of the mean
    # probability of skipping a residual block, from 0 at the first to this at the last; None keeps the backbone's
    stochastic_depth: Fraction | None = None
    shakedrop: Fraction | None = None  # depth-linear probability that the last residual block is dropped
    normalisation: Literal["backbone", "dataset"] = "backbone"  # dataset: mean and std of the training images
    # of the input in 0..1, RGB; None: those of `normalisation`
    mean: Annotated[tuple[float, float, float], Field(strict=False)] | None = None
    std: Annotated[tuple[Positive, Positive, Positive], Field(strict=False)] | None = None
    # objective
    objective: Literal["regression", "ordinal", "classification", "binary"] = "regression"
    # None becomes the objective's default: smooth_l1, bce, cross_entropy, bce
    loss: Literal["smooth_l1", "l1", "mse", "bce", "cross_entropy", "focal"] | None = None
    focal_gamma: NotNegative = 3.0
    class_weights: Literal["none", "inverse"] = "none"  # inverse: losses weighted by the inverse class frequency
    label_smoothing: Fraction = 0.0  # share of the target spread over all classes
    neighbour_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = (
        0.0  # share of the target moved to each neighbouring grade
    )
    mixup: Positive | None = None  # alpha of Beta(alpha, alpha)
    cutmix: Positive | None = None
    positive_from: Count = 1  # binary: the lowest positive grade
    # images
    image_size: Pixels = 380
    crop_size: Pixels | None = None  # cropped from image_size: at random in training, the centre in evaluation
    augmentation: Literal[
        "published", "rotation_colour", "d4_colour", "retinamnist", "flips", "small", "none"
    ] = "published"  # fmt: skip
    sampling: Literal["shuffle", "sqrt", "balanced"] = "shuffle"  # draw grades by sqrt of frequency, or equally often
    # optimisation
    batch_size: Count = 18  # of each process, if torchrun starts several
    accumulate: Count = 1  # batches in an update: the gradient of a larger batch, the memory of one
    grad_checkpointing: bool = False  # recompute activations instead of keeping them: less memory, a third more time
    epochs: Count = 30
    optimizer: Literal["adamw", "adam", "sgd", "rmsprop"] = "adamw"
    lr: Positive = 0.001
    # factor of the learning rate from each layer to the one before; None: one learning rate for all
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    weight_decay: NotNegative = 0.01
    amsgrad: bool = True
    momentum: Fraction = 0.9  # of sgd and rmsprop
    nesterov: bool = False  # of sgd
    scheduler: Literal["step", "multistep", "exponential", "plateau", "cosine", "none"] = "step"
    step_epochs: Count = 10  # step: epochs between decays
    milestones: Epochs = (10, 20)  # multistep: epochs of decays
    gamma: Positive = 0.1  # factor of lr at a decay
    plateau_epochs: Count = 5  # plateau: epochs without a lower validation loss that are tolerated; the next one decays
    warmup_fraction: Fraction = 0.0  # share of the run during which lr grows linearly from lr / 100
    # exponential moving average of the weights, by update; at update n at most 1 - n^(-2/3), which averages short runs
    ema_decay: Fraction | None = None
    clip_norm: Positive | None = 1.0  # greatest norm of the gradient of an update
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 10
    # selection of the epoch, and decision
    # metric that selects the best epoch
    monitor: Literal["macro_f1_cross_fitted", "kappa_cross_fitted", "accuracy", "auc", "val_loss", "last"] = (
        "macro_f1_cross_fitted"
    )
    patience: Count | None = None  # epochs without an improvement before training ends
    keep_epochs: Epochs = ()  # the weights of these epochs are kept
    # calibrated: highest expected macro-F1 under a model of the grades that is fitted to the scores; optimal: highest
    # macro-F1 on the validation images; bagged: mean of optimal over bootstrap samples; kappa: highest quadratic kappa
    # on the validation images; round: fixed at .5, 1.5, ...; argmax: the most probable grade of ordinal outputs
    thresholds: Literal["calibrated", "optimal", "bagged", "kappa", "round", "argmax"] = "calibrated"
    # test-time augmentation: none, four flips, eight orientations, five or ten shifted crops
    tta: Literal["none", "flips", "d4", "five", "ten"] = "none"
    tta_by: Literal["mean", "vote"] = "mean"  # vote: the grade of most TTA views

    @model_validator(mode="wrap")
    @classmethod
    def _one_line(cls, values: Any, handler: ModelWrapValidatorHandler) -> Any:
        try:
            return handler(values)
        except ValidationError as exc:
            raise UsageError(f"recipe: {_describe(exc)}") from exc

    def __post_init__(self):
        if self.loss is None:
            object.__setattr__(self, "loss", LOSSES[self.objective][0])  # the class is frozen
        for fault in _conflicts(self):
            raise UsageError(f"recipe: {fault}")

    def to_dict(self) -> dict[str, Any]:
        """As primitives, for a checkpoint or TOML."""
        return dataclasses.asdict(self)


FIELDS = get_type_hints(Recipe)
OPTIONS = {name: get_args(hint) for name, hint in FIELDS.items() if get_origin(hint) is Literal}


def _conflicts(recipe: Recipe) -> list[str]:
    """Each pair of options that exclude each other, as fault and remedy; the option at fault comes first."""
    r = recipe
    rising = {
        name: list(getattr(r, name))
        for name in ("keep_epochs", "milestones")
        if list(getattr(r, name)) != sorted(set(getattr(r, name)))
    }
    others = [objective for objective, losses in LOSSES.items() if r.loss in losses]
    found = {
        f"loss of objective {r.objective} must be one of {', '.join(LOSSES[r.objective])}, got {r.loss!r}; use one of "
        f"these, or set objective={' or objective='.join(others)}": r.loss not in LOSSES[r.objective],
        f"thresholds argmax is not for objective {r.objective}, which predicts one score; use thresholds=calibrated": (
            r.thresholds == "argmax" and r.objective in ("regression", "binary")
        ),
        "shakedrop replaces stochastic_depth; set one of them to none": (
            r.shakedrop is not None and r.stochastic_depth is not None
        ),
        f"crop_size {r.crop_size} is greater than image_size {r.image_size}; reduce it": (
            r.crop_size is not None and r.crop_size > r.image_size
        ),
        "nesterov needs a momentum above 0; set momentum=0.9 or nesterov=false": (
            r.nesterov and r.optimizer == "sgd" and not r.momentum
        ),
        f"gamma of scheduler plateau must be less than 1, got {r.gamma}": r.scheduler == "plateau" and r.gamma >= 1,
        f"warmup_fraction has no effect with scheduler {r.scheduler}; set it to 0 or use another scheduler": (
            r.warmup_fraction > 0 and r.scheduler in ("none", "plateau")
        ),
        "patience has no effect with monitor=last, for which every epoch is the best; set patience=none": (
            r.patience is not None and r.monitor == "last"
        ),
        "layer_decay has no effect with freeze=backbone, which trains the head alone; set one of them to none": (
            r.layer_decay is not None and r.freeze == "backbone"
        ),
        **{f"{name} must be rising epochs from 1, got {epochs}": True for name, epochs in rising.items()},
    }
    return [text for text, wrong in found.items() if wrong]


# --- a ValidationError as one line -----------------------------------------------------------------

_BOUNDS = {
    "greater_than": ("greater than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60
_SHORT.maxtuple = _SHORT.maxlist = 10
_SHORT.maxlevel = 2


def short(value: object) -> str:
    """repr of any value, in one short line of printable characters."""
    try:
        return _SHORT.repr(value).replace("\n", " ")
    except ValueError:  # of an int with more digits than Python prints
        return f"a {type(value).__name__}"


def unknown_option(key: object) -> str:
    """The fault and the remedy of a key that no recipe has: the nearest options, a flag, else all options."""
    close = nearest_options(key, FIELDS) if isinstance(key, str) else []
    remedy = f"did you mean {', '.join(close)}?" if close else f"known are {', '.join(FIELDS)}"
    if close and close[0] not in FIELDS:
        remedy = close[0] if " " in close[0] and not close[0].startswith("-") else f"use the flag {close[0]}"
    return f"unknown option {short(key)}; {remedy}"


def _describe(error: ValidationError) -> str:
    """The first fault -> the option, what it must be, and the value."""
    first = error.errors(include_url=False)[0]
    name, kind = str(first["loc"][0]), first["type"]
    if kind == "unexpected_keyword_argument":
        return unknown_option(name)
    if kind in _BOUNDS:
        words, bound = _BOUNDS[kind]
        pixels = " pixels" if name in ("image_size", "crop_size") else ""
        rule = f"{words} {first['ctx'][bound]:.10g}{pixels}"
    elif kind == "finite_number":
        rule = "a finite number"
    elif kind == "string_too_long":
        rule = f"at most {first['ctx']['max_length']} characters"
    else:
        rule = type_name(FIELDS[name])
    return f"{name} must be {rule}, got {short(first['input'])}{_hint(name, first['input'])}"


def _hint(name: str, value: object) -> str:
    """The end of an error about a value: the allowed value it resembles, or how to switch the option off."""
    hint = FIELDS[name]
    optional = type(None) in get_args(hint)
    literal = next((part for part in (hint, *get_args(hint)) if get_origin(part) is Literal), None)
    if literal is not None and (isinstance(value, (str, bool)) or (isinstance(value, int) and abs(value) < 100)):
        close = nearest_value(name, value, get_args(literal))
        return f"; did you mean {close}?" if close else ""
    off = optional and name not in ("mean", "std") and isinstance(value, (bool, int, float)) and not value
    return "; none switches it off" if off else ""


def type_name(hint: Any) -> str:
    """The type of a field -> its description in an error."""
    if type(None) in get_args(hint):
        return f"{type_name(get_args(hint)[0])} or none"
    if get_origin(hint) is Literal:
        return f"one of {', '.join(get_args(hint))}"
    if get_origin(hint) is tuple:
        return "a list of whole numbers, as [30, 45]" if Ellipsis in get_args(hint) else "three numbers (R, G, B)"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a non-empty string"}[hint]
