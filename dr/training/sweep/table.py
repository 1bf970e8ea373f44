"""The table of a sweep: one row per run, the best in bold, and one per group of runs that differ in their seed only."""

import statistics

from dr.training.sweep.plan import Trial

MAJORITY = {"accuracy": "majority", "test_accuracy": "test_majority"}  # accuracy of the majority-class baseline


def metric_columns() -> list[str]:
    """The columns of runs.csv that a sweep shows; a run without a test split has none of the test's."""
    from dr.grading import registry

    val, test = ([metric.column(split) for metric in registry.table(split)] for split in registry.EVALUATED_SPLITS)
    return [*val, "val_loss", "test_loss", *test]


def metric_value(row: dict[str, str], key: str) -> float | None:
    """None where the run failed or the metric is not defined."""
    return None if row.get(key, "") in ("", "nan") else float(row[key])


def metric_text(row: dict[str, str], key: str) -> str:
    """'0.512 (0.430 to 0.591)': with the 95 % interval where there is one, and with † at or below the baseline."""
    value, low, high = (metric_value(row, f"{key}{end}") for end in ("", "_low", "_high"))
    if value is None:
        return ""
    mark = "†" if below_majority(row, key) else ""
    return f"{value:.3f}{mark}" if low is None or high is None else f"{value:.3f}{mark} ({low:.3f} to {high:.3f})"


def below_majority(row: dict[str, str], key: str) -> bool:
    """Whether an accuracy does not exceed the majority-class baseline."""
    value, baseline = metric_value(row, key), metric_value(row, MAJORITY.get(key, ""))
    return value is not None and baseline is not None and value <= baseline


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
    """One line about the best run."""
    key, best = _comparison_metric(trials), _best(trials, rows)
    return "no run was finished" if best is None else f"best run {best['name']}: {key} {metric_text(best, key)}"


def markdown_table(header: list[str], lines: list[list[str]]) -> str:
    """Cells as text -> a Markdown table."""
    escaped = [[cell.replace("|", r"\|") for cell in line] for line in [header, ["---"] * len(header), *lines]]
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def _over_seeds(rows: list[dict[str, str]], *, swept: list[str], metrics: list[str]) -> str:
    """Runs that differ in their seed only as one line: mean and sample standard deviation of each metric."""
    others = [key for key in swept if key != "seed"]
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
    return markdown_table([*others, "seeds", *metrics], lines)


def markdown(trials: list[Trial], rows: list[dict[str, str]], *, name: str, command: str) -> str:
    """The rows of the finished runs as a table, the best in bold, and a second table over seeds."""
    swept = list(trials[0].swept)
    metrics = [key for key in metric_columns() if any(metric_value(row, key) is not None for row in rows)]
    errors = ["error"] if any(row["error"] for row in rows) else []
    best, lines = _best(trials, rows), []
    for row in rows:
        start, end = [row[key] for key in swept] + [row.get("best_epoch", "")], [row.get("minutes", "")]
        line = [*start, *(metric_text(row, key) for key in metrics), *end, *(row[key] for key in errors)]
        lines.append([f"**{cell}**" if cell and row is best else cell for cell in line])
    marked = any(below_majority(row, key) for row in rows for key in MAJORITY)
    note = "† accuracy does not exceed the majority-class baseline.\n\n" if marked else ""
    text = (
        f"# Sweep {name}\n\n`{command}`\n\n{len(rows)} of {len(trials)} runs. In parentheses: 95 % intervals. "
        f"In bold: the best run by {_comparison_metric(trials)}. Metrics without test_ are those of the validation "
        f"split.\n\n{note}{markdown_table([*swept, 'best_epoch', *metrics, 'minutes', *errors], lines)}"
    )
    if "seed" in swept:
        text += f"\nOver seeds, mean ± standard deviation:\n\n{_over_seeds(rows, swept=swept, metrics=metrics)}"
    return text
