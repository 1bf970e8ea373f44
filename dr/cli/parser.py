"""The command line of the three commands: read, and checked before a large library is imported."""

import argparse
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

from dr import UsageError
from dr.cli.flags import ADD_FLAGS, DEFAULT_NAME

SUMMARIES = {
    "data": "preprocess and split labelled images",
    "train": "fine-tune a network and fit the thresholds between grades",
    "predict": "grade images with a trained network",
}
RUN_FLAGS = ("recipe", "overrides", "epochs", "batch_size", "pretrained", "seed", "sweep", "fold", "resume")
_MISSING = {  # fault and remedy of a path that does not exist, by flag
    "zip_main": "not found; pass the path of the archive or folder with -m",
    "zip_2015": "not found; pass the path of the 2015 archive with -a, or -a none to omit it",
    "data": "folder not found; run data.py first, or pass the folder it wrote with --data",
    "pretrained": "file of weights not found; pass a path, imagenet or none with --pretrained",
    "resume": "nothing to resume; start without --resume",
    "model": "file of weights not found; run train.py first, or pass a checkpoint with --model",
    "images": "not found; pass the images with --images",
    "submission": "not found; pass a sample_submission.csv, or the zip that holds it, with --submission",
}


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Adds its default to the help of a flag that has one and does not name it."""

    def _get_help_string(self, action: argparse.Action) -> str:
        silent = action.default in (None, [], argparse.SUPPRESS) or action.nargs == 0 or "(default" in action.help
        return action.help if silent else f"{action.help} (default: %(default)s)"


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are UsageErrors of one line."""

    def error(self, message: str):
        raise UsageError(f"{message}; see {self.prog} --help")


def make_parser(script: str, *, description: str | None, prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of data, train or predict. Wrong flags raise UsageError."""
    parser = Parser(prog or _program(script), description=description, formatter_class=HelpFormatter)
    ADD_FLAGS[script](parser)
    return parser


def _program(script: str) -> str:
    """`dr data` if the process was started by that command, else data.py."""
    return sys.argv[0] if sys.argv[0] == f"dr {script}" else f"{script}.py"


def name_of(recipe: str | None) -> str:
    """The name of a run that has none: its recipe's."""
    return DEFAULT_NAME if recipe is None else Path(recipe).stem


def command(script: str) -> str:
    """The command line of this process, ready to be pasted into a shell."""
    program = _program(script).split()
    return shlex.join([*(program if len(program) > 1 else ["python", *program]), *sys.argv[1:]])


def check_at_least(lowest: int, **flags: int | None) -> None:
    """Raises UsageError for a flag that was passed and is below `lowest`."""
    for name, value in flags.items():
        if value is not None and value < lowest:
            raise UsageError(f"--{name} must be at least {lowest}, got {value}")


def check_alone(flag: str, args: argparse.Namespace, others: Iterable[str]) -> None:
    """Raises UsageError for one of `others` that was passed beside a flag that ignores it."""
    for other in others:
        value = getattr(args, other)
        if value is not None and value is not False and value != []:
            other = "set" if other == "overrides" else other
            raise UsageError(f"--{other} has no effect on what --{flag} writes; omit one of them")


def check_exists(**paths: Iterable[str | Path | None]) -> None:
    """Raises UsageError for a path of a flag that does not exist."""
    for flag, values in paths.items():
        for path in values:
            if path is not None and not Path(path).exists():
                raise UsageError(f"{path}: {_MISSING[flag]}")


def check_outside(directory: str, sources: Iterable[str | None]) -> None:
    """Raises UsageError for an output folder inside one of `sources`: the next start would read it as images."""
    for path in sources:
        if path is not None and Path(path).is_dir() and Path(directory).resolve().is_relative_to(Path(path).resolve()):
            raise UsageError(f"-d {directory}: is inside {path}, where images are read; use a folder outside")
