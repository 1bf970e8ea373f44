"""Synthetic archives in the layout of the real ones, so that every command runs on a fresh machine.

python -m dr.synthetic.demo make DIR                                     two archives and test_truth.csv
python -m dr.synthetic.demo score --truth DIR/test_truth.csv --result results/result.csv
"""

import argparse
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from dr import GRADES, UsageError
from dr.cli.parser import Parser
from dr.cli.run import run_main
from dr.core import files
from dr.grading.metrics import macro_f1
from dr.sources.csv_tables import read_grades
from dr.synthetic.drawing import EYES, fundus_image

MAIN_ZIP = "diabetic-retinopathy-classification-f1-score-4.zip"
EXTRA_ZIP = "train_image_resized.zip"
TEST_TRUTH = "test_truth.csv"

# Shares of the grades. The test split has enough of each for a stable macro-F1
MAIN_SHARES = (0.42, 0.12, 0.22, 0.11, 0.13)
EXTRA_SHARES = (0.32, 0.18, 0.18, 0.16, 0.16)
TEST_SHARES = (0.28, 0.18, 0.22, 0.16, 0.16)


@dataclass(frozen=True)
class Shot:
    """One image of an archive. Shots with equal `seed` and `drawn_grade` are the same image; `grade` is the label."""

    name: str
    grade: int
    drawn_grade: int
    seed: tuple[int, ...]
    laterality: str


def _grades(total, shares) -> np.ndarray:
    """-> (total,) int, sorted, at least ten of each grade if the total is a hundred; grade 0 fills the rest."""
    if total < 10:
        raise UsageError(f"a synthetic archive needs at least 10 images, got {total}")
    counts = np.maximum((total * np.array(shares)).astype(int), min(10, total // 10))
    counts[0] += total - counts.sum()
    return np.repeat(np.arange(len(GRADES)), counts)


def _unrelated(total, shares, *, seed) -> list[Shot]:
    """One image per patient, named by 12 hexadecimal digits, in the order of grades."""
    numbers = np.random.default_rng(seed).integers(16**12, size=total)
    return [
        Shot(f"{number:012x}", int(grade), int(grade), (*seed, i), EYES[i % 2])
        for i, (number, grade) in enumerate(zip(numbers, _grades(total, shares), strict=True))
    ]


def _with_copies(shots) -> list[Shot]:
    """The same shots with three duplicates: two with equal grades and one with conflicting grades."""
    none, mild, moderate = ([i for i, shot in enumerate(shots) if shot.grade == grade] for grade in (0, 1, 2))
    shots = list(shots)
    for copy, of in ((none[1], none[0]), (none[3], none[2]), (mild[0], moderate[0])):
        shots[copy] = replace(shots[of], name=shots[copy].name, grade=shots[copy].grade)
    return shots


def _both_eyes(total, shares, *, seed) -> list[Shot]:
    """Images named PATIENT_left and PATIENT_right, mostly of one grade. Every eighth patient has one eye only."""
    patients = np.random.default_rng(seed).choice(np.arange(10, 45_000), size=total, replace=False)
    eyes = [(patient, eye) for i, patient in enumerate(patients) for eye in EYES[: 1 if i % 8 == 7 else 2]]
    return [
        Shot(f"{patient}_{eye}", int(grade), int(grade), (*seed, i), eye)
        for i, ((patient, eye), grade) in enumerate(zip(eyes, _grades(total, shares), strict=False))
    ]


def _encoded(shot, *, suffix, size_px) -> bytes:
    rng = np.random.default_rng(shot.seed)
    image = fundus_image(shot.drawn_grade, rng=rng, size_px=size_px, laterality=shot.laterality)
    return cv2.imencode(suffix, image)[1].tobytes()


def _table(shots, columns) -> pd.DataFrame:
    return pd.DataFrame([(shot.name, shot.grade) for shot in shots], columns=columns).sort_values(columns[0])


def _pack(path, *, tables, folders, suffix, size_px) -> None:
    """Tables by member name and the shots of each folder -> one zip with the same bytes every time."""
    draw = partial(_encoded, suffix=suffix, size_px=size_px)
    # cv2 and numpy release the interpreter lock; order and pixels do not depend on the number of threads
    with (
        files.atomic_write(path) as part,
        zipfile.ZipFile(part, "w") as packed,
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        for member, table in tables.items():
            packed.writestr(zipfile.ZipInfo(member), table.to_csv(index=False, lineterminator="\n"))
        for folder, shots in folders.items():
            for shot, data in zip(shots, pool.map(draw, shots), strict=True):
                packed.writestr(zipfile.ZipInfo(f"{folder}/{shot.name}{suffix}"), data)


def make_archives(
    folder: str | Path,
    *,
    main: int = 300,
    extra: int = 300,
    test: int = 100,
    seed: int = 10,
    size_px: tuple[int, int] = (320, 560),
) -> None:
    """Writes both archives and the grades of the test images into `folder`. main, extra, test: numbers of images.

    Equal arguments give equal bytes. Raises UsageError instead of replacing a file.
    """
    folder = Path(folder)
    if seed < 0:
        raise UsageError(f"--seed must be 0 or more, got {seed}")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file; pass a folder")
    for name in (MAIN_ZIP, EXTRA_ZIP, TEST_TRUTH):
        if (folder / name).exists():
            raise UsageError(f"{folder / name}: already exists; remove it or pass another folder")
    main_shots = _with_copies(_unrelated(main, MAIN_SHARES, seed=(seed, 0)))
    extra_shots = _both_eyes(extra, EXTRA_SHARES, seed=(seed, 1))
    # one image is in both archives: of grade 4, of which data.py uses every image
    main_shots[-1] = replace(extra_shots[-1], name=main_shots[-1].name)
    test_shots = _unrelated(test, TEST_SHARES, seed=(seed, 2))
    columns = ["id_code", "diagnosis"]
    truth = _table(test_shots, columns)
    tables = {
        "kaggle_retina/train.csv": _table(main_shots, columns),
        "kaggle_retina/sample_submission.csv": truth.assign(diagnosis=0),
    }
    folders = {"kaggle_retina/train": main_shots, "kaggle_retina/test": test_shots}
    folder.mkdir(parents=True, exist_ok=True)
    _pack(folder / MAIN_ZIP, tables=tables, folders=folders, suffix=".png", size_px=size_px)
    tables = {"train_image_resized/trainLabels.csv": _table(extra_shots, ["image", "level"])}
    folders = {"train_image_resized/train": extra_shots}
    _pack(folder / EXTRA_ZIP, tables=tables, folders=folders, suffix=".jpeg", size_px=size_px)
    files.write_csv(folder / TEST_TRUTH, truth)


def _read(path) -> pd.Series:
    """A table id_code,diagnosis -> grades by id. Raises UsageError."""
    try:
        data = Path(path).read_bytes()
    except OSError as exc:
        raise UsageError(f"{path}: cannot be read ({exc.strerror}); pass a table with id_code,diagnosis") from exc
    table = read_grades(data, name=str(path), id_column="id_code", grade_column="diagnosis")
    return table.set_index("original")["diagnosis"]


def score(truth_csv: str | Path, result_csv: str | Path) -> tuple[float, int]:
    """-> (macro-F1 of a result on the images of the truth, number of images). Raises UsageError."""
    truth, result = _read(truth_csv), _read(result_csv)
    missing = truth.index.difference(result.index)
    if len(missing):
        raise UsageError(f"{result_csv}: {len(missing)} of {len(truth)} images have no grade, first {missing[0]}")
    return macro_f1(truth, result.loc[truth.index], len(GRADES)), len(truth)


def _arguments() -> argparse.Namespace:
    parser = Parser(prog="python -m dr.synthetic.demo", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("make", help="write two archives and the grades of the test images")
    make.add_argument("folder", metavar="DIR", help="folder to write to")
    make.add_argument("--images", type=int, default=300, help="labelled images in each (default: %(default)s)")
    make.add_argument("--seed", type=int, default=10, help="random seed of all images (default: %(default)s)")
    scored = commands.add_parser("score", help="print the macro-F1 of a result.csv")
    scored.add_argument("--truth", required=True, metavar="CSV", help="test_truth.csv written by make")
    scored.add_argument("--result", required=True, metavar="CSV", help="result.csv written by predict.py")
    return parser.parse_args()


def main() -> int:
    args = _arguments()
    if args.command == "make":
        test = max(10, args.images // 3)
        make_archives(args.folder, main=args.images, extra=args.images, test=test, seed=args.seed)
        print(f"{args.folder}: {MAIN_ZIP}, {EXTRA_ZIP}, {TEST_TRUTH}")
    else:
        print("macro-F1 {:.3f} on {} images".format(*score(args.truth, args.result)))
    return 0


if __name__ == "__main__":
    run_main(main, go_on="start again", owns_process=True)
