"""NAME__report.html: how a run went and how good its network is, in one file; and the pictures that only it needs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dr.datasets.preprocessed import PreprocessedData
from dr.grading import metrics
from dr.grading.objectives import Classification
from dr.inference import checkpoint
from dr.pages import charts
from dr.pages import html as page
from dr.pages.style import MOST_CLASSES
from dr.training import summary, worst_errors
from dr.training.run_files import PICTURES, RunFiles
from dr.training.summary import Side

HEADLINES = ("macro_f1_cross_fitted", "kappa_cross_fitted", "macro_f1", "kappa", "accuracy", "auc")


def _draw(side: Side, figures: tuple, *, data: PreprocessedData, paths: RunFiles) -> None:
    classes = list(data.classes)
    note = ", cuts fitted to the same photographs" if side.fitted else ""
    title = f"{paths.name}: {side.word}{note}"
    charts.class_metrics(*figures, path=paths.picture("classes"), classes=classes, title=title)
    if len(classes) <= MOST_CLASSES:
        counts = summary.composition(data).drop(columns="patients").astype(int)
        charts.split_bars(counts, path=paths.picture("split"), classes=classes)


def _shown_mistakes(
    content: Mapping[str, Any], side: Side, *, best: Path, data: PreprocessedData, device: Any
) -> tuple[list[dict[str, Any]], str | None]:
    """-> what the page shows of each of the worst mistakes, and why there is no heat."""
    network = checkpoint.read(content, best)
    network.network.to(device)
    table = getattr(data, side.name)
    graded = {"predictions": side.predictions, "truth": side.truth, "grades": side.grades}
    rows = worst_errors.worst(network.objective, **graded)
    found, why = worst_errors.show(network, [data.root / path for path in table["path"]], rows, **graded)
    what = "probability" if isinstance(network.objective, Classification) else "score"
    return [
        {
            "file": table["path"].iloc[one.row],
            "truth": one.truth,
            "grade": one.grade,
            "value": f"{what} {one.value:.2f}",
            "photo": page.data_uri(page.jpeg(one.photo, quality=80)),
            "heated": None if one.heated is None else page.data_uri(page.jpeg(one.heated, quality=80)),
        }
        for one in found
    ], why


def _headlines(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """The few figures that matter: of the test where there is one, else of validation, none that flatter."""
    sides = {row["side"] for row in rows}
    side = "test" if "test" in sides else "validation"
    honest = [row for row in rows if row["side"] == side and row["key"] in HEADLINES and not row["optimistic"]]
    found = []
    for row in honest:
        value, _, spread = summary.with_interval(row["value"], row["low"], row["high"]).partition(" ")
        found.append((value, f"{side}: {row['name']} {spread}".rstrip()))
    return found


def write(
    paths: RunFiles,
    content: Mapping[str, Any],
    *,
    data: PreprocessedData,
    row: Mapping[str, Any],
    epochs: int,
    device: Any = "cpu",
) -> None:
    """The fields of a finished run's best checkpoint, its data and its row of runs.csv -> NAME__report.html, with the
    pictures NAME__*.png that are there and those drawn here. `epochs` were trained; `device` computes explanations."""
    sides = summary.sides(content)
    side = sides[-1]
    figures = summary.class_metrics(content, side)
    _draw(side, figures, data=data, paths=paths)
    recipe, _ = summary.recipe_of(content)
    measured = summary.metric_rows(content)
    shown, why = _shown_mistakes(content, side, best=paths.best, data=data, device=device)
    class_rows = summary.class_rows(content["classes"], *figures)
    many = len(class_rows) > MOST_CLASSES
    choices = summary.choices(recipe)
    page.write(
        paths.report,
        "run.html.j2",
        name=paths.name,
        row=row,
        best=content["metrics"]["epoch"],
        epochs=epochs,
        headlines=_headlines(measured),
        measured=[r | {"text": summary.with_interval(r["value"], r["low"], r["high"])} for r in measured],
        below_majority=metrics.below_majority(content["metrics"]),
        selected_by=summary.selected_by(content),
        classes=content["classes"],
        many=many,
        class_rows=sorted(class_rows, key=lambda r: r["f1"][0])[:MOST_CLASSES] if many else class_rows,
        confusion_pairs=summary.confusion_pairs(side, content["classes"]),
        side=side,
        fitted=any(one.fitted for one in sides),
        spread=lambda values: summary.with_interval(*values),
        number=summary.number,
        mistakes=shown,
        wrong=int((side.truth != side.grades).sum()),
        why_no_heat=why,
        composition=summary.composition_rows(data),
        patient_overlap=summary.patient_overlap(data),
        changed=[(key, value) for key, value, default in choices if not default],
        defaults=[(key, value) for key, value, default in choices if default],
        thresholds=content["thresholds"],
        content=content,
        pictures={what: page.data_uri(path) if (path := paths.picture(what)).is_file() else None for what in PICTURES},
    )
