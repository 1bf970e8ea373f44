"""Flags declared once for all scripts; errors turned into one line and an exit code."""

import argparse
import atexit
import errno
import gc
import os
import re
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dr import POLICIES, UsageError, ranks

DEFAULT_NAME = "efficientnet_v2_m__size_380__crop__aug__adamw__lr_0001_10_01"
DEFAULT_MODEL = f"weights/{DEFAULT_NAME}__best.pt"
TRAIN_MEMORY = (  # what to do when it runs out in training
    "give a smaller -b together with --set accumulate=N, --set grad_checkpointing=true, or a smaller --set "
    "image_size=PIXELS"
)
_DISK = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up", errno.EROFS: "it is read-only"}


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


_WORKERS = {
    "type": int,
    "default": max(1, (os.cpu_count() or 1) // ranks.LOCAL_COUNT),
    "help": "processes that prepare photographs (default: all cores)",
}
_FLAGS: dict[str, list[tuple[tuple[str, ...], dict]]] = {
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
                                  "help": "photographs in a batch of each process (default: the recipe's, 18)"}),
        (("-e", "--epochs"), {"type": int, "help": "passes over the training photographs (default: the recipe's, 30)"}),
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
        (("--seed",), {"type": int, "help": "decides weights, order and augmentation (default: the recipe's, 10)"}),
    ],
    "predict": [
        (("-m", "--model"), {"nargs": "+", "default": [DEFAULT_MODEL], "metavar": "PATH",
                             "help": f"a checkpoint, or several whose scores are averaged (default: {DEFAULT_MODEL})"}),
        (("-i", "--images"), {"default": "results/images", "help": "a folder, a zip or one photograph"}),
        (("-o", "--output"), {"default": "results",
                              "help": "where result.csv, details.csv and report.html are written"}),
        (("-b", "--batch_size"), {"type": int, "default": 16, "help": "photographs in a batch"}),
        (("--tta",), {"choices": ("none", "flips", "d4", "five", "ten"),
                      "help": "views of each photograph: its flips, its eight orientations, or five or ten shifted "
                              "ones (default: the recipe's)"}),
        (("--tta_by",), {"choices": ("mean", "vote"),
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

_NOT_THERE = {  # what is told of a path that is not there, and what to do, by flag
    "zip_main": "there is no such file or folder; give the path of the archive",
    "zip_2015": "there is no such file or folder; give the path of the 2015 archive with -a, or -a none to do without",
    "data": "there is no such folder; run data.py first, or name the folder it wrote with --data",
    "pretrained": "there is no such file of weights; give --pretrained a path, imagenet or none",
    "resume": "there is nothing to resume; start without --resume",
    "model": "there is no such file of weights; run train.py first, or name a checkpoint with --model",
    "images": "there is no such file or folder; name the photographs with --images",
    "submission": "there is no such file; give --submission a sample_submission.csv, or the zip that holds it",
}


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are UsageErrors: one line, as everywhere else."""

    def error(self, message: str):
        raise UsageError(f"{message}; see {self.prog} --help")


def parser(script: str, *, description: str) -> argparse.ArgumentParser:
    """The command line of data.py, train.py or predict.py. Wrong flags raise UsageError."""
    made = Parser(f"{script}.py", description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for names, options in _FLAGS[script]:
        told = "(default" in options["help"] or options.get("default") in (None, [])
        shown = "" if told else " (default: %(default)s)"
        made.add_argument(*names, **{**options, "help": options["help"] + shown})
    return made


def name_of(recipe: str | None) -> str:
    """What the files of a run are called where no name is given."""
    return DEFAULT_NAME if recipe is None else Path(recipe).stem


def command(script: str) -> str:
    """What was typed, to be typed again."""
    return shlex.join(["python", script, *sys.argv[1:]])


def check_at_least(lowest: int, **flags: int | None) -> None:
    """Raises UsageError for a flag that is given and below `lowest`."""
    for name, value in flags.items():
        if value is not None and value < lowest:
            raise UsageError(f"--{name} must be at least {lowest}, got {value}")


def check_alone(flag: str, args: argparse.Namespace, others: Iterable[str]) -> None:
    """Raises UsageError for one of `others` beside a flag that would make nothing of it."""
    for other in others:
        if getattr(args, other):
            raise UsageError(f"--{other} changes nothing of what --{flag} writes; leave it out, or leave out --{flag}")


def check_there(**paths: Iterable[str | Path | None]) -> None:
    """Raises UsageError for a path of a flag that does not exist: told here, before torch or pandas are imported."""
    for flag, given in paths.items():
        for path in given:
            if path is not None and not Path(path).exists():
                raise UsageError(f"{path}: {_NOT_THERE[flag]}")


def _told(error: Exception, *, go_on: str, memory: str) -> str | None:
    """One line about an error that the user can mend; None for a mistake of the program."""
    text = str(error)
    if isinstance(error, UsageError):
        return text
    if isinstance(error, BrokenPipeError):
        return f"what read the output has ended; {go_on}"
    if isinstance(error, ModuleNotFoundError) and (error.name or "dr").partition(".")[0] != "dr":
        return f"{error.name} is not installed; use the environment of `make env`, or pip install -r requirements.txt"
    if isinstance(error, PermissionError) or (isinstance(error, OSError) and error.errno in _DISK):
        reason = _DISK.get(error.errno, "permission denied")
        return f"{error.filename or 'writing'}: {reason}; change that and {go_on}"
    # torch's own kinds are known by name: it is not imported here
    no_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if no_memory or any(words in text for words in ("can't allocate memory", "_STATUS_ALLOC_FAILED")):
        return f"memory ran out; {memory}, and {go_on}"
    if text.startswith("DataLoader worker"):
        return (
            f"a loading process was ended, perhaps for want of shared memory; give fewer --workers, or 0, and {go_on}"
        )
    if ranks.lost_another(error):
        return f"another process ended, and says why where it was started; {go_on}"
    return None


@contextmanager
def importing() -> Iterator[None]:
    """For libraries that take seconds: no garbage is looked for in what they make, which would be a third of them."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _nowhere() -> int:
    return os.open(os.devnull, os.O_WRONLY)


def _leave(ended: list[int], *, script: str, process: int) -> None:
    """At exit, after all that main's imports have registered: ends the process of `script` with the code in `ended`.
    Python would take torch apart first, object by object, for a second."""
    if not ended or os.getpid() != process or os.path.realpath(sys.argv[0]) != script:
        return  # --help, a forked process, or one that has run the script within itself
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        return  # Python tells it
    os._exit(ended[0])


class _Ended(KeyboardInterrupt):
    """By SIGTERM, which schedulers and containers send before they kill."""


@contextmanager
def _ends_as_by_ctrl_c() -> Iterator[None]:
    """SIGTERM would leave the processes that load photographs, and their folders. Of several processes torchrun ends
    all that are left when one has failed: these wait for it in C++, where no exception reaches them."""
    if ranks.COUNT > 1:
        yield
        return

    def end(*_: object) -> None:
        raise _Ended

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run(main: Callable[[], int], *, go_on: str, memory: str = "give a smaller --batch_size") -> None:
    """Runs a script's main and exits with its code: 0 done, 1 finished with photographs that could not be read or runs
    that failed, 2 the user must change something, 3 a mistake of the program, 130 stopped with Ctrl-C, 143 by SIGTERM.
    `go_on` says how to start again, `memory` what to do when it runs out. Of several processes one speaks, and one
    exits with 1."""
    sys.stdout = sys.stdout or os.fdopen(_nowhere(), "w")  # None where it was closed before the start
    sys.stderr = sys.stderr or os.fdopen(_nowhere(), "w")
    ended: list[int] = []
    atexit.register(_leave, ended, script=os.path.realpath(main.__code__.co_filename), process=os.getpid())
    try:
        with _ends_as_by_ctrl_c(), ranks.main_alone_speaks():
            code = main()
        ranks.part()
        code = code if ranks.MAIN else 0  # at a code that is not 0 torchrun ends those that are not ready
    except KeyboardInterrupt as exc:
        if ranks.MAIN:
            print(f"\nstopped; {go_on}", file=sys.stderr)
        code = 143 if isinstance(exc, _Ended) else 130
    except Exception as exc:
        if isinstance(exc, BrokenPipeError):
            os.dup2(_nowhere(), sys.stdout.fileno())  # what it still holds would fail at the end
        told = _told(exc, go_on=go_on, memory=memory)
        place = ranks.before_telling(exc)
        if not ranks.MAIN:
            print(file=sys.stderr)  # the main process's progress bar stands in this line
        if told is None:
            print(place, end="", file=sys.stderr)
            traceback.print_exc()
        else:
            print(f"error: {place}{told}", file=sys.stderr)
        code = 3 if told is None else 2
    ended.append(code)
    sys.exit(code)
