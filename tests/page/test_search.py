import math
import re
import tomllib
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from crowd import crowd
from hypothesis import given, settings
from hypothesis import strategies as st

from broadsheet.errors import InputError
from broadsheet.lab.claims import Claim
from broadsheet.lab.registry import Entry, ExperimentEntry, entries
from broadsheet.lab.store import Store
from broadsheet.page import Catalogue, meaning
from broadsheet.page.catalogue import ListedPaper
from broadsheet.page.edition import Edition
from broadsheet.page.facts import Facts
from broadsheet.page.names import Names
from broadsheet.page.search import Words, called, search
from broadsheet.page.shipped import _sentence, _tested
from broadsheet.page.spelling import abbreviations

QUERIES = tomllib.loads((Path(__file__).parent / "queries.toml").read_text())


def listed(facts, slug):
    return ListedPaper(slug, facts.title, facts.arxiv, facts.published, names=list(facts.names or ()), abstract=facts.abstract)


@pytest.fixture(scope="module")
def others():
    return [listed(facts, f"other-{k}") for k, facts in enumerate(crowd(1500))]


@pytest.fixture(scope="module")
def papers():
    return list(Catalogue().papers().values())


@pytest.fixture(scope="module")
def index(papers, others):
    return Words([*papers, *others]), Names([*papers, *others])


@pytest.mark.parametrize(
    "query",
    ["2306.16922", "arxiv 2306.16922v2", "https://arxiv.org/abs/2306.16922?context=q-bio", "elm-neuron", "Spieler", "A. Spieler",
     "Schoelkopf, B.", "levina", "The expressive leaky memory neuron: an efficient and expressive phenomenological neuron model can "
     "solve long-horizon tasks"],
)  # fmt: skip
def test_what_a_paper_is_called_finds_it_first_in_a_crowd(index, query):
    words, names = index
    assert called(query, names, words)[0] == "elm-neuron"


def test_what_is_named_stands_before_what_is_described(papers):
    found = [paper.slug for paper, _ in search(papers, "Anna Levina", 5)]
    assert found[0] == "elm-neuron"


def test_an_identifier_finds_its_paper_alone_and_an_unknown_one_none(papers):
    assert [paper.slug for paper, _ in search(papers, "arXiv:2306.16922v2")] == ["elm-neuron"]
    assert search(papers, "2306.16923") == []


def test_a_word_of_many_texts_is_no_author(papers, others):
    papers = [*papers, *others, ListedPaper("by-memory", "On nothing else", names=["Grace Memory"])]
    words, names = Words(papers), Names(papers)
    assert names.authored("memory") == ["by-memory"]
    assert called("memory", names, words) == []
    assert called("grace memory", names, words) == ["by-memory"]


def test_spellings_abbreviations_and_possessives(papers):
    words = Words(
        [
            ListedPaper("american", "Modeling colors of neurons in gray fibers", abstract="Generalization is analyzed."),
            ListedPaper("british", "Modelling colours of neurones in grey fibres", abstract="Generalisation is analysed."),
            ListedPaper("one", "Spikes", abstract="We train spiking neural networks (SNNs) well."),
            ListedPaper("two", "Events", abstract="A spiking neural network (SNN) learns."),
            ListedPaper("three", "Whole", abstract="Spiking neural networks are written out here."),
            ListedPaper("four", "Alone", abstract="What a singular name (SAN) is."),
            ListedPaper("five", "Else", abstract="Nothing of a singular name."),
        ]
    )
    for query in (
        "modelling",
        "colour",
        "neurone",
        "grey fibre",
        "generalisation",
        "analysed",
        "modeling color",
        "analyzed fibers",
    ):
        assert set(words.search(query).all_words) == {"american", "british"}, query
    assert set(words.search("SNN").all_words) == set(words.search("SNN's").all_words) == {"one", "two", "three"}
    assert words.search("SAN").all_words == ["four"]  # one paper alone says so


def test_the_score_is_that_of_bm25_by_hand():
    words = Words([ListedPaper("a", "delay"), ListedPaper("b", "other", abstract="delay " * 3), ListedPaper("c", "nothing")])
    scores = words.search("delay").scores
    saturated = {}
    for slug, weight, usual, length, count in (("a", 3.0, 10, 1, 1), ("b", 1.0, 180, 3, 3)):
        frequency = count * weight / (1 - 0.4 + 0.4 * length / usual)
        saturated[slug] = frequency / (0.6 + frequency)
    assert scores == pytest.approx(saturated, rel=1e-5)


def test_a_word_of_few_papers_weighs_more_by_the_root_of_its_rarity():
    """`spike` stands in one of three papers, `delay` in two; all fields are as long, so that saturation is one number."""
    words = Words([ListedPaper("a", "delay"), ListedPaper("b", "spike"), ListedPaper("c", "delay")])
    spike, delay = math.sqrt(math.log(1 + 2.5 / 1.5)), math.sqrt(math.log(1 + 1.5 / 2.5))
    saturated = 3.0 / (0.6 + 0.04) / (0.6 + 3.0 / (0.6 + 0.04))
    assert words.search("spike delay").scores == pytest.approx(
        {"b": saturated * spike / (spike + delay)} | dict.fromkeys("ac", saturated * delay / (spike + delay)), rel=1e-5
    )


def test_a_paper_that_runs_is_found_by_what_is_tested_of_it():
    """Its own words weigh as much as those of an abstract, against what is usual for the field."""
    tested = ["Rows against principal directions. Forgetting is nearly zero.", "Thresholds are fixed."]
    papers = [ListedPaper("runs", "Continual", tested=tested), ListedPaper("else", "Forgetting"), ListedPaper("none", "Other")]
    words = Words(papers)
    frequency = 1.0 / (1 - 0.4 + 0.4 * 11 / 400)
    assert words.search("directions").scores == pytest.approx({"runs": frequency / (0.6 + frequency)}, rel=1e-5)
    assert words.search("forgetting").slugs == ["else", "runs"]
    assert words.search('"principal directions"').slugs == ["runs"]
    assert words.search('"zero thresholds"').slugs == ["runs"]  # texts follow one another
    assert words.snippet("thresholds", papers[0], {}) == "\x02Thresholds\x03 are fixed."
    words.update([ListedPaper("runs", "Continual")])
    assert words.search("forgetting").slugs == ["else"]


def test_every_claim_of_a_paper_that_runs_can_be_searched_for():
    papers = {slug: " ".join(paper.tested).lower() for slug, paper in Catalogue().papers().items()}
    said = {slug: [made.summary for made in entry.experiments.values()] for slug, entry in entries().items()}
    for slug, entry in entries().items():
        said[slug] += [claim.statement for _, claim in entry.claims()] + list(entry.facts["notes"])
        assert len(said[slug]) > 5
        assert [text for text in said[slug] if text.lower().rstrip(".") not in papers[slug]] == []


@pytest.mark.parametrize("question", ["Why do dendrites need ten synapses?", "Can a model be wrong?", "What is it?"])
def test_an_abstract_that_is_only_a_question_finds_its_paper(question, others):
    words = Words([*others, ListedPaper("asks", "On a matter", abstract=question)])
    assert words.search(question).slugs[0] == "asks"
    assert meaning.passages(ListedPaper("asks", "On a matter", abstract=question)) == ["On a matter", question]


def test_an_index_kept_up_to_date_finds_what_a_new_one_does(papers):
    kept = Words(papers)
    for round_ in range(40):  # so often that what was replaced is thrown out
        kept.update([ListedPaper(paper.slug, f"{paper.title} {round_}") for paper in papers])
    kept.update(papers)
    fresh = Words(papers)
    for query in ("spiking neurons that learn", '"leaky memory"', "post-training", "dendrit", "molecular force fields"):
        assert kept.search(query).all_words == fresh.search(query).all_words
        assert sorted(kept.search(query).slugs) == sorted(fresh.search(query).slugs)
    assert len(kept._slugs) < 2 * len(papers) + 1100


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_whatever_is_asked_is_answered_or_refused_in_a_sentence(index, query):
    words, names = index
    called(query, names, words)
    try:
        found = words.search(query, 20)
    except InputError as error:
        assert "no word" in str(error)
    else:
        assert len(found.slugs) == len(set(found.slugs)) <= 20
        assert all(0 < found.scores[slug] <= 1 for slug in found.slugs)


def test_words_find_papers_among_many_that_speak_alike(index):
    """Without abstracts: of the shipped papers only titles, summaries and topics are known here. Measured: 0.79."""
    asked = [(query, slug) for slug, queries in QUERIES.items() for query in queries]
    found = [slug in index[0].search(query).slugs[:5] for query, slug in asked]
    assert np.mean(found) >= 0.75, [item for item, hit in zip(asked, found, strict=True) if not hit]


def test_common_words_cost_no_more_than_rare_ones(others):
    """Work, not time: no text is looked at for a query without a phrase, however many papers hold its words."""
    words = Words(others)

    class Sealed(list):
        def __getitem__(self, key):
            raise AssertionError("a text was read")

    words._texts = Sealed(words._texts)
    assert len(words.search("learning of models with data in networks", 1000).slugs) == 1000


def test_passages_are_whole_sentences_of_a_useful_length():
    sentence = "This sentence of a made-up abstract has exactly eleven words here. "
    paper = ListedPaper("x", "A title", summary="A summary.", abstract=sentence * 10)
    title, summary, *rest = meaning.passages(paper)
    assert (title, summary) == ("A title", "A summary.")
    assert " ".join(rest) == (sentence * 10).strip()
    assert all(part.endswith(".") and 45 <= len(part.split()) <= 77 for part in rest)
    assert [len(part.split()) for part in meaning.passages(ListedPaper("x", "T", abstract="word " * 500))[1:]] == [90] * 5 + [
        50
    ]
    assert meaning.passages(ListedPaper("x", "T")) == ["T"]


def test_the_nearest_passage_counts_and_the_whole_beside_it_by_hand():
    vectors = np.array([[1, 0, 0], [0, 1, 0], [0.6, 0.8, 0], [0, 0, 1]], np.float32)
    nearest = meaning.Nearest(["a", "a", "b", "c"], vectors)
    mean = np.sqrt(0.5)  # of a's two vectors, brought to length 1
    assert nearest.search(np.array([1, 0, 0], np.float32), 3) == [
        ("a", pytest.approx((1 + 0.5 * mean) / 1.5)),
        ("b", pytest.approx(0.6)),
        ("c", pytest.approx(0.0)),
    ]
    assert nearest.around("b") == [("a", pytest.approx(1.4 * mean)), ("c", pytest.approx(0.0))]
    assert meaning.Nearest([], np.zeros((0, 3), np.float32)).search(vectors[0]) == []


class Counting:
    """Stands in for the encoder; counts what it embeds."""

    name, dimensions = "counting", 8

    def __init__(self):
        self.texts = 0

    def encode(self, texts, batch=64):
        self.texts += len(texts)
        rows = np.array([np.random.default_rng(sum(text.encode())).normal(size=8) for text in texts])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    def query(self, text):
        return self.encode([text])[0]


def test_only_vectors_that_changed_are_read_again(home):
    store, encoder = Store(), Counting()
    catalogue = Catalogue(store)
    catalogue.add("hub", [Facts(f"Paper {k}", abstract="One sentence of it. " * 30) for k in range(3)], date(2025, 1, 1))
    meaning.embed(store, encoder, meaning.missing(store, catalogue.papers().values(), encoder.name))
    before = meaning.Nearest.of(store, encoder)
    assert len(before) == 45
    assert len(before.vectors) == encoder.texts > 45
    catalogue.add("hub", [Facts("Paper 0", abstract="Other words. " * 40)], date(2025, 1, 2))
    meaning.embed(store, encoder, meaning.missing(store, catalogue.papers().values(), encoder.name))
    read = []
    meant = np.frombuffer
    try:
        np.frombuffer = lambda *args, **kinds: read.append(1) or meant(*args, **kinds)
        after = meaning.Nearest.of(store, encoder, before)
    finally:
        np.frombuffer = meant
    assert len(read) == 1
    fresh = meaning.Nearest.of(store, encoder)
    assert after.slugs == fresh.slugs
    assert np.array_equal(after.vectors, fresh.vectors)
    edition = Edition(store)
    edition.use(encoder)
    edition.refresh()
    assert edition.search("paper words").by_meaning
    assert edition.search("2306.16922").slugs == ["elm-neuron"]
    assert edition.suggest("paper 0")[0].slug == "paper-0"


def test_a_snippet_is_where_most_words_stand_together():
    filler = "Nothing to see in this part of it at all, as it goes on and on for a while. " * 4
    text = f"Single delay here. {filler}Then delays of synapses, and synaptic delays. {filler}"
    paper = ListedPaper("x", "X", summary="A summary of rewards.", abstract=text, tested=["Tested dendrites.", "Tested somas."])
    found = Words.snippet("synaptic delay", paper, {}, around=40)
    assert found.startswith("…")
    assert found.endswith("…")
    assert "Then \x02delays\x03 of synapses, and \x02synaptic\x03 \x02delays\x03." in found
    at = text.index("delays of")
    start = text.rfind(" ", 0, at - 20) + 1
    end = text.find(" ", at + 80)
    assert re.sub("[\x02\x03…]", "", found) == text[start:end]
    assert Words.snippet("single", paper, {}).startswith("\x02Single\x03 delay here.")
    assert Words.snippet("rewards", paper, {}) == "A summary of \x02rewards\x03."
    assert Words.snippet("somas", paper, {}) == "Tested \x02somas\x03."
    assert Words.snippet("dendritc", paper, {"dendritc": "dendrites"}) == "Tested \x02dendrites\x03."
    for nothing in ("the of", "zebra", "..."):
        assert Words.snippet(nothing, paper, {}) == ""
    assert Words.snippet("cat", ListedPaper("x", "X", abstract="A concatenated cat sat; catsup."), {}) == (
        "A concatenated \x02cat\x03 sat; \x02catsup\x03."
    )


def test_words_that_are_begun_or_mistyped():
    """One letter of a short word may be wrong, two of a long one; the first is right, rather; the commonest counts."""
    words = Words(
        [
            ListedPaper("a", "neurons hippocampus"),
            ListedPaper("b", "neurons"),
            ListedPaper("c", "peurons zebrafish"),
            ListedPaper("d", "2024"),
        ]
    )

    def read(query):
        return dict(words.search(query).read_as)

    assert read("neurens") == {"neurens": "neurons"}
    assert read("hipocamps") == {"hipocamps": "hippocampus"}
    assert read("hipocmps") == {}  # three
    assert read("zebra") == {}  # it begins a word
    assert words.search("zebra").all_words == ["c"]
    assert read("nurons") == {"nurons": "neurons"}
    assert read("nuerns") == {}  # two letters of a short word
    assert read("2025") == {}
    assert read("xyz") == {}
    assert set(words.search("neuron's").slugs) == {"a", "b"}
    assert words.count("neurons") == words.count("Neuron") == 2
    assert words.count("zebra") == 0


def test_a_word_with_hyphens_is_also_one_word_and_its_longer_parts():
    papers = [
        ListedPaper("joined", "Postsynaptic"),
        ListedPaper("apart", "Post synaptic"),
        ListedPaper("part", "Synaptic"),
        ListedPaper("post", "Post"),
    ]
    words = Words(papers)
    assert set(words.search("post-synaptic").all_words) == {"joined", "apart"}
    assert set(words.search("post-synaptic").some_words) == {"part", "post"}
    assert set(words.search("pre-synaptic").slugs) == {"apart", "part"}  # nobody has it: its long part
    assert words.search("an-of").slugs == []


def test_similar_papers_share_the_rarest_words():
    papers = [ListedPaper("a", "Delays of zebrafish"), ListedPaper("b", "Zebrafish"), ListedPaper("c", "Delays", topics=["zebrafish"]),
              ListedPaper("d", "Delays"), ListedPaper("e", "Delays"), ListedPaper("f", "fish fish")]  # fmt: skip
    words = Words(papers)
    assert words.similar(papers[0], 9)[:2] in (["c", "b"], ["b", "c"])
    assert set(words.similar(papers[0], 9)) == {"b", "c", "d", "e"}
    assert len(words.similar(papers[0], 2)) == 2
    assert words.similar(ListedPaper("x", "Nothing of it"), 5) == []
    held = {"zebras": 2, "yaks": 3, "xylophones": 4, "walruses": 5}
    counted = Words([ListedPaper(f"{word}{k}", word) for word, count in held.items() for k in range(count)])
    found = counted.similar(ListedPaper("x", " ".join(held)), 99)
    assert {slug.rstrip("0123456789") for slug in found} == {"zebras", "yaks", "xylophones"}  # three words at the most


def test_of_equal_scores_those_that_came_first_and_no_more_than_asked_for():
    words = Words([ListedPaper(f"p{k}", "delay") for k in range(30)] + [ListedPaper("best", "delay delay")])
    assert words.search("delay", 3).slugs == ["best", "p0", "p1"]
    assert len(words.search("delay").slugs) == 31
    words.update([ListedPaper("p0", "other"), ListedPaper("p1", "delay")])
    assert words.search("delay", 3).slugs == ["best", "p1", "p2"]  # as it was
    assert words.search("other").scores == {"p0": pytest.approx(words.search("other").scores["p0"])}
    many = Words([ListedPaper(f"p{k}", f"delay{k:03}") for k in range(45)] + [ListedPaper("often", "delay044 x")])
    assert len(many.search("delay", 99).slugs) == 41  # forty words that begin so, the commonest among them
    assert "often" in many.search("delay", 99).slugs


def test_an_author_counts_where_the_word_stands_among_authors_as_often():
    """Three texts of a word to one author of it are too many, two are not."""
    author = ListedPaper("by", "On nothing", names=["Ada Winter"])
    texts = [ListedPaper(f"t{k}", f"Of {k}", abstract="Winter came.") for k in range(2)]
    for count, wanted in ((1, ["by"]), (2, [])):
        papers = [author, *texts[:count]]
        assert called("winter", Names(papers), Words(papers)) == wanted
    papers = [author, *texts]
    assert called("ada winter", Names(papers), Words(papers)) == ["by"]
    assert search(papers, "winter", 1)[0][0].slug in ("t0", "t1")
    assert len(search([ListedPaper(f"p{k}", "delay") for k in range(30)], "delay")) == 20


def test_what_an_abbreviation_stands_for_is_looked_for_where_two_agree():
    def paper(slug, text):
        return ListedPaper(slug, slug, abstract=text)

    said = [
        paper("one", "We use long short neurons (LSNs)."),
        paper("two", "A long short neuron (LSN)."),
        paper("three", "The long short neuron."),
    ]
    assert set(Words(said).search("LSN").all_words) == {"one", "two", "three"}
    assert set(Words(said[1:]).search("LSN").all_words) == {"two"}
    far = f"Long short neuron {'x ' * 60}(LSN)"
    assert dict(abbreviations(far)) == {}
    assert dict(abbreviations("a (B), the Big Cat (BC), one (Bc)")) == {"bc": "big cat"}


def test_sentences_of_what_is_tested():
    assert [_sentence(text) for text in (" why not", "It is so.", "ha!", "so?", "é")] == [
        "Why not.",
        "It is so.",
        "Ha!",
        "So?",
        "É.",
    ]
    made = ExperimentEntry("one", "does it", {}, {}, (Claim("C1", "it does", kind="paper", untested="x"),))
    bare = ExperimentEntry("two", "", {}, {}, ())
    entry = Entry(
        {"notes": ["a note"]}, "x", {"one": made, "two": bare}, untested=(Claim("U", "it flies", kind="paper", untested="x"),)
    )
    assert _tested(entry) == ["Does it. It does.", "It flies.", "A note."]
    assert _tested(Entry({}, "x", {})) == []
