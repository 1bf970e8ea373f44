import numpy as np
import pytest
import torch
from made import write_prepared

from dr import UsageError
from dr.dataset import EpochSampler, TrainingPhotographs, ValidationPhotographs, loader, read_prepared


@pytest.fixture
def folder(tmp_path):
    return write_prepared(tmp_path)


def test_a_prepared_folder_is_read_from_its_parent_or_itself(folder):
    outer, inner = read_prepared(folder), read_prepared(folder / "kaggle_retina")
    assert outer.fingerprint == inner.fingerprint
    assert outer.size_px == 96
    assert outer.train["diagnosis"].tolist() == [i % 5 for i in range(30)]
    assert outer.val["path"].iloc[0] == "val/photo_0.jpeg"


def test_the_fingerprint_changes_with_one_label(folder):
    before = read_prepared(folder).fingerprint
    table = folder / "kaggle_retina" / "labels_train.csv"
    table.write_text(table.read_text().replace("photo_3.jpeg,3", "photo_3.jpeg,2"))
    assert read_prepared(folder).fingerprint != before


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda root: (root / "labels_val.csv").unlink(),
            r"labels_val\.csv: there is no such label table; run data\.py",
        ),
        (
            lambda root: (root / "settings.json").unlink(),
            r"settings\.json: it is missing or damaged; run data\.py again",
        ),
        (lambda root: (root / "val/photo_4.jpeg").unlink(), r"labels_val\.csv, row 6: val/photo_4\.jpeg is not there"),
        (lambda root: (root / "labels_train.csv").write_text("path,diagnosis\na,7\n"), r"row 2: diagnosis is '7'"),
        (lambda root: (root / "labels_train.csv").write_text("path,grade\na,1\n"), r"no column 'diagnosis'"),
        (
            lambda root: (root / "labels_val.csv").write_text("path,diagnosis\nval/photo_0.jpeg,0\n"),
            r"it has 1 photographs, too few to validate on",
        ),
    ],
)
def test_a_damaged_folder_names_table_row_and_remedy(folder, damage, message):
    damage(folder / "kaggle_retina")
    with pytest.raises(UsageError, match=message):
        read_prepared(folder)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_photograph_that_cannot_be_decoded_is_one_line_also_from_a_worker(folder, workers):
    (folder / "kaggle_retina/val/photo_2.jpeg").write_bytes(b"\xff\xd8 no more")
    batches = loader(ValidationPhotographs(read_prepared(folder), size_px=64), batch_size=4, workers=workers, pin=False)
    with pytest.raises(UsageError, match=r"^\S+photo_2\.jpeg: it cannot be decoded; delete it and run data\.py again$"):
        list(batches)


def test_workers_change_nothing_about_a_training_batch(folder):
    data = read_prepared(folder)
    seen = []
    for workers in (0, 2):
        training = TrainingPhotographs(data, augmentation="rotation_colour", size_px=64, seed=10)
        sampler = EpochSampler(training.grades, sampling="shuffle", seed=10)
        sampler.epoch = 3
        batches = loader(training, batch_size=10, workers=workers, pin=False, sampler=sampler)
        seen.append(list(batches))
    for alone, shared in zip(*seen, strict=True):
        assert torch.equal(alone["image"], shared["image"])
        assert torch.equal(alone["index"], shared["index"])


def test_validation_has_every_photograph_once_in_the_order_of_its_table(folder):
    data = read_prepared(folder)
    batches = loader(ValidationPhotographs(data, size_px=64), batch_size=4, workers=0, pin=False)
    assert torch.cat([batch["index"] for batch in batches]).tolist() == list(range(15))
    assert torch.cat([batch["grade"] for batch in batches]).tolist() == [i % 5 for i in range(15)]


def test_shuffling_gives_each_photograph_once_and_another_order_each_epoch():
    sampler = EpochSampler(np.array([0, 1, 2, 3, 4] * 4), sampling="shuffle", seed=1)
    first, again = list(sampler), list(sampler)
    assert first == again
    assert sorted(index for _, index in first) == list(range(20))
    sampler.epoch = 1
    assert [index for _, index in sampler] != [index for _, index in first]


@pytest.mark.parametrize(("sampling", "share"), [("sqrt", 0.25), ("balanced", 0.5)])
def test_rare_grades_are_drawn_as_often_as_the_sampling_says(sampling, share):
    grades = np.array([0] * 9000 + [1] * 1000)  # square roots 3 : 1
    drawn = [index for _, index in EpochSampler(grades, sampling=sampling, seed=0)]
    assert len(drawn) == 10_000
    assert np.mean(grades[drawn] == 1) == pytest.approx(share, abs=0.02)
