"""Class names have one order, whatever their order and spelling in the source."""

import pytest

from dr import GRADES, UsageError
from dr.sources.class_names import (
    UNGRADABLE,
    arrange,
    check_spelling,
    check_splits,
    class_of,
    numbered,
    order_line,
    ranked,
    taken_line,
)


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
        (["Healthy", "Mild DR", "Moderate DR", "Severe DR", "Proliferate DR"], GRADES),
        (["R0", "R1", "R2", "R3", "R4"], GRADES),
        (["Healthy", "Stage 1", "Stage 2", "Stage 3", "Stage 4"], GRADES),
        (["1_No DR", "2_Mild", "3_Moderate", "4_Severe", "5_PDR"], GRADES),
        (["None", "Mild", "Moderate", "Severe", "Proliferative"], GRADES),
        (["Ungradable", "4", "2", "0", "3", "1"], (*GRADES, UNGRADABLE)),
        (["Ungradable", "PDR", "Normal"], ("No DR", "Proliferative DR", UNGRADABLE)),
        (["PDR", "Normal", "NPDR"], ("Normal", "NPDR", "PDR")),
        (["Abnormal", "Normal"], ("Normal", "Abnormal")),
        (["Normal", "Diabetes", "Glaucoma", "Cataract"], ("Cataract", "Diabetes", "Glaucoma", "Normal")),
        (["1", "0"], ("0", "1")),
        ([str(number) for number in reversed(range(11))], tuple(str(number) for number in range(11))),
        (["stage 10", "stage 9", "Stage 1"], ("Stage 1", "stage 9", "stage 10")),
        (["tulip", "rose", "daisy"], ("daisy", "rose", "tulip")),
        (["9", "a", "10b"], ("9", "10b", "a")),
        (["keine", "leicht", "mäßig", "schwer", "proliferativ"], GRADES),
        (["PDR", "中度NPDR", "无", "轻度NPDR", "重度NPDR"], GRADES),
        (["PDR", "noDR", "mNPDR", "sNPDR", "modNPDR"], GRADES),
        (["NDR", "MiDR", "MoDR", "SDR", "PDR"], GRADES),
        (["NDR", "SDR", "DME"], ("DME", "NDR", "SDR")),  # too few for abbreviations
        (["NDR", "MDR", "SDR", "PDR"], ("MDR", "NDR", "PDR", "SDR")),  # Mild or Moderate
        (["Advanced", "Early", "Intermediate", "Normal"], ("Normal", "Early", "Intermediate", "Advanced")),
        (["Late AMD", "Early AMD", "No AMD"], ("No AMD", "Early AMD", "Late AMD")),
        (["DR+", "DR-"], ("DR-", "DR+")),
        (["DR (+)", "DR (-)"], ("DR (-)", "DR (+)")),
        (["DR", "negative"], ("negative", "DR")),
        (["Ja", "Nein"], ("Nein", "Ja")),
        (["cataract", "no cataract"], ("no cataract", "cataract")),
        (["avec cataracte", "pas de cataracte"], ("pas de cataracte", "avec cataracte")),
        (["RDR", "NRDR"], ("NRDR", "RDR")),
        (["DME_present", "DME_absent"], ("DME_absent", "DME_present")),
        (["No. 2", "No. 1"], ("No. 1", "No. 2")),
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
        (("No DR", "NPDR", "PDR"), True),
        ((*GRADES, UNGRADABLE), False),
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


@pytest.mark.parametrize(
    ("names", "word", "remedy"),
    [
        (["No DR", "Mild", "Moderate", "Sevrest"], "Sevrest", "the nearest is 'Severe'"),
        (
            ["Healthy", "Mild DR", "Moderate DR", "Severe DR", "Advanced"],
            "Advanced",
            "expected No DR, ",
        ),
        (["0", "1", "Mild", "PDR"], "0", "expected No DR, "),
        (["Normal", "Mild", "Severe", "laser"], "laser", "expected No DR, "),
        (["0", "1", "2", "3", "4", "Unsorted"], "Unsorted", "expected No DR, "),
        (["NDR", "MiDR", "MoDR", "SDR", "Unsorted"], "Unsorted", "expected No DR, "),
        (["R0", "R1", "R2", "R3", "R4", "M1"], "M1", "expected No DR, "),
    ],
)
def test_a_mixture_of_grades_and_other_words_is_refused(names, word, remedy):
    with pytest.raises(UsageError) as refused:
        check_spelling(names, place="x.zip")
    assert str(refused.value).startswith(
        f"x.zip: the class {word!r} is no known word for a grade of retinopathy ({remedy}"
    )


@pytest.mark.parametrize(
    ("names", "word"),
    [
        ("0 1 2 3 4 9", "9"),
        ("0 1 2 3 4 99", "99"),
        ("R0 R1 R2 R3 R4 R6", "R6"),
        ("0 1 2 3 4 5 9", "9"),
        ("0 1 2 3 4 7", "7"),
    ],
)
def test_a_number_beside_all_five_grades_that_is_none_is_refused(names, word):
    with pytest.raises(UsageError) as refused:
        check_spelling(names.split(), place="x.zip")
    assert str(refused.value) == (
        f"x.zip: the class {word!r} is no grade, but the classes 0 to 4 are; remove its images, or rename it to "
        "'ungradable' if they cannot be graded"
    )


@pytest.mark.parametrize("names", ["0 1 2 3 4 5 6", "0 1 2 9", "0 1 2 3 4 5 6 7 8 9", "0 1 2 3 4 11 12 13"])
def test_other_numbers_are_ordinary_classes(names):
    check_spelling(names.split(), place="x")


@pytest.mark.parametrize(
    "names", [["Normal", "Diabetes", "Glaucoma"], ["mild", "hot", "medium"], ["Normal", "Mild", "RVO", "CRVO", "AMD"]]
)
def test_ordinary_classes_with_a_few_words_for_grades_are_not(names):
    check_spelling(names, place="x")


def test_a_numbered_or_missing_word_is_a_grade_beside_grades():
    assert [class_of(word, GRADES) for word in ("Grade 2", "none", "R4", "DR")] == [2, 0, 4, None]
    assert class_of("none", ("cat", "dog")) is None
    assert class_of("Ungradable", (*GRADES, UNGRADABLE)) == len(GRADES)


def test_a_class_that_is_only_tested_is_named():
    with pytest.raises(UsageError) as refused:
        check_splits({"train": {"cat", "dog"}, "test": {"cat", "cow"}}, place="pets.zip")
    message = "pets.zip: test has the class 'cow', which train lacks; add it to train or remove it from test"
    assert str(refused.value) == message


def test_labels_without_a_gap_are_classes_and_others_are_not():
    assert numbered({"train": [0, 1, 1, 2], "test": [1]}, place="x") == ("0", "1", "2")
    assert numbered({"train": range(5)}, place="x") == GRADES
    with pytest.raises(UsageError, match=r"x: the class '6' is no grade, but the classes 0 to 4 are; remove"):
        numbered({"train": [0, 1, 2, 3, 4, 6]}, place="x")
    with pytest.raises(UsageError, match=r"x: no training image has the label 1, but some have 3; number the"):
        numbered({"train": [0, 2, 3]}, place="x")


def test_words_that_are_read_as_grades_are_reported_in_one_line():
    assert taken_line(["no_dr", "MILD", "Moderat", "Severe", "Very severe NPDR"]) == (
        "grades: 'Moderat' as Moderate, 'Very severe NPDR' as Severe"
    )
    assert taken_line(["0", "1", "2", "3", "4"]) is None
    assert taken_line(["cat", "Mild"]) is None


def test_classes_in_alphabetical_order_are_reported_in_one_line():
    assert order_line(["brak", "ciężka", "łagodna", "PDR", UNGRADABLE]) == (
        "classes in alphabetical order: brak, ciężka, łagodna, PDR; rename them 0_..., 1_... if they are ranks"
    )


@pytest.mark.parametrize(
    "classes",
    [
        GRADES,
        ("No DR", "NPDR", "PDR"),
        ("Normal", "Early", "Advanced"),
        ("cat", "dog"),
        ("0", "1", "2"),
        ("0_brak", "1_lagodna", "2_PDR"),
        ("stage 1", "stage 3", "stage 4"),
        tuple("abcdefghijk"),
    ],
)
def test_other_orders_need_no_line(classes):
    assert order_line(classes) is None
