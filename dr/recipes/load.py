"""Recipes read from TOML and KEY=VALUE."""

import difflib
import sys
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from dr import UsageError
from dr.recipes.schema import Recipe

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).parent
PUBLISHED = "published"  # the recipe of a run that names none
_TYPES = get_type_hints(Recipe)


def _known(key: str, place: str) -> None:
    if key not in _TYPES:
        close = difflib.get_close_matches(key, _TYPES, n=3, cutoff=0.4)
        remedy = f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(_TYPES)}"
        raise UsageError(f"{place}: there is no choice {key!r}; {remedy}")


def _type_name(kind: Any) -> str:
    """A type of a field -> what a person writes for it."""
    if type(None) in get_args(kind):
        return f"{_type_name(next(option for option in get_args(kind) if option is not type(None)))} or none"
    if get_origin(kind) is tuple:
        example = {int: "whole numbers, as [30, 45]", float: "numbers, as [0.5, 0.5, 0.5]"}
        return f"a list of {example[get_args(kind)[0]]}"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}[kind]


def _fit(key: str, value: Any, place: str) -> Any:
    """A TOML value -> the type that the field declares; None only where the field allows it. Raises UsageError."""
    expected = _TYPES[key]
    for option in get_args(expected) if type(None) in get_args(expected) else (expected,):
        if option is type(None) and value is None:
            return None
        if get_origin(option) is tuple and isinstance(value, (list, tuple)):
            item = get_args(option)[0]
            if all(isinstance(v, (int, item)) and not isinstance(v, bool) for v in value):
                return tuple(item(v) for v in value)
        if option is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        if option in (int, bool, str) and type(value) is option:
            return value
    raise UsageError(f"{place}: {key} must be {_type_name(expected)}, got {value!r}")


def from_dict(choices: dict[str, Any], *, place: str = "recipe") -> Recipe:
    """Primitives -> Recipe; `place` says in errors where they came from. Raises UsageError for unknown keys, types."""
    for key in choices:
        _known(key, place)
    return Recipe(**{key: _fit(key, value, place) for key, value in choices.items()})


def parse_override(text: str) -> tuple[str, Any]:
    """'lr=1e-4' -> ('lr', 0.0001). Values are written as in TOML, words need no quotes, none means None."""
    key, equals, value = text.partition("=")
    key, value = key.strip(), value.strip()
    if not equals or not value:
        raise UsageError(f"--set {text}: expected KEY=VALUE")
    _known(key, f"--set {text}")
    if value == "none" and type(None) in get_args(_TYPES[key]):
        return key, None
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def parse_overrides(texts: list[str], **flags: Any) -> dict[str, Any]:
    """Each KEY=VALUE, with the flags that were given (None: not given) on top."""
    given = {key: value for key, value in flags.items() if value is not None}
    return dict(parse_override(text) for text in texts) | given


def available() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(name: str | None, *, overrides: dict[str, Any] | None = None) -> Recipe:
    """A recipe by name or path of a TOML (None: the published method), with `overrides` on top; another objective
    takes its own loss with it. Raises UsageError."""
    overrides = overrides or {}
    place = "--set" if name is None else f"recipe {name}"
    name = name or PUBLISHED
    path = FOLDER / f"{name}.toml"
    if name.endswith(".toml"):
        path, place = Path(name), name
    if not path.is_file():
        raise UsageError(
            f"--recipe {name}: there is no such recipe; known are {', '.join(available())}, or a path to a .toml"
        )
    try:
        choices = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise UsageError(f"{path}: it is not valid TOML: {exc}") from exc
    choices = {key: (None if value == "none" and type(None) in get_args(_TYPES.get(key)) else value)
               for key, value in choices.items()}  # TOML has no null  # fmt: skip
    own = choices.get("objective", Recipe.objective)
    if overrides.get("objective", own) != own:
        choices.pop("loss", None)
    for key, value in overrides.items():
        _known(key, "--set")
        _fit(key, value, "--set")
    made = from_dict(choices | overrides, place=place)
    # not in the class: checkpoints hold recipes that were made when these were passed over
    if made.best_by == "last" and made.patience is not None:
        raise UsageError(
            f"{place}: with best_by=last every epoch counts as a better one, and patience ends nothing; give "
            "patience=none"
        )
    if made.normalisation == "measured" and (made.mean or made.std):
        raise UsageError(
            f"{place}: normalisation=measured takes the place of mean and std; give normalisation=own, or neither"
        )
    return made
