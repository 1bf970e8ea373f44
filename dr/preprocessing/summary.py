"""The content of report.json -> the lines that data.py prints."""

from dr import GRADES
from dr.imaging.quality import TWO_RETINAS
from dr.preprocessing.facts import patient_lines, ungradable_line
from dr.preprocessing.split import CLASS_FULL
from dr.sources.archive import unsupported_line

FLAGGED = 0.05  # of the images: fewer may be as poor as the flag states
FLAG_REMEDIES = {
    "no_retina": ", and if these are no fundus images use --no_crop",
    TWO_RETINAS: ", and split them with --stereo",
}
MAX_LISTED_CLASSES = 10  # with more, only totals are printed


def summary_lines(report: dict) -> list[str]:
    """Counts of each split and class, and notes about what the user may not expect."""
    lines = ["already preprocessed with these settings; nothing to do"] if report.get("already_finished") else []
    lines += report.get("notes", [])
    if report.get("ungradable", {}).get("images"):
        lines.append(f"note: {ungradable_line(report['ungradable'])}")
    lines += [
        f"note: skipped {count:,} images without a label: in no row of the table, or in no folder of a split or class"
        for count in report.get("unlabelled_images", {}).values()
    ]
    lines += [f"note: {unsupported_line(*example)}" for example in report.get("unsupported_images", {}).values()]
    lines += [f"note: {line}" for line in patient_lines(report["patients"])] if "patients" in report else []
    lines += _excluded_lines(report.get("excluded", {}))
    many = len(report["settings"]["classes"]) > MAX_LISTED_CLASSES
    return [*lines, *(_totals if many else _counts_by_class)(report), *_flag_lines(report)]


def _excluded_lines(excluded: dict[str, int]) -> list[str]:
    """A line about the images in no split, without those that --per_class leaves out."""
    counts = {reason: count for reason, count in excluded.items() if reason != CLASS_FULL}
    reasons = ", ".join(f"{count:,} ({reason})" for reason, count in counts.items())
    return [f"note: left out of all splits: {reasons}; see duplicates.csv"] if counts else []


def _flag_lines(report: dict) -> list[str]:
    """A line for each quality flag that more than FLAGGED of the images have, and one for frames with two retinas."""
    images = sum(sum(counts) for counts in report["counts"].values())
    lines = []
    for flag, count in sorted(report.get("quality_flags", {}).items()):
        remedy = FLAG_REMEDIES.get(flag, "")
        if count > FLAGGED * images or flag == TWO_RETINAS:
            lines.append(f"note: {count:,} of {images:,} images are flagged {flag}; see report.html{remedy}")
    return lines


def skipped_lines(report: dict) -> list[str]:
    """The images that could not be used, and what to do; empty without such images."""
    lines = [f"skipped {each['source']}/{each['original']}: {each['reason']}" for each in report["skipped"]]
    return [*lines, "fix the images listed above and run again; only they are retried"] if lines else []


def _totals(report: dict) -> list[str]:
    """For many classes."""
    classes, per_class = report["settings"]["classes"], report["settings"]["per_class"]
    below, unvalidated = report["below_per_class"], _without_validation(report["counts"])
    width = _width(report)
    lines = [f"{name:{width}}  {sum(n):,} images of {len(classes)} classes" for name, n in report["counts"].items()]
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
    lines, width = [], _width(report)
    if empty := [grade for grade in range(len(classes)) if not any(n[grade] for n in report["counts"].values())]:
        lines.append(
            f"note: no image has grade {', '.join(map(str, empty))}; if the labels are not grades, pass their column "
            "with --label_column"
        )
    for name, counts in report["counts"].items():
        each = (f"{k}: {count}" for k, count in zip(classes, counts, strict=True))
        lines.append("  ".join([f"{name:{width}}", *each]))
    for grade, count in report["below_per_class"].items():
        lines.append(
            f"note: {_class_name(grade, classes)} has {count} training images, not {per_class}; no more are available"
        )
    for grade, count in _without_validation(report["counts"]).items():
        lines.append(
            f"note: {_class_name(grade, classes)} has no validation image, but {count} training images of "
            f"{_main(report['counts'])}; the metrics do not cover it"
        )
    return lines


def _without_validation(counts: dict[str, list[int]]) -> dict[int, int]:
    """{grade without validation images: its number of training images from the main source}."""
    pairs = zip(counts["validation"], counts[f"train: {_main(counts)}"], strict=True)
    return {grade: trained for grade, (validated, trained) in enumerate(pairs) if trained and not validated}


def _main(counts: dict[str, list[int]]) -> str:
    """The name of the main source: the first that counts name."""
    return next(name for name in counts if name.startswith("train: ")).removeprefix("train: ")


def _width(report: dict) -> int:
    """Characters of the longest name of `counts`, at least those of 'train: 2015'."""
    return max(12, *map(len, report["counts"]))


def _class_name(grade: str | int, classes: list[str]) -> str:
    return f"grade {grade}" if tuple(classes) == GRADES else f"class {classes[int(grade)]}"
