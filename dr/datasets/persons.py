"""Which images are of one person: duplicates of an image, and both eyes of a patient."""

import pandas as pd


def persons(table: pd.DataFrame) -> pd.Series:
    """`source`, `patient`, `group` -> numbers, equal for images of one person: joined by any chain of duplicates and
    of a patient's two eyes."""
    person = pd.Series(range(len(table)), index=table.index)
    patient = table["source"] + "/" + table["patient"]
    while True:
        joined = person.groupby(table["group"]).transform("min").groupby(patient).transform("min")
        if joined.equals(person):
            return person
        person = joined
