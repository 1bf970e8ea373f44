"""The table of a sweep, as in a paper: a row for each run, the best in bold, and one over seeds."""

import statistics

from dr.training.sweep.plan import Trial

FIGURES = (  # of a row of runs.csv, in the order of the tables; a run without a test has no test figures
    "macro_f1_cross_fitted", "kappa_cross_fitted", "accuracy", "auc", "val_loss",
    "test_loss", "test_accuracy", "test_auc", "test_macro_f1", "test_kappa",
)  # fmt: skip
MAJORITY = {"accuracy": "majority", "test_accuracy": "test_majority"}  # the share of the most frequent class


def number(row: dict[str, str], key: str) -> float | None:
    """None where the run has no such figure: it failed, or the figure is not defined."""
    return None if row.get(key, "") in ("", "nan") else float(row[key])


def figure(row: dict[str, str], key: str) -> str:
    """'0.512 (0.430 to 0.591)': with the 95 % interval where there is one."""
    value, low, high = (number(row, f"{key}{end}") for end in ("", "_low", "_high"))
    if value is None:
        return ""
    mark = "†" if below_majority(row, key) else ""
    return f"{value:.3f}{mark}" if low is None or high is None else f"{value:.3f}{mark} ({low:.3f} to {high:.3f})"


def below_majority(row: dict[str, str], key: str) -> bool:
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


def best_summary(trials: list[Trial], rows: list[dict[str, str]]) -> str:
    """One line about the best run."""
    by, best = _best_by(trials), _best(trials, rows)
    return "no run was finished" if best is None else f"best run {best['name']}: {by} {figure(best, by)}"


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
    marked = any(below_majority(row, key) for row in rows for key in MAJORITY)
    note = "† accuracy no better than that of always answering with the most frequent class.\n\n" if marked else ""
    text = (
        f"# Sweep {name}\n\n`{command}`\n\n{len(rows)} of {len(trials)} runs; in parentheses 95 % intervals; "
        f"in bold the best by {_best_by(trials)}. Figures without test_ are of the validation photographs.\n\n"
        f"{note}{markdown_table([*swept, 'best_epoch', *figures, 'minutes', *errors], lines)}"
    )
    if "seed" in swept:
        text += f"\nOver seeds, mean ± standard deviation:\n\n{_over_seeds(rows, swept=swept, figures=figures)}"
    return text
