"""The hand-over sheet as PDF, one page for the printer."""

from fpdf import FPDF
from fpdf.enums import XPos, YPos

from provisioning.sheet import Sheet, sections, title

_FONT, _FACTS_FONT = "Helvetica", "Courier"
_TITLE_SIZE, _HEADING_SIZE, _SIZE = 20, 13, 11
_LINE_HEIGHT = 6
"""Millimetres."""
_CHARACTERS = "latin-1"
"""What a PDF's own fonts have; anything else is shown as a question mark."""


def as_pdf(sheet: Sheet) -> bytes:
    """Return the sheet as a PDF document."""
    page = FPDF(format="A4")
    page.set_title(_printable(title(sheet)))
    page.add_page()
    _write(page, title(sheet), _FONT, "B", _TITLE_SIZE)
    for number, section in enumerate(sections(sheet)):
        page.ln(_LINE_HEIGHT)
        _write(page, section.heading, _FONT, "B", _HEADING_SIZE)
        for line in section.lines:
            _write(page, line, _FONT if number else _FACTS_FONT, "", _SIZE)
    return bytes(page.output())


def _write(page: FPDF, text: str, font: str, style: str, size: int) -> None:
    page.set_font(font, style, size)
    page.multi_cell(
        0, _LINE_HEIGHT * size / _SIZE, _printable(text), new_x=XPos.LMARGIN, new_y=YPos.NEXT
    )


def _printable(text: str) -> str:
    return text.encode(_CHARACTERS, "replace").decode(_CHARACTERS)
