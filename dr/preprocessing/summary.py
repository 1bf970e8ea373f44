"""The content of report.json -> the lines that data.py prints."""

from dr import GRADES
from dr.sources.archive import unsupported_line

MAX_LISTED_CLASSES = 10  # with more, only totals are printed


def summary_lines(report: dict) -> list[str]:
    """Counts of each split and class, and notes about what the user may not expect."""
    lines = ["already preprocessed with these settings; nothing to do"] if report.get("already_finished") else []
    lines += [
        f"note: skipped {count:,} images without a label: in no row of the table, or in no folder of a split or class"
        for count in report.get("unlabelled_images", {}).values()
    ]
    lines += [f"note: {unsupported_line(*example)}" for example in report.get("unsupported_images", {}).values()]
    if len(report["settings"]["classes"]) > MAX_LISTED_CLASSES:
        return lines + _totals(report)
    return lines + _counts_by_class(report)


def skipped_lines(report: dict) -> list[str]:
    """The images that could not be used, and what to do; empty without such images."""
    lines = [f"skipped {each['source']}/{each['original']}: {each['reason']}" for each in report["skipped"]]
    return [*lines, "fix the images listed above and run again; only they are retried"] if lines else []


def _totals(report: dict) -> list[str]:
    """For many classes."""
    classes, per_class = report["settings"]["classes"], report["settings"]["per_class"]
    below, unvalidated = report["below_per_class"], _without_validation(report["counts"])
    lines = [f"{name:12}  {sum(n):,} images of {len(classes)} classes" for name, n in report["counts"].items()]
    if below:
        lines.append(f"note: {len(below)} classes have fewer than {per_class} training images; no more are available")
    if unvalidated:
        names = ", ".join(classes[grade] for grade in list(unvalidated)[:3])
        more = ", ..." if len(unvalidated) > 3 else ""
        lines.append(f"note: {len(unvalidated)} classes have no validation image: {names}{more}")
    return lines


def _counts_by_class(report: dict) -> list[str]:
    """For few classes."""
    classes, per_class = report["settings"]["classes"], report["settings"]["per_class"]
    lines = []
    if empty := [grade for grade in range(len(classes)) if not any(n[grade] for n in report["counts"].values())]:
        lines.append(
            f"note: no image has grade {', '.join(map(str, empty))}; if the labels are not grades, pass their column "
            "with --label_column"
        )
    for name, counts in report["counts"].items():
        lines.append("  ".join([f"{name:12}", *(f"{k}: {count}" for k, count in zip(classes, counts, strict=True))]))
    for grade, count in report["below_per_class"].items():
        lines.append(
            f"note: {_class_name(grade, classes)} has {count} training images, not {per_class}; no more are available"
        )
    for grade, count in _without_validation(report["counts"]).items():
        lines.append(
            f"note: {_class_name(grade, classes)} has no validation image, but {count} training images of the main "
            "source; the metrics do not cover it"
        )
    return lines


def _without_validation(counts: dict[str, list[int]]) -> dict[int, int]:
    """{grade without validation images: its number of training images from the main source}."""
    return {
        grade: trained
        for grade, (validated, trained) in enumerate(zip(counts["validation"], counts["train: main"], strict=True))
        if trained and not validated
    }


def _class_name(grade: str | int, classes: list[str]) -> str:
    return f"grade {grade}" if tuple(classes) == GRADES else f"class {classes[int(grade)]}"
