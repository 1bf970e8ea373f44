"""The flags of the three commands, in groups, each declared once with its help, type and default."""

import argparse
import os
import re

from dr import POLICIES
from dr.core import distributed
from dr.recipes.schema import OPTIONS, Recipe

DEFAULT_NAME = "efficientnet_v2_m__size_380__crop__aug__adamw__lr_0001_10_01"
DEFAULT_MODEL = f"weights/{DEFAULT_NAME}__best.pt"
# allotted cores, shared by the processes of torchrun
_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
_WORKERS = max(1, _CORES // distributed.local_world_size)
_DEVICES = "auto, cpu, cuda, cuda:1 or mps"


def _count_or_all(text: str) -> int | str:
    if text != "all" and not re.fullmatch("-?[0-9]+", text):
        raise argparse.ArgumentTypeError(f"expected a number or all, got {text!r}")
    return text if text == "all" else int(text)


def _device(text: str) -> str:
    if found := re.fullmatch(r"(?:gpu:?)?([0-9]*)(?:,[0-9]+)*", text, re.IGNORECASE):
        device = f"cuda:{found[1]}" if found[1] else "cuda"
        raise argparse.ArgumentTypeError(f"expected {_DEVICES}, got {text!r}; use {device}")
    return text


def parse_fold(text: str) -> tuple[int, int]:
    number, _, of = text.partition("/")
    if not (re.fullmatch("[0-9]+/[0-9]+", text) and 1 <= int(number) <= int(of) >= 2):
        raise argparse.ArgumentTypeError(f"expected K/N as 1/5, K from 1 to N and N at least 2, got {text!r}")
    return int(number), int(of)


def _pattern(text: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(text)
    except re.error as exc:
        raise argparse.ArgumentTypeError(f"{text!r} is not a regular expression: {exc}") from exc
    if not pattern.groups:
        raise argparse.ArgumentTypeError(f"{text!r} has no group; put the patient in parentheses, as '(P[0-9]+)_'")
    return pattern


def _prevalence(text: str) -> tuple[float, ...] | str:
    if text == "auto":
        return text
    try:
        shares = tuple(float(share) for share in text.split(","))
    except ValueError:
        shares = ()
    if not (shares and all(share >= 0 for share in shares) and round(abs(sum(shares) - 1), 6) <= 0.01):
        raise argparse.ArgumentTypeError(
            "expected auto, or a share of each class, none negative, that sum to 1, as 0.73,0.07,0.15,0.03,0.02, "
            f"got {text!r}{f', which sum to {sum(shares):g}' if shares else ''}"
        )
    return tuple(share / sum(shares) for share in shares)


# fmt: off
def add_data_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of data.py."""
    add = parser.add_argument_group("input and output").add_argument
    add("-m", "--zip_main", default="diabetic-retinopathy-classification-f1-score-4.zip",
        help="the 2019-style competition archive, a folder with its content, or other labelled images")
    add("-a", "--zip_2015",
        help="the 2015 archive, or a folder with its content; none omits it (default: train_image_resized.zip with the "
             "competition archive, else none)")
    add("-d", "--directory", default="data", help="write kaggle_retina/ into this folder")
    add("--force", action="store_true", help="replace a folder that was written with other settings")
    add = parser.add_argument_group("label table").add_argument
    add("--id_column", metavar="NAME", help="column that names the images (default: id_code or image)")
    add("--label_column", metavar="NAME", help="column with the classes (default: diagnosis or level)")
    add("--patient_column", metavar="NAME",
        help="column that names the patients; all images of a patient are kept in one split")
    add("--patient_pattern", type=_pattern, metavar="REGEX",
        help="regular expression for image paths, as '(P[0-9]+)_'; its group is the patient")
    add("--table", metavar="NAME", help="label table to use, if there are several")
    add("--root", metavar="FOLDER", help="folder of the archive to read, if several hold splits")
    add("--ungradable", choices=("drop", "keep"), default="drop",
        help="leave out images labelled ungradable (empty, -1, 5, words), or keep them as a class of their own")
    add("--conflicts", choices=POLICIES, default="drop", help="how to treat duplicates with conflicting grades")
    add = parser.add_argument_group("selection and split").add_argument
    add("--per_class", type=_count_or_all,
        help="training images of each grade, or all (default: 1000 with the competition archive, else all)")
    add("--val_fraction", type=float, default=0.2,
        help="share of the main archive held out for validation, if it has no validation split of its own")
    add("--seed", type=int, default=10, help="seed of the selection and the split")
    add = parser.add_argument_group("preprocessing").add_argument
    add("--size", type=int, default=512, help="longest side of a preprocessed image, in pixels")
    add("--no_crop", action="store_false", dest="crop",
        help="do not crop to the retina (for images other than fundus photographs)")
    add("--stereo", action="store_true", help="split frames with two retinas side by side into two images")
    add("--workers", type=int, default=_WORKERS, help="processes that preprocess images (default: all cores)")


def add_train_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of train.py."""
    add = parser.add_argument_group("input and output").add_argument
    add("-d", "--data", default="data", help="folder that data.py wrote")
    add("-s", "--save", default="weights", help="write checkpoints, tables and plots into this folder")
    add("-n", "--name",
        help=f"name of the run and its files (default: the recipe's name; without a recipe {DEFAULT_NAME})")
    add("--log", choices=("tensorboard", "wandb", "mlflow"),
        help="also log recipe and metrics to this experiment tracker, under NAME/logs")
    add = parser.add_argument_group("recipe").add_argument
    add("-r", "--recipe", help="name in dr/recipes or path of a TOML file (default: the published method)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
        help="change one option of the recipe; may be repeated")
    add("-b", "--batch_size", type=int,
        help=f"images in a batch of each process (default: the recipe's, {Recipe.batch_size})")
    add("-e", "--epochs", type=int, help=f"passes over the training images (default: the recipe's, {Recipe.epochs})")
    add("--pretrained", metavar="imagenet|none|PATH", help="initial weights (default: the recipe's)")
    add("--seed", type=int,
        help=f"seed of initial weights, order and augmentation (default: the recipe's, {Recipe.seed})")
    add = parser.add_argument_group("runs").add_argument
    add("--fold", type=parse_fold, metavar="K/N",
        help="hold out fold K of N, of whole patients, as a test split")
    add("--sweep", action="append", default=[], metavar="KEY=VALUE,VALUE",
        help="train with each of these values (fold=1/5,2/5 sweeps folds); repeated, with every combination")
    add("--resume", action="store_true",
        help="continue from NAME__last.pt with the options of the run; -e N trains up to epoch N")
    add("--keep_last", action="store_true", help="keep NAME__last.pt of a finished run, to resume it with more epochs")
    add("--list", nargs="+", metavar=("recipes|options|backbones", "WORD"),
        help="do not train: print the recipes, options or backbones, or only those whose name contains a WORD")
    add("--compare", action="store_true",
        help="do not train: print the runs in --save, best first, and write them to runs.md")
    add = parser.add_argument_group("hardware").add_argument
    add("--device", type=_device, default="auto", help=_DEVICES)
    add("--workers", type=int, default=_WORKERS, help="processes that load images (default: all cores)")


def add_predict_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of predict.py."""
    add = parser.add_argument_group("input and output").add_argument
    add("-m", "--model", nargs="+", default=[DEFAULT_MODEL], metavar="PATH",
        help=f"a checkpoint, or several whose predictions are averaged (default: {DEFAULT_MODEL})")
    add("-i", "--images", default="results/images", help="a folder, a zip or one image")
    add("-o", "--output", default="results", help="write result.csv, details.csv and report.html into this folder")
    add("--submission", metavar="SAMPLE_CSV",
        help="grade the ids of this table, in its order; auto finds the sample_submission.csv in or near the images")
    add("--labels", metavar="TABLE",
        help="table of the true grades, such as id_code,diagnosis or image,level: writes the metrics to metrics.json")
    add("--id_column", metavar="NAME",
        help="column of image names in --labels; if there is no --labels, in --submission (default: recognised)")
    add("--label_column", metavar="NAME",
        help="column of classes in --labels; if there is no --labels, in --submission (default: recognised)")
    add("--patient_column", metavar="NAME",
        help="column of patients in --labels; intervals are then over whole patients (default: recognised)")
    add("--stereo", action="store_true", help="grade both halves of frames with two retinas side by side")
    add("--export", metavar="ONNX", help="export one checkpoint to this ONNX file and exit")
    add = parser.add_argument_group("decision").add_argument
    add("--tta", choices=OPTIONS["tta"],
        help="test-time augmentation: flips, eight orientations, five or ten shifted crops (default: the recipe's)")
    add("--tta_by", choices=OPTIONS["tta_by"],
        help="how to combine TTA views: average predictions, or majority vote (default: the recipe's)")
    add("--prevalence", type=_prevalence, metavar="SHARES",
        help="decide for images with this class prevalence, as 0.73,0.07,0.15,0.03,0.02, or auto, estimated from the "
             "images (default: that of the validation split)")
    add = parser.add_argument_group("report").add_argument
    add("--explain", type=_count_or_all, default=12, metavar="N",
        help="images with a Grad-CAM map in report.html, half of them the most severe, half the most doubtful; all, or "
             "0 for none")
    add("--no_report", action="store_false", dest="report", help="do not write report.html")
    add = parser.add_argument_group("hardware").add_argument
    add("--device", type=_device, default="auto", dest="device_name", help=_DEVICES)
    add("--engine", choices=("auto", "torch", "openvino"), default="auto", dest="engine_name",
        help="inference engine; auto uses OpenVINO for many images on a CPU, if it is installed")
    add("-b", "--batch_size", type=int, default=16, help="images in a batch")
    add("--workers", type=int, default=_WORKERS, help="processes that preprocess images (default: all cores)")

# fmt: on


ADD_FLAGS = {"data": add_data_flags, "train": add_train_flags, "predict": add_predict_flags}
