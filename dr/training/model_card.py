"""NAME__card.md: what a network is, was made from, reaches, and is not for (Mitchell et al., Model Cards for Model
Reporting, FAccT 2019). Written with each better epoch, and again at the end with intervals and the test."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from dr.core import files
from dr.datasets.preprocessed import PreprocessedData
from dr.grading import metrics
from dr.pages.html import TEMPLATES
from dr.pages.style import MOST_CLASSES
from dr.training import summary


def _cell(text: str) -> str:
    """A name from the outside as plain Markdown: it opens no tag, table cell, link or emphasis."""
    escaped = " ".join(str(text).split())
    for sign in "\\`*[]|<>":
        escaped = escaped.replace(sign, f"\\{sign}")
    return escaped


def render(content: Mapping[str, Any], *, name: str, data: PreprocessedData) -> str:
    """The fields of a checkpoint and the data of its run -> the card, in Markdown."""
    recipe, _ = summary.recipe_of(content)
    side = summary.sides(content)[-1]  # the test, where there is one
    figures, intervals = summary.class_metrics(content, side)
    rows = summary.class_rows(content["classes"], figures, intervals)
    worst = sorted(rows, key=lambda row: row["f1"][0])[:MOST_CLASSES] if len(rows) > MOST_CLASSES else rows
    measured = [
        row | {"text": summary.with_interval(row["value"], row["low"], row["high"])}
        for row in summary.metric_rows(content)
    ]
    composition = summary.composition_rows(data)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cell": _cell, "number": summary.number, "spread": lambda v: summary.with_interval(*v)}
    text = environment.get_template("card.md.j2").render(
        name=name,
        classes=content["classes"],
        retina=summary.are_dr_grades(content["classes"]),
        finished="intervals" in content["metrics"],
        has_test=data.test is not None,
        epoch=content["metrics"]["epoch"],
        epochs=recipe.epochs,
        seed=recipe.seed,
        backbone=recipe.backbone,
        objective=recipe.objective,
        chosen=[(key, value) for key, value, default in summary.choices(recipe) if not default],
        thresholds=content["thresholds"],
        composition=composition,
        patients=any(row["patients"] is not None for row in composition),
        few=len(rows) <= MOST_CLASSES,
        patient_overlap=summary.patient_overlap(data),
        size=content["data"]["size"],
        crop=content["data"]["crop"],
        fold=content["data"].get("fold"),
        fingerprint=content["data"]["fingerprint"],
        figures=measured,
        optimistic=any(row["optimistic"] for row in measured),
        below_majority=metrics.below_majority(content["metrics"]),
        selected_by=summary.selected_by(content),
        seen_before=content.get("seen_before", []),
        side=side.word,
        fitted=side.fitted,
        class_rows=worst,
        more_classes=len(worst) < len(rows),
        scarcest=min(rows, key=lambda row: row["n"]),
        versions=content["versions"],
    )
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def write(path: str | Path, content: Mapping[str, Any], *, name: str, data: PreprocessedData) -> None:
    """The card as a file, whole or not there."""
    files.write_bytes(path, render(content, name=name, data=data).encode())
