"""Every combination of some choices -> the runs that are going to be trained, with their names.

Nothing here takes long to import: train.py plans its runs, and tells wrong flags, before torch is imported.
"""

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dr import UsageError
from dr.recipes import load as recipes
from dr.recipes.schema import Recipe

LONGEST_NAME = 200  # of the 255 bytes that file systems allow: endings and numbers follow


@dataclass(frozen=True)
class Trial:
    """One run that is planned: its name and recipe, its values of the swept choices as text, and what runs.csv records
    of its command."""

    name: str
    recipe: Recipe
    chosen: dict[str, str]
    recorded: dict[str, str]


def _text(value: Any) -> str:
    """A choice as it is written behind --set."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    return str(list(value) if isinstance(value, tuple) else value)


def _joined(choices: dict[str, Any]) -> str:
    return " ".join(f"{key}={_text(value)}" for key, value in choices.items())


def _parse(text: str) -> tuple[str, list[Any]]:
    """'lr=1e-5,1e-4' -> ('lr', [1e-05, 0.0001]). Commas within brackets belong to a value. Raises UsageError."""
    key, _, listed = text.partition("=")
    written = re.split(r",(?![^\[]*\])", listed)
    if not all(value.strip() for value in written):
        raise UsageError(f"--sweep {text}: expected KEY=VALUE,VALUE")
    try:
        values = [recipes.parse_override(f"{key}={value}")[1] for value in written]
    except UsageError as exc:
        raise UsageError(str(exc).replace("--set", "--sweep", 1)) from exc
    for number, value in enumerate(values):
        if value in values[:number]:
            raise UsageError(f"--sweep {text}: {_text(value)} is there twice")
    return key.strip(), values


def _swept(texts: Iterable[str], overrides: dict[str, Any]) -> dict[str, list[Any]]:
    """-> the values of each swept choice, in the order given. Raises UsageError for a choice given in two places."""
    swept: dict[str, list[Any]] = {}
    for text in texts:
        key, values = _parse(text)
        if key in swept:
            raise UsageError(f"--sweep {text}: {key} is swept twice; write all its values behind one --sweep")
        if key in overrides:
            raise UsageError(f"--sweep {text}: {key} is also given by --set or a flag of its own; give it once")
        swept[key] = values
    return swept


def _trial(name: str, *, recipe: str | None, overrides: dict[str, Any], chosen: dict[str, Any]) -> Trial:
    try:
        made = recipes.load(recipe, overrides=overrides | chosen)
    except UsageError as exc:
        reason = str(exc).removeprefix("--set: ")
        raise UsageError(f"--sweep {_joined(chosen)}: {reason}" if chosen else str(exc)) from exc
    texts = {key: _text(getattr(made, key)) for key in chosen}
    parts = [f"{key}_{re.sub('[^A-Za-z0-9.+-]+', '_', text).strip('_')}" for key, text in texts.items()]
    recorded = {"recipe": recipe or "published", "overrides": _joined(overrides | chosen)}
    return Trial("__".join([name, *parts]), made, texts, recorded)


def _check_names(trials: list[Trial], name: str) -> None:
    """Raises UsageError for runs whose files could not be written, or would take the place of each other's."""
    if Path(name).name != name:
        raise UsageError(f"--name {name}: it is the first part of file names and may hold no path")
    names = [trial.name for trial in trials]
    for number, long in enumerate(names):
        if long in names[:number]:
            raise UsageError(f"--sweep: two runs would be called {long}; give values that differ in letters or digits")
        if len(long) > LONGEST_NAME:
            shorter = "a shorter --name" if long == name else "a shorter --name or shorter values"
            raise UsageError(f"{long} is too long for a file name; give {shorter}")


def plan(sweeps: list[str], *, recipe: str | None, overrides: dict[str, Any], name: str) -> list[Trial]:
    """Texts as `lr=1e-5,1e-4` -> a trial for each combination, the last choice changing fastest; without any text the
    one run of `recipe` with `overrides`. Raises UsageError for whatever is wrong with any of them."""
    swept = _swept(sweeps, overrides)
    combinations = [dict(zip(swept, values, strict=True)) for values in itertools.product(*swept.values())]
    trials = [_trial(name, recipe=recipe, overrides=overrides, chosen=chosen) for chosen in combinations]
    _check_names(trials, name)
    return trials


def weight_files(trials: list[Trial]) -> set[str]:
    """The paths that the recipes of these trials start from."""
    return {trial.recipe.pretrained for trial in trials} - {"imagenet", "none"}
