"""Recipes from TOML files and KEY=VALUE overrides."""

import sys
from pathlib import Path
from typing import Any, get_args

from dr import UsageError
from dr.recipes.schema import FIELDS, Recipe, unknown_option

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).parent
PUBLISHED = "published"  # the recipe of a run that names none


def _check_known(key: object, place: str) -> None:
    if key not in FIELDS:
        raise UsageError(f"{place}: {unknown_option(key)}")


def _allows_none(key: str) -> bool:
    return type(None) in get_args(FIELDS[key])


def from_dict(options: dict[str, Any], *, place: str = "recipe") -> Recipe:
    """Primitives -> Recipe; errors begin with `place`, where the options come from. Raises UsageError."""
    for key in options:
        _check_known(key, place)
    try:
        return Recipe(**options)
    except UsageError as exc:
        raise UsageError(f"{place}: {str(exc).removeprefix('recipe: ')}") from exc


def option_name(key: str) -> str:
    """The name of an option as recipes have it: hyphens and underscores are the same."""
    return key.strip().replace("-", "_")


def parse_override(text: str) -> tuple[str, Any]:
    """'lr=1e-4' -> ('lr', 0.0001). Values are TOML; strings need no quotes; none means None, and True, False and None
    of Python are taken. Raises UsageError."""
    key, equals, value = text.partition("=")
    key, value = option_name(key), value.strip()
    if not equals or not value:
        raise UsageError(f"--set {text}: expected KEY=VALUE{_example(key)}")
    _check_known(key, f"--set {text}")
    value = {"True": "true", "False": "false", "None": "none"}.get(value, value)
    if value == "none" and _allows_none(key):
        return key, None
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def _example(key: str) -> str:
    """How an option without a value is written, if it is one."""
    return f", as {key}={option_text(getattr(Recipe, key))}" if key in FIELDS else ""


def option_text(value: Any) -> str:
    """A value of a recipe as --set takes it, the inverse of `parse_override`."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    return str(list(value) if isinstance(value, tuple) else value)


def parse_overrides(texts: list[str], **flags: Any) -> dict[str, Any]:
    """Each KEY=VALUE, overridden by the flags that were passed (None: not passed)."""
    given = {key: value for key, value in flags.items() if value is not None}
    return dict(parse_override(text) for text in texts) | given


def available() -> list[str]:
    """Names of the recipes of this package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def _read(path: Path) -> dict[str, Any]:
    try:
        options = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise UsageError(f"{path}: invalid TOML ({exc}); fix it") from exc
    except OSError as exc:
        raise UsageError(f"{path}: cannot be read ({exc.strerror}); check its permissions") from exc
    read: dict[str, Any] = {}
    for key, value in options.items():
        name = option_name(key)
        if isinstance(value, dict) and name not in FIELDS:
            raise UsageError(f"{path}: recipes have no sections; remove the line [{key}]")
        _check_known(name, str(path))
        if name in read:
            raise UsageError(f"{path}: {name} is set twice, with a hyphen and an underscore; set it once")
        read[name] = None if value == "none" and _allows_none(name) else value  # TOML has no null
    return read


def load_recipe(name: str | None, *, overrides: dict[str, Any] | None = None) -> Recipe:
    """A recipe by name or path of a TOML file (None: the published method), with `overrides` on top. Another objective
    brings its default loss. Raises UsageError."""
    overrides = overrides or {}
    for key in overrides:
        _check_known(key, "--set")
    place = "--set" if name is None else f"recipe {name}"
    name = name or PUBLISHED
    path = FOLDER / f"{name}.toml"
    if name.endswith(".toml"):
        path, place = Path(name), name
    if not path.is_file():
        raise UsageError(f"--recipe {name}: not found; known are {', '.join(available())}, or pass a path to a .toml")
    options = _read(path)
    objective = options.get("objective", Recipe.objective)
    if overrides.get("objective", objective) != objective:
        options.pop("loss", None)
    try:
        recipe = Recipe(**options | overrides)
    except UsageError as exc:
        text = str(exc).removeprefix("recipe: ")
        raise UsageError(f"{'--set' if text.split()[0] in overrides else place}: {text}") from exc
    if recipe.normalisation == "dataset" and (recipe.mean or recipe.std):  # a checkpoint has all three
        raise UsageError(f"{place}: normalisation=dataset replaces mean and std; leave them out")
    return recipe
