"""What votes count for, and how a ring fares; against closed forms and another solver."""

import math
import random
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from broadsheet.lab.people import Account, Notice, Vote
from broadsheet.lab.store import Store
from broadsheet.page import Catalogue, edition
from broadsheet.page.facts import Facts
from broadsheet.readers import accounts, notices, votes
from broadsheet.readers.rates import TooOftenError
from broadsheet.readers.weight import diversity, overlap, weight

NOW = datetime(2025, 12, 11, 12, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=60)

tastes = st.lists(st.frozensets(st.integers(0, 8), min_size=1), min_size=1, max_size=6)


def apart(count, start=0):
    """Readers who voted for nothing in common."""
    return [{f"{start + k}-{j}" for j in range(3)} for k in range(count)]


def test_who_has_nothing_in_common_counts_and_who_votes_together_is_one():
    assert weight(apart(8)) == pytest.approx(8)
    assert weight([{"a", "b", "c"}] * 50) == pytest.approx(1)
    assert weight([{"a", "b", "c"}] * 50 + apart(8)) == pytest.approx(9)
    assert weight([], 50) == math.log2(51) < weight(apart(8))
    assert weight([]) == 0


@pytest.mark.parametrize(("shared", "own"), [(1, 1), (2, 4), (10, 5), (3, 0)])
def test_a_ring_that_hides_reaches_what_is_written(shared, own):
    def ring(size):
        return [{*range(shared), *(f"{k}-{j}" for j in range(own))} for k in range(size)]

    s = (shared / (shared + own)) ** 2
    assert weight(ring(50)) == pytest.approx(50 / (1 + 49 * s))
    assert weight(ring(150)) <= (1 + own / shared) ** 2


def by_support(similarity):
    """The same by trying which readers have a share: on a support, each row of S v is 1, and W is the sum of v."""
    best = 0.0
    for mask in range(1, 2 ** len(similarity)):
        among = [k for k in range(len(similarity)) if mask >> k & 1]
        part = similarity[np.ix_(among, among)]
        if np.linalg.cond(part) < 1e9:
            shares = np.linalg.solve(part, np.ones(len(among)))
            best = max(best, shares.sum() if shares.min() >= 0 else 0.0)
    return best


@settings(max_examples=60, deadline=None)
@given(tastes)
def test_it_is_the_maximum_diversity(sets):
    similarity = overlap(sets) ** 2
    assert diversity(similarity) == pytest.approx(by_support(similarity), rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(tastes, st.frozensets(st.integers(0, 8), min_size=1), st.randoms())
def test_one_more_vote_never_lowers_it_and_order_does_not_matter(sets, more, random):
    before = weight(sets)
    assert weight([*sets, more]) >= before - 1e-6
    assert weight([*sets, {"nobody else's"}]) == pytest.approx(before + 1, abs=1e-5)
    shuffled = random.sample(sets, len(sets))
    renamed = [{f"paper {name}" for name in found} for found in shuffled]
    assert weight(renamed) == pytest.approx(before, abs=1e-5)
    assert 1 - 1e-9 <= before <= len(sets) + 1e-9


@pytest.fixture
def store(any_home):
    return Store()


def join(store, count, made=LONG_AGO):
    with store.session() as session:
        start = session.query(Account).count()
        rows = [
            Account(address=f"r{k}@example.org", name=f"R{k}", key=f"r{k}", role="reader", blocked=False, made=made, seen=made)
            for k in range(start, start + count)
        ]
        session.add_all(rows)
        session.flush()
        return [row.id for row in rows]


def voted(store, accounts_, slugs, made=NOW - timedelta(days=3)):
    with store.session() as session:
        session.add_all(Vote(slug=slug, account_id=number, made=made) for number in accounts_ for slug in slugs)


def test_eight_readers_outweigh_a_ring_of_fifty(store):
    ring, eight = join(store, 50), join(store, 8)
    voted(store, ring, ["r1", "r2", "r3", "r4"])
    for number in eight:
        voted(store, [number], [f"{number}-{j}" for j in range(4)])
    voted(store, ring, ["theirs"], made=NOW)
    voted(store, eight[:-1], ["good"], made=NOW)
    found = votes.cast(store, eight[-1], "good", now=NOW)
    assert (found.votes, found.weight) == (8, pytest.approx(8))
    voted(store, join(store, 50, made=NOW - timedelta(hours=1)), ["new"], made=NOW)
    with store.session() as session:
        counted = notices.recount(session, ["theirs", "new"], NOW)
    assert (counted["theirs"].votes, counted["theirs"].weight) == (50, pytest.approx(1))
    assert (counted["new"].votes, counted["new"].weight) == (50, pytest.approx(math.log2(51)))


def test_a_ring_is_found_out_when_it_votes_together_again(store):
    ring = join(store, 20)
    for number in ring:
        voted(store, [number], [f"{number}-{j}" for j in range(3)])
    for slug, expected in (("first", 20), ("second", 20 / (1 + 19 / 16))):
        for number in ring:
            found = votes.cast(store, number, slug, now=NOW)
        assert found.weight == pytest.approx(expected)
    with store.session() as session:
        assert session.get(Notice, "first").weight == pytest.approx(20 / (1 + 19 / 16))


def test_a_vote_is_one_and_may_be_taken_back(store):
    (reader,) = join(store, 1)
    assert votes.cast(store, reader, "hlop", now=NOW).votes == votes.cast(store, reader, "hlop", now=NOW).votes == 1
    back = votes.cast(store, reader, "hlop", wanted=False, now=NOW)
    assert (back.votes, back.weight) == (0, 0)
    assert votes.cast(store, reader, "hlop", wanted=False, now=NOW) == back
    assert store.revisions()["readers"] > 0


def test_old_votes_say_nothing_and_blocked_accounts_count_for_nothing(store):
    readers = join(store, 4)
    voted(store, readers, ["a", "b", "c"], made=NOW - timedelta(days=100))
    for number in readers:
        found = votes.cast(store, number, "hlop", now=NOW)
    assert found.weight == pytest.approx(math.log2(5))
    accounts.block(store, readers[0])
    with store.session() as session:
        assert session.get(Notice, "hlop").votes == 3
    accounts.block(store, readers[0], blocked=False)
    with store.session() as session:
        assert session.get(Notice, "hlop").votes == 4


def test_votes_have_a_limit(store, monkeypatch):
    monkeypatch.setattr(votes, "OFTEN", replace(votes.OFTEN, most=3))
    (reader,) = join(store, 1)
    for k in range(3):
        votes.cast(store, reader, f"paper-{k}", now=NOW)
    with pytest.raises(TooOftenError):
        votes.cast(store, reader, "one-more", now=NOW)
    assert votes.cast(store, reader, "one-more", now=NOW + timedelta(hours=1)).votes == 1


@pytest.fixture
def nothing_runs(monkeypatch):
    monkeypatch.setattr(edition, "standings", lambda store: {})


ORDERED = ("newest", "trending", "days", "topics", "authors", "notices")


def test_an_edition_that_follows_votes_equals_a_new_one(store, nothing_runs, monkeypatch):
    monkeypatch.setattr(edition, "SETTLED", 0.0)
    readers, catalogue = join(store, 6), Catalogue(store)
    for day in (9, 10, 11):
        catalogue.add(
            "hub", [Facts(f"Paper {day}-{k}", upvotes=k % 2, names=("A. One",)) for k in range(4)], date(2025, 12, day)
        )
    followed = edition.Edition(store)
    followed.refresh()
    chance = random.Random(1)
    for number in readers * 5:
        slug = chance.choice(followed.view.newest)
        votes.cast(store, number, slug, wanted=chance.random() < 0.8)
        assert followed.refresh()
    fresh = edition.Edition(store)
    fresh.refresh()
    for name in ORDERED:
        assert getattr(followed.view, name) == getattr(fresh.view, name), name
    assert any(noticed.votes for noticed in followed.view.notices.values())


def test_votes_wait_a_moment_and_ones_own_does_not(store, nothing_runs):
    (reader,) = join(store, 1)
    followed = edition.Edition(store)
    followed.refresh()
    slug = followed.view.newest[-1]
    noticed = votes.cast(store, reader, slug)
    followed.note(slug, noticed)
    assert followed.view.noticed(followed.view.papers[slug]).votes == 1 + (followed.view.papers[slug].upvotes or 0)
    assert followed.refresh()
    votes.cast(store, reader, slug, wanted=False)
    assert not followed.refresh()  # so soon
    assert followed.view.notices[slug].votes == 1


def test_a_site_without_readers_asks_nothing_of_them(store, nothing_runs):
    (reader,) = join(store, 1)
    asked = []
    event.listen(store.engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
    followed = edition.Edition(store, readers=False)
    followed.refresh()
    slug, number = followed.view.newest[-1], followed.view.number
    asked.clear()
    assert not followed.refresh()
    assert len(asked) == 1
    votes.cast(store, reader, slug)
    asked.clear()
    assert not followed.refresh()
    assert len(asked) == 1
    assert (followed.view.number, followed.view.notices) == (number, {})
