"""Words of public datasets become grades; words that could be two, or none, do not."""

import pytest

from dr import GRADES
from dr.sources.grade_words import grade_of, is_non_proliferative, nearest, number_of

WORDS = {
    0: "Healthy|Normal|NoDR|No Apparent Retinopathy|0_No_DR|0.No DR|(0) No DR|Normal fundus|No DR signs|Non DR|"
    "No signs of DR|without retinopathy|sin retinopatía|Helthy|grade 0 - no DR|DR absent|No Diabetic Retinopaty|"
    "Keine DR|keine diabetische Retinopathie|unauffällig|无DR|无明显视网膜病变|正常|糖尿病網膜症なし|"
    "未见糖尿病视网膜病变",
    1: "Mild|mild dr|MildNPDR|mildnpdr|Mild Non-Proliferative Diabetic Retinopathy|Mild_1|Grade 1: Mild|"
    "Mild (or early) NPDR|Leve|retinopatia no proliferativa leve|01_Mild|leicht|Leichte NPDR|轻度NPDR|轻度|軽度|"
    "轻度非增殖性糖尿病视网膜病变|lieve",
    2: "Moderat|moderate NPDR|ModerateDR|moderado|Modrate|2_Moderate|Modérée|Moderate Nonproliferative Retinopathy|"
    "mäßig|ma\u0308ßige NPDR|maessig|Mittelschwere NPDR|中度NPDR|中度|2_中度",
    3: "Severe|Sever|Severe DR|severedr|Very severe NPDR|Servere|Class 3 - Severe|schwer|Schwere NPDR|重度NPDR|重度|"
    "schwere nicht-proliferative Retinopathie",
    4: "PDR|Proliferate DR|ProliferateDR|Profilerative|Proliferative-DR|Advanced PDR|High-risk PDR|RDP|proliferativa|"
    "severe proliferative diabetic retinopathy|4_PDR|Prolifirative|proliferativ|增殖性|增生期|"
    "增殖性糖尿病视网膜病变",
}
NOT_ONE_GRADE = (
    "cat|DR|NPDR|Non-PDR|No PDR|Glaucoma|Diabetes|Advanced DR|mild to moderate|Mild PDR|2|Grade 2|1 - No DR|Abnormal|"
    "unhealthy|non-diabetic retinopathy|referable|No DME|None|No|early DR|Mid|Severe cataract|Not|medium|Mildew|"
    "auffällig|ungesund|nicht-diabetische Retinopathie|retinopatía no diabética|rétinopathie non diabétique|"
    "massive|massing|keine|无|нет DR|łagodna NPDR|重症|0级|mNPDR|SDR|轻中度|非增殖性"
)


@pytest.mark.parametrize(("grade", "word"), [(grade, word) for grade in WORDS for word in WORDS[grade].split("|")])
def test_words_of_public_datasets_and_their_typing_errors_are_grades(grade, word):
    assert grade_of(word) == grade


@pytest.mark.parametrize("word", NOT_ONE_GRADE.split("|"))
def test_a_word_that_is_not_certainly_one_grade_is_none(word):
    assert grade_of(word) is None


def test_words_for_npdr_of_any_severity_are_known_as_such():
    assert all(map(is_non_proliferative, ("NPDR", "Non-Proliferative DR", "nonproliferative", "非增殖性")))
    assert not any(map(is_non_proliferative, ("PDR", "Mild NPDR", "No DR", "cat", "轻度NPDR", "łagodna NPDR")))


def test_the_number_of_a_numbered_word_is_read():
    words = {"Grade 2": 2, "DR2": 2, "class_1": 1, "level 3": 3, "R0": 0, "02": 2, "4.0": 4, "Retinopathy grade 2": 2}
    assert {word: number_of(word) for word in words} == words
    assert {number_of(word) for word in ("12", "a2", "2a", "stage 10", "-1", "-0", "")} == {None}


def test_the_nearest_grade_is_named_only_if_it_is_near():
    assert nearest("Sevrest") == GRADES[3]
    assert not any(map(nearest, ("glaucoma", "laser", "Unsorted", "Masks", "leaves")))
