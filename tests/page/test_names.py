import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadsheet.page.catalogue import ListedPaper
from broadsheet.page.names import Names, Suggestion, _Lines, folded

PAPERS = [
    ListedPaper(
        "elm-neuron",
        "The Expressive Leaky Memory Neuron",
        "2306.16922",
        "2023-06-14",
        names=["Aaron Spieler", "Nasim Rahaman", "Georg Martius", "Bernhard Schölkopf", "Anna Levina"],
    ),
    ListedPaper("levina-later", "Avalanches, again", "2501.00001", "2025-01-02", names=["A. Levina", "J. M. Herrmann"]),
    ListedPaper("old", "Theta functions", "math/0309136", "2003-09-08", names=["Müller, Łukasz", "Jean-Pierre van der Waals"]),
    ListedPaper("wave", "Memory of waves: neuron by neuron", None, "2024-03-01", names=["李 明", "Søren Åberg"]),
    ListedPaper("schrodinger", "The Schrödinger bridge: J/$\\Psi$", "2401.00005", "2024-01-01", names=["Memory Long"]),
]


@pytest.fixture(scope="module")
def names():
    return Names(PAPERS)


@pytest.mark.parametrize(
    "query",
    ["2306.16922", "arxiv 2306.16922v2", "https://arxiv.org/pdf/2306.16922v1", "10.48550/arXiv.2306.16922", "elm-neuron",
     "ELM neuron", "the expressive leaky memory neuron."],
)  # fmt: skip
def test_a_paper_is_named_by_identifier_short_name_and_title(names, query):
    assert names.named(query) == ["elm-neuron"]


def test_other_names_and_none(names):
    assert names.named("math.GT/0309136v1") == ["old"]
    assert names.named("the schrodinger bridge J/ψ") == ["schrodinger"]
    for query in ("", "  ", "leaky memory", "2306.16923", "x" * 5000, "…"):
        assert names.named(query) == []


@pytest.mark.parametrize(
    ("query", "slugs"),
    [
        ("Levina", ["levina-later", "elm-neuron"]),
        ("anna levina", ["levina-later", "elm-neuron"]),
        ("Levina, A.", ["levina-later", "elm-neuron"]),
        ("B. Levina", []),
        ("Herrmann JM", ["levina-later"]),
        ("JM Herrmann", ["levina-later"]),
        ("J. Herrmann", ["levina-later"]),
        ("Aaron", []),
        ("scholkopf", ["elm-neuron"]),
        ("Schoelkopf", ["elm-neuron"]),
        ("SCHÖLKOPF B", ["elm-neuron"]),
        ("Spieler and Levina", ["elm-neuron"]),
        ("Spieler et al", ["elm-neuron"]),
        ("Spieler Herrmann", []),
        ("mueller", ["old"]),
        ("Lukasz Muller", ["old"]),
        ("van der waals", ["old"]),
        ("J.-P. van der Waals", ["old"]),
        ("aberg", ["wave"]),
        ("Soren Aaberg", ["wave"]),
        ("李", []),
        ("明 李", ["wave"]),
        ("", []),
        ("a b c d e f g h i j k l m", []),
    ],
)
def test_authors_are_found_without_accents_and_by_initials(names, query, slugs):
    assert names.authored(query) == slugs


def test_a_word_beside_a_first_name_is_no_initial_of_an_author():
    names = Names([ListedPaper("view", "A view", "2105.07284", "2021-05-15", names=["Grace M. Hwang"])])
    assert names.authored("Grace Mary Hwang") == names.authored("G. Hwang") == names.authored("Grace M.") == ["view"]
    assert names.authored("grace memory") == []


def test_a_letter_alone_is_an_initial_and_names_nobody():
    names = Names([ListedPaper("deep-ritz", "The deep Ritz method", "1710.00211", "2017-09-30", names=["Weinan E", "Bing Yu"])])
    assert names.authored("Weinan E") == names.authored("E Yu") == names.authored("Yu") == ["deep-ritz"]
    assert names.authored("e") == []


def test_what_is_typed_finds_titles_authors_and_identifiers(names):
    def said(text, limit=8):
        return [(found.kind, found.slug) for found in names.suggest(text, limit)]

    assert said("leaky me") == [("paper", "elm-neuron")]
    assert said("neuron leaky") == [("paper", "elm-neuron")]  # any order
    assert said("memory")[0] == ("paper", "wave")  # a title's beginning comes first
    assert said("2306.1") == [("paper", "elm-neuron")]
    assert said("arXiv:2306.16922v3") == [("paper", "elm-neuron")]
    assert said("math/03") == [("paper", "old")]
    assert said("schrod") == [("paper", "schrodinger")]
    assert said("spie") == [("author", "elm-neuron")]
    assert said("levina a") == [("author", "levina-later"), ("author", "elm-neuron")]
    assert said("the", 1) == [("paper", "schrodinger")]
    assert said("") == said("…") == said("zzz") == said("the", 0) == []
    found = names.suggest("schölk")
    assert [(one.text, one.papers) for one in found] == [("Bernhard Schölkopf", 1)]


def test_a_paper_that_changed_is_known_by_its_new_names_alone():
    names = Names(PAPERS)
    assert names.suggest("spieler")
    names.update([ListedPaper("elm-neuron", "Renamed", "2306.99999", "2023-06-14", names=["Anna Levina"])])
    assert names.named("2306.16922") == names.named("The Expressive Leaky Memory Neuron") == []
    assert names.named("2306.99999") == names.named("renamed") == ["elm-neuron"]
    assert names.authored("Spieler") == names.suggest("spieler") == names.suggest("expressive") == []
    assert names.authored("levina") == ["levina-later", "elm-neuron"]


@given(st.text(max_size=40))
def test_whatever_is_typed_is_answered(names, text):
    names.named(text), names.authored(text)
    assert len(names.suggest(text, 3)) <= 3


@given(st.text(alphabet="aäöüßøÆłİ Éé-.,'\u0301", max_size=12))
def test_names_in_any_alphabet_can_be_taken_in_and_found(name):
    made = Names([ListedPaper("one", "Title", names=[name])])
    if len(folded(name)) > 1 and "," not in name and max(map(len, folded(name))) > 1:
        assert made.authored(name) == ["one"]
    made.update([ListedPaper("one", "Title")])
    assert made.authored(name) == []


def test_titles_and_authors_share_the_room():
    """Half of it is the authors' where both have more; what one of them leaves is the other's."""
    many = [
        ListedPaper(f"p{k}", f"Levin and {k}", None, f"2025-01-{k + 1:02}", names=[f"Levin {chr(65 + k)}"]) for k in range(9)
    ]

    def kinds(papers, limit=8):
        return [(found.kind, found.slug) for found in Names(papers).suggest("levin", limit)]

    newest = [f"p{k}" for k in range(8, -1, -1)]
    assert [kind for kind, _ in kinds(many)] == ["paper"] * 4 + ["author"] * 4
    assert [slug for _, slug in kinds(many)] == [*newest[:4], "p0", "p1", "p2", "p3"]
    assert [kind for kind, _ in kinds(many, 5)] == ["paper"] * 3 + ["author"] * 2
    assert [kind for kind, _ in kinds(many, 1)] == ["paper"]
    nameless = [ListedPaper(each.slug, each.title, published=each.published) for each in many]
    assert kinds(nameless) == [("paper", slug) for slug in newest[:8]]
    untitled = [ListedPaper(each.slug, "Nothing", names=each.names) for each in many]
    assert [kind for kind, _ in kinds(untitled)] == ["author"] * 8
    assert [kind for kind, _ in kinds([*nameless[:2], *untitled[2:]])] == ["paper"] * 2 + ["author"] * 6


def test_suggested_authors_come_by_their_papers_and_are_their_newest():
    names = Names(
        [
            ListedPaper("one", "X", None, "2024-01-01", names=["Ada Long", "Bo Long"]),
            ListedPaper("two", "Y", None, "2025-01-01", names=["Bo Long"]),
            ListedPaper("aaa", "Z", None, None, names=["Bo Long", "Long, Cy"]),
        ]
    )
    found = names.suggest("long")
    assert [(each.text, each.papers, each.slug) for each in found] == [
        ("Bo Long", 3, "two"),
        ("Ada Long", 1, "one"),
        ("Long, Cy", 1, "aaa"),
    ]
    assert names.suggest("long b") == names.suggest("bo l") == found[:1]
    assert names.suggest("cy lo") == found[2:]
    assert names.authored("long") == ["two", "one", "aaa"]
    assert Suggestion("paper", "X", "one").papers == 1


def test_a_lines_beginning_comes_first_then_words_in_a_row_then_any_order():
    lines = _Lines(["b a c", "x a b", "a b", "a bz", "a c b", "za b"])
    assert lines.find(["a", "b"], 9) == [2, 3, 1, 0, 4]
    assert lines.find(["a", "b"], 3) == [2, 3, 1]
    assert lines.find(["a", "b"], 2) == [2, 3]
    assert lines.find(["b"], 9) == [0, 1, 2, 3, 4, 5]
    assert lines.find(["c", "q"], 9) == lines.find(["q", "b"], 9) == []


@pytest.mark.parametrize(
    ("query", "is_it"),
    [
        ("John Michael Smith", True), ("J. M. Smith", True), ("JM Smith", True), ("Smith J M", True), ("Smith John", True), ("M. Smith", True),
        ("J. K. Smith", False), ("JMK Smith", False), ("J. M. J. Smith", False), ("J. M.", False), ("John Michael", True), ("Smith Smith", True),
        ("Jo Smith", False), ("S. John", True),
    ],
)  # fmt: skip
def test_initials_stand_for_names(query, is_it):
    names = Names([ListedPaper("x", "X", names=["John Michael Smith"])])
    assert (names.authored(query) == ["x"]) is is_it


def test_as_many_words_and_letters_as_a_query_may_have():
    long = " ".join(["Wolfgang"] + [f"Name{k}" for k in range(11)])
    names = Names([ListedPaper("x", "y" * 600, names=[long])])
    assert names.authored(long) == ["x"]
    assert names.authored(f"{long} more") == []
    assert names.named("y" * 600) == ["x"]
    assert names.named("y" * 601) == []


def test_initials_together_stand_for_a_name_and_an_initial_and_for_first_names_alone_nothing():
    names = Names([ListedPaper("x", "X", names=["John M. Smith"]), ListedPaper("y", "Y", names=["Grace Mary K. Hwang"])])
    assert names.authored("JM Smith") == names.authored("John Matthew Smith") == ["x"]
    assert names.authored("Mary Kate Hwang") == ["y"]
    assert names.authored("mary kate") == []  # a first name does not make the other word one
