from itertools import chain

import cv2
import numpy as np
import pytest
import torch
from made import TINY, write_preprocessed

from dr import UsageError
from dr.core import distributed
from dr.datasets.loader import loader
from dr.datasets.preprocessed import read_preprocessed
from dr.datasets.torch_datasets import EpochSampler, EvaluationImages, TrainingImages, channel_mean_std
from dr.recipes.load import from_dict


def validation(data):
    return EvaluationImages(data.root, data.val, TINY)


@pytest.fixture
def folder(tmp_path):
    return write_preprocessed(tmp_path)


def batches_of(monkeypatch, dataset, *, rank=0, count=1, **options):
    """The indices of each batch that one of several processes loads."""
    monkeypatch.setattr(distributed, "rank", rank)
    monkeypatch.setattr(distributed, "world_size", count)
    return [batch["index"].tolist() for batch in loader(dataset, workers=0, pin=False, **options)]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_decoded_is_one_line_also_from_a_worker(folder, workers):
    (folder / "kaggle_retina/val/image_2.jpeg").write_bytes(b"\xff\xd8 no more")
    batches = loader(validation(read_preprocessed(folder)), batch_size=4, workers=workers, pin=False)
    with pytest.raises(UsageError, match=r"^\S+image_2\.jpeg: cannot be decoded; delete it and run data\.py again$"):
        list(batches)


def test_workers_change_nothing_about_a_training_batch(folder):
    data = read_preprocessed(folder)
    epochs = []
    for workers in (0, 2):
        training = TrainingImages(data, from_dict(TINY.to_dict() | {"augmentation": "rotation_colour"}))
        sampler = EpochSampler(training.grades, sampling="shuffle", seed=10)
        sampler.epoch = 3
        batches = loader(training, batch_size=10, workers=workers, pin=False, sampler=sampler)
        epochs.append(list(batches))
    for alone, shared in zip(*epochs, strict=True):
        assert torch.equal(alone["image"], shared["image"])
        assert torch.equal(alone["index"], shared["index"])


def test_validation_has_every_image_once_in_the_order_of_its_table(folder):
    data = read_preprocessed(folder)
    batches = loader(validation(data), batch_size=4, workers=0, pin=False)
    assert torch.cat([batch["index"] for batch in batches]).tolist() == list(range(15))
    assert torch.cat([batch["grade"] for batch in batches]).tolist() == [i % 5 for i in range(15)]


def test_shuffling_gives_each_image_once_and_another_order_each_epoch():
    sampler = EpochSampler(np.array([0, 1, 2, 3, 4] * 4), sampling="shuffle", seed=1)
    first, again = list(sampler), list(sampler)
    assert first == again
    assert sorted(index for _, index, _ in first) == list(range(20))
    assert {draw for _, _, draw in first} == {0}
    sampler.epoch = 1
    assert [index for _, index, _ in sampler] != [index for _, index, _ in first]


@pytest.mark.parametrize(("sampling", "share"), [("sqrt", 0.25), ("balanced", 0.5)])
def test_rare_grades_are_drawn_in_proportion_to_the_sampling(sampling, share):
    grades = np.array([0] * 9000 + [1] * 1000)  # square roots 3 : 1
    drawn = [index for _, index, _ in EpochSampler(grades, sampling=sampling, seed=0)]
    assert len(drawn) == 10_000
    assert np.mean(grades[drawn] == 1) == pytest.approx(share, abs=0.02)


def test_an_image_drawn_twice_in_an_epoch_is_augmented_again(folder):
    training = TrainingImages(
        read_preprocessed(folder), from_dict(TINY.to_dict() | {"augmentation": "rotation_colour"})
    )
    sampler = EpochSampler(training.grades, sampling="balanced", seed=10)
    drawn = [index for _, index, _ in sampler]
    assert [draw for _, _, draw in sampler] == [drawn[:place].count(index) for place, index in enumerate(drawn)]
    index = max(drawn, key=drawn.count)
    images = [training[key]["image"] for key in sampler if key[1] == index]
    assert len(images) > 1
    assert len({image.numpy().tobytes() for image in images}) == len(images)


def test_images_without_any_variation_are_not_measured(folder):
    for path in (folder / "kaggle_retina" / "train").iterdir():
        cv2.imwrite(str(path), np.zeros((96, 96, 3), np.uint8))
    message = r"a colour channel is constant in all training images, so normalisation=dataset would divide"
    with pytest.raises(UsageError, match=message):
        channel_mean_std(read_preprocessed(folder), TINY)


def test_ranks_together_see_the_batches_of_one_rank_with_larger_batches(folder, monkeypatch):
    training = TrainingImages(read_preprocessed(folder), TINY)
    order = EpochSampler(training.grades, sampling="sqrt", seed=3)
    order.epoch = 2
    options = {"sampler": order, "drop_last": True}
    alone = batches_of(monkeypatch, training, batch_size=12, **options)
    shares = [batches_of(monkeypatch, training, batch_size=4, rank=n, count=3, **options) for n in range(3)]
    assert [list(chain(*step)) for step in zip(*shares, strict=True)] == alone


@pytest.mark.parametrize("count", [2, 4, 7])
def test_processes_evaluate_every_image_once_in_the_batches_of_one(folder, monkeypatch, count):
    data = validation(read_preprocessed(folder))
    alone = batches_of(monkeypatch, data, batch_size=4)
    shares = [batches_of(monkeypatch, data, batch_size=4, rank=rank, count=count) for rank in range(count)]
    assert sorted(chain(*shares)) == alone
