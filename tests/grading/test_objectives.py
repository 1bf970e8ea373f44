import numpy as np
import pytest
import torch
import torch.nn.functional as F
from made import TINY

from dr import UsageError
from dr.grading import objectives
from dr.recipes.load import from_dict


def build(*, num_classes=5, class_weights=None, **choices):
    return objectives.build(
        from_dict(TINY.to_dict() | {"loss": None} | choices), num_classes=num_classes, class_weights=class_weights
    )


def one_hot(grades, num_classes=5):
    return F.one_hot(torch.tensor(grades), num_classes).float()


OUTPUTS = torch.randn(40, 5, generator=torch.Generator().manual_seed(1)) * 2
GRADES = torch.randint(5, (40,), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(
    ("loss", "expected"),
    [("smooth_l1", [0.0, 0.125, 1.5]), ("l1", [0.0, 0.5, 2.0]), ("mse", [0.0, 0.25, 4.0])],
)
def test_regression_losses_follow_their_formulas(loss, expected):
    objective = build(loss=loss)
    outputs = torch.tensor([[1.0], [2.5], [2.0]])
    assert objective.loss(outputs, one_hot([1, 2, 4])).tolist() == expected
    assert objective.scores(objective.predictions(outputs).numpy()).tolist() == [1.0, 2.5, 2.0]
    assert objective.num_outputs == 1
    assert objective.probabilities(outputs.numpy()) is None


def test_regression_to_a_mixed_target_is_to_its_mean_grade():
    mixed = torch.tensor([[0.5, 0.0, 0.0, 0.0, 0.5]])
    assert build().loss(torch.tensor([[2.0]]), mixed).item() == 0


def test_cross_entropy_is_torchs_also_smoothed():
    objective = build(objective="classification", label_smoothing=0.1)
    targets = objectives.smoothing(from_dict(TINY.to_dict() | {"label_smoothing": 0.1}), 5)[GRADES]
    expected = F.cross_entropy(OUTPUTS, GRADES, label_smoothing=0.1, reduction="none")
    assert torch.allclose(objective.loss(OUTPUTS, targets), expected, atol=1e-6)


def test_focal_loss_follows_its_formula_with_weights_by_inverse_frequency():
    weights = objectives.inverse_frequency(np.array([0, 0, 0, 0, 1, 1, 2, 3]), 5)
    assert weights.tolist() == pytest.approx([0.4, 0.8, 1.6, 1.6, 0.0])  # N / (K n): 8 / (5 * 4), ...
    objective = build(objective="classification", loss="focal", focal_gamma=3.0, class_weights=weights)
    p = OUTPUTS.softmax(1)[torch.arange(40), GRADES]
    expected = -weights[GRADES] * (1 - p) ** 3 * p.log()
    assert torch.allclose(objective.loss(OUTPUTS, F.one_hot(GRADES, 5).float()), expected, atol=1e-6)


def test_ordinal_learns_whether_the_grade_is_above_each_one():
    objective = build(objective="ordinal")
    assert objective.num_outputs == 4
    logits = OUTPUTS[:, :4]
    above = (GRADES[:, None] > torch.arange(4)).float()
    expected = F.binary_cross_entropy_with_logits(logits, above, reduction="none").mean(1)
    assert torch.allclose(objective.loss(logits, F.one_hot(GRADES, 5).float()), expected, atol=1e-6)


def test_ordinal_ranks_are_consistent_and_its_probabilities_are_a_distribution():
    objective = build(objective="ordinal")
    predictions = objective.predictions(OUTPUTS[:, :4]).numpy()
    assert (np.diff(predictions, axis=1) <= 0).all()
    assert not (np.diff(OUTPUTS[:, :4].numpy(), axis=1) <= 0).all()
    probabilities = objective.probabilities(predictions)
    assert np.allclose(probabilities.sum(1), 1)
    assert (probabilities >= 0).all()
    assert np.allclose(objective.scores(predictions), probabilities @ np.arange(5))


def test_ordinal_can_give_the_likeliest_grade_instead_of_cutting_the_expected_one():
    made = objectives.build(from_dict({"objective": "ordinal", "thresholds": "argmax"}))
    predictions = np.array([[0.55, 0.5, 0.5, 0.45]])  # 0 has 0.45, 4 has 0.45 less a little
    predictions[0, 3] = 0.44
    assert not made.has_thresholds
    assert objectives.grades(made, predictions, None).tolist() == [0]
    cut = objectives.build(from_dict({"objective": "ordinal"}))
    assert objectives.grades(cut, predictions, np.array([0.5, 1.5, 2.5, 3.5])).tolist() == [2]
    with pytest.raises(UsageError, match="cuts likeliest is for objective ordinal"):
        from_dict({"thresholds": "argmax"})


def test_binary_is_the_cross_entropy_of_one_logit():
    objective = build(objective="binary", num_classes=2)
    outputs, labels = OUTPUTS[:, :1], (GRADES > 1).long()
    expected = F.binary_cross_entropy_with_logits(outputs[:, 0], labels.float(), reduction="none")
    assert torch.allclose(objective.loss(outputs, F.one_hot(labels, 2).float()), expected)
    predictions = objective.predictions(outputs).numpy()
    assert np.allclose(objective.probabilities(predictions)[:, 1], outputs[:, 0].sigmoid().numpy())
    assert (objectives.grades(objective, predictions, np.array([0.5])) == (outputs[:, 0] > 0).numpy()).all()


def test_binary_refuses_five_classes():
    with pytest.raises(UsageError, match="objective binary is for two classes, here are 5"):
        build(objective="binary")


def test_classification_gives_the_likeliest_class_and_needs_no_cuts():
    objective = build(objective="classification")
    predictions = objective.predictions(OUTPUTS).numpy()
    assert (objectives.grades(objective, predictions, None) == OUTPUTS.argmax(1).numpy()).all()


def test_neighbour_smoothing_gives_a_share_to_the_grades_around():
    matrix = objectives.smoothing(from_dict(TINY.to_dict() | {"neighbour_smoothing": 0.05}), 5)
    assert matrix[2].tolist() == pytest.approx([0, 0.05, 0.9, 0.05, 0])
    assert matrix[0].tolist() == pytest.approx([0.95, 0.05, 0, 0, 0])
    assert torch.allclose(matrix.sum(1), torch.ones(5))


@pytest.mark.parametrize("name", ["regression", "ordinal", "classification", "binary"])
def test_every_objective_learns_in_a_few_steps(name):
    classes = 2 if name == "binary" else 5
    objective = build(objective=name, num_classes=classes)
    grades = torch.arange(30) % classes
    inputs = F.one_hot(grades, classes).float()
    torch.manual_seed(0)
    layer = torch.nn.Linear(classes, objective.num_outputs)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.3)
    for _ in range(60):
        loss = objective.loss(layer(inputs), inputs).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    predictions = objective.predictions(layer(inputs)).detach().numpy()
    thresholds = np.arange(classes - 1) + 0.5
    assert objectives.grades(objective, predictions, thresholds).tolist() == grades.tolist()


def test_weights_of_the_classes_weigh_every_objective():
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    for name in ("regression", "ordinal", "classification"):
        outputs = OUTPUTS[:, : build(objective=name).num_outputs]
        plain = build(objective=name).loss(outputs, F.one_hot(GRADES, 5).float())
        weighted = build(objective=name, class_weights=weights).loss(outputs, F.one_hot(GRADES, 5).float())
        assert torch.allclose(weighted, plain * weights[GRADES], atol=1e-5)
