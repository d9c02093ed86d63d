"""The hand-over sheet as PDF, one page for the printer."""

from pathlib import Path

from fpdf import FPDF
from fpdf.enums import XPos, YPos
from fpdf.fonts import TTFFont

from carnet.errors import UsageError
from provisioning.sheet import Sheet, sections, title

_FONT, _FACTS_FONT = "Helvetica", "Courier"
_TITLE_SIZE, _HEADING_SIZE, _SIZE = 20, 13, 11
_LINE_HEIGHT = 6
"""Millimetres."""
_CHARACTERS = "latin-1"
"""What a PDF's own fonts have; for other letters DejaVu's are embedded."""
_DEJAVU = Path("/usr/share/fonts/truetype/dejavu")
"""Where Debian's package fonts-dejavu-core has them."""
_EMBEDDED = (
    (_FONT, "", "DejaVuSans.ttf"),
    (_FONT, "B", "DejaVuSans-Bold.ttf"),
    (_FACTS_FONT, "", "DejaVuSansMono.ttf"),
)


def as_pdf(sheet: Sheet) -> bytes:
    """Return the sheet as a PDF document; raises UsageError for letters that no font here has."""
    page = FPDF(format="A4")
    text = title(sheet) + "".join(line for part in sections(sheet) for line in part.lines)
    fonts = _FONT, _FACTS_FONT
    if not _is_plain(text):
        fonts = _embed(page, text)
    page.set_title(title(sheet))
    page.add_page()
    _write(page, title(sheet), fonts[0], "B", _TITLE_SIZE)
    for number, section in enumerate(sections(sheet)):
        page.ln(_LINE_HEIGHT)
        _write(page, section.heading, fonts[0], "B", _HEADING_SIZE)
        for line in section.lines:
            _write(page, line, fonts[0] if number else fonts[1], "", _SIZE)
    return bytes(page.output())


def _embed(page: FPDF, text: str) -> tuple[str, str]:
    """Embed fonts that have all letters of the text; return their names."""
    wanted = {ord(letter) for letter in text}
    for family, style, file in _EMBEDDED:
        if not (_DEJAVU / file).is_file():
            _refuse({number for number in wanted if not _is_plain(chr(number))}, "")
        page.add_font(f"DejaVu{family}", style, _DEJAVU / file)
        font = page.fonts[f"dejavu{family.lower()}{style}"]
        if isinstance(font, TTFFont):
            _refuse(wanted - font.cmap.keys(), ", DejaVu's too,")
    return f"DejaVu{_FONT}", f"DejaVu{_FACTS_FONT}"


def _refuse(missing: set[int], which: str) -> None:
    if missing:
        letters = " ".join(sorted(map(chr, missing)))
        raise UsageError(
            f"The fonts for a PDF{which} lack {letters}; print the sheet as text, with an --out "
            f"that does not end in .pdf, or write it otherwise."
        )


def _is_plain(text: str) -> bool:
    try:
        text.encode(_CHARACTERS)
    except UnicodeEncodeError:
        return False
    return True


def _write(page: FPDF, text: str, font: str, style: str, size: int) -> None:
    page.set_font(font, style, size)
    page.multi_cell(0, _LINE_HEIGHT * size / _SIZE, text, new_x=XPos.LMARGIN, new_y=YPos.NEXT)
