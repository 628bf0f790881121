"""What votes count for, and how a ring fares; against closed forms and another solver."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from broadsheet.lab.people import Account, Notice, Vote
from broadsheet.lab.store import Store
from broadsheet.readers import accounts, notices, votes
from broadsheet.readers.rates import TooOftenError
from broadsheet.readers.weight import diversity, overlap, weight

NOW = datetime(2025, 12, 11, 12, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=60)

tastes = st.lists(st.frozensets(st.integers(0, 8), min_size=1), min_size=1, max_size=9)


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


def least(similarity):
    """The same by another way: the distance of the origin from the hull of vectors with these products."""
    values, vectors = np.linalg.eigh(similarity)
    points = vectors * np.sqrt(np.maximum(values, 0))
    big = 1e5
    shares, _ = nnls(np.vstack([points.T, np.full(len(points), big)]), np.append(np.zeros(len(points)), big))
    shares /= shares.sum()
    return 1 / (shares @ similarity @ shares)


@settings(max_examples=60, deadline=None)
@given(tastes)
def test_it_is_the_maximum_diversity(sets):
    similarity = overlap(sets) ** 2
    assert diversity(similarity) == pytest.approx(least(similarity), rel=1e-4)


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
    for number in ring:
        votes.cast(store, number, "theirs", now=NOW)
    for number in eight:
        found = votes.cast(store, number, "good", now=NOW)
    with store.session() as session:
        theirs = session.get(Notice, "theirs")
        assert (theirs.votes, theirs.weight) == (50, pytest.approx(1))
    assert (found.votes, found.weight) == (8, pytest.approx(8))
    fresh = join(store, 50, made=NOW - timedelta(hours=1))
    for number in fresh:
        found = votes.cast(store, number, "new", now=NOW)
    with store.session() as session:  # every second vote is enough from 50 on
        assert notices.recount(session, ["new"], NOW)["new"].weight == pytest.approx(math.log2(51))


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
        assert notices.recount(session, ["hlop"], NOW)["hlop"].votes == 3


def test_votes_have_a_limit(store, monkeypatch):
    monkeypatch.setattr(votes, "OFTEN", replace(votes.OFTEN, most=3))
    (reader,) = join(store, 1)
    with pytest.raises(TooOftenError):
        for k in range(votes.OFTEN.most + 1):
            votes.cast(store, reader, f"paper-{k}", now=NOW)
