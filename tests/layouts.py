"""Public data sets as they are downloaded, with tiny images: folders, tables, headers, odd columns and splits.

Each function writes one data set into a folder and returns its Layout: what data.py must read from it. `LAYOUTS` lists
all of them: `for name, write in LAYOUTS.items(): layout = write(tmp_path / name)`.
"""

import csv
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from made import draw_fundus

SIDE_PX = 48
CLASSES = 5


class Image(NamedTuple):
    """What is known of one image: its label from 0, its split (None: the set has none), its patient (None: unknown)."""

    label: int
    split: str | None = None
    patient: str | None = None


@dataclass
class Layout:
    """A data set in `root`. Paths are relative to it, with slashes."""

    root: Path
    images: dict[str, Image] = field(default_factory=dict)  # path: what data.py must read
    ungradable: set[str] = field(default_factory=set)  # paths of images that nobody could grade, in no split
    unlabelled: set[str] = field(default_factory=set)  # paths of images without a grade, as of a competition's test
    flags: tuple[str, ...] = ()  # of data.py, where two readings of the set remain
    _seeds: itertools.count = field(default_factory=itertools.count)

    def draw(self, path: str, label: int = 0) -> None:
        """Write an image unlike all others, without recording it."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), draw_fundus(label, seed=next(self._seeds), side_px=SIDE_PX))

    def add(self, path: str, label: int, split: str | None = None, patient: object = None) -> None:
        """Write a labelled image and record it."""
        self.draw(path, label)
        self.images[path] = Image(label, split, None if patient is None else str(patient))

    def reject(self, path: str) -> None:
        """Write an image that nobody could grade."""
        self.draw(path)
        self.ungradable.add(path)

    def leave(self, path: str) -> None:
        """Write an image without a grade."""
        self.draw(path)
        self.unlabelled.add(path)

    def table(self, path: str, header: str | None, rows: Iterable[Iterable], *, delimiter: str = ",") -> None:
        """Write a table; `header` has commas between its columns, None for a table without one."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("w", newline="", encoding="utf-8") as target:
            writer = csv.writer(target, delimiter=delimiter)
            writer.writerows([header.split(","), *rows] if header is not None else rows)


def grades(count: int) -> list[int]:
    """0, 1, ..., 4, 0, ..."""
    return [number % CLASSES for number in range(count)]


def _hex(number: int) -> str:
    """An id as APTOS has them."""
    return f"{(number + 1) * 2654435761 % 2**48:012x}"


def eyepacs_2015(root: Path) -> Layout:
    """Kaggle's Diabetic Retinopathy Detection: both eyes of each patient; the solution was published afterwards."""
    layout, rows, solution = Layout(root), [], []
    for number, grade in enumerate(grades(25)):
        for eye in ("left", "right"):
            layout.add(f"train/{number}_{eye}.jpeg", grade, "train", number)
            rows.append((f"{number}_{eye}", grade))
            layout.add(f"test/{number + 100}_{eye}.jpeg", grade, "test", number + 100)
            solution.append((f"{number + 100}_{eye}", grade, ("Public", "Private")[number % 2]))
    layout.table("trainLabels.csv", "image,level", rows)
    layout.table("retinopathy_solution.csv", "image,level,Usage", solution)
    layout.table("sampleSubmission.csv", "image,level", [(name, 0) for name, *_ in solution])
    return layout


def eyepacs_resized(root: Path) -> Layout:
    """Kaggle's tanlikesmath/diabetic-retinopathy-resized: each image twice, whole and cropped, and two tables."""
    layout, rows = Layout(root, flags=("--root", "resized_train_cropped")), []
    for number, grade in enumerate(grades(20)):
        for eye in ("left", "right"):
            layout.draw(f"resized_train/resized_train/{number}_{eye}.jpeg", grade)
            layout.add(f"resized_train_cropped/resized_train_cropped/{number}_{eye}.jpeg", grade, patient=number)
            rows.append((f"{number}_{eye}", grade))
    layout.table("trainLabels.csv", "image,level", rows)
    cropped = [(n, n, *row) for n, row in enumerate(rows)]
    layout.table("trainLabels_cropped.csv", "Unnamed: 0.1,Unnamed: 0,image,level", cropped)
    return layout


def resized_2015_2019(root: Path) -> Layout:
    """Kaggle's benjaminwarner/resized-2015-2019-blindness-detection-images, read with its 2015 tables."""
    layout = Layout(root, flags=("--root", "resized train 15"))
    tables: dict[str, list] = {"trainLabels15": [], "testLabels15": [], "trainLabels19": []}
    for number, grade in enumerate(grades(20)):
        for eye in ("left", "right"):
            layout.add(f"resized train 15/{number}_{eye}.jpg", grade, patient=number)
            tables["trainLabels15"].append((f"{number}_{eye}", grade))
            layout.draw(f"resized test 15/{number + 100}_{eye}.jpg", grade)
            tables["testLabels15"].append((f"{number + 100}_{eye}", grade, ("Public", "Private")[number % 2]))
        layout.draw(f"resized train 19/{_hex(number)}.jpg", grade)
        tables["trainLabels19"].append((_hex(number), grade))
        layout.draw(f"resized test 19/{_hex(number + 100)}.jpg")
    layout.table("labels/trainLabels15.csv", "image,level", tables["trainLabels15"])
    layout.table("labels/testLabels15.csv", "image,level,Usage", tables["testLabels15"])
    layout.table("labels/trainLabels19.csv", "id_code,diagnosis", tables["trainLabels19"])
    return layout


def aptos_2019(root: Path) -> Layout:
    """Kaggle's APTOS 2019 Blindness Detection."""
    layout, rows, test = Layout(root), [], []
    for number, grade in enumerate(grades(30)):
        layout.add(f"train_images/{_hex(number)}.png", grade)
        rows.append((_hex(number), grade))
    for number in range(100, 108):
        layout.leave(f"test_images/{_hex(number)}.png")
        test.append((_hex(number),))
    layout.table("train.csv", "id_code,diagnosis", rows)
    layout.table("test.csv", "id_code", test)
    layout.table("sample_submission.csv", "id_code,diagnosis", [(*row, 0) for row in test])
    return layout


def aptos_split(root: Path) -> Layout:
    """Kaggle's mariaherrerot/aptos2019: a copy with three splits in folders of the same name twice."""
    layout = Layout(root)
    for split, table, folder, first, count in (
        ("train", "train_1", "train_images", 0, 30),
        ("val", "valid", "val_images", 100, 10),
        ("test", "test", "test_images", 200, 10),
    ):
        rows = [(_hex(first + number), grade) for number, grade in enumerate(grades(count))]
        for name, grade in rows:
            layout.add(f"{folder}/{folder}/{name}.png", grade, split)
        layout.table(f"{table}.csv", "id_code,diagnosis", rows)
    return layout


def aptos_gaussian(root: Path) -> Layout:
    """Kaggle's sovitrath/diabetic-retinopathy-224x224-gaussian-filtered: class folders and a table."""
    layout, rows, folder = Layout(root), [], "gaussian_filtered_images"
    words = ("No_DR", "Mild", "Moderate", "Severe", "Proliferate_DR")
    for number, grade in enumerate(grades(30)):
        layout.add(f"{folder}/{folder}/{words[grade]}/{_hex(number)}.png", grade)
        rows.append((_hex(number), grade))
    (root / folder / folder / "export.pkl").write_bytes(b"not a table")
    layout.table("train.csv", "id_code,diagnosis", rows)
    return layout


def unified(root: Path) -> Layout:
    """Kaggle's ascanipek/eyepacs-aptos-messidor-diabetic-retinopathy: split folders with class folders."""
    layout, seen = Layout(root), itertools.count()
    for split, count in (("train", 25), ("val", 10), ("test", 10)):
        for grade in grades(count):
            layout.add(f"augmented_resized_V2/{split}/{grade}/{_hex(next(seen))}-600.jpg", grade, split)
    return layout


def idrid(root: Path) -> Layout:
    """IDRiD, B. Disease Grading: both splits count from 001; the tables have empty columns and a trailing blank."""
    layout = Layout(root)
    for letter, split, word, count in (("a", "train", "Training", 25), ("b", "test", "Testing", 10)):
        rows = []
        for number, grade in enumerate(grades(count), start=1):
            folder = f"B. Disease Grading/1. Original Images/{letter}. {word} Set"
            layout.add(f"{folder}/IDRiD_{number:03d}.jpg", grade, split)
            rows.append((f"IDRiD_{number:03d}", grade, number % 3, *[""] * 9))
        header = "Image name,Retinopathy grade,Risk of macular edema ,,,,,,,,,"
        name = f"{letter}. IDRiD_Disease Grading_{word} Labels.csv"
        layout.table(f"B. Disease Grading/2. Groundtruths/{name}", header, rows)
    return layout


def idrid_kaggle(root: Path) -> Layout:
    """Kaggle's mariaherrerot/idrid-dataset: one table for the training images."""
    layout, rows = Layout(root), []
    for number, grade in enumerate(grades(25), start=1):
        layout.add(f"Imagenes/Imagenes/IDRiD_{number:03d}.jpg", grade)
        rows.append((f"IDRiD_{number:03d}", grade, *[""] * 3))
    layout.table("idrid_labels.csv", "id_code,diagnosis,Unnamed: 2,Unnamed: 3,Unnamed: 4", rows)
    return layout


def messidor_2(root: Path) -> Layout:
    """Messidor-2 with the adjudicated grades of Krause et al. (google-brain/messidor2-dr-grades), and the pairs of eyes
    that the images come with. Some names differ from the files in the case of their ending."""
    layout, rows = Layout(root), []
    for number, grade in enumerate(grades(30)):
        file = f"20051020_{43800 + number}_0100_PP.png" if number < 20 else f"IM{3000 + number:06d}.JPG"
        layout.add(f"IMAGES/{file}", grade)
        rows.append((file.replace(".JPG", ".jpg"), grade, int(grade > 2), 1))
    for number in (900, 901):
        file = f"20060411_{number}_0200_PP.png"
        layout.reject(f"IMAGES/{file}")
        rows.append((file, "", "", 0))
    names = [Path(path).name for path in [*layout.images, *sorted(layout.ungradable)]]
    pairs = list(zip(names[::2], names[1::2], strict=True))
    layout.table("messidor_data.csv", "image_id,adjudicated_dr_grade,adjudicated_dme,adjudicated_gradable", rows)
    layout.table("messidor-2.csv", "left;right", [(";".join(pair),) for pair in pairs])
    return layout


def messidor_2_kaggle(root: Path) -> Layout:
    """Kaggle's mariaherrerot/messidor2preprocess."""
    layout, rows = Layout(root), []
    for number, grade in enumerate(grades(25)):
        file = f"20051020_{43800 + number}_0100_PP.png"
        layout.add(f"messidor-2/messidor-2/preprocess/{file}", grade)
        rows.append((file, grade, int(grade > 2), 1))
    layout.table("messidor_data.csv", "id_code,diagnosis,adjudicated_dme,adjudicated_gradable", rows)
    return layout


def ddr(root: Path) -> Layout:
    """DDR, DR_grading: lists `name.jpg 3` without a header for each split; 5 is ungradable."""
    layout, number = Layout(root), itertools.count()
    for split, word, count in (("train", "train", 25), ("val", "valid", 10), ("test", "test", 10)):
        rows = []
        for grade in [*grades(count), 5, 5]:
            n = next(number)
            name = f"007-{n:04d}-000.jpg" if n % 2 else f"2017032309{n:04d}.jpg"
            path = f"DDR-dataset/DR_grading/{word}/{name}"
            if grade == 5:
                layout.reject(path)
            else:
                layout.add(path, grade, split)
            rows.append((name, grade))
        layout.table(f"DDR-dataset/DR_grading/{word}.txt", None, rows, delimiter=" ")
    return layout


_DEEPDRID = (
    "patient_id,image_id,image_path,Overall quality,left_eye_DR_Level,right_eye_DR_Level,patient_DR_Level,Clarity,"
    "Field definition,Artifact"
)


def _deepdrid_split(layout: Layout, word: str, split: str, patients: range) -> None:
    """One split of DeepDRiD's regular fundus images: two images of each eye, whose grades are in a column for each."""
    name, rows, sources = f"regular-fundus-{word}", [], []
    for patient in patients:
        left, right = patient % CLASSES, (patient + 1) % CLASSES
        for view in ("l1", "l2", "r1", "r2"):
            image, is_left = f"{patient}_{view}", view[0] == "l"
            path = f"regular_fundus_images/{name}/Images/{patient}/{image}.jpg"
            layout.add(path, left if is_left else right, split, patient)
            start = (patient, image, f"\\{name}\\{patient}\\{image}.jpg")
            eyes = (left, "") if is_left else ("", right)
            rows.append((*start, 1, *eyes, max(left, right), 8, 8, 0))
            sources.append((*start, ("Nicheng", "Shanghai", "Nation")[patient % 3]))
    layout.table(f"regular_fundus_images/{name}/{name}.csv", _DEEPDRID, rows)
    source = f"regular_fundus_images/{name}/regular-fundus-source-{word}.csv"
    layout.table(source, "patient_id,image_id,image_path,Source", sources)


def _deepdrid_wide_split(layout: Layout, word: str, patients: range, *, recorded: bool) -> None:
    """One split of DeepDRiD's ultra-widefield images; 5 is ungradable."""
    name, rows = f"ultra-widefield-{word}", []
    for patient in patients:
        for eye, view in (("right_eye", "r1"), ("left_eye", "l2")):
            grade = 5 if patient == patients[-1] else patient % CLASSES
            path = f"ultra-widefield_images/{name}/Images/{patient}/{patient}_{view}.jpg"
            if not recorded:
                layout.draw(path, min(grade, 4))
            elif grade == 5:
                layout.reject(path)
            else:
                layout.add(path, grade, {"training": "train", "validation": "val"}[word], patient)
            rows.append((patient, f"{patient}_{view}", f"{name}\\{patient}\\{patient}_{view}.jpg", grade, eye))
    table = f"ultra-widefield_images/{name}/{name}.csv"
    layout.table(table, "patient_id,image_id,image_path,DR_level,position", rows)


def deepdrid_regular(root: Path) -> Layout:
    """DeepDRiD, its regular fundus images alone; the evaluation images have a table without grades."""
    layout = Layout(root)
    _deepdrid_split(layout, "training", "train", range(1, 13))
    _deepdrid_split(layout, "validation", "val", range(265, 271))
    names = [f"{patient}_{view}" for patient in range(347, 350) for view in ("l1", "l2", "r1", "r2")]
    folder = "regular_fundus_images/Online-Challenge1&2-Evaluation"
    for name in names:
        layout.leave(f"{folder}/Images/{name.partition('_')[0]}/{name}.jpg")
    layout.table(f"{folder}/Challenge1_upload.csv", "image_id,DR_Level", [(name, "") for name in names])
    layout.table(f"{folder}/Challenge2_upload.csv", "image_id,Overall quality,Artifact,Clarity,Field definition",
                 [(name, *[""] * 4) for name in names])  # fmt: skip
    return layout


def deepdrid_evaluated(root: Path) -> Layout:
    """DeepDRiD's regular images with the grades of the evaluation, which were published later, as a workbook. Training
    and validation are other folders: the evaluation is the test."""
    import pandas as pd  # needs openpyxl

    layout = deepdrid_regular(root)
    rows = []
    for path in sorted(layout.unlabelled):
        name, grade = Path(path).stem, len(rows) % CLASSES
        layout.images[path] = Image(grade, "test", name.partition("_")[0])
        rows.append({"image_id": name, "DR_Levels": grade})
    layout.unlabelled.clear()
    folder = root / "regular_fundus_images" / "Online-Challenge1&2-Evaluation"
    pd.DataFrame(rows).to_excel(folder / "Challenge1_labels.xlsx", index=False)
    return layout


def deepdrid(root: Path) -> Layout:
    """DeepDRiD whole: regular and ultra-widefield images, each with splits of their own and patients from 1."""
    layout = deepdrid_regular(root)
    layout.flags = ("--root", "regular_fundus_images")
    _deepdrid_wide_split(layout, "training", range(1, 12), recorded=False)
    _deepdrid_wide_split(layout, "validation", range(34, 38), recorded=False)
    return layout


def deepdrid_wide(root: Path) -> Layout:
    """DeepDRiD, its ultra-widefield images alone."""
    layout = Layout(root)
    _deepdrid_wide_split(layout, "training", range(1, 17), recorded=True)
    _deepdrid_wide_split(layout, "validation", range(34, 41), recorded=True)
    return layout


def eyeq(root: Path) -> Layout:
    """EyeQ's tables beside the EyePACS images they name: an index column, image quality, and the DR grade."""
    layout = Layout(root)
    for split, first, count in (("train", 0, 25), ("test", 500, 10)):
        rows = []
        for number, grade in enumerate(grades(count)):
            for eye in ("left", "right"):
                layout.add(f"{split}/{first + number}_{eye}.jpeg", grade, split, first + number)
                rows.append((len(rows), f"{first + number}_{eye}.jpeg", number % 3, grade))
        layout.table(f"Label_EyeQ_{split}.csv", ",image,quality,DR_grade", rows)
    return layout


def fgadr(root: Path) -> Layout:
    """FGADR Seg-set: a table without a header; masks of lesions have the names of the images."""
    layout, rows = Layout(root), []
    for number, grade in enumerate(grades(25)):
        name = f"{number:04d}_{number % 3 + 1}.png"
        layout.add(f"Seg-set/Original_Images/{name}", grade)
        rows.append((name, grade))
        for lesion in ("HardExudate", "Hemohedge", "Microaneurysms", "SoftExudate"):
            mask = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
            cv2.circle(mask, (10 + number, 20), 1 + grade, 255, cv2.FILLED)
            path = root / "Seg-set" / f"{lesion}_Masks" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), mask)
    layout.table("Seg-set/DR_Seg_Grading_Label.csv", None, rows)
    return layout


def rfmid(root: Path) -> Layout:
    """RFMiD as Kaggle's retinal-disease-classification: any DR or none in one of many columns; splits count from 1."""
    layout = Layout(root, flags=("--label_column", "DR"))
    for split, folder, images, word, count in (
        ("train", "Training_Set", "Training", "Training", 24),
        ("val", "Evaluation_Set", "Validation", "Validation", 10),
        ("test", "Test_Set", "Test", "Testing", 10),
    ):
        rows = []
        for number in range(1, count + 1):
            layout.add(f"{folder}/{folder}/{images}/{number}.png", number % 2, split)
            rows.append((number, int(number % 4 != 0), number % 2, 0, number % 3 == 0, 0, 0))
        table = f"{folder}/{folder}/RFMiD_{word}_Labels.csv"
        layout.table(table, "ID,Disease_Risk,DR,ARMD,MH,DN,MYA", [tuple(map(int, row)) for row in rows])
    return layout


def odir(root: Path) -> Layout:
    """ODIR-5K as Kaggle's andrewmvd/ocular-disease-recognition-odir5k: any diabetes of the patient, none of a grade."""
    layout, rows = Layout(root, flags=("--id_column", "filename", "--label_column", "D")), []
    for number in range(20):
        diabetic = number % 2
        words = ("moderate non proliferative retinopathy" if diabetic else "normal fundus",) * 2
        letters = (1 - diabetic, diabetic, *[0] * 6)
        for eye in ("left", "right"):
            file = f"{number}_{eye}.jpg"
            layout.draw(f"ODIR-5K/ODIR-5K/Training Images/{file}", diabetic)
            layout.add(f"preprocessed_images/{file}", diabetic, patient=number)
            names = (f"{number}_left.jpg", f"{number}_right.jpg")
            path = f"../input/ocular-disease-recognition-odir5k/ODIR-5K/Training Images/{file}"
            rows.append((number, 60, "Female", *names, *words, *letters, path,
                         "['D']" if diabetic else "['N']", str(list(letters)), file))  # fmt: skip
    layout.flags += ("--root", "preprocessed_images")
    header = (
        "ID,Patient Age,Patient Sex,Left-Fundus,Right-Fundus,Left-Diagnostic Keywords,Right-Diagnostic Keywords,"
        "N,D,G,C,A,H,M,O,filepath,labels,target,filename"
    )
    layout.table("full_df.csv", header, rows)
    return layout


def brset(root: Path) -> Layout:
    """BRSET (PhysioNet): two scales of DR and the presence of any, beside many other columns."""
    layout, rows = Layout(root), []
    header = (
        "image_id,patient_id,camera,patient_age,comorbidities,diabetes_time_y,insuline,patient_sex,exam_eye,diabetes,"
        "nationality,optic_disc,vessels,macula,DR_SDRG,DR_ICDR,focus,Illuminaton,image_field,artifacts,"
        "diabetic_retinopathy,macular_edema,scar,nevus,amd,vascular_occlusion,hypertensive_retinopathy,drusens,"
        "hemorrhage,retinal_detachment,myopic_fundus,increased_cup_disc,other,quality"
    )
    for number, grade in enumerate(grades(25), start=1):
        for eye in (1, 2):
            name = f"img{2 * number + eye - 2:05d}"
            layout.add(f"fundus_photos/{name}.jpg", grade, patient=number)
            rows.append((name, number, "Canon CR", 48, "hypertension", "", "", 1 + number % 2, eye, "yes", "Brazil",
                         1, 1, 2, (0, 1, 3, 3, 4)[grade], grade, 1, 1, 1, 1, int(grade > 0), *[0] * 12,
                         "Adequate" if number % 6 else "Inadequate"))  # fmt: skip
    layout.table("labels_brset.csv", header, rows)
    return layout


def mbrset(root: Path) -> Layout:
    """mBRSET (PhysioNet): names with a dot, `1.1.jpg`; grades as decimals, empty where the image is ungradable."""
    layout, rows = Layout(root), []
    header = (
        "patient,age,sex,dm_time,insulin,insulin_time,oraltreatment_dm,systemic_hypertension,insurance,"
        "educational_level,alcohol_consumption,smoking,obesity,vascular_disease,acute_myocardial_infarction,"
        "nephropathy,neuropathy,diabetic_foot,file,laterality,final_artifacts,final_quality,final_icdr,final_edema"
    )
    for patient, grade in enumerate(grades(15), start=1):
        for view in range(1, 5):
            file, unreadable = f"{patient}.{view}.jpg", patient == 15 and view > 2
            path = f"images/{file}"
            if unreadable:
                layout.reject(path)
            else:
                layout.add(path, grade, patient=patient)
            final = ("yes", "no", "", "") if unreadable else ("no", "yes", f"{grade}.0", "no")
            rows.append((patient, 60, patient % 2, 10.0, 0, "", 1, 1, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, file,
                         ("left", "right")[view > 2], *final))  # fmt: skip
    layout.table("labels_mbrset.csv", header, rows)
    return layout


def paraguay(root: Path) -> Layout:
    """Zenodo's data set of the Hospital de Clínicas, Paraguay: seven classes, in numbered folders."""
    layout = Layout(root)
    words = ("1. No DR signs", "2. Mild (or early) NPDR", "3. Moderate NPDR", "4. Severe NPDR", "5. Very Severe NPDR",
             "6. PDR", "7. Advanced PDR")  # fmt: skip
    for number in range(35):
        label = number % len(words)
        layout.add(f"{words[label]}/{number + 1:03d}.jpg", label)
    return layout


def retinamnist(root: Path) -> Layout:
    """MedMNIST's RetinaMNIST: one npz file, `root / "retinamnist.npz"`; its images have no paths but `split/number`."""
    layout, arrays = Layout(root), {}
    root.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", 25), ("val", 10), ("test", 10)):
        drawn = [draw_fundus(grade, seed=len(layout.images) + n, side_px=28) for n, grade in enumerate(grades(count))]
        arrays[f"{split}_images"] = np.stack(drawn)[..., ::-1]
        arrays[f"{split}_labels"] = np.array(grades(count), np.uint8)[:, None]
        layout.images |= {f"{split}/{n}": Image(grade, split) for n, grade in enumerate(grades(count))}
    np.savez(root / "retinamnist.npz", **arrays)
    return layout


LAYOUTS: dict[str, Callable[[Path], Layout]] = {
    write.__name__: write
    for write in (
        eyepacs_2015, eyepacs_resized, resized_2015_2019, aptos_2019, aptos_split, aptos_gaussian, unified, idrid,
        idrid_kaggle, messidor_2, messidor_2_kaggle, ddr, deepdrid_regular, deepdrid_evaluated, deepdrid, deepdrid_wide,
        eyeq, fgadr, rfmid, odir, brset, mbrset, paraguay, retinamnist,
    )
}  # fmt: skip
