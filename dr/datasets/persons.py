"""Which images are of one person: duplicates of an image, and both eyes of a patient."""

import pandas as pd


def persons(table: pd.DataFrame) -> pd.Series:
    """`patient`, `group` -> numbers, equal for images of one person: joined by any chain of duplicates and of a
    patient's two eyes. An image whose patient is unknown (missing or '') is its own person."""
    person = pd.Series(range(len(table)), index=table.index)
    # data.py gives patients of different sources different names
    codes, names = pd.factorize(table["patient"].where(table["patient"].ne("")))
    patient = person.where(codes < 0, codes - len(names))
    while True:
        joined = person.groupby(table["group"]).transform("min").groupby(patient).transform("min")
        if joined.equals(person):
            return person
        person = joined
