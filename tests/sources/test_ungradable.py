"""Ungradable labels are distinguished from grades and from ordinary classes."""

import pytest

from dr.sources.ungradable import is_ungradable, split_ungradable

WORDS = (
    "ungradable|Ungradeable|Not gradable|non-gradable|unreadable|poor quality|Bad_Quality|low image quality|no grade|"
    "not graded|ungraded|5_ungradable|Grade 5: ungradable|"
    "Ungradble|ungradabel|unclassifiable|-1|-1.0||nan|NA|n/a|<NA>|null|N\u00e3o grade\u00e1vel|nongradable images|"
    "#N/A|#NV|#VALUE!|nicht beurteilbar|unbeurteilbar|schlechte Bildqualität|sin calidad|no evaluable|no apta|"
    "non évaluable|illisible|qualité insuffisante|不可分级|5_不可分级|无法分级|图像质量差|判定不能"
)


@pytest.mark.parametrize("word", WORDS.split("|"))
def test_words_and_missing_values_that_mean_ungradable(word):
    assert is_ungradable(word)


@pytest.mark.parametrize(
    "word",
    ["0", "5", "none", "No DR", "Mild", "good quality", "gradable", "Gradeable", "reject", "cat", "无DR", "keine"],
)
def test_words_that_mean_something_else(word):
    assert not is_ungradable(word)


@pytest.mark.parametrize(
    ("labels", "ungradable"),
    [
        (["0", "1", "2", "3", "4", "5"], {"5"}),
        (["0", "1", "5.0", "", "-1"], {"5.0", "", "-1"}),
        (["Grade 0", "Grade 1", "Grade 5"], {"Grade 5"}),
        (["1", "2", "3", "4", "5"], set()),  # counted from 1
        (["0", "1", "2", "3", "4", "5", "6"], set()),
        (["0", "1", "reject", "none"], {"reject", "none"}),
        (["0", "1", "2", "-", "?"], {"-", "?"}),
        (["No DR", "Mild", "Blurry", "insufficient"], {"Blurry", "insufficient"}),
        (["No DR", "Mild", "None"], {"None"}),
        (["None", "Mild", "Severe"], set()),  # the lowest grade
        (["Glaucoma", "Normal", "Ungradable"], {"Ungradable"}),
        (["cats", "dogs", "reject"], set()),
        (["Good", "Usable", "Reject"], set()),  # quality is what is learned
        (["Gradable", "Ungradable"], set()),
        (["Good", "Reject", ""], {""}),
        (["无", "轻度NPDR", "不可分级"], {"不可分级"}),
        (["质量好", "质量差"], set()),
        (["Keine DR", "leicht", "keine Angabe"], {"keine Angabe"}),
        (["keine", "leicht", "schwer"], set()),
        (["DR-", "DR+"], set()),
        (["No", "Mild", "Moderate", "reject"], {"reject"}),
        (["noDR", "mNPDR", "modNPDR", "sNPDR", "reject"], {"reject"}),
        (["No", "Yes", "reject"], set()),
    ],
)
def test_what_is_ungradable_depends_on_the_other_labels(labels, ungradable):
    assert split_ungradable(labels) == ungradable
