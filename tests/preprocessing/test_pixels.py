"""data.py and predict.py on frames with two retinas, on DICOM images and on dark ones."""

import io
import json

import numpy as np
import pandas as pd
import pytest
from conftest import draw_retina, encode, table, write_folder
from made import checkpoint_content, write_checkpoint
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from dr import UsageError
from dr.imaging.decode import decode
from dr.inference.preprocessor import InputSpec, Preprocessor
from dr.prediction.options import PredictOptions
from dr.prediction.pipeline import predict, summary_lines
from dr.preprocessing import summary
from dr.preprocessing.pipeline import preprocess_sources
from dr.preprocessing.settings import Settings
from dr.sources.archive import MemoryMember
from dr.sources.detect import open_sources
from dr.sources.halves import HalfMember

PERSONAL = {"PatientName": "Doe^Jane", "PatientBirthDate": "19610203", "AccessionNumber": "ACC4711",
            "InstitutionName": "Hospital-X", "PatientAddress": "Elm-Street-9", "StudyDate": "20150302"}  # fmt: skip


def dicom(pixels: np.ndarray, **fields) -> bytes:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.5.1"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = *pixels.shape[:2], 3
    dataset.PlanarConfiguration, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 0, "RGB", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = np.ascontiguousarray(pixels[..., ::-1]).tobytes()
    for name, value in fields.items():
        setattr(dataset, name, value)
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def retina(seed, *, side=140):
    return draw_retina(shape=(side, side), radius=0.46 * side, seed=seed)[0]


def run(members, folder, **settings):
    """data.py on a folder -> (report, all label tables)."""
    sources = open_sources(str(write_folder(folder / "in", members)))
    options = {"size": 64, "val_fraction": 0.4} | settings
    report = preprocess_sources(sources, directory=str(folder / "out"), settings=Settings(**options), workers=1)
    root = folder / "out" / "kaggle_retina"
    labels = pd.concat([pd.read_csv(root / f"labels_{name}.csv", dtype=str) for name in ("train", "val")])
    return report, labels.sort_values("original").reset_index(drop=True)


def with_frames(singles=8, frames=2):
    members = {f"{i}.png": encode(retina(i)) for i in range(singles)}
    members |= {f"f{i}.png": encode(np.hstack([retina(50 + i), retina(70 + i)])) for i in range(frames)}
    grades = {name.removesuffix(".png"): place % 2 for place, name in enumerate(members)}
    return members | {"labels.csv": table("id_code,diagnosis", grades)}, grades


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "m__best.pt"
    write_checkpoint(path, checkpoint_content())
    return path


def test_stereo_gives_both_halves_of_a_frame_its_grade_and_one_split(tmp_path, no_plots):
    members, grades = with_frames()
    report, labels = run(members, tmp_path, stereo=True)
    halves = labels[labels["original"].str.startswith("f")]
    assert halves["original"].tolist() == ["f0_1", "f0_2", "f1_1", "f1_2"]
    assert halves["diagnosis"].astype(int).tolist() == [grades["f0"]] * 2 + [grades["f1"]] * 2
    assert halves["patient"].nunique() == 2
    assert halves.assign(split=halves["path"].str[:5]).groupby("patient")["split"].nunique().eq(1).all()
    assert "two_retinas" not in report["quality_flags"]


def test_the_halves_of_a_large_jpeg_are_cut_at_its_full_size():
    frame = np.hstack([retina(1, side=800), retina(2, side=800)])
    member = MemoryMember(encode(frame, ".jpeg"))
    halves = [decode(HalfMember(member, number).read()) for number in (0, 1)]
    whole = decode(member.read())
    assert all(abs(half.shape[1] - 800) <= 8 and half.shape[0] == 800 for half in halves)
    assert np.array_equal(np.hstack(halves), whole)
    plain = MemoryMember(encode(retina(1, side=800)))
    with pytest.raises(OSError, match="the file has changed since two retinas were found in it"):
        HalfMember(plain, 0).read()


def test_without_stereo_frames_are_flagged_and_data_says_so(tmp_path, no_plots):
    report, labels = run(with_frames()[0], tmp_path)
    assert len(labels) == 10
    assert report["quality_flags"]["two_retinas"] == 2
    assert "note: 2 of 10 images are flagged two_retinas; see report.html, and split them with --stereo" in (
        summary.summary_lines(report)
    )


def test_stereo_is_refused_where_nothing_is_cropped_and_where_names_collide(tmp_path, no_plots):
    members, _ = with_frames()
    with pytest.raises(UsageError, match="--stereo: needs the search for the retina; leave out --no_crop"):
        run(members, tmp_path / "a", stereo=True, crop=False)
    with pytest.raises(UsageError, match=r"f0_1\.png has the name of a half of f0\.png; rename it"):
        run(members | {"f0_1.png": encode(retina(99))}, tmp_path / "b", stereo=True)


def test_only_flags_of_more_than_one_image_in_twenty_are_printed(tmp_path, no_plots):
    members = {f"{grade}/{i}{grade}.png": encode(retina(10 * grade + i) // 5) for grade in (0, 1) for i in range(5)}
    report, _ = run(members, tmp_path)
    assert "note: 10 of 10 images are flagged too_dark; see report.html" in summary.summary_lines(report)
    rare = report | {"counts": {"validation": [100, 100], "train: main": [0, 0]}}
    assert not [line for line in summary.summary_lines(rare) if "too_dark" in line]


def test_predict_grades_both_halves_and_refuses_a_submission_of_frames(tmp_path, model):
    images = write_folder(tmp_path / "p", {n: d for n, d in with_frames(2, 1)[0].items() if n.endswith("png")})
    given = {
        "models": [str(model)],
        "images": str(images),
        "output": str(tmp_path / "r"),
        "workers": 0,
        "device": "cpu",
    }
    prediction = predict(PredictOptions(**given))
    assert prediction.details.set_index("file")["flags"].str.contains("two_retinas").to_dict() == {
        "0.png": False, "1.png": False, "f0.png": True}  # fmt: skip
    assert any("1 image shows two retinas" in line for line in summary_lines(prediction))
    prediction = predict(PredictOptions(**given, stereo=True, report=True))
    assert prediction.result["id_code"].tolist() == ["0", "1", "f0_1", "f0_2"]
    assert prediction.details["file"].tolist() == ["0.png", "1.png", "f0_1.png", "f0_2.png"]
    assert not prediction.details["flags"].str.contains("two_retinas").any()
    assert not prediction.details["error"].any()
    sample = tmp_path / "sample.csv"
    sample.write_text("id_code,diagnosis\nf0,0\n1,0\n")
    with pytest.raises(UsageError, match=r"--stereo: f0\.png shows two retinas, but .* has one row for it; leave out"):
        predict(PredictOptions(**given, stereo=True, submission=str(sample)))


def test_patients_and_eyes_come_from_dicom_headers_and_nothing_else_does(tmp_path, no_plots, model):
    members = {}
    for patient in range(6):
        for eye in "LR":
            pixels = retina(2 * patient + (eye == "R"))
            fields = PERSONAL | {"PatientID": f"P{patient}", "ImageLaterality": eye}
            members[f"{patient % 2}/img{patient}{eye}.dcm"] = dicom(pixels, **fields)
    report, labels = run(members, tmp_path)
    assert sorted(labels["patient"]) == sorted(f"P{patient}" for patient in range(6) for _ in range(2))
    assert set(labels["eye"]) == {"left", "right"}
    assert labels.assign(split=labels["path"].str[:3]).groupby("patient")["split"].nunique().eq(1).all()
    options = PredictOptions(
        models=[str(model)], images=str(tmp_path / "in" / "0"), output=str(tmp_path / "r"), workers=0, device="cpu",
        report=True,
    )  # fmt: skip
    details = predict(options).details.set_index("file")
    assert details.loc["img0L.dcm", ["patient", "eye"]].tolist() == ["P0", "left"]
    written = [path for top in ("out", "r") for path in (tmp_path / top).rglob("*") if path.is_file()]
    assert len(written) > 15
    for path in written:
        for value in PERSONAL.values():
            assert value.encode() not in path.read_bytes(), path
            assert value not in json.dumps(report)


def test_a_damaged_value_in_a_header_does_not_make_a_readable_image_unreadable():
    dataset = dcmread(io.BytesIO(dicom(retina(0), PatientID="P7")))
    dataset.add_new(0x52009229, "LO", "not a sequence")
    damaged = io.BytesIO()
    dataset.save_as(damaged, enforce_file_format=True)
    record = Preprocessor([InputSpec(96, 64)])("a.dcm", damaged.getvalue).record
    assert record["error"] == ""
    assert "patient" not in record


def test_one_patient_id_for_all_images_is_not_used(tmp_path, no_plots):
    members = {f"{i % 2}/{i}.dcm": dicom(retina(i), PatientID="ANONYMOUS") for i in range(8)}
    _, labels = run(members, tmp_path)
    assert "ANONYMOUS" not in set(labels["patient"])
    assert set(labels["path"].str[:3]) == {"tra", "val"}
