"""Patients and eyes from the headers of DICOM images. No other field is read."""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from dr.core.progress import track
from dr.imaging.dicom import DicomHeader, is_dicom, read_header
from dr.imaging.optional import DICOM_SUFFIXES
from dr.imaging.unreadable import UnreadableImage
from dr.sources.source import ImageArchive, LabelledImages


def with_headers(source: LabelledImages) -> LabelledImages:
    """The source with the patients that its DICOM images name, where its table has none, and a column `eye` (left,
    right, or missing) if any states it. Other sources are returned as they are."""
    table = source.table
    dicom = table["member"].fillna("").astype(str).str.lower().str.endswith(DICOM_SUFFIXES)
    if not dicom.any():
        return source
    headers = pd.Series(_headers(source.archive, table["member"][dicom].tolist()), index=table.index[dicom])
    patient = headers.map(lambda header: header.patient)
    eye = headers.map(lambda header: header.laterality)
    notes = source.notes
    if patient.nunique() == 1 and patient.notna().all() and len(patient) > 2:
        # anonymisers write one for all: one patient cannot be split
        notes = (*notes, f"{source.archive.path}: all its DICOM images have one PatientID, which is not used")
        patient = patient.map(lambda _: None)
    if eye.notna().any():
        table = table.assign(eye=eye.reindex(table.index).astype(object))
    if patient.notna().any():
        table = table.assign(patient=table["patient"].astype(object).fillna(patient.reindex(table.index)))
        notes = (*notes, f"{source.archive.path}: patients are read from the DICOM headers (PatientID)")
    return replace(source, table=table, notes=notes)


def _headers(archive: ImageArchive, members: Sequence[str]) -> list[DicomHeader]:
    """Of a member that cannot be read, an empty one: the image is reported when it is preprocessed."""
    found = []
    for member in track(members, desc="reading headers", unit="images", delay=2):
        try:
            data = archive.read(member)
            found.append(read_header(data) if is_dicom(data) else DicomHeader())
        except (UnreadableImage, OSError):
            found.append(DicomHeader())
    return found
