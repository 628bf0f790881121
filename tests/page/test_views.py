"""A view of some papers by hand: what it finds, in which order, and what its strips and figures say."""

import math
from datetime import date
from types import SimpleNamespace

import pytest

from broadsheet.errors import InputError, NotFoundError
from broadsheet.lab.claims import at_least, at_most
from broadsheet.lab.ledger import BASES
from broadsheet.lab.location import figures_folder
from broadsheet.lab.verdicts import Outcome
from broadsheet.page import intake, meaning, report, strips
from broadsheet.page.catalogue import ListedPaper
from broadsheet.page.edition import NO_SYSTEM, Filters, View, _sorted, metric_of, month_of, week_name, week_of
from broadsheet.page.search import Words
from broadsheet.page.standing import Drawn, figures, standings


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
