"""A view of some papers by hand: what it finds, in which order, and what its strips and figures say."""

import math
import random
from dataclasses import replace
from datetime import date
from types import SimpleNamespace

import numpy as np
import pytest

from broadsheet.errors import InputError, NotFoundError
from broadsheet.lab.claims import Claim, at_least, at_most, equals
from broadsheet.lab.ledger import BASES, Recorded
from broadsheet.lab.location import figures_folder
from broadsheet.lab.verdicts import Outcome, judge
from broadsheet.page import Catalogue, intake, meaning, report, strips
from broadsheet.page import standing as standing_module
from broadsheet.page.catalogue import ListedPaper
from broadsheet.page.edition import (
    NO_SYSTEM,
    Edition,
    Filters,
    Noticed,
    Result,
    View,
    _moved,
    _sorted,
    metric_of,
    month_of,
    week_name,
    week_of,
)
from broadsheet.page.facts import Facts
from broadsheet.page.names import Names
from broadsheet.page.search import Words
from broadsheet.page.standing import Drawn, Standing, figures, standings


def paper(slug, day="2025-12-10", **facts):
    return ListedPaper(slug, facts.pop("title", slug.title()), listed=day, **facts)


PAPERS = [
    paper("loud", "2025-12-03", upvotes=10, topics=["spikes"], names=["Ada L"], arxiv="2512.00001", published="2025-12-01"),
    paper("talked", "2025-12-10", comments=4, topics=["spikes", "atoms"], names=["ada l", "Bo M"], published="2025-12-02"),
    paper("quiet", "2025-12-10", upvotes=1, topics=["atoms"], code="https://example.org", published="2025-11-30"),
    paper("early", "2025-11-19", upvotes=39, topics=[], published="2025-11-18"),
]


@pytest.fixture
def view():
    return _sorted({each.slug: each for each in PAPERS}, View())


def test_papers_are_in_the_order_of_their_days_and_then_of_notice(view):
    """A vote counts 1, a comment 2; weights halve each week: 11 / 2, 9, 2, and 40 / 8."""
    assert view.newest == ["talked", "quiet", "loud", "early"]
    assert view.trending == ["talked", "loud", "early", "quiet"]
    assert dict(view.days) == {"2025-12-10": ["talked", "quiet"], "2025-12-03": ["loud"], "2025-11-19": ["early"]}
    assert dict(view.topics) == {"atoms": ["talked", "quiet"], "spikes": ["talked", "loud"]}
    assert list(view.topics) == ["atoms", "spikes"]
    assert view.number == 0


def test_papers_and_authors_are_found_by_any_of_their_names(view):
    assert view.paper("loud").slug == "loud"
    assert view.paper("arXiv:2512.00001v3").slug == "loud"
    assert view.author("  ADA   l ") == ("ada l", ["talked", "loud"])
    for find, said in ((view.paper, "No paper is called 'nobody'"), (view.author, "No author is called 'nobody'")):
        with pytest.raises(NotFoundError, match=said):
            find("nobody")


def test_days_around_a_day_and_between_two(view):
    assert view.neighbours("2025-12-03") == ("2025-11-19", "2025-12-10")
    assert view.neighbours("2025-12-05") == ("2025-12-03", "2025-12-10")
    assert view.neighbours("2025-11-19") == (None, "2025-12-03")
    assert view.neighbours("2025-12-10") == ("2025-12-03", None)
    assert View().neighbours("2025-12-10") == (None, None)
    assert view.between(date(2025, 12, 3), date(2025, 12, 10)) == ["loud", "talked", "quiet"]
    assert view.between(date(2025, 11, 19), date(2025, 11, 19)) == ["early"]
    assert view.between(date(2025, 11, 20), date(2025, 12, 2)) == []


@pytest.mark.parametrize(
    ("filters", "left"),
    [
        (Filters(), ["talked", "quiet", "loud", "early"]),
        (Filters(topic="spikes"), ["talked", "loud"]),
        (Filters(code=True), ["quiet"]),
        (Filters(basis="paper"), []),
        (Filters(verdict=NO_SYSTEM), ["talked", "quiet", "loud", "early"]),
        (Filters(verdict="holds"), []),
        (Filters(since="2025-12-01"), ["talked", "loud"]),
        (Filters(until="2025-11-30"), ["quiet", "early"]),
        (Filters(since="2025-11-30", until="2025-12-01"), ["quiet", "loud"]),
    ],
)
def test_filters_leave_what_they_name(view, filters, left):
    assert [slug for slug in view.newest if view.passes(slug, filters)] == left
    assert bool(filters) == (filters != Filters())
    undated = View(papers={"new": ListedPaper("new", "New")})
    assert undated.passes("new", Filters(until="2025-12-01")) is False
    assert undated.passes("new", Filters()) is True


def test_dates_that_are_none_are_refused():
    for made in (lambda: Filters(since="2025-13-01"), lambda: Filters(until="yesterday"), lambda: intake.day("2025-02-30")):
        with pytest.raises(InputError, match="YYYY-MM-DD"):
            made()
    assert intake.day("2025-02-28") == date(2025, 2, 28)


def test_weeks_and_months():
    assert week_of("2025-W50") == (date(2025, 12, 8), date(2025, 12, 14))
    assert week_of("2026-W01") == (date(2025, 12, 29), date(2026, 1, 4))
    assert week_of("9999-W52")[1] == date.max
    assert month_of("2024-02") == (date(2024, 2, 1), date(2024, 2, 29))
    assert month_of("2025-12") == (date(2025, 12, 1), date(2025, 12, 31))
    assert [week_name(day) for day in (date(2025, 12, 31), date(2025, 2, 3))] == ["2026-W01", "2025-W06"]
    for find, text in ((week_of, "2025-50"), (month_of, "2025"), (week_of, "2025-W54")):
        with pytest.raises(InputError, match="is wanted"):
            find(text)


def test_metrics_are_means_over_seeds_the_system_first():
    metrics = {"online": {"100": {"off": {"auc": 0.5}, "system": {"auc": 0.75}}, "101": {"system": {"auc": 1.0, "n": 3}}}}

    standing = SimpleNamespace(metrics=metrics)
    found = metric_of(standing, "online", "auc")
    assert found == {"system": (0.875, 2), "off": (0.5, 1)}
    assert list(found) == ["system", "off"]
    assert metric_of(standing, "online", "n") == {"system": (3.0, 1)}
    assert metric_of(standing, "offline", "auc") == {}


def outcome(value, distance, passed, **facts):
    return Outcome(
        **{
            "metric": "m",
            "bound": "≥ 0.5",
            "of": "system",
            "value": value,
            "distance": distance,
            "passed": passed,
            "low": None,
            "high": None,
            **facts,
        }
    )


@pytest.mark.parametrize(
    ("check", "made", "said"),
    [
        (at_least("m", 0.5), outcome(0.7, 0.2, True), "inside by 0.2"),
        (at_least("m", 0.5), outcome(0.5, 0.0, True), "on the bound"),
        (at_least("m", 0.5), outcome(0.2, -0.3, False), "outside by 0.3"),
        (at_least("m", 0.5), outcome(math.nan, math.nan, False), "no finite number: meets no bound"),
        (at_least("m", 0.5, over="count", count=2), outcome(0.4, -0.1, True, seeds_passed=2, seeds=3), "inside on 2 of 3 seeds"),
        (at_least("m", 0.5), outcome(0.6, 0.1, False, seeds_passed=2, seeds=3),
         "inside by 0.1 on average, but only 2 of 3 seeds are"),
        (at_least("m", 0.5), outcome(0.4, -0.1, False, seeds_passed=1, seeds=3),
         "outside by 0.1 on average; 1 of 3 seeds are inside"),
        (at_least("m", 0.5, over="mean"), outcome(0.6, 0.1, False, low=0.4, high=0.8), "inside by 0.1, but its interval is not"),
        (at_least("m", 0.5, over="mean"), outcome(0.6, 0.1, False), "inside by 0.1, on too few seeds"),
        (at_least("m", 0.5, over="mean"), outcome(0.4, -0.1, False, seeds_passed=1, seeds=3), "outside by 0.1"),
        (at_least("m", 0.1, of="off", minus="off"), outcome(0.0, -0.1, False), "no difference to itself: outside by 0.1"),
    ],
)  # fmt: skip
def test_how_far_an_outcome_stands_from_its_bound(check, made, said):
    assert strips._stands(check, made) == said


@pytest.mark.parametrize(
    ("check", "seeds", "said"),
    [
        (at_least("m", 0.95), 3, "≥ 0.95 on each of 3 seeds"),
        (at_least("m", 0.95), 2, "≥ 0.95 on each of 2 seeds"),
        (at_least("m", 0.95), 1, "≥ 0.95"),
        (at_most("m", 2, over="count", count=2), 3, "≤ 2 on at least 2 of 3 seeds"),
        (at_most("m", 2, over="mean"), 3, "≤ 2 for the mean over 3 seeds, with its 95 % interval"),
    ],
)
def test_what_is_wanted_in_words(check, seeds, said):
    assert strips._wanted(check, "quick", seeds) == said


def test_places_on_a_strip():
    """Of 100 % the values take the middle 92; ends of intervals widen it by half of the values' span at most."""
    place, logarithmic = strips._scale([0.0, 1.0], [])
    assert ([place(x) for x in (-1.0, 0.0, 0.25, 1.0, 2.0)], logarithmic) == ([4.0, 4.0, 27.0, 96.0, 96.0], False)
    place, _ = strips._scale([0.0, 1.0], [-9.0, 1.25])
    assert [place(x) for x in (-0.5, 1.25)] == [4.0, 96.0]
    place, logarithmic = strips._scale([1.0, 100.0], [])
    assert ([place(x) for x in (1.0, 10.0, 100.0)], logarithmic) == ([4.0, 50.0, 96.0], True)
    assert not strips._scale([1.0, 99.0], [])[1]
    place, logarithmic = strips._scale([0.0, 1.0, 100.0], [])
    assert ([place(x) for x in (0.0, 0.1, 100.0)], logarithmic) == ([4.0, 4.0, 96.0], True)
    assert not strips._scale([-1.0, 1.0, 1000.0], [])[1]
    assert strips._scale([2.0, 2.0], [])[0](2.0) == 50.0
    assert strips._scale([math.nan], [])[0](1.0) == 50.0


def test_an_inlined_figure_has_names_of_its_own(tmp_path):
    file = tmp_path / "growth-C1-steps.svg"
    file.write_text(
        '<?xml version="1.0"?>\n<svg width="9pt" viewBox="0 0 100 50.5"><metadata>x\ny</metadata><defs><g id="a"/></defs>'
        '<use xlink:href="#a" clip-path="url(#a)"/></svg>'
    )
    text = report._inline(file, "p-e")
    assert text.startswith('<svg viewBox="0 0 100 50.5" role="img"')
    assert "max-width:140px; min-width:70px" in text
    assert 'id="p-e-a"' in text
    assert 'xlink:href="#p-e-a" clip-path="url(#p-e-a)"' in text
    assert "metadata" not in text
    drawn = Drawn(file, "caption", "quick")
    assert (drawn.name, drawn.is_curve) == ("growth-C1-steps", True)
    assert not Drawn(tmp_path / "curve.svg", "caption", "quick").is_curve


def test_the_report_counts_what_rests_on_each_basis(home):
    """A report of a fresh home: every paper that runs here, in one file that loads nothing."""
    path = report.write_report()
    assert path == home / "report.html"
    text = path.read_text()
    assert "<script src" not in text
    assert "<link" not in text
    known = list(standings().values())
    found = report.totals(known)
    assert set(found) <= set(BASES.values())
    own = sum(sum(standing.counts.values()) for standing in known)
    assert own == sum(sum(counts.values()) for counts in found.values()) > 100
    assert all(standing.entry.slug in text for standing in known)


def test_figures_of_the_largest_runs_come_first_and_curves_behind_them(home):
    def drawn(size, *names):
        for name in names:
            file = figures_folder(home, "sdr-dendrites", "online", size) / f"{name}.svg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("<svg/>")
            file.with_suffix(".txt").write_text(f"{name} at {size}")

    drawn("quick", "recall", "growth-C7-n")
    assert [(each.name, each.preset) for each in figures("sdr-dendrites", "online")] == [
        ("recall", "quick"), ("growth-C7-n", "quick"),
    ]  # fmt: skip
    drawn("paper", "recall", "noise")
    found = figures("sdr-dendrites", "online")
    assert [(each.name, each.preset) for each in found] == [("noise", "paper"), ("recall", "paper"), ("growth-C7-n", "quick")]
    assert [each.is_curve for each in found] == [False, False, True]
    assert found[0].caption == "noise at paper"


def test_words_that_nobody_writes_are_read_as_those_that_are_written():
    made = Words([ListedPaper("one", "Spiking neurons learn"), ListedPaper("two", "Graphs of molecules")])
    found = made.search("spikng molecules")
    assert dict(found.read_as) == {"spikng": "spiking"}
    assert set(found.slugs) >= {"two"}
    assert dict(made.search("spiking molecules").read_as) == {}


@pytest.mark.parametrize(("found", "there"), [(None, False), (object(), True)])
def test_search_by_meaning_is_there_where_its_library_is(found, there, monkeypatch):
    monkeypatch.setattr(meaning.importlib.util, "find_spec", lambda name: found if name == "sentence_transformers" else None)
    assert meaning.available() is there


def moved_and_sorted(papers, notices):
    """The view of papers after readers noticed some, moved and sorted anew."""
    known = {each.slug: each for each in papers}
    seen = replace(_sorted(known, View()), notices=notices)
    return _moved(seen, list(notices)), _sorted(known, seen)


def test_what_readers_notice_moves_papers_to_where_they_are_sorted_to():
    undated = [ListedPaper(slug, slug.title(), names=["Ada L"], topics=["spikes"]) for slug in ("nowhen", "never")]
    draw = random.Random(3)
    for _ in range(20):
        noticed = draw.sample([*PAPERS, *undated], 3)
        notices = {each.slug: Noticed(votes=1, weight=draw.choice([0.0, 2.5, 40.0]), comments=100) for each in noticed}
        moved, anew = moved_and_sorted([*PAPERS, *undated], notices)
        for name in ("newest", "trending", "days", "topics", "authors"):
            assert getattr(moved, name) == getattr(anew, name), name
        assert list(moved.topics) == list(anew.topics)


def test_votes_here_count_by_their_weight_and_comments_here_do_not(view):
    seen = replace(view, notices={"loud": Noticed(votes=3, weight=2.5, comments=7)})
    assert [seen.notice(slug) for slug in ("loud", "talked", "early")] == [12.5, 8.0, 39.0]
    assert seen.noticed(seen.papers["loud"]) == Noticed(13, 2.5, 7)
    assert seen.noticed(seen.papers["talked"]) == Noticed(0, 0.0, 4)
    assert Noticed() == Noticed(0, 0.0, 0)
    assert _sorted({}, View()).newest == []
    old = _sorted({"x": ListedPaper("x", "X")}, View())
    assert (old.trending, old.days, old.newest) == (["x"], {}, ["x"])
    tied = [paper("b", title="Same b"), paper("a", title="Same a"), paper("c", title="Zz", basis="code")]
    assert _sorted({each.slug: each for each in tied}, View()).newest == ["c", "a", "b"]  # one that runs, then by title


def test_tasks_of_systems_side_by_side():
    facts = {"b": {"tasks": {"recall": "one:auc", "act": "two:win"}}, "a": {"tasks": {"recall": "x:y"}}, "c": {}}
    seen = View(standings={slug: SimpleNamespace(entry=SimpleNamespace(facts=each)) for slug, each in facts.items()})
    assert list(seen.tasks().items()) == [("act", [("b", "two", "win")]), ("recall", [("a", "x", "y"), ("b", "one", "auc")])]


@pytest.fixture
def small(view):
    """An edition of four papers without a store; `nearest` says what is near by meaning."""
    made = object.__new__(Edition)
    made.view = replace(view, standings={"loud": object(), "talked": object()})
    made.words, made.names, made.encoder, made.nearest, made._neighbours = Words(PAPERS), Names(PAPERS), None, None, {}
    return made


class Near:
    """Nearness by meaning, as it is told."""

    def __init__(self, found):
        self.found, self.places, self.asked = found, {"quiet": 0}, []

    def around(self, slug, most=6):
        self.asked.append((slug, most))
        return self.found[:most]

    def search(self, vector, most):
        self.asked.append((vector, most))
        return self.found


def test_near_papers_are_those_that_run_and_are_near_enough(small):
    small.nearest = Near([("loud", 0.68), ("early", 0.9), ("talked", 0.679)])
    assert small.near(["quiet", "loud"]) == {"quiet": ["loud"]}  # of one that runs itself there is nothing to say
    assert small.near(["quiet"], most=0) == {"quiet": []}
    assert small.nearest.asked == [("quiet", 25)]  # asked once
    small.nearest.found = [("gone", 0.9), ("early", 0.8), ("loud", 0.7)]
    assert small.similar("quiet") == ["early", "loud"]
    small.nearest = None
    small._neighbours = {}
    rows = [paper("runs", title="Spikes of cells that learn", topics=["spikes"]), paper("other", title="Cells of learned Spikes"),
            paper("far", title="Cells and spikesorting, learned"), paper("third", title="Nothing")]  # fmt: skip
    known = {each.slug: each for each in rows}
    small.view, small.words = View(papers=known, standings={"runs": object()}), Words(rows)
    assert small.near(["other", "far"]) == {"other": ["runs"], "far": []}  # the topic is a word of the title, not a part of one


def test_papers_near_to_many_are_those_that_most_of_them_are_near_to(small, monkeypatch):
    """The first of one list says 1 / 10, the second 1 / 11; of more than 50 the last count."""
    near = {"loud": ["early", "quiet", "talked"], "talked": ["quiet", "early"]}
    asked = []
    monkeypatch.setattr(Edition, "similar", lambda self, slug, most=6: asked.append(most) or near.get(slug, []))
    assert small.similar_to_all(["loud", "talked", "gone"]) == ["early", "quiet"]  # alike: by name
    assert asked == [20, 20]
    near["loud"] = ["quiet", "early"]
    assert small.similar_to_all(["loud", "talked"], most=1) == ["quiet"]
    asked.clear()
    assert small.similar_to_all(["loud"] * 3 + ["talked"] * 50) == ["quiet", "early"]
    assert len(asked) == 50


def test_a_search_narrows_blends_and_reads_words_as_others(small, monkeypatch):
    assert small.search(" ") == Result(["talked", "quiet", "loud", "early"], {}, False)
    assert small.search(" ", most=2).slugs == ["talked", "quiet"]
    assert small.search("", Filters(topic="spikes")).slugs == ["talked", "loud"]
    assert small.search("2512.00001") == Result(["loud"], {}, False)
    assert small.search("2512.00001", Filters(topic="atoms")).slugs == []
    asked = []
    small.encoder, small.nearest = (
        SimpleNamespace(query=lambda text: asked.append(text) or text),
        Near([("early", 0.9), ("loud", 0.2)]),
    )
    found = small.search("quet")
    assert (found.slugs, found.read_as, found.by_meaning) == (["quiet", "early"], {"quet": "quiet"}, True)
    assert asked == ["quiet"]
    assert small.nearest.asked == [("quiet", 1000)]
    assert small.search("quiet", most=1).slugs == ["quiet"]
    small.search("quiet", Filters(topic="atoms"))
    assert small.nearest.asked[-1] == ("quiet", 2000)
    assert small.search('"quiet"').slugs == ["quiet"]  # a phrase has to be there
    small.nearest.found = [("early", 0.2)]
    assert (small.search("quiet").slugs, small.search("quiet").by_meaning) == (["quiet"], False)
    assert [each.text for each in small.suggest("ada l")] == ["Ada L", "ada l"]


def test_an_edition_reads_what_readers_did_after_a_while(home, monkeypatch):
    from broadsheet.lab.people import Notice
    from broadsheet.lab.store import Store, raise_revision

    now = [100.0]
    monkeypatch.setattr("broadsheet.page.edition.time.monotonic", lambda: now[0])
    monkeypatch.setattr("broadsheet.page.edition.standings", lambda store: {})
    store = Store()
    Catalogue(store).add("hub", [Facts("First"), Facts("Second")], date(2025, 1, 1))
    made, without = Edition(store), Edition(store, readers=False)
    assert [made.refresh(), without.refresh(), made.view.number] == [True, True, 1]

    def vote(slug, votes):
        with store.session() as session:
            number = raise_revision(session, "readers")
            session.merge(Notice(slug=slug, votes=votes, weight=float(votes), comments=0, revision=number))

    vote("second", 2)
    assert made.refresh()
    assert made.view.notices == {"second": Noticed(2, 2.0, 0)}
    assert [slug for slug in made.view.newest if slug in ("first", "second")] == ["second", "first"]
    vote("first", 5)
    now[0] += 1.99
    assert not made.refresh()  # votes wait for two seconds
    now[0] += 0.02
    assert made.refresh()
    assert [slug for slug in made.view.newest if slug in ("first", "second")] == ["first", "second"]
    assert made.view.notices == {"second": Noticed(2, 2.0, 0), "first": Noticed(5, 5.0, 0)}
    assert not without.refresh()
    assert without.view.notices == {}
    made.note("second", Noticed(9, 9.0, 9))
    assert made.view.notices["second"].votes == 9
    made._neighbours = {"hlop": []}
    now[0] += 10
    vote("first", 6)
    assert made.refresh()
    assert made._neighbours == {"hlop": []}  # votes make nothing nearer
    Catalogue(store).add("hub", [Facts("Third")], date(2025, 1, 1))
    assert made.refresh()
    assert made._neighbours == {}


@pytest.mark.parametrize(
    ("found", "text"),
    [(None, ""), (SimpleNamespace(leaning=None, verdict="holds", seeds=(1, 2, 3)), "holds"),
     (SimpleNamespace(leaning="holds", verdict="provisional", seeds=(1,)), "holds on 1 seed"),
     (SimpleNamespace(leaning="fails", verdict="provisional", seeds=(1, 2)), "fails on 2 seeds")],
)  # fmt: skip
def test_what_this_homes_runs_say_in_words(found, text):
    made = object.__new__(Standing)
    object.__setattr__(made, "here", {} if found is None else {"C1": found})
    assert made.here_text("C1") == text


def test_a_standing_by_hand(monkeypatch, home):
    """Seconds are those of one seed; the sizes are each told once."""
    recorded = [
        SimpleNamespace(scale=scale, claim=SimpleNamespace(id=f"C{k}"), experiment="")
        for k, scale in enumerate(("b", "a", "b", ""))
    ]
    monkeypatch.setattr(standing_module.ledger, "states", lambda entry, data: recorded)
    monkeypatch.setattr(standing_module.ledger, "counts", lambda states: {"holds": 1})
    monkeypatch.setattr(standing_module.ledger, "waiting_for_null", lambda states: ["C3"])
    metrics = {"100": {"system": {"a": 1.0}}, "101": {"system": {"a": 2.0}}}
    data = {"made": "2025-01-02T03:04", "environment": {"cpus": 2}, "experiments": {
        "one": {"seconds": 9.0, "metrics": metrics}, "two": {"seconds": 3.0, "metrics": {}}}}  # fmt: skip
    entry = SimpleNamespace(slug="toy", experiments={})
    made = standing_module._standing(entry, data, {})
    assert (made.scale, made.made, made.environment, made.here) == ("a; b", "2025-01-02", {"cpus": 2}, {})
    assert (made.seconds, made.metrics) == ({"one": 4.5, "two": 3.0}, {"one": metrics, "two": {}})
    assert (made.counts, made.waiting, made.figures) == ({"holds": 1}, ["C3"], {})
    empty = standing_module._standing(entry, {}, {})
    assert (empty.made, empty.seconds, empty.environment) == ("", {}, {})
    assert list(standings(["hlop", "nobody"])) == ["hlop"]


def test_embedding_goes_on_in_batches_until_it_is_stopped(home, monkeypatch):
    from broadsheet.lab.store import Store

    class Counted:
        name, dimensions = "counted", 4

        def __init__(self):
            self.sizes = []

        def encode(self, texts, batch=64):
            self.sizes.append((len(texts), batch))
            return np.eye(4, dtype=np.float32)[[len(text) % 4 for text in texts]]

    store, encoder = Store(), Counted()
    catalogue = Catalogue(store)
    catalogue.add("hub", [Facts(f"Paper {k}") for k in range(5)], date(2025, 1, 1))
    wanted = meaning.missing(store, [catalogue.papers()[f"paper-{k}"] for k in range(5)], "counted")
    assert [parts for _, parts in wanted] == [[f"Paper {k}"] for k in range(5)]
    stops = iter([False, False, True])
    assert meaning.embed(store, encoder, wanted, 2, lambda: next(stops)) == 4
    assert encoder.sizes == [(2, 2), (2, 2)]
    rest = meaning.missing(store, [paper for paper, _ in wanted], "counted")
    assert [paper.slug for paper, _ in rest] == ["paper-4"]
    assert meaning.embed(store, encoder, rest) == 1
    assert encoder.sizes[-1] == (1, 64)
    found = meaning.Nearest.of(store, encoder)
    assert found.slugs == [f"paper-{k}" for k in range(5)]
    assert (found._own("paper-3") == np.eye(4)[len("Paper 3") % 4]).all()
    assert store.revisions()["vectors"] == 3
    monkeypatch.setenv("BROADSHEET_ENCODER", "")
    assert meaning.model_name() == meaning.MODEL
    assert len(meaning.missing(store, [paper for paper, _ in wanted])) == 5  # of the model that is used
    monkeypatch.setenv("BROADSHEET_ENCODER", "counted")
    assert meaning.missing(store, [paper for paper, _ in wanted]) == []
    other = SimpleNamespace(name="counted", dimensions=8)
    assert meaning.Nearest.of(store, other, found).slugs == []  # of another length


def test_an_encoder_asks_its_model_for_vectors_of_length_one():
    asked = []

    class Model:
        def encode(self, texts, **options):
            asked.append((texts, options))
            return np.ones((len(texts), 3), np.float64)

    made = meaning.Encoder(Model(), "x")
    assert made.encode(("a", "b")).dtype == np.float32
    assert asked == [
        (["a", "b"], {"batch_size": 64, "normalize_embeddings": True, "convert_to_numpy": True, "show_progress_bar": False})
    ]
    assert made.dimensions == 3
    assert made.query("c").tolist() == made.query("c").tolist() == [1.0, 1.0, 1.0]
    assert len(asked) == 3  # a query is embedded once


def test_passages_at_their_limits():
    """A rest of less than half of 45 words belongs to the passage before it."""

    def lengths(*sentences):
        text = " ".join(f"A{' b' * (count - 2)} c." for count in sentences)
        return [len(part.split()) for part in meaning._split(text)]

    assert lengths(45, 22) == [67]
    assert lengths(45, 23) == [45, 23]
    assert lengths(44, 23) == [67]
    assert lengths(10) == [10]
    assert lengths(90, 10) == [100]
    assert lengths(91) == [91]
    assert lengths(200) == [90, 90 + 20]
    assert meaning._split("It is 3.5 mm. 4 of them? (Yes) no! Éa") == ["It is 3.5 mm. 4 of them? (Yes) no! Éa"]


def test_the_nearest_papers_among_more_than_are_asked_for():
    draw = np.random.default_rng(1)
    vectors = draw.normal(size=(40, 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    slugs = [f"p{k // 2:02}" for k in range(40)]
    exact, near = meaning.Nearest(slugs, vectors, exact_below=41), meaning.Nearest(slugs, vectors, exact_below=40)
    assert (exact._graph is None, near._graph is None) == (True, False)
    for k in (0, 7, 39):
        pairs = (vectors @ vectors[k]).reshape(20, 2).max(axis=1)
        means = vectors.reshape(20, 2, 5).sum(axis=1)
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        score = (pairs + 0.5 * means @ vectors[k]) / 1.5
        wanted = [f"p{j:02}" for j in np.argsort(-score)]
        assert [slug for slug, _ in exact.search(vectors[k], 3)] == wanted[:3]
        assert [slug for slug, _ in exact.search(vectors[k])] == wanted
        assert [slug for slug, _ in near.search(vectors[k], 3)] == wanted[:3]
        assert [value for _, value in near.search(vectors[k], 3)] == pytest.approx(sorted(score, reverse=True)[:3], abs=2e-3)
        angles = means @ means[k // 2]
        angles[k // 2] = -2
        assert [slug for slug, _ in exact.around(slugs[k])] == [f"p{j:02}" for j in np.argsort(-angles)[:6]]
        assert [slug for slug, _ in near.around(slugs[k], 2)] == [f"p{j:02}" for j in np.argsort(-angles)[:2]]


def strip_of(claim, values, preset="quick"):
    """The strips of a claim as judged from one seed's numbers of each arm."""
    verdict = judge(claim, {100: {arm: {"m": value} for arm, value in values.items()}}, preset, deterministic=True)
    return list(
        strips.strips(Recorded(claim, "one", verdict.verdict, preset, verdict.outcomes, verdict.seeds, trials=verdict.trials))
    )


def test_rows_of_strips_say_what_was_tried():
    given = {"ablation": "off", "null": "ridge"}
    paper_ = Claim("C1", "it works", kind="paper", checks=[at_least("m", 0.5), at_most("m", 0.4, of="off"), at_least("m", 0.9, of="peer"),
                   at_most("m", 0.7, of="ridge"), at_least("m", 0.1, minus="off")], **given)  # fmt: skip
    found = strip_of(paper_, {"system": 1.0, "off": 0.0, "ridge": 0.6, "peer": 0.8})
    assert [[(row.kind, row.role, row.said, row.remark) for row in strip.rows] for strip in found] == [
        [("system", "mechanism on", "system", ""), ("ablation", "mechanism off", "off", ""), ("null", "trivial explanation", "ridge", "meets the whole claim too")],
        [("ablation", "mechanism off", "off", "")], [("other", "what it is about", "peer", "")], [("null", "trivial explanation", "ridge", "")],
        [("system", "mechanism on", "system − off", ""), ("ablation", "mechanism off", "off − off", ""),
         ("null", "trivial explanation", "ridge − off", "meets the whole claim too")],
    ]  # fmt: skip
    assert [(strip.of, strip.difference, strip.wanted) for strip in found] == [
        ("", "", "≥ 0.5"), ("off", "", "≤ 0.4"), ("peer", "", "≥ 0.9"), ("ridge", "", "≤ 0.7"), ("", "off", "≥ 0.1"),
    ]  # fmt: skip
    assert [row.value for row in found[4].rows] == [1.0, 0.0, 0.6]
    assert [row.inside for row in found[0].rows] == [True, False, True]
    assert (found[0].shaded, found[0].edges, [row.spot for row in found[0].rows]) == ((50.0, 100.0), (50.0,), [96.0, 4.0, 59.2])
    assert (found[1].shaded, found[1].edges) == ((0.0, 96.0), (96.0,))
    assert all(row.span is None and row.low is None for strip in found for row in strip.rows)
    ours = Claim("C2", "it is exact", kind="check", checks=[equals("m", 0.5, tol=0.1)], ablation="off")
    (strip,) = strip_of(ours, {"system": 0.5, "off": 0.0})
    assert [row.role for row in strip.rows] == ["our code", "wrong on purpose"]
    assert strip.edges == strip.shaded == (65.33, 96.0)
    about = Claim("C3", "it works", kind="paper", checks=[at_least("m", 0.5, of="peer")], about="peer", **given)
    (strip,) = strip_of(about, {"peer": 1.0, "off": 0.0, "ridge": 0.1})
    assert [row.role for row in strip.rows] == ["what it is about", "in its place", "trivial explanation"]
    runs = {100 + k: {"system": {"m": 0.8 + 0.1 * k}, "off": {"m": 0.3 + 0.3 * k}, "ridge": {"m": 0.1}} for k in range(2)}
    mean = Claim("C4", "it works", kind="paper", checks=[at_least("m", 0.4, over="mean")], seeds=2, **given)
    verdict = judge(mean, runs, "quick")
    state = Recorded(mean, "one", verdict.verdict, "quick", verdict.outcomes, verdict.seeds, trials=verdict.trials)
    (strip,) = strips.strips(state)
    assert [row.remark for row in strip.rows] == ["", "may meet the claim too", ""]
    assert strip.wanted == "≥ 0.4 for the mean over 2 seeds, with its 95 % interval"
    low, high = strip.rows[0].span
    assert low <= strip.rows[0].spot <= high
    assert strips._scale([0.0, 1.0], [-0.25])[0](0.0) == 22.4  # 4 + 92 / 5
    assert strips._scale([1.0, 1000.0, 0.0], [])[0](0.01) == 4.0
    assert strips._scale([0.0, 0.0], [])[1] is False
