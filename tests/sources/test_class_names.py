"""Class names have one order, whatever their order and spelling in the source."""

import pytest

from dr import GRADES, UsageError
from dr.sources.class_names import arrange, check_spelling, check_splits, numbered, ranked


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (["4", "2", "0", "3", "1"], GRADES),
        (["Severe", "no_dr", "MILD", "Proliferate-DR", "Moderate"], GRADES),
        (["PDR", "Severe NPDR", "moderate_npdr", "Mild NPDR", "Normal"], GRADES),
        (["No apparent retinopathy", "Mild nonproliferative diabetic retinopathy"], ("No DR", "Mild")),
        (["4 - Proliferative DR", "0 - No DR", "1_Mild", "3 severe non-proliferative", "2 moderate"], GRADES),
        (["1 - No DR", "0 - Mild"], ("0 - Mild", "1 - No DR")),  # not their numbers
        (["Severe", "No DR"], ("No DR", "Severe")),
        (["DR", "No_DR"], ("No_DR", "DR")),
        (["dr", "no dr"], ("no dr", "dr")),
        (["1", "0"], ("0", "1")),
        ([str(number) for number in reversed(range(11))], tuple(str(number) for number in range(11))),
        (["stage 10", "stage 9", "Stage 1"], ("Stage 1", "stage 9", "stage 10")),
        (["tulip", "rose", "daisy"], ("daisy", "rose", "tulip")),
        (["9", "a", "10b"], ("9", "10b", "a")),
    ],
)
def test_classes_come_in_the_order_that_a_reader_expects(names, classes):
    arranged, number = arrange(names)
    assert arranged == classes
    assert sorted(number.values()) == list(range(len(classes)))
    assert set(number) == set(names)


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (GRADES, True),
        (("No DR", "Severe"), True),
        (("cat", "dog"), True),
        (("stage 1", "stage 2", "stage 3"), True),
        (("stage 1", "stage 3", "stage 4"), False),
        (("n01443537", "n01629819", "n01641577"), False),
        (("0", "1", "2", "3", "4", "5", "6", "7"), False),
        (("Mild", "No DR", "advanced"), False),
        (("daisy", "rose", "tulip"), False),
    ],
)
def test_grades_consecutive_stages_and_pairs_of_classes_are_ranked(classes, expected):
    assert ranked(classes) == expected


def test_two_spellings_of_a_grade_are_one_class():
    assert arrange(["Mild", "mild", "No DR"]) == (("No DR", "Mild"), {"Mild": 1, "mild": 1, "No DR": 0})


@pytest.mark.parametrize("names", [["No_DR", "no_dr", "DR"], ["Normal", "normal", "cataract"], ["stage 1", "Stage-1"]])
def test_one_class_in_two_spellings_is_refused(names):
    with pytest.raises(UsageError, match=r"^x: the classes '.+' and '.+' differ only in spelling; use one"):
        check_spelling(names, place="x")


@pytest.mark.parametrize("names", [["Mild", "mild", "No DR"], ["-1", "1", "0"], ["HER2", "HER2-"], ["1_2", "12"]])
def test_classes_that_only_look_alike_are_not(names):
    check_spelling(names, place="x")


def test_a_class_that_is_only_tested_is_named():
    with pytest.raises(UsageError) as refused:
        check_splits({"train": {"cat", "dog"}, "test": {"cat", "cow"}}, place="pets.zip")
    message = "pets.zip: test has the class 'cow', which train lacks; add it to train or remove it from test"
    assert str(refused.value) == message


def test_labels_without_a_gap_are_classes_and_others_are_not():
    assert numbered({"train": [0, 1, 1, 2], "test": [1]}, place="x") == ("0", "1", "2")
    assert numbered({"train": range(5)}, place="x") == GRADES
    with pytest.raises(UsageError, match=r"x: no training image has the label 1, but some have 3; number the"):
        numbered({"train": [0, 2, 3]}, place="x")
