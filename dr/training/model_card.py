"""NAME/card.md: what a network is, how it was trained, its metrics and its limits (Mitchell et al., Model Cards for
Model Reporting, FAccT 2019). Written with each better epoch, and at the end with intervals and the test."""

import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from dr import SPLIT_NAMES
from dr.core import files
from dr.datasets.preprocessed import PreprocessedData
from dr.grading import registry
from dr.inference.checkpoint import Checkpoint
from dr.pages.html import TEMPLATES
from dr.pages.style import MOST_CLASSES
from dr.training import summary

MOST_NAMED = 30  # classes in one sentence


def write(path: str | Path, checkpoint: Checkpoint, *, name: str, data: PreprocessedData) -> None:
    """Writes the card whole or not at all."""
    files.write_bytes(path, render(checkpoint, name=name, data=data).encode())


def render(checkpoint: Checkpoint, *, name: str, data: PreprocessedData) -> str:
    """The card of a checkpoint with validation predictions, and of the data of its run, in Markdown."""
    text = (
        _environment()
        .get_template("card.md.j2")
        .render(
            name=name,
            checkpoint=checkpoint,
            has_test=data.test is not None,
            named_classes=_named(checkpoint.classes),
            retina=summary.are_dr_grades(checkpoint.classes),
            changed_options=[(key, value) for key, value, default in summary.options(checkpoint.recipe) if not default],
            **_metrics(checkpoint),
            **_data(data),
        )
    )
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


@functools.cache  # it keeps the compiled template, which takes longer to compile than to render
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cell": _cell, "number": summary.number, "spread": lambda v: summary.with_interval(*v)}
    return environment


def _metrics(checkpoint: Checkpoint) -> dict[str, Any]:
    graded = checkpoint.graded_splits()[-1]  # the test, where there is one
    class_rows = summary.class_rows(checkpoint.classes, *summary.class_metrics(checkpoint, graded))
    rows = summary.metric_texts(checkpoint)
    worst = sorted(class_rows, key=lambda row: row["f1"][0])[:MOST_CLASSES]
    return {
        "finished": bool(checkpoint.intervals),
        "metrics": rows,
        "optimistic": any(row["optimistic"] for row in rows),
        "missed": summary.missed_lines(checkpoint),
        "below_majority": summary.below_majority_lines(checkpoint),
        "split": SPLIT_NAMES[graded.name],
        "fitted": graded.fitted,
        "class_metrics": registry.CLASS_METRICS,
        "class_rows": worst if len(class_rows) > MOST_CLASSES else class_rows,
        "rarest": min(class_rows, key=lambda row: row["n"]),
    }


def _data(data: PreprocessedData) -> dict[str, Any]:
    composition = summary.composition_rows(data)
    return {
        "composition": composition,
        "patients": any(row["patients"] is not None for row in composition),
        "class_columns": [_cell(name) for name in data.classes] if len(data.classes) <= MOST_CLASSES else [],
        "patient_overlap": summary.patient_overlap(data),
        "held_out_by": _held_out_by(summary.patients_known(data)),
    }


def _held_out_by(known: float) -> str:
    """The share of images whose patient is known -> what a fold keeps together, in words."""
    if known == 1:
        return "whole patients"
    return "whole patients where they are known, else by image" if known else "image, because patients are not known"


def _named(classes: Sequence[str]) -> str:
    """The classes in one line, of very many the first five and the last."""
    shown = classes if len(classes) <= MOST_NAMED else [*classes[:5], "...", classes[-1]]
    return ", ".join(_cell(name) for name in shown)


def _cell(text: str) -> str:
    """A name from outside as plain Markdown, without tags, table cells, links or emphasis."""
    escaped = " ".join(str(text).split())
    for sign in "\\`*[]|<>":
        escaped = escaped.replace(sign, f"\\{sign}")
    return escaped
