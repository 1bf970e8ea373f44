"""The table of a sweep: one row per run, the best in bold, and one per group of runs that differ in their seed only."""

import statistics

from dr.grading import baseline
from dr.training.sweep.plan import FOLD, Trial

REPEATS = ("seed", FOLD)  # swept options over which metrics are averaged


def metric_columns() -> list[str]:
    """The columns of runs.csv that a sweep shows; a run without a test split has none of the test's."""
    from dr.grading import registry

    val, test = ([metric.column(split) for metric in registry.table(split)] for split in registry.EVALUATED_SPLITS)
    return [*val, "val_loss", "test_loss", *test]


def metric_value(row: dict[str, str], key: str) -> float | None:
    """None where the run failed or the metric is not defined."""
    return None if row.get(key, "") in ("", "nan") else float(row[key])


def metric_text(row: dict[str, str], key: str) -> str:
    """'0.512 (0.430 to 0.591)': with the 95 % interval where there is one, with † at or below the baseline, and with
    the class of a metric that is that of one class."""
    value, low, high = (metric_value(row, f"{key}{end}") for end in ("", "_low", "_high"))
    if value is None:
        return ""
    mark = "†" if below_majority(row, key) else ""
    interval = "" if low is None or high is None else f" ({low:.3f} to {high:.3f})"
    return f"{value:.3f}{mark}{interval} {row.get(f'{key}_class', '')}".rstrip()


def below_majority(row: dict[str, str], key: str) -> bool:
    """Whether the column of a row is an accuracy that does not exceed the majority-class baseline."""
    return baseline.below_majority(metric_value(row, key), metric_value(row, baseline.MAJORITY.get(key, "")))


def _comparison_metric(trials: list[Trial]) -> str:
    """The metric that ranks the runs: the one that selects their epochs, if all share one."""
    rules = {trial.recipe.monitor for trial in trials}
    if len(rules) == 1 and rules != {"last"}:
        return rules.pop()
    from dr.grading import registry

    return registry.SELECTION


def _best(trials: list[Trial], rows: list[dict[str, str]]) -> dict[str, str] | None:
    """The row of the best run, the first of equals; None where no run has the metric."""
    key = _comparison_metric(trials)
    candidates = [row for row in rows if metric_value(row, key) is not None]
    sign = -1 if key == "val_loss" else 1
    return max(candidates, key=lambda row: sign * metric_value(row, key), default=None)


def best_summary(trials: list[Trial], rows: list[dict[str, str]]) -> str:
    """One line about the best run, or about the mean of runs that differ in seed and fold alone."""
    key, best = _comparison_metric(trials), _best(trials, rows)
    swept = list(trials[0].swept)
    finished = [value for row in rows if (value := metric_value(row, key)) is not None]
    if set(swept) <= set(REPEATS) and len(finished) > 1:
        mean, deviation = statistics.mean(finished), statistics.stdev(finished)
        return f"over {len(finished)} {_repeated(swept)}s: {key} {mean:.3f} ± {deviation:.3f}"
    return "no run was finished" if best is None else f"best run {best['name']}: {key} {metric_text(best, key)}"


def markdown_table(header: list[str], lines: list[list[str]]) -> str:
    """Cells as text -> a Markdown table."""
    escaped = [[cell.replace("|", r"\|") for cell in line] for line in [header, ["---"] * len(header), *lines]]
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def _over_repeats(rows: list[dict[str, str]], *, swept: list[str], metrics: list[str]) -> str:
    """Runs that differ in seed and fold only as one line: mean and sample standard deviation of each metric."""
    others = [key for key in swept if key not in REPEATS]
    groups: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in others), []).append(row)

    def spread(group: list[dict[str, str]], metric: str) -> str:
        values = [metric_value(row, metric) for row in group]
        if not values or None in values:
            return ""
        deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
        return f"{statistics.mean(values):.3f}{deviation}"

    lines = []
    for key, group in groups.items():
        finished = [row for row in group if not row["error"]]
        lines.append([*key, str(len(finished)), *(spread(finished, metric) for metric in metrics)])
    return markdown_table([*others, f"{_repeated(swept)}s", *metrics], lines)


def _repeated(swept: list[str]) -> str:
    """The swept option of REPEATS, "run" if both are."""
    found = [key for key in swept if key in REPEATS]
    return found[0] if len(found) == 1 else "run"


def markdown(trials: list[Trial], rows: list[dict[str, str]], *, name: str, command: str) -> str:
    """The rows of the finished runs as a table, the best in bold, and a second table over seeds."""
    swept = list(trials[0].swept)
    metrics = [key for key in metric_columns() if any(metric_value(row, key) is not None for row in rows)]
    errors = ["error"] if any(row["error"] for row in rows) else []
    best, lines = None if set(swept) <= set(REPEATS) else _best(trials, rows), []
    for row in rows:
        start, end = [row[key] for key in swept] + [row.get("best_epoch", "")], [row.get("minutes", "")]
        line = [*start, *(metric_text(row, key) for key in metrics), *end, *(row[key] for key in errors)]
        lines.append([f"**{cell}**" if cell and row is best else cell for cell in line])
    marked = any(below_majority(row, key) for row in rows for key in baseline.MAJORITY)
    note = "† accuracy does not exceed the majority-class baseline.\n\n" if marked else ""
    bold = "" if best is None else f"In bold: the best run by {_comparison_metric(trials)}. "
    text = (
        f"# Sweep {name}\n\n`{command}`\n\n{len(rows)} of {len(trials)} runs. In parentheses: 95 % intervals. {bold}"
        "Metrics without test_ are those of the validation split.\n\n"
        f"{note}{markdown_table([*swept, 'best_epoch', *metrics, 'minutes', *errors], lines)}"
    )
    if {*swept} & {*REPEATS}:
        repeats = _over_repeats(rows, swept=swept, metrics=metrics)
        text += f"\nOver {_repeated(swept)}s, mean ± standard deviation:\n\n{repeats}"
    return text
