"""Tables in Excel workbooks (.xlsx), through openpyxl."""

import datetime
import io
import warnings
import zipfile
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

from dr import UsageError
from dr.sources.archive import NOT_A_ZIP
from dr.sources.packed_tables import ZIP, open_zip

if TYPE_CHECKING:
    from openpyxl.worksheet._read_only import ReadOnlyWorksheet

OLD_EXCEL = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # OLE2: .xls, and every workbook with a password
MAX_ROWS = 1 << 20  # of a worksheet, as in Excel
MAX_VALUES = 20_000_000  # about 1 GB; a row may declare 16,384 empty ones in few bytes
WIDTH_ROWS = 50  # the first rows with values: no row is narrower than the widest of them


def is_workbook(data: bytes) -> bool:
    """Whether the bytes are those of an .xlsx, whatever the file is called."""
    if not data.startswith(ZIP):
        return False
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            return any(name.lower() == "xl/workbook.xml" for name in packed.namelist())
    except NOT_A_ZIP:
        return False  # `open_zip` reports it


@lru_cache(maxsize=4)  # a format asks for the header, then for the columns: 35,000 rows take two seconds
def workbook_sheets(data: bytes, *, name: str) -> dict[str, list[list[str]]]:
    """Bytes of an .xlsx -> {title: rows of text} of its visible sheets with values; of hidden ones if no other has any.
    2.0 is '2', a date 2024-05-01, an empty cell ''. A number such as 001 lost its zeros already when Excel saved it.

    Raises UsageError for a damaged or harmful workbook; ModuleNotFoundError without openpyxl. The rows are shared: copy
    them before a change.
    """
    import openpyxl  # an extra

    open_zip(data, name=name).close()  # refuses members that would fill the memory
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about styles and extensions, which no table of labels needs
        try:
            book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True, keep_links=False)
            visible = [sheet for sheet in book.worksheets if sheet.sheet_state == "visible"]
            hidden = [sheet for sheet in book.worksheets if sheet.sheet_state != "visible"]
            return _with_values(visible, name=name) or _with_values(hidden, name=name)
        except (UsageError, MemoryError):
            raise
        except Exception as exc:  # zipfile, zlib, the XML parser and openpyxl share no base class
            reason = " ".join(str(exc).split())
            raise UsageError(f"{name}: damaged, or not as Excel writes it ({reason}); save it as CSV") from exc


def _with_values(sheets: "list[ReadOnlyWorksheet]", *, name: str) -> dict[str, list[list[str]]]:
    """{title: rows} of the sheets with values."""
    found: dict[str, list[list[str]]] = {}
    for sheet in sheets:
        sheet.reset_dimensions()  # some programs declare A1:A1
        used = sum(len(row) for rows in found.values() for row in rows)
        if rows := _sheet_rows(sheet.iter_rows(values_only=True), name=name, most=MAX_VALUES - used):
            found[sheet.title] = rows
    return found


def _sheet_rows(rows: Iterator[tuple], *, name: str, most: int) -> list[list[str]]:
    """The rows of a sheet up to the last with values, none narrower than the first ones; [] without values. `most`:
    cells."""
    table: list[list[str]] = []
    width = sampled = values = 0
    for number, row in enumerate(rows):
        table.append(_texts(row))
        if table[-1] and sampled < WIDTH_ROWS:  # a title above the table is narrower than its header
            sampled, width = sampled + 1, max(width, len(table[-1]))
        values += max(len(row), width)
        if number >= MAX_ROWS or values > most:
            raise UsageError(f"{name}: more than {MAX_ROWS:,} rows or {MAX_VALUES:,} cells; save the table as CSV")
    while table and not table[-1]:
        table.pop()  # rows with a format but no value
    return [text + [""] * (width - len(text)) for text in table]


def _texts(row: tuple) -> list[str]:
    """The cells of a row as text, up to the last that is not empty."""
    text = [_text(value) for value in row]
    while text and not text[-1].strip():
        text.pop()
    return text


def _text(value: object) -> str:
    """A value as Excel would write it to a CSV, but for dates, which are ISO 8601."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    return str(value)
