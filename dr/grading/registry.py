"""The metrics of a run, in the order in which history, tables, pages, cards and messages show them.

A new metric is one entry of METRICS:

    Metric(key="balanced_accuracy", label="balanced accuracy", compute=balanced_accuracy)

with `def balanced_accuracy(matrix): ...`, confusion matrix (K, K) -> float. Code elsewhere names no metric: it loops
over `for_split`, `headline` or `table` and reads keys and labels from the entries.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dr import GRADES
from dr.grading import calibration, metrics

SELECTION = "macro_f1_cross_fitted"  # runs are compared by it, on validation: selecting on the test would bias the test
EVALUATED_SPLITS = ("val", "test")
COLUMN_PREFIXES = {"val": "", "test": "test_"}  # of columns of runs.csv
DECISIONS = {  # how scores become grades, as `Metric.decision` names it -> what a legend calls it
    "applied": "recipe's thresholds",
    "cross_fitted": "cross-fitted thresholds",
    "optimal": "optimal thresholds",
    "rounded": "scores rounded",
}
REFERABLE = 2  # grade: from it on, more than mild retinopathy is referred (Gulshan et al., JAMA 2016;316:2402)
CLASS_METRICS = {"n": "images", "recall": "recall", "precision": "precision", "f1": "F1", "auc": "AUC"}  # key -> label


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric.

    `compute` takes what `input` names and returns a float, NaN where the metric is not defined; for a proportion it
    returns (hits, total), or None where the classes have no such metric:
    - confusion: the confusion matrix (K, K) int, rows the true class, of the grades by `decision`
    - proportion: that matrix, the mean over several decisions, and the first referable class or None
      (`referable_from`); the value is hits / total, with Wilson's interval
    - class_scores: truth (N,) int, class_scores (N, K) float, higher for more probable classes
    - calibrated: probabilities (N, K) by a calibration fitted without the sample, truth (N,); validation of a
      finished run only
    - truth: truth (N,); a baseline, without an interval

    `decision` is how scores become grades:
    - applied: thresholds of the recipe's rule; on validation they are fitted to the same samples
    - cross_fitted: thresholds fitted by the same rule to the other half, the mean of 20 random halvings
    - optimal: thresholds of highest macro-F1 on the same samples
    - rounded: thresholds midway between grades
    Without thresholds to fit, applied and cross_fitted agree and the other two do not exist.
    """

    key: str  # of history.csv, runs.csv, metrics.json and the record of a run
    label: str  # in tables of metrics
    short: str = ""  # in column headers and log lines; the label where none is set
    family: str = ""  # of the variants of one metric, of which tables of runs show one; the key where none is set
    compute: Callable[..., float]
    input: Literal["confusion", "proportion", "class_scores", "calibrated", "truth"] = "confusion"
    decision: Literal["applied", "cross_fitted", "optimal", "rounded"] = "applied"
    splits: tuple[str, ...] = ("val", "test")
    in_tables: bool = True  # of runs: runs.md, sweep.md, the headlines of a page
    higher_is_better: bool = True
    class_of: Callable[..., int] | None = None  # that matrix -> the class that the value is of, where it is of one
    recentred: bool = False  # move bootstrap values so that their mean is the value: resampling inflates absolute gaps

    def __post_init__(self):
        object.__setattr__(self, "short", self.short or self.label)
        object.__setattr__(self, "family", self.family or self.key)

    @property
    def biased_by_fitting(self) -> bool:
        """Whether thresholds fitted to the same samples make the metric optimistic."""
        return self.input in ("confusion", "proportion") and self.decision in ("applied", "optimal")

    def is_optimistic(self, split: str, *, thresholds_fitted: bool) -> bool:
        """Whether the value on a split is optimistic. `thresholds_fitted`: the recipe's rule fits them to validation;
        the optimal thresholds always are."""
        return split == "val" and self.biased_by_fitting and (thresholds_fitted or self.decision == "optimal")

    def column(self, split: str) -> str:
        """The column of runs.csv: `accuracy` of validation, `test_accuracy` of the test; the ends of the interval
        follow with `_low` and `_high`."""
        return f"{COLUMN_PREFIXES[split]}{self.key}"

    def class_column(self, split: str) -> str:
        """The column of runs.csv with the name of the class that the value is of."""
        return f"{self.column(split)}_class"

    @property
    def class_index(self) -> str:
        """The key, beside the value, of the index of that class."""
        return f"{self.key}_class_index"


METRICS: tuple[Metric, ...] = (
    Metric(
        key="macro_f1_cross_fitted",
        label="macro-F1, cross-fitted",
        family="macro_f1",
        compute=metrics.macro_f1_of_confusion,
        decision="cross_fitted",
        splits=("val",),
    ),
    Metric(
        key="kappa_cross_fitted",
        label="quadratic kappa, cross-fitted",
        family="kappa",
        compute=metrics.quadratic_kappa_of_confusion,
        decision="cross_fitted",
        splits=("val",),
    ),
    Metric(key="macro_f1", label="macro-F1", compute=metrics.macro_f1_of_confusion, splits=("test",)),
    Metric(
        key="kappa",
        label="quadratic kappa",
        compute=metrics.quadratic_kappa_of_confusion,
        splits=("test",),
    ),
    Metric(
        key="kappa_applied",
        label="quadratic kappa, recipe's thresholds",
        family="kappa",
        compute=metrics.quadratic_kappa_of_confusion,
        splits=("val",),
        in_tables=False,
    ),
    Metric(key="accuracy", label="accuracy", compute=metrics.accuracy_of_confusion),
    Metric(
        key="auc",
        label="AUC, mean over classes, one-vs-rest",
        short="AUC",
        compute=metrics.auc,
        input="class_scores",
    ),
    Metric(
        key="referable_sensitivity_cross_fitted",
        label=f"referable sensitivity (grade {REFERABLE} and above), cross-fitted",
        short="referable sensitivity, cross-fitted",
        family="referable_sensitivity",
        compute=metrics.referable_counts,
        input="proportion",
        decision="cross_fitted",
        splits=("val",),
    ),
    Metric(
        key="referable_sensitivity",
        label=f"referable sensitivity (grade {REFERABLE} and above)",
        short="referable sensitivity",
        compute=metrics.referable_counts,
        input="proportion",
        splits=("test",),
    ),
    Metric(
        key="lowest_recall_cross_fitted",
        label="lowest recall, cross-fitted",
        family="lowest_recall",
        compute=metrics.lowest_recall_counts,
        class_of=metrics.lowest_recall_class,
        input="proportion",
        decision="cross_fitted",
        splits=("val",),
    ),
    Metric(
        key="lowest_recall",
        label="lowest recall",
        compute=metrics.lowest_recall_counts,
        class_of=metrics.lowest_recall_class,
        input="proportion",
        splits=("test",),
    ),
    Metric(
        key="ece",
        label="expected calibration error, cross-fitted",
        short="ECE, cross-fitted",
        compute=calibration.expected_calibration_error,
        input="calibrated",
        splits=("val",),
        in_tables=False,
        higher_is_better=False,
        recentred=True,
    ),
    Metric(
        key="macro_f1_optimal",
        label="macro-F1, optimal thresholds",
        short="macro-F1, optimal",
        family="macro_f1",
        compute=metrics.macro_f1_of_confusion,
        decision="optimal",
        splits=("val",),
    ),
    Metric(
        key="macro_f1_rounded",
        label="macro-F1, scores rounded",
        short="macro-F1, rounded",
        family="macro_f1",
        compute=metrics.macro_f1_of_confusion,
        decision="rounded",
        splits=("val",),
    ),
    Metric(
        key="majority",
        label="accuracy of the majority-class baseline",
        short="majority-class accuracy",
        compute=metrics.majority,
        input="truth",
        in_tables=False,
    ),
)


def for_split(split: str, *inputs: str) -> tuple[Metric, ...]:
    """The metrics of "val" or "test", of these inputs where some are named."""
    return tuple(metric for metric in METRICS if split in metric.splits and (not inputs or metric.input in inputs))


def by_key(key: str) -> Metric:
    """Raises KeyError for a key without an entry."""
    return {metric.key: metric for metric in METRICS}[key]


def unbiased(family: str, split: str, *, thresholds_fitted: bool = True) -> Metric | None:
    """The first metric of a family that is not optimistic on a split; None where all are."""
    return next(
        (
            metric
            for metric in for_split(split)
            if metric.family == family and not metric.is_optimistic(split, thresholds_fitted=thresholds_fitted)
        ),
        None,
    )


def headline(split: str, *, thresholds_fitted: bool = True) -> tuple[Metric, ...]:
    """One metric for each family, none of them optimistic: what to report about a run in a few words."""
    families = dict.fromkeys(metric.family for metric in for_split(split) if metric.in_tables)
    chosen = (unbiased(family, split, thresholds_fitted=thresholds_fitted) for family in families)
    return tuple(metric for metric in chosen if metric is not None)


def table(split: str) -> tuple[Metric, ...]:
    """One metric for each family, the unbiased one where there is one: the columns of a table of runs."""
    families = dict.fromkeys(metric.family for metric in for_split(split) if metric.in_tables)
    first = {metric.family: metric for metric in reversed(for_split(split))}
    return tuple(unbiased(family, split) or first[family] for family in families)


def referable_from(classes: Sequence[str]) -> int | None:
    """The first class that is referred to an ophthalmologist: grade 2 of the DR grades, "Moderate or worse" of the two
    classes that objective "binary" makes of them. None for other classes."""
    if tuple(classes) == GRADES:
        return REFERABLE
    return 1 if tuple(classes[1:]) == (f"{GRADES[REFERABLE]} or worse",) else None


def interval_text(value: float, low: float, high: float) -> str:
    """-> "0.512 (0.430 to 0.591)"."""
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


def epoch_text(values: Mapping[str, float]) -> str:
    """The values of `evaluation.evaluate` -> one line for a log, the variants of a metric behind each other:
    "macro-F1, cross-fitted 0.512 ... accuracy 0.700". Proportions follow from the recalls of the same line."""
    shown = [m for m in for_split("val") if m.in_tables and m.input != "proportion" and m.key in values]
    families = dict.fromkeys(metric.family for metric in shown)
    ordered = [metric for family in families for metric in shown if metric.family == family]
    return "  ".join(f"{metric.short} {values[metric.key]:.3f}" for metric in ordered)
