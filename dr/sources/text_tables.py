"""Tables in text: which encoding, which delimiter, and the rows."""

import codecs
import csv
import io
import re
from collections import Counter
from itertools import islice

from dr import UsageError
from dr.sources.archive import is_image
from dr.sources.grade_words import grade_of, number_of

DELIMITERS = ",;\t|"  # the earlier one on a tie; in a .tsv the tab
SAMPLED_ROWS = 50  # from which the delimiter is chosen
SAMPLED_CHARACTERS = 1 << 16
LIST_CONSISTENCY = 0.8  # share of the lines of a .txt that must have equally many values; else it is a list or prose
_SEPARATOR = re.compile(r'"?sep=(\\t|[^\w"\s]|\t)"?[,;|\s]*', re.IGNORECASE)  # the first line of Excel, for itself


def text_rows(data: bytes, *, name: str) -> list[list[str]]:
    """Bytes of a text file -> its rows of values, blank rows included.

    UTF-8, or UTF-16 with a byte-order mark; any line endings. A first line `sep=;` sets the delimiter and is dropped;
    else it is the one that gives the same number of columns in most rows. A .txt without one is a list whose values are
    separated by spaces. Raises UsageError for what is not text; a .txt, which may be a readme, is read all the same.
    """
    suffixes = name.lower().removesuffix(".gz")
    is_list = suffixes.endswith(".txt")
    text = _decode(data, name=name, is_list=is_list)
    delimiter, text = _stated_delimiter(text)
    if delimiter is None:
        delimiter, consistency = _delimiter(text, tab_first=suffixes.endswith((".tsv", ".tab")))
        if is_list and consistency < LIST_CONSISTENCY:
            return _list_rows(text)
    try:
        return list(csv.reader(_lines(text), delimiter=delimiter))
    except csv.Error as exc:
        if is_list:
            return _list_rows(text)
        raise UsageError(f"{name}: not a CSV table ({exc}); check for an unclosed quotation mark") from exc


def _decode(data: bytes, *, name: str, is_list: bool) -> str:
    utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if utf_16 else "utf-8-sig")
    except UnicodeDecodeError as exc:
        if is_list:
            return data.decode("utf-8", errors="replace").replace("\0", "")
        fault = "damaged UTF-16 text" if utf_16 else "not UTF-8 text"
        raise UsageError(f"{name}: {fault} (byte {exc.start}); save it as CSV in UTF-8") from exc
    if "\0" in text and not is_list:
        raise UsageError(f"{name}: not a text file; save it as CSV in UTF-8")
    return text.replace("\0", "")


def _lines(text: str) -> io.StringIO:
    return io.StringIO(text, newline=None)


def _stated_delimiter(text: str) -> tuple[str | None, str]:
    """-> (the delimiter of a first line `sep=;`, the text after that line); (None, the text) without one."""
    stated = _SEPARATOR.fullmatch(text[:20].splitlines()[0] if text[:20].strip() else "")
    if stated is None:
        return None, text
    return stated[1].replace("\\t", "\t"), _lines(text).read().partition("\n")[2]


def _delimiter(text: str, *, tab_first: bool) -> tuple[str, float]:
    """-> (the delimiter that gives most rows equally many columns, and the more the better; the share of these rows).

    Judged by the first rows; the comma, and 0, if none gives more than one column.
    """
    sample = text[:SAMPLED_CHARACTERS]
    if len(sample) < len(text):
        sample = sample[: sample.rfind("\n") + 1] or sample
    marks = "\t" + DELIMITERS if tab_first else DELIMITERS
    found = [(mark, *_consistency(sample, mark)) for mark in marks]
    return max(found, key=lambda each: each[1:])[:2]


def _consistency(sample: str, delimiter: str) -> tuple[float, int]:
    """-> (share of the rows with the most frequent number of columns, that number); (0, 1) if it is one."""
    try:
        rows = list(islice(filter(any, csv.reader(_lines(sample), delimiter=delimiter)), SAMPLED_ROWS))
    except csv.Error:
        return 0.0, 1
    counts = Counter(map(len, rows))
    columns = max(counts, key=lambda count: (counts[count], count), default=1)
    return (counts[columns] / len(rows), columns) if columns > 1 else (0.0, 1)


def _list_rows(text: str) -> list[list[str]]:
    """The rows of a list separated by spaces.

    `my image 1.jpg 3` is a name and a label: only the last space counts, unless all lines have equally many values and
    no name has spaces, as in `1.jpg 3 left` or below a header of as many words. `No DR/1.jpg` is one value.
    """
    lines = _lines(text).read().split("\n")
    words = [line.split() for line in lines]
    filled = [each for each in words if each]
    if not filled or len({len(each) for each in filled}) > 1 or not _are_values(filled):
        words = _name_and_label(lines)
    return [[word.strip('"') for word in each] for each in words[: None if words[-1] else -1]]


def _name_and_label(lines: list[str]) -> list[list[str]]:
    """Lines split at the last space. A line that ends in an image is one value, unless all of these begin with a label:
    `3 1.jpg`."""
    words = [line.rsplit(maxsplit=1) for line in lines]
    ends_in_image = [bool(each) and is_image(each[-1].strip('"')) for each in words]
    if all(_begins_with_label(each) for each, ends in zip(words, ends_in_image, strict=True) if ends):
        return words
    return [[line.strip()] if ends else each for line, each, ends in zip(lines, words, ends_in_image, strict=True)]


def _begins_with_label(words: list[str]) -> bool:
    """Whether the word before the name of an image is its label, and no part of a folder such as `Mild NPDR/1.jpg`."""
    first = words[0].strip('"')
    is_word = "/" not in words[-1] and grade_of(first) is not None
    return len(words) > 1 and (is_word or number_of(first) is not None)


def _are_values(rows: list[list[str]]) -> bool:
    """Whether each word is a value of its own, of rows with equally many words."""
    images = [is_image(row[0].strip('"')) for row in rows]
    if any(images):
        return all(images[1:])
    elsewhere = any(is_image(word.strip('"')) for row in rows for word in row)
    return not elsewhere and not rows[0][-1].isdigit()  # a header; without one the words may be a name with spaces
