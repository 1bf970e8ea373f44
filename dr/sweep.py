"""Every combination of some choices, trained one after the other -> NAME__sweep.csv and .md with a row for each run.

Nothing at the head of this file takes long to import: train.py plans its runs, and tells wrong flags, before torch is.
"""

import csv
import hashlib
import itertools
import json
import re
import statistics
import sys
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dr import UsageError, ranks, recipes
from dr.recipes import Recipe

FIGURES = (  # of a row of runs.csv, in the order of the tables; a run without a test has no test figures
    "macro_f1_cross_fitted", "kappa_cross_fitted", "accuracy", "auc", "val_loss",
    "test_loss", "test_accuracy", "test_auc", "test_macro_f1", "test_kappa",
)  # fmt: skip
MADE_FROM = "recipe_and_data"  # a hash of both: a run is finished where the table has a row with its own
MAJORITY = {"accuracy": "majority", "test_accuracy": "test_majority"}  # the share of the most frequent class
MEASURED = (
    "best_epoch",
    *(f"{name}{end}" for name in FIGURES for end in ("", "_low", "_high")),
    *MAJORITY.values(),
    "minutes",
)
COLUMNS = (*MEASURED, "error", "name", MADE_FROM)  # those of NAME__sweep.csv behind the swept choices
NETWORK = (
    *("backbone", "pretrained", "head", "dropout", "activation", "stem", "pooling", "stochastic_depth", "shakedrop"),
    *("image_size", "crop_size", "grad_checkpointing"),
)
LONGEST_NAME = 200  # of the 255 bytes that file systems allow: endings and numbers follow


@dataclass(frozen=True)
class Trial:
    """One run that is planned: its name and recipe, its values of the swept choices as text, and what runs.csv records
    of its command."""

    name: str
    recipe: Recipe
    chosen: dict[str, str]
    recorded: dict[str, str]


# --- what is going to be trained ----------------------------------------------------------------


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
            raise UsageError(f"--sweep: {long} is too long for a file name; give a shorter --name or shorter values")


def plan(sweeps: list[str], *, recipe: str | None, overrides: dict[str, Any], name: str) -> list[Trial]:
    """Texts as `lr=1e-5,1e-4` -> a trial for each combination, the last choice changing fastest; without any text the
    one run of `recipe` with `overrides`. Raises UsageError for whatever is wrong with any of them."""
    swept = _swept(sweeps, overrides)
    combinations = [dict(zip(swept, values, strict=True)) for values in itertools.product(*swept.values())]
    trials = [_trial(name, recipe=recipe, overrides=overrides, chosen=chosen) for chosen in combinations]
    if swept:
        _check_names(trials, name)
    return trials


# --- training -----------------------------------------------------------------------------------


def _made_from(recipe: Recipe, fingerprint: str) -> str:
    text = json.dumps([recipe.to_dict(), fingerprint], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _read(path: Path) -> list[dict[str, str]]:
    """The rows of an earlier NAME__sweep.csv, none where there is no such file. Raises UsageError."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, restval=""))
    if not all({"error", "name", MADE_FROM} <= row.keys() for row in rows):
        raise UsageError(f"{path}: it is not the table of a sweep; move it, or give another --name")
    return rows


def _write(prefix: str, rows: list[dict[str, str]], others: list[dict[str, str]], text: str) -> None:
    import pandas as pd

    from dr import files

    present = dict.fromkeys(key for row in [*rows, *others] for key in row)
    columns = [key for key in present if key not in COLUMNS] + [key for key in COLUMNS if key in present]
    files.write_csv(f"{prefix}.csv", pd.DataFrame([*rows, *others], columns=columns))
    files.write_bytes(f"{prefix}.md", text.encode())


def _check_machine(trials: list[Trial], device_name: str) -> None:
    """Raises UsageError for a device, a backbone or weights that are not there: better told now than hours later."""
    from dr import device, models, surgery

    for precision in {trial.recipe.precision for trial in trials}:
        device.accelerator(device_name, precision=precision)
    networks = {tuple(getattr(trial.recipe, key) for key in NETWORK): trial.recipe for trial in trials}
    for recipe in networks.values() if ranks.MAIN else ():
        model = models.build(recipe, num_outputs=1)
        models.check(model, recipe, num_outputs=1)
        if recipe.grad_checkpointing:
            surgery.checkpoint_gradients(model.backbone, recipe.backbone)


def _can_go_on(prefix: str, recipe: Recipe, fingerprint: str) -> bool:
    """Whether a run of the same recipe and data was stopped and left its PREFIX__last.pt and PREFIX__best.pt."""
    from dr import models

    last = Path(f"{prefix}__last.pt")
    if not (last.is_file() and Path(f"{prefix}__best.pt").is_file()):
        return False
    try:
        saved = models.load_tensors(last)
    except UsageError:  # damaged: it is kept as `previous`, and the run starts anew
        return False
    before, measured = saved.get("recipe", {}), ("mean", "std") if recipe.normalisation == "measured" else ()
    same = all(before.get(key) == value for key, value in recipe.to_dict().items() if key not in measured)
    as_many = len(saved.get("random", ())) == ranks.COUNT
    return same and as_many and "optimizer" in saved and saved["data"]["fingerprint"] == fingerprint


def _trained(trial: Trial, *, data: Any, folder: str, **options) -> dict[str, str]:
    """Trains -> what the table says of the run: its figures, or the error that ended it."""
    import torch

    from dr import outcome, training

    go_on = _can_go_on(str(Path(folder) / trial.name), trial.recipe, data.fingerprint)
    named = {"name": trial.name, MADE_FROM: _made_from(trial.recipe, data.fingerprint)}
    options |= {"go_on": go_on, "recorded": trial.recorded}
    try:
        row = training.train(trial.recipe, data=data, folder=folder, name=trial.name, **options)
    except Exception as exc:  # whatever it is, other combinations may well be trained
        error = " ".join(str(exc).split())
        if ranks.COUNT > 1:
            raise  # one may have failed alone, and the others wait for it: that ends the sweep
        if not isinstance(exc, (UsageError, torch.OutOfMemoryError)):
            traceback.print_exc()
            error = f"{type(exc).__name__}: {error}"
        print(f"failed: {error}")
        return trial.chosen | {"error": error} | named
    print(*outcome.in_words(row), sep="\n")
    measured = {key: str(row[key]) for key in MEASURED if row.get(key) is not None}
    return trial.chosen | measured | {"error": ""} | named


def _finished(trials: list[Trial], before: list[dict[str, str]], fingerprint: str) -> dict[str, dict[str, str]]:
    """-> the rows of trials that an earlier sweep has finished, by the trial's name."""
    known = {row[MADE_FROM]: row for row in before if not row["error"]}
    rows = {}
    for trial in trials:
        if row := known.get(_made_from(trial.recipe, fingerprint)):
            rows[trial.name] = trial.chosen | {key: row[key] for key in COLUMNS if key in row}
    return rows


def train_all(
    trials: list[Trial], *, data: Any, folder: str, name: str, command: str, device_name: str = "auto", workers: int = 2
) -> list[dict[str, str]]:
    """Trains every trial that the table has no finished row of, and writes the table after each, below the `command`
    -> its rows, as text, in the order of the trials. A run that fails is a row with its `error`, to be tried again the
    next time; one that was stopped goes on after its last whole epoch. Raises UsageError for what no run could do
    without."""
    from dr import files

    prefix = str(Path(folder) / f"{name}__sweep")
    before = _read(Path(f"{prefix}.csv"))
    rows = _finished(trials, before, data.fingerprint)
    names = {trial.name for trial in trials} | {row["name"] for row in rows.values()}
    others = [row for row in before if row["name"] not in names]  # of an earlier sweep: they may be asked for again
    _check_machine([trial for trial in trials if trial.name not in rows], device_name)
    if ranks.MAIN:
        files.writable_folder(folder)

    for number, trial in enumerate(trials, start=1):
        known = trial.name in rows
        print(f"run {number} of {len(trials)}: {trial.name}{', finished before' if known else ''}")
        if not known:
            rows[trial.name] = _trained(trial, data=data, folder=folder, device_name=device_name, workers=workers)
        done = [rows[trial.name] for trial in trials if trial.name in rows]
        if ranks.MAIN:
            _write(prefix, done, others, markdown(trials, done, name=name, command=command))
    return done


# --- the tables ---------------------------------------------------------------------------------


def number(row: dict[str, str], key: str) -> float | None:
    """None where the run has no such figure: it failed, or the figure is not defined."""
    return None if row.get(key, "") in ("", "nan") else float(row[key])


def figure(row: dict[str, str], key: str) -> str:
    """'0.512 (0.430 to 0.591)': with the 95 % interval where there is one."""
    value, low, high = (number(row, f"{key}{end}") for end in ("", "_low", "_high"))
    if value is None:
        return ""
    mark = "†" if _no_better(row, key) else ""
    return f"{value:.3f}{mark}" if low is None or high is None else f"{value:.3f}{mark} ({low:.3f} to {high:.3f})"


def _no_better(row: dict[str, str], key: str) -> bool:
    """Whether an accuracy is no better than that of always giving the most frequent class."""
    value, always = number(row, key), number(row, MAJORITY.get(key, ""))
    return value is not None and always is not None and value <= always


def _best_by(trials: list[Trial]) -> str:
    """The figure that runs are compared by: the one that their epochs are, if that is one and the same."""
    rules = {trial.recipe.best_by for trial in trials}
    return rules.pop() if len(rules) == 1 and rules != {"last"} else "macro_f1_cross_fitted"


def _best(trials: list[Trial], rows: list[dict[str, str]]) -> dict[str, str] | None:
    """The row of the best run, the first of equals; None where no run has the figure."""
    by = _best_by(trials)
    candidates = [row for row in rows if number(row, by) is not None]
    sign = -1 if by == "val_loss" else 1
    return max(candidates, key=lambda row: sign * number(row, by), default=None)


def best_in_words(trials: list[Trial], rows: list[dict[str, str]]) -> str:
    """One line about the best run."""
    by, best = _best_by(trials), _best(trials, rows)
    return "no run was finished" if best is None else f"best run {best['name']}: {by} {figure(best, by)}"


def tell_failures(rows: list[dict[str, str]]) -> int:
    """Names each run that failed on stderr -> the exit code of the sweep."""
    failed = [row for row in rows if row["error"]]
    for row in failed:
        print(f"not trained: {row['name']}: {row['error']}", file=sys.stderr)
    return 1 if failed else 0


def files_of_weights(trials: list[Trial]) -> set[str]:
    """The paths that the recipes of these trials start from."""
    return {trial.recipe.pretrained for trial in trials} - {"imagenet", "none"}


def markdown_table(header: list[str], lines: list[list[str]]) -> str:
    escaped = [[cell.replace("|", r"\|") for cell in line] for line in [header, ["---"] * len(header), *lines]]
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def _over_seeds(rows: list[dict[str, str]], *, swept: list[str], figures: list[str]) -> str:
    """Runs that differ in their seed alone as one line: mean and sample standard deviation of each figure."""
    others = [key for key in swept if key != "seed"]
    groups: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in others), []).append(row)

    def spread(group: list[dict[str, str]], figure: str) -> str:
        values = [number(row, figure) for row in group]
        if not values or None in values:
            return ""
        deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
        return f"{statistics.mean(values):.3f}{deviation}"

    lines = []
    for key, group in groups.items():
        finished = [row for row in group if not row["error"]]
        lines.append([*key, str(len(finished)), *(spread(finished, figure) for figure in figures)])
    return markdown_table([*others, "seeds", *figures], lines)


def markdown(trials: list[Trial], rows: list[dict[str, str]], *, name: str, command: str) -> str:
    """The rows of the runs so far as the table of a paper, the best in bold, and a second one over seeds."""
    swept = list(trials[0].chosen)
    figures = [key for key in FIGURES if any(number(row, key) is not None for row in rows)]
    errors = ["error"] if any(row["error"] for row in rows) else []
    best, lines = _best(trials, rows), []
    for row in rows:
        start, end = [row[key] for key in swept] + [row.get("best_epoch", "")], [row.get("minutes", "")]
        line = [*start, *(figure(row, key) for key in figures), *end, *(row[key] for key in errors)]
        lines.append([f"**{cell}**" if cell and row is best else cell for cell in line])
    marked = any(_no_better(row, key) for row in rows for key in MAJORITY)
    note = "† no better than always answering with the most frequent class.\n\n" if marked else ""
    text = (
        f"# Sweep {name}\n\n`{command}`\n\n{len(rows)} of {len(trials)} runs; in parentheses 95 % intervals; "
        f"in bold the best by {_best_by(trials)}. Figures without test_ are of the validation photographs.\n\n"
        f"{note}{markdown_table([*swept, 'best_epoch', *figures, 'minutes', *errors], lines)}"
    )
    if "seed" in swept:
        text += f"\nOver seeds, mean ± standard deviation:\n\n{_over_seeds(rows, swept=swept, figures=figures)}"
    return text
