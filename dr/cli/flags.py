"""The flags of the three scripts, each declared once, with its help, type and default."""

import argparse
import os
import re

from dr import POLICIES
from dr.core import distributed
from dr.recipes.schema import OPTIONS, Recipe

DEFAULT_NAME = "efficientnet_v2_m__size_380__crop__aug__adamw__lr_0001_10_01"
DEFAULT_MODEL = f"weights/{DEFAULT_NAME}__best.pt"


def _count_or_all(text: str) -> int | str:
    if text != "all" and not re.fullmatch("-?[0-9]+", text):
        raise argparse.ArgumentTypeError(f"expected a number or all, got {text!r}")
    return text if text == "all" else int(text)


def _fold(text: str) -> tuple[int, int]:
    number, _, of = text.partition("/")
    if not (re.fullmatch("[0-9]+/[0-9]+", text) and 1 <= int(number) <= int(of) >= 2):
        raise argparse.ArgumentTypeError(f"expected K/N as 1/5, K from 1 to N and N at least 2, got {text!r}")
    return int(number), int(of)


def _prevalence(text: str) -> tuple[float, ...] | str:
    if text == "auto":
        return text
    try:
        shares = tuple(float(share) for share in text.split(","))
    except ValueError:
        shares = ()
    if not (shares and all(share >= 0 for share in shares) and round(abs(sum(shares) - 1), 6) <= 0.01):
        raise argparse.ArgumentTypeError(
            "expected auto, or a share of each class, none negative, together 1, as 0.73,0.07,0.15,0.03,0.02, "
            f"got {text!r}{f', together {sum(shares):g}' if shares else ''}"
        )
    return tuple(share / sum(shares) for share in shares)


_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # allotted ones
_WORKERS = {
    "type": int,
    "default": max(1, _CORES // distributed.local_world_size),
    "help": "processes that prepare photographs (default: all cores)",
}
FLAGS: dict[str, list[tuple[tuple[str, ...], dict]]] = {
    "data": [
        (("-m", "--zip_main"), {"default": "diabetic-retinopathy-classification-f1-score-4.zip",
                                "help": "the 2019-style competition archive, a folder with its content, or other "
                                        "graded photographs"}),
        (("-a", "--zip_2015"), {"help": "the 2015 archive, or a folder with its content; none leaves it out (default: "
                                        "train_image_resized.zip with the competition archive, else none)"}),
        (("-d", "--directory"), {"default": "data", "help": "where kaggle_retina/ is written"}),
        (("--size",), {"type": int, "default": 512, "help": "longest side of a prepared photograph, pixels"}),
        (("--per_class",), {"type": _count_or_all,
                            "help": "training photographs of each grade; all takes every one there is (default: 1000 "
                                    "with the competition archive, else all)"}),
        (("--val_fraction",), {"type": float, "default": 0.2,
                               "help": "share of the main archive kept for validation, where it has none of its own"}),
        (("--no_crop",), {"action": "store_false", "dest": "crop",
                          "help": "keep the whole frame, of photographs that are not of the fundus"}),
        (("--id_column",), {"metavar": "NAME", "help": "column of the label table that names photographs "
                                                       "(default: id_code or image)"}),
        (("--label_column",), {"metavar": "NAME", "help": "column of the label table with the classes "
                                                          "(default: diagnosis or level)"}),
        (("--patient_column",), {"metavar": "NAME", "help": "column of the label table that names patients; all "
                                                            "photographs of a patient stay on one side"}),
        (("--conflicts",), {"choices": POLICIES, "default": "drop",
                            "help": "what becomes of duplicates with contradicting grades"}),
        (("--seed",), {"type": int, "default": 10, "help": "decides the split"}),
        (("--workers",), _WORKERS),
        (("--force",), {"action": "store_true", "help": "replace what was prepared with other settings"}),
    ],
    "train": [
        (("-b", "--batch_size"), {"type": int,
                                  "help": "photographs in a batch of each process "
                                          f"(default: the recipe's, {Recipe.batch_size})"}),
        (("-e", "--epochs"), {"type": int, "help": "passes over the training photographs "
                                                       f"(default: the recipe's, {Recipe.epochs})"}),
        (("-d", "--data"), {"default": "data", "help": "the folder that data.py wrote"}),
        (("-s", "--save"), {"default": "weights", "help": "where checkpoints, tables and pictures are written"}),
        (("-n", "--name"), {"help": "first part of the names of the files written (default: the recipe's name; without "
                                    f"a recipe {DEFAULT_NAME})"}),
        (("-r", "--recipe"), {"help": "name in dr/recipes or path of a TOML (default: the published method)"}),
        (("--set",), {"action": "append", "default": [], "metavar": "KEY=VALUE", "dest": "overrides",
                      "help": "change one choice of the recipe; may be repeated"}),
        (("--sweep",), {"action": "append", "default": [], "metavar": "KEY=VALUE,VALUE",
                        "help": "train with each of these values; repeated, with every combination"}),
        (("--compare",), {"action": "store_true",
                          "help": "train nothing: print the runs of --save, best first, and write them to runs.md"}),
        (("--fold",), {"type": _fold, "metavar": "K/N",
                       "help": "hold out part K of N of the photographs, whole patients, as a test"}),
        (("--pretrained",), {"metavar": "imagenet|none|PATH", "help": "weights to start from (default: the recipe's)"}),
        (("--resume",), {"action": "store_true", "help": "go on from NAME__last.pt"}),
        (("--workers",), {**_WORKERS, "help": "processes that load photographs (default: all cores)"}),
        (("--device",), {"default": "auto", "help": "auto, cpu, cuda, cuda:1, mps"}),
        (("--seed",), {"type": int, "help": "decides weights, order and augmentation "
                                            f"(default: the recipe's, {Recipe.seed})"}),
    ],
    "predict": [
        (("-m", "--model"), {"nargs": "+", "default": [DEFAULT_MODEL], "metavar": "PATH",
                             "help": f"a checkpoint, or several whose scores are averaged (default: {DEFAULT_MODEL})"}),
        (("-i", "--images"), {"default": "results/images", "help": "a folder, a zip or one photograph"}),
        (("-o", "--output"), {"default": "results",
                              "help": "where result.csv, details.csv and report.html are written"}),
        (("-b", "--batch_size"), {"type": int, "default": 16, "help": "photographs in a batch"}),
        (("--tta",), {"choices": OPTIONS["tta"],
                      "help": "views of each photograph: its flips, its eight orientations, or five or ten shifted "
                              "ones (default: the recipe's)"}),
        (("--tta_by",), {"choices": OPTIONS["tta_by"],
                         "help": "what becomes of several views: their mean, or the grade most get "
                                 "(default: the recipe's)"}),
        (("--workers",), _WORKERS),
        (("--device",), {"default": "auto", "dest": "device_name", "help": "auto, cpu, cuda, cuda:1, mps"}),
        (("--engine",), {"choices": ("auto", "torch", "openvino"), "default": "auto", "dest": "engine_name",
                         "help": "what runs the network: auto takes OpenVINO for many photographs on a CPU"}),
        (("--submission",), {"metavar": "SAMPLE_CSV", "help": "grade the ids of this table, in its order"}),
        (("--prevalence",), {"type": _prevalence, "metavar": "SHARES",
                             "help": "the share of each grade among these photographs, as 0.73,0.07,0.15,0.03,0.02, "
                                     "or auto, estimated from them: grades are decided for that mix (default: that of "
                                     "validation)"}),
        (("--labels",), {"metavar": "CSV", "help": "the true grades (id_code,diagnosis or image,level): "
                                                   "says how good the grading is, in metrics.json"}),
        (("--export",), {"metavar": "ONNX", "help": "write the network of one checkpoint as this file and end"}),
        (("--explain",), {"type": _count_or_all, "default": 12, "metavar": "N",
                          "help": "photographs that report.html explains by a map, half of them the most severe, half "
                                  "the most doubtful; all, or 0 for none"}),
        (("--no-report", "--no_report"), {"action": "store_false", "dest": "report",
                                          "help": "do not write report.html"}),
    ],
}  # fmt: skip
