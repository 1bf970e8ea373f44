"""Synthetic archives in the layout of the real ones, so that everything runs on a fresh machine.

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
from dr.cli import run as cli
from dr.core import files
from dr.grading.metrics import macro_f1
from dr.sources.kaggle import read_grades
from dr.synthetic.drawing import SPLITS, photograph

MAIN_ZIP = "diabetic-retinopathy-classification-f1-score-4.zip"
EXTRA_ZIP = "train_image_resized.zip"
TEST_TRUTH = "test_truth.csv"

# Shares of the grades. Test has enough of each for its macro-F1 to be steady
MAIN_SHARES = (0.42, 0.12, 0.22, 0.11, 0.13)
EXTRA_SHARES = (0.32, 0.18, 0.18, 0.16, 0.16)
TEST_SHARES = (0.28, 0.18, 0.22, 0.16, 0.16)


@dataclass(frozen=True)
class Shot:
    """One photograph of an archive. Shots with equal `seed` and `drawn` are the same picture; `grade` is what its table
    says."""

    name: str
    grade: int
    drawn: int
    seed: tuple[int, ...]
    side: str


def _grades(total, shares) -> np.ndarray:
    """-> (total,) int, sorted, at least ten of each grade where there are a hundred; grade 0 makes up the rest."""
    if total < 10:
        raise UsageError(f"a synthetic archive needs 10 photographs or more, got {total}")
    counts = np.maximum((total * np.array(shares)).astype(int), min(10, total // 10))
    counts[0] += total - counts.sum()
    return np.repeat(np.arange(len(GRADES)), counts)


def _unrelated(total, shares, *, seed) -> list[Shot]:
    """Photographs of one patient each, named by 12 hexadecimal digits, grade by grade."""
    numbers = np.random.default_rng(seed).integers(16**12, size=total)
    return [
        Shot(f"{number:012x}", int(grade), int(grade), (*seed, i), SPLITS[i % 2])
        for i, (number, grade) in enumerate(zip(numbers, _grades(total, shares), strict=True))
    ]


def _with_copies(shots) -> list[Shot]:
    """The same shots, among them two that are there twice and one that is there twice with contradicting grades."""
    none, mild, moderate = ([i for i, shot in enumerate(shots) if shot.grade == grade] for grade in (0, 1, 2))
    shots = list(shots)
    for copy, of in ((none[1], none[0]), (none[3], none[2]), (mild[0], moderate[0])):
        shots[copy] = replace(shots[of], name=shots[copy].name, grade=shots[copy].grade)
    return shots


def _both_eyes(total, shares, *, seed) -> list[Shot]:
    """Photographs named <patient>_<left|right>, the eyes of a patient mostly of one grade; every eighth patient has one
    eye only."""
    patients = np.random.default_rng(seed).choice(np.arange(10, 45_000), size=total, replace=False)
    eyes = [(patient, side) for i, patient in enumerate(patients) for side in SPLITS[: 1 if i % 8 == 7 else 2]]
    return [
        Shot(f"{patient}_{side}", int(grade), int(grade), (*seed, i), side)
        for i, ((patient, side), grade) in enumerate(zip(eyes, _grades(total, shares), strict=False))
    ]


def _encoded(shot, *, suffix, size_px) -> bytes:
    photo = photograph(shot.drawn, rng=np.random.default_rng(shot.seed), size_px=size_px, side=shot.side)
    return cv2.imencode(suffix, photo)[1].tobytes()


def _table(shots, columns) -> pd.DataFrame:
    return pd.DataFrame([(shot.name, shot.grade) for shot in shots], columns=columns).sort_values(columns[0])


def _pack(path, *, tables, folders, suffix, size_px) -> None:
    """Tables by member name, and the shots of each folder, as one zip: the same bytes every time."""
    draw = partial(_encoded, suffix=suffix, size_px=size_px)
    # threads: cv2 and numpy let go of the interpreter; the order, and each picture's numbers, do not depend on them
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
    """Writes both archives and the grades of the test photographs into `folder`; main, extra and test are how many
    photographs. Equal arguments give equal bytes. Raises UsageError rather than replace a file."""
    folder = Path(folder)
    if seed < 0:
        raise UsageError(f"--seed must be 0 or more, got {seed}")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: it is a file; give a folder")
    for name in (MAIN_ZIP, EXTRA_ZIP, TEST_TRUTH):
        if (folder / name).exists():
            raise UsageError(f"{folder / name}: it exists already; remove it or give another folder")
    main_shots = _with_copies(_unrelated(main, MAIN_SHARES, seed=(seed, 0)))
    extra_shots = _both_eyes(extra, EXTRA_SHARES, seed=(seed, 1))
    # one picture is in both archives: of grade 4, every photograph of which data.py uses
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
        raise UsageError(f"{path}: it cannot be read ({exc.strerror}); give a table with id_code,diagnosis") from exc
    table = read_grades(data, name=str(path), id_column="id_code", grade_column="diagnosis")
    return table.set_index("original")["diagnosis"]


def score(truth_csv: str | Path, result_csv: str | Path) -> tuple[float, int]:
    """-> macro-F1 of a result on the photographs of the truth, and how many they are. Raises UsageError."""
    truth, result = _read(truth_csv), _read(result_csv)
    missing = truth.index.difference(result.index)
    if len(missing):
        raise UsageError(f"{result_csv}: {len(missing)} of {len(truth)} photographs have no grade, first {missing[0]}")
    return macro_f1(truth, result.loc[truth.index], len(GRADES)), len(truth)


def _arguments() -> argparse.Namespace:
    parser = cli.Parser(prog="python -m dr.synthetic.demo", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("make", help="write two archives and the grades of the test photographs")
    make.add_argument("folder", metavar="DIR", help="where to write them")
    make.add_argument("--photos", type=int, default=300, help="graded photographs in each (default: %(default)s)")
    make.add_argument("--seed", type=int, default=10, help="decides every pixel (default: %(default)s)")
    scored = commands.add_parser("score", help="print the macro-F1 of a result")
    scored.add_argument("--truth", required=True, metavar="CSV", help="the test_truth.csv that make wrote")
    scored.add_argument("--result", required=True, metavar="CSV", help="the result.csv that predict.py wrote")
    return parser.parse_args()


def main() -> int:
    args = _arguments()
    if args.command == "make":
        test = max(10, args.photos // 3)
        make_archives(args.folder, main=args.photos, extra=args.photos, test=test, seed=args.seed)
        print(f"{args.folder}: {MAIN_ZIP}, {EXTRA_ZIP}, {TEST_TRUTH}")
    else:
        print("macro-F1 {:.3f} on {} photographs".format(*score(args.truth, args.result)))
    return 0


if __name__ == "__main__":
    cli.run(main, go_on="start again", owns_process=True)
