"""Every combination of some options' values -> the runs of a sweep, with their names.

Nothing here takes long to import: train.py plans its runs and reports wrong flags before it imports torch.
"""

import argparse
import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from dr import UsageError
from dr.cli.flags import parse_fold
from dr.recipes.load import load_recipe, option_text, parse_override
from dr.recipes.schema import Recipe
from dr.training.run_files import check_name

FOLD = "fold"  # swept like an option: --sweep fold=1/5,2/5
LONGEST_NAME = 200  # of the 255 bytes that file systems allow: endings and numbers follow


@dataclass(frozen=True)
class Trial:
    """One planned run: its name and recipe, the values of the swept options as text, the columns of runs.csv that
    record its command, and the fold that it holds out, if folds are swept."""

    name: str
    recipe: Recipe
    swept: dict[str, str]
    recorded: dict[str, str]
    fold: tuple[int, int] | None = None

    @property
    def start(self) -> tuple[Recipe, dict[str, str]]:
        """Its recipe and the columns that record its command."""
        return self.recipe, self.recorded


def _text(key: str, value: Any) -> str:
    return f"{value[0]}/{value[1]}" if key == FOLD else option_text(value)


def _joined(options: dict[str, Any]) -> str:
    return " ".join(f"{key}={_text(key, value)}" for key, value in options.items())


def _parse_value(key: str, text: str) -> tuple[str, Any]:
    """-> the option and its value. Raises UsageError."""
    if key.strip() != FOLD:
        return parse_override(f"{key}={text}")
    try:
        return FOLD, parse_fold(text.strip())
    except argparse.ArgumentTypeError as exc:
        raise UsageError(f"--sweep fold: {exc}") from exc


def _parse(text: str) -> tuple[str, list[Any]]:
    """'lr=1e-5,1e-4' -> ('lr', [1e-05, 0.0001]). Commas within brackets belong to a value. Raises UsageError."""
    key, _, listed = text.partition("=")
    parts = re.split(r",(?![^\[]*\])", listed)
    if not all(part.strip() for part in parts):
        raise UsageError(f"--sweep {text}: expected KEY=VALUE,VALUE")
    try:
        parsed = [_parse_value(key, part) for part in parts]
    except UsageError as exc:
        raise UsageError(str(exc).replace("--set", "--sweep", 1)) from exc
    name, values = parsed[0][0], [value for _, value in parsed]
    for number, value in enumerate(values):
        if value in values[:number]:
            raise UsageError(f"--sweep {text}: the value {_text(name, value)} is repeated; list each value once")
    return name, values


def _parse_all(texts: Iterable[str], overrides: dict[str, Any]) -> dict[str, list[Any]]:
    """-> the values of each swept option, in the order of the flags. Raises UsageError for an option set twice."""
    swept: dict[str, list[Any]] = {}
    for text in texts:
        key, values = _parse(text)
        if key in swept:
            raise UsageError(f"--sweep {text}: {key} is swept twice; list all its values in one --sweep")
        if key in overrides:
            raise UsageError(f"--sweep {text}: {key} is also set by --set or its own flag; set it once")
        swept[key] = values
    return swept


def _trial(name: str, *, recipe: str | None, overrides: dict[str, Any], swept: dict[str, Any]) -> Trial:
    options = {key: value for key, value in swept.items() if key != FOLD}
    try:
        loaded = load_recipe(recipe, overrides=overrides | options)
    except UsageError as exc:
        reason = str(exc).removeprefix("--set: ")
        raise UsageError(f"--sweep {_joined(swept)}: {reason}" if swept else str(exc)) from exc
    texts = {key: _text(key, value if key == FOLD else getattr(loaded, key)) for key, value in swept.items()}
    parts = [f"{key}_{re.sub('[^A-Za-z0-9.+-]+', '_', text).strip('_')}" for key, text in texts.items()]
    recorded = {"recipe": recipe or "published", "overrides": _joined(overrides | options)}
    return Trial("__".join([name, *parts]), loaded, texts, recorded, swept.get(FOLD))


def _check_names(trials: list[Trial], name: str) -> None:
    """Raises UsageError for names that are too long for a file, or shared by two runs."""
    check_name(name)
    names = [trial.name for trial in trials]
    for number, long in enumerate(names):
        if long in names[:number]:
            raise UsageError(f"--sweep: two runs would have the name {long}; use values that differ in letters")
        if len(long) > LONGEST_NAME:
            shorter = "a shorter --name" if long == name else "a shorter --name or shorter values"
            raise UsageError(f"{long}: too long for a file name; use {shorter}")


def plan(sweeps: list[str], *, recipe: str | None, overrides: dict[str, Any], name: str) -> list[Trial]:
    """Texts like `lr=1e-5,1e-4` -> one trial per combination, the last option changing fastest; without texts the one
    run of `recipe` with `overrides`. Raises UsageError for a fault in any of them."""
    swept = _parse_all(sweeps, overrides)
    combinations = [dict(zip(swept, values, strict=True)) for values in itertools.product(*swept.values())]
    trials = [_trial(name, recipe=recipe, overrides=overrides, swept=values) for values in combinations]
    _check_names(trials, name)
    return trials


def weight_files(trials: list[Trial]) -> set[str]:
    """The paths of the weights that these trials start from."""
    return {trial.recipe.pretrained for trial in trials} - {"imagenet", "none"}
