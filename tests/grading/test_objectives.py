import numpy as np
import pytest
import torch
import torch.nn.functional as F
from made import TINY

from dr import UsageError
from dr.grading import objectives
from dr.grading.targets import inverse_frequency, smoothed_targets
from dr.recipes.load import from_dict


def build(*, num_classes=5, class_weights=None, **options):
    return objectives.build(
        from_dict(TINY.to_dict() | {"loss": None} | options), num_classes=num_classes, class_weights=class_weights
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


def test_the_target_of_a_mixed_sample_is_its_mean_grade():
    mixed = torch.tensor([[0.5, 0.0, 0.0, 0.0, 0.5]])
    assert build().loss(torch.tensor([[2.0]]), mixed).item() == 0


def test_cross_entropy_equals_torchs_with_label_smoothing():
    objective = build(objective="classification", label_smoothing=0.1)
    targets = smoothed_targets(from_dict(TINY.to_dict() | {"label_smoothing": 0.1}), 5)[GRADES]
    expected = F.cross_entropy(OUTPUTS, GRADES, label_smoothing=0.1, reduction="none")
    assert torch.allclose(objective.loss(OUTPUTS, targets), expected, atol=1e-6)


def test_focal_loss_follows_its_formula_with_weights_by_inverse_frequency():
    weights = inverse_frequency(np.array([0, 0, 0, 0, 1, 1, 2, 3]), 5)
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


def test_ordinal_gives_the_most_probable_grade_or_applies_thresholds_to_the_expected_one():
    argmax = objectives.build(from_dict({"objective": "ordinal", "thresholds": "argmax"}))
    predictions = np.array([[0.55, 0.5, 0.5, 0.45]])  # 0 has 0.45, 4 has 0.45 less a little
    predictions[0, 3] = 0.44
    assert not argmax.has_thresholds
    assert argmax.grades(predictions, None).tolist() == [0]
    thresholded = objectives.build(from_dict({"objective": "ordinal"}))
    assert thresholded.grades(predictions, np.array([0.5, 1.5, 2.5, 3.5])).tolist() == [2]
    with pytest.raises(UsageError, match="thresholds argmax is not for objective regression"):
        from_dict({"thresholds": "argmax"})


def test_binary_is_the_cross_entropy_of_one_logit():
    objective = build(objective="binary", num_classes=2)
    outputs, labels = OUTPUTS[:, :1], (GRADES > 1).long()
    expected = F.binary_cross_entropy_with_logits(outputs[:, 0], labels.float(), reduction="none")
    assert torch.allclose(objective.loss(outputs, F.one_hot(labels, 2).float()), expected)
    predictions = objective.predictions(outputs).numpy()
    assert np.allclose(objective.probabilities(predictions)[:, 1], outputs[:, 0].sigmoid().numpy())
    assert (objective.grades(predictions, np.array([0.5])) == (outputs[:, 0] > 0).numpy()).all()


def test_binary_refuses_five_classes():
    with pytest.raises(UsageError, match="objective binary needs 2 classes, got 5"):
        build(objective="binary")


def test_classification_gives_the_most_probable_class_without_thresholds():
    objective = build(objective="classification")
    predictions = objective.predictions(OUTPUTS).numpy()
    assert (objective.grades(predictions, None) == OUTPUTS.argmax(1).numpy()).all()


def test_neighbour_smoothing_gives_a_share_to_the_grades_around():
    matrix = smoothed_targets(from_dict(TINY.to_dict() | {"neighbour_smoothing": 0.05}), 5)
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
    assert objective.grades(predictions, thresholds).tolist() == grades.tolist()


def test_class_weights_scale_the_loss_of_every_objective():
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    for name in ("regression", "ordinal", "classification"):
        outputs = OUTPUTS[:, : build(objective=name).num_outputs]
        plain = build(objective=name).loss(outputs, F.one_hot(GRADES, 5).float())
        weighted = build(objective=name, class_weights=weights).loss(outputs, F.one_hot(GRADES, 5).float())
        assert torch.allclose(weighted, plain * weights[GRADES], atol=1e-5)


KINDS = {  # name -> (recipe options, number of classes)
    "regression": ({}, 5),
    "ordinal": ({"objective": "ordinal"}, 5),
    "ordinal argmax": ({"objective": "ordinal", "thresholds": "argmax"}, 5),
    "classification": ({"objective": "classification"}, 5),
    "binary": ({"objective": "binary"}, 2),
}


@pytest.mark.parametrize("kind", KINDS)
def test_methods_give_the_same_numbers_for_arrays_and_tensors(kind):
    options, num_classes = KINDS[kind]
    objective = build(num_classes=num_classes, **options)
    thresholds = np.linspace(0.3, num_classes - 1.3, num_classes - 1) if objective.has_thresholds else None
    tensor = objective.predictions(OUTPUTS[:, : objective.num_outputs].double())
    array = tensor.numpy()
    assert np.allclose(objective.scores(array), objective.scores(tensor).numpy(), rtol=0, atol=1e-15)
    ours, graph = objective.probabilities(array), objective.probabilities(tensor)
    assert (ours is None) == (graph is None) == (kind == "regression")
    assert ours is None or np.array_equal(ours, graph.numpy())
    assert np.array_equal(objective.calibration_input(array), objective.calibration_input(tensor).numpy())
    limits = None if thresholds is None else torch.from_numpy(thresholds)
    grades = objective.grades(array, thresholds)
    assert np.array_equal(grades, objective.grades(tensor, limits).numpy())
    assert grades.dtype == np.int64


def test_ordinal_predictions_are_the_running_minimum_and_keep_nan():
    outputs = torch.cat([OUTPUTS[:, :4], torch.tensor([[1.0, float("nan"), 2.0, -1.0]])]).double()
    expected = outputs.sigmoid().cummin(dim=1).values
    assert torch.equal(build(objective="ordinal").predictions(outputs).nan_to_num(9), expected.nan_to_num(9))


def test_ordinal_probabilities_are_differences_of_the_cumulative_ones():
    predictions = np.array([[0.9, 0.5, 0.5, 0.1]])
    assert build(objective="ordinal").probabilities(predictions)[0] == pytest.approx([0.1, 0.4, 0.0, 0.4, 0.1])


@pytest.mark.parametrize("kind", KINDS)
def test_the_number_of_offsets_follows_the_calibration_input(kind):
    options, num_classes = KINDS[kind]
    objective = build(num_classes=num_classes, **options)
    shape = objective.calibration_input(np.full((3, objective.num_outputs), 0.5)).shape
    assert shape in ((3,), (3, num_classes))
    assert objective.num_offsets == (num_classes if len(shape) == 2 else num_classes - 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_along_the_target_output_makes_the_grade_more_probable(kind):
    options, num_classes = KINDS[kind]
    objective = build(num_classes=num_classes, **options)
    for grade in range(num_classes):
        output = torch.linspace(0.8, -0.8, objective.num_outputs, requires_grad=True)
        [gradient] = torch.autograd.grad(objective.target_output(output, grade), output)
        before, after = (objective.predictions(x[None].detach()).numpy() for x in (output, output + 0.05 * gradient))
        if objective.explains_score:
            assert objective.scores(after) > objective.scores(before)
        else:
            assert objective.probabilities(after)[0, grade] > objective.probabilities(before)[0, grade]


def test_the_ordinal_target_output_has_the_gradient_of_the_log_probability_and_never_vanishes():
    objective = build(objective="ordinal")
    logits = torch.tensor([3.0, 1.0, -0.5, -2.0], requires_grad=True)
    for grade in range(5):
        log_probability = torch.tensor(0.0)
        if grade > 0:
            log_probability = log_probability + logits[grade - 1].sigmoid().log()
        if grade < 4:
            log_probability = log_probability + (1 - logits[grade].sigmoid()).log()
        [expected] = torch.autograd.grad(log_probability, logits)
        [gradient] = torch.autograd.grad(objective.target_output(logits, grade), logits)
        assert torch.allclose(gradient / gradient.abs().sum(), expected / expected.abs().sum(), atol=1e-6)
    sure = torch.tensor([60.0, -60.0], requires_grad=True)
    assert torch.autograd.grad(objective.target_output(sure, 1), sure)[0].abs().sum() > 0.5


def test_the_error_is_the_distance_to_the_true_grade_or_the_missing_probability():
    scores, truth = np.array([[0.5], [3.0]]), np.array([0, 1])
    assert build().error(scores, truth).tolist() == [0.5, 2.0]
    classes = build(objective="classification", num_classes=2)
    predictions = np.array([[0.75, 0.25], [0.75, 0.25]])
    assert classes.error(predictions, truth).tolist() == [0.25, 0.75]
    assert classes.values(predictions, np.array([1, 0])).tolist() == [0.25, 0.75]
    assert (build().ordered, classes.ordered) == (True, False)
    assert (build().value_name, classes.value_name) == ("score", "probability")


def test_scores_from_a_grade_are_tail_probabilities_or_the_score():
    assert build().scores_from(2, np.array([[1.5]])).tolist() == [1.5]
    predictions = np.array([[0.1, 0.2, 0.3, 0.4, 0.0]])
    assert build(objective="classification").scores_from(2, predictions) == pytest.approx(0.7)


def test_doubt_is_highest_at_a_threshold_or_where_the_lead_over_the_next_class_is_smallest():
    def doubt(objective, scores, grades, **given):
        return objective.doubt(np.array(scores), np.array(grades), **{"thresholds": None} | given)

    graded = doubt(build(), [3.0, 0.45, 1.49], [3, 0, 1], thresholds=np.array([0.5, 1.5, 2.5, 3.5]))
    assert np.allclose(graded, [0, 0.9, 0.98])
    values = np.array([[0.7, 0.2, 0.1], [0.1, 0.5, 0.4], [0.1, 0.5, 0.4]])  # a vote of views may differ from the mean
    classes = build(objective="classification", num_classes=3)
    assert np.allclose(doubt(classes, [0.4, 1.2, 1.2], [0, 1, 2], decision_values=values), [0.5, 0.9, 1])
    two = build(objective="binary", num_classes=2)
    for threshold, expected in ((0.5, [0.2, 1, 0.4]), (0.2, [0.5, 0.625, 0.25])):
        assert np.allclose(doubt(two, [0.1, 0.5, 0.8], [0, 1, 1], thresholds=np.array([threshold])), expected)


def test_the_range_of_scores_has_room_beyond_the_outermost_thresholds():
    assert build().score_range(np.array([0.2, 1.0, 2.0, 4.5])) == [-0.3, 5.0]
    assert build().score_range(np.array([0.6, 1.0, 2.0, 3.0])) == [0.0, 4.0]
    assert build(objective="classification").score_range(None) == [0.0, 4.0]
    assert build(objective="binary", num_classes=2).score_range(np.array([0.5])) == [0.0, 1.0]
