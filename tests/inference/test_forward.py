import numpy as np
import pytest
import torch
from made import TINY
from torch import nn

from dr.core import device
from dr.grading import objectives
from dr.inference.forward import TTA_VIEWS, Scorer, decide, infer, mean_predictions, voted_grades
from dr.networks.build import build
from dr.recipes.load import from_dict

OBJECTIVE = objectives.build(TINY)


class MeanOf(nn.Module):
    """The score is the mean of one channel."""

    def __init__(self, channel: int):
        super().__init__()
        self.channel = channel

    def forward(self, images):
        return images[:, self.channel].float().mean(dim=(1, 2))[:, None]


def scores(scorers, images, *, accelerator, views="none"):
    _, outputs = infer(scorers, batches(images), accelerator=accelerator, views=TTA_VIEWS[views])
    return mean_predictions(scorers, outputs)[:, 0]


def batches(images, size=4):
    for start in range(0, len(images), size):
        yield {"index": torch.arange(start, min(start + size, len(images))), "image": images[start : start + size]}


@pytest.fixture(scope="module")
def accelerator():
    return device.accelerator("cpu", precision="fp32")


@pytest.fixture
def images():
    return torch.randint(0, 255, (10, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_every_image_is_scored_once_in_the_order_of_its_index(accelerator, images):
    shuffled = list(batches(images))[::-1]
    index, outputs = infer([Scorer(MeanOf(0), OBJECTIVE)], shuffled, accelerator=accelerator)
    assert index.tolist() == list(range(10))
    assert np.allclose(outputs[0][0, :, 0], images[:, 0].float().mean(dim=(1, 2)).numpy())


def test_an_ensemble_is_the_mean_of_its_members(accelerator, images):
    members = [Scorer(MeanOf(0), OBJECTIVE), Scorer(MeanOf(2), OBJECTIVE)]
    alone = [scores([member], images, accelerator=accelerator) for member in members]
    together = scores(members, images, accelerator=accelerator)
    assert np.allclose(together, np.mean(alone, axis=0))


def test_d4_has_all_eight_orientations(images):
    shifted = [view(images) for view in TTA_VIEWS["d4"]]
    turned = [torch.rot90(side, turns, dims=(-2, -1)) for side in (images, images.flip(-1)) for turns in range(4)]
    assert len(shifted) == 8
    assert all(any(torch.equal(view, other) for other in turned) for view in shifted)
    assert all(any(torch.equal(view, other) for other in shifted) for view in turned)


@pytest.mark.parametrize("dims", [(-1,), (-2,), (-2, -1)])
def test_flip_averaged_scores_do_not_change_when_the_image_is_flipped(accelerator, images, dims):
    scorer = Scorer(build(TINY, num_outputs=1), OBJECTIVE)
    upright, flipped = (
        scores([scorer], shifted, accelerator=accelerator, views="flips") for shifted in (images, images.flip(dims))
    )
    plain = scores([scorer], images, accelerator=accelerator)
    assert np.allclose(upright, flipped, atol=1e-5)
    assert not np.allclose(upright, plain, atol=1e-5)


def test_no_batches_give_no_scores(accelerator):
    index, outputs = infer([Scorer(MeanOf(0), OBJECTIVE)], [], accelerator=accelerator)
    assert len(index) == outputs[0].shape[1] == 0


def test_a_network_in_training_mode_is_set_to_evaluation(accelerator, images):
    model = build(TINY, num_outputs=1).train()
    infer([Scorer(model, OBJECTIVE)], batches(images), accelerator=accelerator)
    assert not model.training


def test_five_views_are_the_image_and_its_shifts_to_the_corners_and_ten_are_also_mirrored(images):
    shifted = [view(images) for view in TTA_VIEWS["ten"]]
    assert torch.equal(shifted[0], images)
    assert torch.equal(shifted[1][..., :-4, :-4], images[..., 4:, 4:])  # a sixteenth of 64, up and to the left
    assert torch.equal(shifted[4][..., 4:, 4:], images[..., :-4, :-4])
    assert torch.equal(shifted[4][..., :4, 10], images[..., :1, 6].expand(-1, -1, 4))  # the border, repeated
    for plain, mirrored in zip(shifted[:5], shifted[5:], strict=True):
        assert torch.equal(plain.flip(-1), mirrored)
    assert len(TTA_VIEWS["five"]) == 5


def test_a_vote_takes_the_grade_of_most_views_and_of_tied_grades_the_most_probable_by_the_mean():
    scorer = Scorer(nn.Identity(), OBJECTIVE)
    views = torch.tensor([[0.0, 4.0, 0.0], [0.2, 4.0, 1.0], [3.0, 0.0, 4.0], [4.0, 3.0, 4.0], [4.0, 2.0, 2.0]])
    grades = voted_grades([scorer], [views[..., None]], thresholds=[np.array([0.5, 1.5, 2.5, 3.5])])
    assert grades.tolist() == [4, 4, 4]  # 0 0 3 4 4: mean 2.2 is nearer to 4 than to 0


def test_a_vote_and_a_mean_can_differ():
    objective = objectives.build(from_dict(TINY.to_dict() | {"loss": None, "objective": "classification"}))
    scorer = Scorer(nn.Identity(), objective)
    views = torch.tensor([[5.0, 0, 0, 0, 0], [1.0, 1.2, 0, 0, 0], [1.0, 1.2, 0, 0, 0]])[:, None]
    predictions, voted = decide([scorer], [views], thresholds=[None], by="vote")
    assert voted.tolist() == [1]
    assert decide([scorer], [views], thresholds=[None], by="mean")[1].tolist() == [0]
    assert np.allclose(predictions, views.double().softmax(dim=-1).mean(dim=0).numpy())
