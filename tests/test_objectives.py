import pytest
import torch
from made import TINY

from dr import objectives
from dr.recipes import from_dict


@pytest.mark.parametrize(
    ("loss", "expected"),
    [("smooth_l1", [0.0, 0.125, 1.5]), ("l1", [0.0, 0.5, 2.0]), ("mse", [0.0, 0.25, 4.0])],
)
def test_regression_losses_follow_their_formulas(loss, expected):
    objective = objectives.build(from_dict(TINY.to_dict() | {"loss": loss}))
    outputs, grades = torch.tensor([[1.0], [2.5], [2.0]]), torch.tensor([1, 2, 4])
    assert objective.loss(outputs, grades).tolist() == expected
    assert objective.scores(outputs).tolist() == [1.0, 2.5, 2.0]
    assert objective.num_outputs == 1
