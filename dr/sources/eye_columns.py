"""Tables with a row per patient, and a column of images for each eye -> tables with a row per image."""

import re
from itertools import chain

from dr.sources.table import ImageNames, Table

_EYES = {"left": "right", "os": "od", "le": "re", "l": "r"}
_WORD = re.compile(r"[A-Za-z]+|[^A-Za-z]+")


def one_row_per_image(table: Table, images: ImageNames) -> Table:
    """A table whose columns `left_image` and `right_image` (or the like) name different images -> the same with a row
    for each eye: each such pair of columns becomes one, called `left_image or right_image`. Others are unchanged."""
    pairs = _pairs(table)
    named = [pair for pair in pairs if all(images.count(table.values(name)) > 1 for name in pair)]
    if not any(_stems(table, left, images).isdisjoint(_stems(table, right, images)) for left, right in named):
        return table
    other = [name for name in table.header if name not in {*chain(*pairs)}]
    header = (*other, *(f"{left} or {right}" for left, right in pairs))
    columns = {name: table.values(name) for name in table.header}
    rows, numbers = [], []
    for place, number in enumerate(table.numbers):
        for eye in (0, 1):
            rows.append([columns[name][place] for name in (*other, *(pair[eye] for pair in pairs))])
            numbers.append(number)
    filled = [place for place, row in enumerate(rows) if row[len(other) + pairs.index(named[0])]]
    return Table(table.place, header, [rows[place] for place in filled], [numbers[place] for place in filled])


def _pairs(table: Table) -> list[tuple[str, str]]:
    """The columns whose names differ in the eye alone, left first."""
    spelt = {name.casefold(): name for name in table.header}
    pairs = []
    for name in table.header:
        words = _WORD.findall(name.casefold())
        for place, word in enumerate(words):
            other = "".join([*words[:place], _EYES.get(word, word), *words[place + 1 :]])
            if word in _EYES and other in spelt:
                pairs.append((name, spelt[other]))
                break
    return pairs


def _stems(table: Table, column: str, images: ImageNames) -> set[str]:
    return {images.stem_of(value) for value in table.values(column)} - {None}
