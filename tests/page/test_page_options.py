"""The page as it comes: options and limits as the page's guide says, tables of letters against Unicode's names."""

import unicodedata

import pytest

from broadsheet.page import (
    bibtex,
    citation,
    edition,
    facts,
    hypertext,
    identifiers,
    intake,
    meaning,
    names,
    records,
    saved,
    search,
    sources,
    spelling,
    strips,
)

MIB = 1024**2


def test_limits():
    assert (facts.LONGEST_TITLE, facts.LONGEST_ABSTRACT, facts.MOST_AUTHORS) == (600, 20_000, 6000)
    assert (hypertext.MOST, intake.MOST_IDS, records.MOST, sources.MOST) == (5000, 10_000, 200_000, 200)
    assert (records.LARGEST, records.LONGEST_LINE, saved.LARGEST) == (512 * MIB, 2 * MIB, 8 * MIB)
    assert (identifiers.LONGEST, names.LONGEST, names.MOST_WORDS, saved.LONGEST_TITLE) == (1000, 600, 12, 300)
    assert (search.DEPTH, search.MOST_BEGUN, search.LONGEST_QUERY, search.AGREEING) == (1000, 40, 400, 2)
    assert (search.WORDS, search.UNRELATED, search.SATURATION, search.LENGTH) == (1.5, 0.2, 0.6, 0.4)
    assert search.RARITY == 0.5
    assert (meaning.PASSAGE, meaning.LONGEST_SENTENCE, meaning.EXACT_BELOW, meaning.WHOLE) == (45, 90, 200_000, 0.5)
    assert (edition.HALF_LIFE, edition.NEAR, strips.LOGARITHMIC) == (7.0, 0.68, 100.0)
    assert search.FIELDS == {
        "title": (3.0, 10), "summary": (1.5, 45), "abstract": (1.0, 180), "topics": (1.5, 6), "names": (1.0, 15),
        "tested": (1.0, 400),
    }  # fmt: skip
    assert strips.ROLES == {"ablation": "mechanism off", "null": "trivial explanation"}


ACCENTS = {
    "`": "GRAVE", "'": "ACUTE", "^": "CIRCUMFLEX", "~": "TILDE", "=": "MACRON", "u": "BREVE", ".": "DOT ABOVE",
    '"': "DIAERESIS", "r": "RING ABOVE", "H": "DOUBLE ACUTE", "v": "CARON", "d": "DOT BELOW", "c": "CEDILLA", "k": "OGONEK",
    "b": "MACRON BELOW",
}  # fmt: skip


@pytest.mark.parametrize("mark", ACCENTS)
def test_accents_of_latex_are_those_of_unicode(mark):
    """The names are those of "The LaTeX Companion", table 7.33, as Unicode's standard has them."""
    assert bibtex.MARKS.keys() == ACCENTS.keys()
    found = unicodedata.name(bibtex.MARKS[mark])
    assert found.startswith("COMBINING ")
    assert found.removeprefix("COMBINING ").removesuffix(" ACCENT") == ACCENTS[mark]
    letter = next((each for each in "aeiouyscdn" if len(unicodedata.normalize("NFC", each + bibtex.MARKS[mark])) == 1), "d")
    written = rf"\{mark}{{{letter}}}"
    made = bibtex.plain(written)
    assert unicodedata.name(made) == f"LATIN SMALL LETTER {letter.upper()} WITH {_within_a_name(ACCENTS[mark])}"


def _within_a_name(accent):
    return {"MACRON BELOW": "LINE BELOW"}.get(accent, accent)


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("ss", "SMALL LETTER SHARP S"), ("ae", "SMALL LETTER AE"), ("AE", "CAPITAL LETTER AE"), ("oe", "SMALL LIGATURE OE"),
        ("OE", "CAPITAL LIGATURE OE"), ("o", "SMALL LETTER O WITH STROKE"), ("O", "CAPITAL LETTER O WITH STROKE"),
        ("l", "SMALL LETTER L WITH STROKE"), ("L", "CAPITAL LETTER L WITH STROKE"),
        ("aa", "SMALL LETTER A WITH RING ABOVE"), ("AA", "CAPITAL LETTER A WITH RING ABOVE"), ("i", "SMALL LETTER I"),
        ("j", "SMALL LETTER J"),
    ],
)  # fmt: skip
def test_letters_of_latex_are_those_of_unicode(command, name):
    assert unicodedata.name(bibtex.plain(f"\\{command}{{}}")) == f"LATIN {name}"


@pytest.mark.parametrize("number", range(1, 13))
def test_months_by_name_and_number(number):
    import calendar

    name = calendar.month_abbr[number].lower()
    assert (bibtex.MONTHS[number - 1], saved.MONTHS[number - 1]) == (name, name)
    for month in (name, calendar.month_name[number], str(number)):
        fields = {"title": "A title", "year": "2021", "month": month, "day": "3"}
        assert bibtex.facts(fields).published == f"2021-{number:02}-03"
    assert bibtex.facts({"title": "A title", "date": f"2021-{number:02}-03"}).published == f"2021-{number:02}-03"
    for lacks in ("year", "month", "day"):
        fields = {"title": "A title", "year": "2021", "month": name, "day": "3"}
        del fields[lacks]
        assert bibtex.facts(fields).published is None


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("Ada Lovelace", "Ada Lovelace"),
        ("Lovelace, Ada", "Ada Lovelace"),
        ("King, Jr, Martin", "Martin King Jr"),
        ("{The ATLAS Collaboration}", "The ATLAS Collaboration"),
        ("{\\O}rsted, Hans", "Hans Ørsted"),
    ],
)
def test_names_are_turned_round(written, said):
    assert bibtex.facts({"title": "A title", "author": f"{written} and B C"}).names == (said, "B C")


@pytest.mark.parametrize(
    ("british", "american"),
    [
        ("colour", "color"), ("behaviour", "behavior"), ("behavioural", "behavioral"), ("neighbours", "neighbors"),
        ("favoured", "favored"), ("modelling", "modeling"), ("modelled", "modeled"), ("labelling", "labeling"),
        ("signalling", "signaling"), ("optimise", "optimize"), ("generalisation", "generalization"), ("analyse", "analyze"),
        ("catalysed", "catalyzed"), ("fibre", "fiber"), ("centres", "centers"), ("metre", "meter"), ("catalogue", "catalog"),
        ("dialogues", "dialogs"), ("neurone", "neuron"), ("neurones", "neurons"), ("greyscale", "grayscale"),
        ("sulphur", "sulfur"), ("artefacts", "artifacts"),
        # and what is the same for both
        ("four", "four"), ("hours", "hours"), ("our", "our"), ("rise", "rise"), ("wise", "wise"), ("calling", "calling"),
        ("are", "are"), ("before", "before"), ("poured", "poured"), ("filling", "filling"),
        ("analysis", "analysis"), ("vogue", "vogue"),
    ],
)  # fmt: skip
def test_spellings(british, american):
    assert spelling.american(british) == american


def test_abbreviations_stand_for_the_words_before_them():
    text = "We train Spiking Neural Networks (SNNs) by backpropagation through time (BPTT), not by (XYZ)."
    assert dict(spelling.abbreviations(text)) == {"snn": "spiking neural network"}
    assert dict(spelling.abbreviations("random access memory (RAM)")) == {"ram": "random access memory"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Schrödinger's Øresund", ["schrodinger", "s", "oresund"]), ("Łódź", ["lodz"]), ("Đorđe", ["dorde"]),
        ("ðis þorn", ["dis", "thorn"]), ("ħ", ["h"]), ("ı", ["i"]), ("Straße", ["strasse"]), ("Æther", ["aether"]),
        ("Œuvre", ["oeuvre"]), ("Eŋ", ["en"]), ("naïve_café", ["naive", "cafe"]),
    ],
)  # fmt: skip
def test_letters_are_folded(text, words):
    assert names.folded(text) == words


def test_umlauts_may_be_written_out():
    assert {chr(key): value for key, value in names.UMLAUTS.items()} == {"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa"}


def test_what_latex_takes_for_commands_is_escaped():
    assert "50% & #1 a_b".translate(citation.SPECIAL) == "50\\% \\& \\#1 a\\_b"


def test_archives_of_the_old_identifiers():
    """arXiv's list of archives before April 2007."""
    known = {
        "acc-phys", "adap-org", "alg-geom", "ao-sci", "astro-ph", "atom-ph", "bayes-an", "chao-dyn", "chem-ph", "cmp-lg",
        "comp-gas", "cond-mat", "cs", "dg-ga", "funct-an", "gr-qc", "hep-ex", "hep-lat", "hep-ph", "hep-th", "math", "math-ph",
        "mtrl-th", "nlin", "nucl-ex", "nucl-th", "patt-sol", "physics", "plasm-ph", "q-alg", "q-bio", "quant-ph", "solv-int",
        "supr-con",
    }  # fmt: skip
    assert set(identifiers.ARCHIVES) == known
    for archive in sorted(known):
        assert identifiers.identifier(f"{archive}/0601001") == f"{archive}/0601001"
    for place in identifiers.PLACES:
        assert identifiers.identifier(f"https://example.org/{place}/2310.05868v2") == "2310.05868"
    for dash in "\u2010\u2011\u2012\u2013\u2014\u2212":
        assert identifiers.identifier(f"hep{dash}th/0601001") == "hep-th/0601001"
