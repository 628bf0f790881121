"""Addresses that follow lists, and a page to follow, without a site."""

from datetime import UTC, datetime
from types import SimpleNamespace

from sqlalchemy import insert, select

from broadsheet.lab.people import Letter, Subscription
from broadsheet.page.catalogue import ListedPaper
from broadsheet.page.edition import View
from broadsheet.readers import keys
from broadsheet.readers.digests import Composer, compose
from broadsheet.readers.mail import Sender
from broadsheet.readers.sending import Letters

NOW = datetime.now(UTC)
TODAY = NOW.date()
SENDER = Sender("Papers of the lab", "papers@example.org", "https://papers.example.org")


def paper(slug, day=TODAY, **facts):
    return ListedPaper(slug, facts.pop("title", f"On {slug}"), listed=str(day), **facts)


def edition(*papers, standings=(), **more):
    """What a composer asks an edition for; papers trend in the order in which they are given."""
    view = View(
        papers={one.slug: one for one in papers},
        trending=[one.slug for one in papers],
        topics={topic: [one.slug for one in papers if topic in one.topics] for one in papers for topic in one.topics},
        standings=dict(standings),
        **more,
    )
    return SimpleNamespace(view=view)


def follow(store, *addresses, kind="trending", value="", rhythm="daily"):
    """Confirmed subscriptions of a list."""
    row = {"kind": kind, "value": value, "rhythm": rhythm, "state": "active", "made": NOW, "confirmed": NOW, "returned": 0}
    with store.session() as session:
        session.execute(insert(Subscription), [{**row, "address": address} for address in addresses])


def composed(store, of, day=TODAY, now=NOW):
    return compose(store, lambda: Composer(of, SENDER), day, now)


def letters(store):
    return Letters(SENDER, keys.site_key(store))


def states(store):
    """address -> state of its letters, in the order in which they were made."""
    with store.session() as session:
        query = select(Subscription.address, Letter.state).join(Letter, Letter.subscription_id == Subscription.id)
        found = {}
        for address, state in session.execute(query.order_by(Letter.id)):
            found.setdefault(address, []).append(state)
        return found
