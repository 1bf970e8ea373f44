"""The command line of the three commands: read, and checked before a large library is imported."""

import argparse
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from dr import UsageError, __version__
from dr.cli import suggestions
from dr.cli.flags import ADD_FLAGS, DEFAULT_NAME
from dr.core import split_files

SUMMARIES = {
    "data": "preprocess and split labelled images",
    "train": "fine-tune a network and fit the thresholds between grades",
    "predict": "grade images with a trained network",
}
EXAMPLES = {  # the end of --help: three commands for each script
    "data": (
        "-m diabetic-retinopathy-classification-f1-score-4.zip -a train_image_resized.zip",
        "-m aptos2019-blindness-detection.zip -d aptos --size 512",
        "-m my_images -d my_data --patient_pattern '(P[0-9]+)_'",
    ),
    "train": (
        "-r lite0 -d data",
        "-r lite0_best -d my_data -n first --set lr=3e-4 --fold 1/5",
        "-r lite0 -d my_data --sweep lr=1e-4,1e-3 --sweep seed=1,2",
    ),
    "predict": (
        "-m weights/lite0__best.pt -i new_images -o results",
        "-m fold1__best.pt fold2__best.pt -i new_images.zip --tta flips",
        "-m weights/lite0__best.pt -i new_images --labels grades.csv --prevalence auto",
    ),
}
RUN_FLAGS = ("recipe", "overrides", "epochs", "batch_size", "pretrained", "seed", "sweep", "fold", "resume")
COLUMNS = ("id_column", "label_column", "patient_column")
RECIPE_FLAGS = ("batch_size", "epochs", "pretrained", "seed")  # options of a recipe that have a flag
_MISSING = {  # fault and remedy of a path that does not exist, by flag
    "zip_main": "not found; pass the path of the archive or folder with -m",
    "zip_2015": "not found; pass the path of the 2015 archive with -a, or -a none to omit it",
    "data": "folder not found; run data.py first, or pass the folder it wrote with --data",
    "pretrained": "file of weights not found; pass a path, imagenet or none with --pretrained",
    "model": "file of weights not found; run train.py first, or pass a checkpoint with --model",
    "images": "not found; pass the images with --images",
    "labels": "not found; pass a table id_code,diagnosis or image,level with --labels",
    "submission": "not found; pass a sample_submission.csv, or the zip that holds it, with --submission",
}


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Adds its default to the help of a flag that has one and does not name it."""

    def _get_help_string(self, action: argparse.Action) -> str:
        silent = action.default in (None, [], argparse.SUPPRESS) or action.nargs == 0 or "(default" in action.help
        return action.help if silent else f"{action.help} (default: %(default)s)"


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are UsageErrors of one line, and whose flags are taken with hyphens, too."""

    script: str | None = None  # the command whose flags these are

    def error(self, message: str):
        printable = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in message)
        raise UsageError(f"{printable}; see {self.prog} --help")

    def parse_args(self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None):
        """As argparse's. Raises UsageError for a flag that does not exist, with the one to use."""
        given = [str(text) for text in (sys.argv[1:] if args is None else args)]
        long = [text for text in given if self._has_one_hyphen_too_few(text)]
        if long:  # the first alone: argparse would read the rest in its own way
            self._refuse(given[given.index(long[0]) :][:2], given)
        typed = {_with_underscores(text): text for text in given}
        parsed, rest = self.parse_known_args([_with_underscores(text) for text in given], namespace)
        if any(text != "--" for text in rest):
            self._refuse([typed.get(text, text) for text in rest], given)
        return parsed

    def _has_one_hyphen_too_few(self, text: str) -> bool:
        """Whether an argument is meant as `--epochs`, where argparse would read `-epochs` as `-e pochs`."""
        if (
            not re.fullmatch("-[A-Za-z][A-Za-z_-]+(=.*)?", text, re.DOTALL)
            or text[:2] not in self._option_string_actions
        ):
            return False
        name = text[1:].partition("=")[0]
        return name not in ("help", "version") and suggestions.is_known(name, self.script, self)

    def _refuse(self, rest: list[str], given: list[str]):
        parsers = {self.script: self}
        if self.script is not None:
            parsers = {name: make_parser(name, description=None) for name in ADD_FLAGS}
        self.error(suggestions.refusal(rest, given, script=self.script, parsers=parsers))


def _with_underscores(text: str) -> str:
    """'--batch-size=3' -> '--batch_size=3'. Values are left alone."""
    flag, equals, value = text.partition("=")
    return flag[:2] + flag[2:].replace("-", "_") + equals + value if flag.startswith("--") else text


def make_parser(script: str, *, description: str | None, prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of data, train or predict. Wrong flags raise UsageError."""
    program = prog or _program(script)
    parser = Parser(program, description=description, formatter_class=HelpFormatter, epilog=_examples(script, program))
    parser.script = script
    parser.add_argument("--version", action="version", version=f"{program} {__version__}", help="print the version")
    ADD_FLAGS[script](parser)
    return parser


def _examples(script: str, program: str) -> str:
    start = program if program.startswith("dr ") else f"python {program}"
    return "\n".join(["examples:", *(f"  {start} {arguments}" for arguments in EXAMPLES[script])])


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


def check_columns(args: argparse.Namespace) -> None:
    """Raises UsageError for a flag that names a column, without a table."""
    for flag in COLUMNS:
        table = args.labels or (args.submission if flag != "patient_column" else None)
        if getattr(args, flag) is not None and table is None:
            tables = "--labels" if flag == "patient_column" else "--labels or --submission"
            raise UsageError(f"--{flag} {getattr(args, flag)}: no table to read; add {tables}, or omit it")


def check_exists(**paths: Iterable[str | Path | None]) -> None:
    """Raises UsageError for a path of a flag that does not exist."""
    for flag, values in paths.items():
        for path in values:
            if path is not None and not split_files.exists(path):
                raise UsageError(f"{path}: {_MISSING[flag]}")


def check_outside(directory: str, sources: Iterable[str | None]) -> None:
    """Raises UsageError for an output folder inside one of `sources`: the next start would read it as images."""
    for path in sources:
        if path is not None and Path(path).is_dir() and Path(directory).resolve().is_relative_to(Path(path).resolve()):
            raise UsageError(f"-d {directory}: is inside {path}, where images are read; use a folder outside")
