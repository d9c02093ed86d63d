"""The sheet that goes with a token: what is on it, as text and as PDF, and what is not."""

import re

import pytest
from pypdf import PdfReader

from tests.provisioning.test_mint import read_batch
from tests.provisioning.tokens import initialise_host
from tests.provisioning.workplace import SECRETS

CONTACT = "+49 30 1234567, day and night"
LONG_HEXADECIMAL = re.compile(r"[0-9a-fA-F]{20,}")


def print_sheet(workplace, name, *options):
    out = workplace.directory / name
    facts = workplace.facts("sheet", "--out", out, *options, secrets=["pin"])
    return out, facts


def words(text):
    return " ".join(text.split())


def text_of_pdf(path):
    return "\n".join(page.extract_text() for page in PdfReader(path).pages)


@pytest.fixture
def sheets(ready):
    ready.mint("--not-after", "2099-12-31", count=3)
    text, _ = print_sheet(ready, "sheet.txt", "--contact", CONTACT)
    pdf, _ = print_sheet(ready, "sheet.pdf", "--contact", CONTACT)
    return text.read_text(), pdf


def test_it_says_whose_token_it_is_how_to_connect_and_what_to_do_when_it_is_lost(ready, sheets):
    text, _ = sheets
    serial = ready.listed()["token"]["serial"]
    for fact in (
        r"Label +alice$",
        rf"Serial +{serial}$",
        r"User +alice@office$",
        r"Key pairs +3, each opens one tunnel, once$",
        r"Good until +2099-12-31 ",
        r"Reaches +work$",
        r"`carnet connect work`",
        rf"Call at once: {re.escape(CONTACT)}$",
        rf"`carnet-host revoke --token-serial {serial}`",
    ):
        assert re.search(fact, text, re.MULTILINE), fact


def test_the_pdf_says_the_same_on_one_page(sheets):
    text, pdf = sheets
    assert len(PdfReader(pdf).pages) == 1
    shown = words(text_of_pdf(pdf))
    lines = [line for line in text.splitlines() if line.strip("=-")]
    assert [line for line in lines if words(line) not in shown] == []


def test_no_secret_and_no_key_is_on_it(ready, sheets):
    text, pdf = sheets
    batch = read_batch(ready)
    material = [part for pair in batch.pairs for part in (pair.public_key, pair.wrapped)]
    for said in (text.encode(), text_of_pdf(pdf).encode(), pdf.read_bytes()):
        assert [name for name, secret in SECRETS.items() if secret.encode() in said] == []
        assert [part for part in material if part in said or part.hex().encode() in said] == []
    assert LONG_HEXADECIMAL.findall(text + text_of_pdf(pdf)) == []


def test_pairs_that_were_burned_are_not_counted(ready):
    ready.mint(count=3)
    ready.facts("burn", "--key", ready.listed()["pairs"][0]["key_id"], "--yes", secrets=["pin"])
    _, facts = print_sheet(ready, "sheet.txt")
    assert (facts["pairs"], facts["not_after"], facts["contact"]) == (2, None, None)
    shown = ready.run("sheet", secrets=["pin"]).stdout
    assert shown == (ready.directory / "sheet.txt").read_text()
    assert "Good until  no end\n" in shown
    assert "Call at once: ____" in shown


def test_letters_that_a_pdfs_own_fonts_lack_are_embedded_or_refused(workplace):
    workplace.init()
    workplace.token_init(label="Алиса Łódź")
    workplace.transport_key.write_bytes(workplace.on(workplace.host, initialise_host))
    workplace.mint(count=1)
    pdf, _ = print_sheet(workplace, "sheet.pdf", "--contact", "Žluť")
    shown = words(text_of_pdf(pdf))
    assert "Your token Алиса Łódź" in shown
    assert "Label Алиса Łódź" in shown
    assert "Call at once: Žluť" in shown
    out = workplace.directory / "other.pdf"
    how = ("--contact", "日本")
    sentence = workplace.refusal(2, "sheet", "--out", out, *how, secrets=["pin"])
    assert "lack 日 本; print the sheet as text" in sentence
    assert not out.exists()
    assert "Call at once: 日本" in workplace.run("sheet", *how, secrets=["pin"]).stdout


def test_a_token_that_opens_nothing_gets_no_sheet(minted):
    minted.facts("burn", "--all", "--yes", secrets=["pin"])
    assert "no key pair that can be used" in minted.refusal(4, "sheet", secrets=["pin"])


def test_it_never_replaces_a_file_and_needs_a_cover(ready):
    there = ready.directory / "sheet.pdf"
    there.write_text("mine")
    how = {"secrets": ["pin"]}
    assert "exists already" in ready.refusal(2, "sheet", "--out", there, **how)
    assert there.read_text() == "mine"
    assert "has no cover; mint on it" in ready.refusal(4, "sheet", **how)
    assert "--contact" in ready.refusal(2, "sheet", "--contact", "a\nb", **how)
