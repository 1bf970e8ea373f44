"""Which split the name of a folder or table, or a value of a column, stands for: train, val or test."""

import re
import unicodedata
from collections.abc import Iterable

from dr.sources.source import SPLIT_OF

_EVALUATION = "evaluation"  # validation in RFMiD, the test in DeepDRiD
_OTHER = {  # other languages, and words that stand for a split beside images alone
    "train": "trainings entrenamiento treino treinamento entrainement apprentissage addestramento",
    "val": "dev tuning tune validierung validierungs validacion validacao validazione",
    "test": "holdout solution tests prueba pruebas teste",  # retinopathy_solution.csv: the test of EyePACS 2015
    _EVALUATION: "eval evaluation",
}
_SPLIT_OF = SPLIT_OF | {word: split for split, words in _OTHER.items() for word in words.split()}
_CHINESE = {"\u8bad\u7ec3": "train", "\u9a8c\u8bc1": "val", "\u6d4b\u8bd5": "test"}
# Values of a column alone: Kaggle's Usage, and abbreviations
_VALUES = {"public": "test", "private": "test", "tr": "train", "trn": "train", "va": "val", "vl": "val", "te": "test",
           "tst": "test"}  # fmt: skip
_ENDING = re.compile(r"(?<=.)(?:images?|imgs?|labels?|set|data|daten|split|files?)$")  # trainlabels, testset
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def words_of(name: str) -> list[str]:
    """'a. IDRiD_TrainingLabels' -> 'a', 'i', 'drid', 'training', 'labels': its words in lower case, without digits and
    accents."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return [word.lower() for word in _WORD.findall(plain)]


def _split_word(name: str) -> str | None:
    found = {_SPLIT_OF.get(word) or _SPLIT_OF.get(_ENDING.sub("", word)) for word in words_of(name)} - {None}
    found |= {split for word, split in _CHINESE.items() if word in name}
    return found.pop() if len(found) == 1 else None  # train_val is neither


def splits_of(names: Iterable[str]) -> dict[str, str]:
    """Names -> {name: "train", "val" or "test"} of those that stand for one split.

    "Evaluation" is validation beside a test split without validation, else the test.
    """
    words = {name: word for name in names if (word := _split_word(name))}
    evaluation = "val" if "test" in words.values() and "val" not in words.values() else "test"
    return {name: evaluation if word == _EVALUATION else word for name, word in words.items()}


def splits_of_values(column: str, values: Iterable[str]) -> dict[str, str]:
    """The values of a column -> {value: its split}; those of `is_valid`, `is_test` and the like are yes and no."""
    values, words = set(values), words_of(column)
    if words[:1] == ["is"] and len(words) == 2 and (split := _SPLIT_OF.get(words[1])):
        other = "test" if split == "train" else "train"
        yes, no = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no")
        answers = dict.fromkeys(yes, split) | dict.fromkeys(no, other)
        return {value: answers[value.lower()] for value in values if value.lower() in answers}
    return splits_of(values) | {value: _VALUES[value.lower()] for value in values if value.lower() in _VALUES}
