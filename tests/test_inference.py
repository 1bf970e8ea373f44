import numpy as np
import pytest
import torch
from made import TINY
from torch import nn

from dr import device, objectives
from dr.inference import Scorer, infer
from dr.models import build

OBJECTIVE = objectives.build(TINY)


class MeanOf(nn.Module):
    """Scores a photograph by the mean of one channel."""

    def __init__(self, channel: int):
        super().__init__()
        self.channel = channel

    def forward(self, images):
        return images[:, self.channel].float().mean(dim=(1, 2))[:, None]


def batches(images, size=4):
    for start in range(0, len(images), size):
        yield {"index": torch.arange(start, min(start + size, len(images))), "image": images[start : start + size]}


@pytest.fixture(scope="module")
def accelerator():
    return device.accelerator("cpu", precision="fp32")


@pytest.fixture
def images():
    return torch.randint(0, 255, (10, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_every_photograph_is_scored_once_in_the_order_of_its_index(accelerator, images):
    shuffled = list(batches(images))[::-1]
    index, scores = infer([Scorer(MeanOf(0), OBJECTIVE)], shuffled, accelerator=accelerator)
    assert index.tolist() == list(range(10))
    assert np.allclose(scores, images[:, 0].float().mean(dim=(1, 2)).numpy())


def test_an_ensemble_is_the_mean_of_its_members(accelerator, images):
    members = [Scorer(MeanOf(0), OBJECTIVE), Scorer(MeanOf(2), OBJECTIVE)]
    alone = [infer([member], batches(images), accelerator=accelerator)[1] for member in members]
    together = infer(members, batches(images), accelerator=accelerator)[1]
    assert np.allclose(together, np.mean(alone, axis=0))


@pytest.mark.parametrize("dims", [(-1,), (-2,), (-2, -1)])
def test_flip_averaged_scores_do_not_change_when_the_photograph_is_flipped(accelerator, images, dims):
    scorer = Scorer(build(TINY, num_outputs=1), OBJECTIVE)
    upright, flipped = (
        infer([scorer], batches(views), accelerator=accelerator, flips=True)[1] for views in (images, images.flip(dims))
    )
    plain = infer([scorer], batches(images), accelerator=accelerator)[1]
    assert np.allclose(upright, flipped, atol=1e-5)
    assert not np.allclose(upright, plain, atol=1e-5)


def test_no_batches_give_no_scores(accelerator):
    index, scores = infer([Scorer(MeanOf(0), OBJECTIVE)], [], accelerator=accelerator)
    assert len(index) == len(scores) == 0


def test_a_network_left_in_training_mode_is_evaluated_all_the_same(accelerator, images):
    model = build(TINY, num_outputs=1).train()
    infer([Scorer(model, OBJECTIVE)], batches(images), accelerator=accelerator)
    assert not model.training
