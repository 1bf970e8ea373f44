"""What `train.py --list` prints of recipes and options."""

from collections.abc import Iterable

from dr.recipes.load import FOLDER, available, option_text
from dr.recipes.schema import FIELDS, LOSSES, OPTIONS, Recipe, type_name

HEADINGS = ("Command", "Cost", "Expected", "Measured", "Other options by --set")  # in the head comments of recipes
MEANINGS = {
    "backbone": "a name of torchvision, else of timm; hf-hub:OWNER/NAME; local-dir:PATH",
    "pretrained": "initial weights: imagenet, none, or a path",
    "freeze": "backbone: train only the head",
    "head": "classifier; *_256 has a hidden layer of 256 units",
    "dropout": "dropout before the last layer; none keeps the backbone's",
    "activation": "silu replaces every ReLU",
    "stem": "no_pool: a ResNet without max-pool; small: stride 1; cifar: 3 x 3, stride 1",
    "pooling": "gem: generalised mean",
    "stochastic_depth": "probability of skipping the last residual block; none keeps the backbone's",
    "shakedrop": "probability that the last residual block is dropped, linear in depth",
    "normalisation": "dataset: mean and standard deviation of the training images",
    "mean": "of the input in 0..1, by channel RGB; none: by option normalisation",
    "std": "of the input in 0..1, by channel RGB; none: by option normalisation",
    "objective": "what the outputs predict: the grade as a number, ordered grades, classes, or two classes",
    "loss": "none: the first of its objective",
    "focal_gamma": "exponent of the focal loss",
    "class_weights": "inverse: losses weighted by the inverse class frequency",
    "label_smoothing": "share of the target spread over all classes",
    "neighbour_smoothing": "share of the target moved to each neighbouring grade",
    "mixup": "alpha of the Beta distribution",
    "cutmix": "alpha of the Beta distribution",
    "positive_from": "objective binary: the lowest positive grade",
    "image_size": "pixels of the input",
    "crop_size": "crop of image_size: random in training, centred in evaluation",
    "augmentation": "random changes of the training images",
    "sampling": "draw grades by the square root of their frequency, or equally often",
    "batch_size": "images in a batch of each process",
    "accumulate": "batches in one update",
    "grad_checkpointing": "recompute activations instead of keeping them: less memory, more time",
    "epochs": "number of epochs",
    "optimizer": "update rule of the weights",
    "lr": "learning rate",
    "layer_decay": "factor of the learning rate from each layer to the one below it",
    "weight_decay": "L2 regularisation of the weights, decoupled in adamw",
    "amsgrad": "of adamw and adam",
    "momentum": "of sgd and rmsprop",
    "nesterov": "of sgd",
    "scheduler": "learning-rate schedule",
    "step_epochs": "scheduler step: epochs between decays",
    "milestones": "scheduler multistep: epochs of decays",
    "gamma": "factor of lr at each decay",
    "plateau_epochs": "scheduler plateau: epochs without a lower validation loss before a decay",
    "warmup_fraction": "share of the run with linear warm-up of lr",
    "ema_decay": "decay of the exponential moving average of the weights, per update",
    "clip_norm": "maximum gradient norm",
    "precision": "of the computation; auto: bf16 or fp16 where the hardware is fast at it",
    "seed": "random seed of initial weights, order and augmentation",
    "monitor": "metric that selects the best epoch",
    "patience": "stop after this many epochs without a better one",
    "keep_epochs": "keep the weights of these epochs",
    "thresholds": "rule that fits the thresholds between grades; argmax: the most probable grade",
    "tta": "test-time augmentation: flips, eight orientations, five or ten shifted crops",
    "tta_by": "how TTA views are combined",
}


def _allowed(name: str) -> str:
    if name == "loss":
        return "; ".join(f"{objective}: {', '.join(losses)}" for objective, losses in LOSSES.items())
    return ", ".join(OPTIONS[name]) if name in OPTIONS else type_name(FIELDS[name])


def _chosen(names: Iterable[str], words: Iterable[str]) -> list[str]:
    """The names that contain one of `words`, in any case; all names without words."""
    words = [word.casefold().replace("-", "_") for word in words]
    return [name for name in names if not words or any(word in name.casefold() for word in words)]


def option_lines(words: Iterable[str] = ()) -> list[str]:
    """A line for each option, as --set takes it: its default, its meaning and its values."""
    pairs = {name: f"{name}={option_text(getattr(Recipe, name))}" for name in _chosen(FIELDS, words)}
    width = max(map(len, pairs.values()), default=0)
    return [f"{pair:{width}}  {MEANINGS[name]} [{_allowed(name)}]" for name, pair in pairs.items()]


def head(name: str) -> dict[str, str]:
    """The head comment of a recipe, each part in one line: `Description` and HEADINGS."""
    parts: dict[str, list[str]] = {"Description": []}
    for line in (FOLDER / f"{name}.toml").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        heading, colon, text = line.lstrip("# ").partition(":")
        if colon and heading in HEADINGS:
            parts[heading] = [text.strip()]
        else:
            parts[list(parts)[-1]].append(line.lstrip("# "))
    return {heading: " ".join(lines) for heading, lines in parts.items()}


def recipe_lines(words: Iterable[str] = ()) -> list[str]:
    """Two lines for each recipe: its name and what it is, its cost."""
    lines = []
    for name in _chosen(available(), words):
        parts = head(name)
        sentence = parts["Description"].partition(". ")[0].removesuffix(".")
        lines += [f"{name}: {sentence}", f"    cost: {parts['Cost']}"]
    return lines
