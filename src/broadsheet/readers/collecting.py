"""Collections of papers, the list to read later, and marks of papers read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, delete, func, insert, select, update
from sqlalchemy.orm import Session

from broadsheet.errors import InputError, NotFoundError
from broadsheet.lab.people import Account, Collected, Collection, ReadMark
from broadsheet.lab.store import Store
from broadsheet.readers import accounts
from broadsheet.readers.comments import clean
from broadsheet.readers.marks import LATER

MOST_COLLECTIONS, MOST_PAPERS = 200, 2000
LONGEST_TITLE, LONGEST_TEXT, LONGEST_NOTE = 120, 4000, 2000


@dataclass(frozen=True)
class Shelf:
    """A collection as it is shown: whose it is, and its papers in order as (short name, note)."""

    id: int
    owner: int
    owner_name: str
    name: str
    title: str
    text: str
    kind: str
    public: bool
    made: datetime
    changed: datetime
    papers: Sequence[tuple[str, str]] = ()
    count: int = 0

    @property
    def slugs(self) -> list[str]:
        return [slug for slug, _ in self.papers]


def make(store: Store, number: int, title: str, text: str = "", public: bool = False) -> int:
    """A new collection of an account; returns its number. Raises `InputError` for a title that is empty or taken."""
    title, text, name = _checked(title, text)
    now = datetime.now(UTC)
    with store.session() as session:
        accounts.hold(session, number)
        held = list(session.execute(select(Collection.name).where(Collection.account_id == number)).scalars())
        if name in held:
            raise InputError("You have a collection of that title.")
        if len(held) >= MOST_COLLECTIONS:
            raise InputError(f"An account has {MOST_COLLECTIONS} collections at the most.")
        return _new(session, number, name, title, text, "", public, now)


def change(store: Store, number: int, collection: int, title: str, text: str, public: bool) -> None:
    """Changes what a collection of an account is called, says, and whether others see it."""
    title, text, name = _checked(title, text)
    with store.session() as session:
        accounts.hold(session, number)
        found = _own(session, number, collection)
        other = session.scalars(select(Collection.id).where(Collection.account_id == number, Collection.name == name)).first()
        if other not in (None, collection):
            raise InputError("You have a collection of that title.")
        if found.kind == LATER:
            raise InputError("What you read later is for you alone and stays as it is.")
        found.title, found.text, found.name, found.public = title, text, name, public
        found.changed = datetime.now(UTC)


def drop(store: Store, number: int, collection: int) -> None:
    """Deletes a collection of an account; its papers stay on the page."""
    with store.session() as session:
        accounts.hold(session, number)
        found = _own(session, number, collection)
        session.execute(delete(Collected).where(Collected.collection_id == found.id))
        session.delete(found)


def put(store: Store, number: int, collection: int, slug: str, note: str | None = None) -> None:
    """Puts a paper at the end of a collection, or changes its note; without a note, one that is there stays."""
    note = None if note is None else clean(note)
    if note is not None and len(note) > LONGEST_NOTE:
        raise InputError(f"A note has {LONGEST_NOTE} characters at the most.")
    with store.session() as session:
        accounts.hold(session, number)
        _put(session, _own(session, number, collection), slug, note)


def take(store: Store, number: int, collection: int, slug: str) -> None:
    """Takes a paper out of a collection."""
    with store.session() as session:
        accounts.hold(session, number)
        found = _own(session, number, collection)
        session.execute(delete(Collected).where(Collected.collection_id == found.id, Collected.slug == slug))
        found.changed = datetime.now(UTC)


def move(store: Store, number: int, collection: int, slug: str, place: int) -> None:
    """Moves a paper of a collection to a place, counted from 0; those behind it follow."""
    with store.session() as session:
        accounts.hold(session, number)
        found = _own(session, number, collection)
        placed = select(Collected.slug, Collected.place).where(Collected.collection_id == found.id).order_by(Collected.place)
        places = {row.slug: row.place for row in session.execute(placed)}
        order = list(places)
        if slug not in order:
            raise NotFoundError("That paper is not in this collection.")
        order.remove(slug)
        order.insert(min(max(place, 0), len(order)), slug)
        rows = [
            {"collection_id": found.id, "slug": one, "place": position}
            for position, one in enumerate(order)
            if places[one] != position
        ]
        if rows:
            session.execute(update(Collected), rows)
        found.changed = datetime.now(UTC)


def later(store: Store, number: int, slug: str, keep: bool) -> None:
    """Keeps a paper for later, or no longer; each account has one such list, for itself alone."""
    now = datetime.now(UTC)
    with store.session() as session:
        accounts.hold(session, number)
        wanted = select(Collection).where(Collection.account_id == number, Collection.kind == LATER)
        found = session.scalars(wanted).one_or_none()
        if found is None:
            name = "read-later"
            while session.scalars(
                select(Collection.id).where(Collection.account_id == number, Collection.name == name)
            ).first():
                name += "-"
            _new(session, number, name, "Read later", "", LATER, False, now)
            found = session.scalars(wanted).one()
        if keep:
            _put(session, found, slug, None)
        else:
            session.execute(delete(Collected).where(Collected.collection_id == found.id, Collected.slug == slug))
            found.changed = now


def mark_read(store: Store, number: int, slug: str, read: bool) -> None:
    """Marks a paper as read, or takes the mark away."""
    with store.session() as session:
        accounts.hold(session, number)
        there = session.get(ReadMark, (number, slug))
        if read and there is None:
            session.add(ReadMark(account_id=number, slug=slug, made=datetime.now(UTC)))
        elif not read and there is not None:
            session.delete(there)


def of_account(store: Store, number: int) -> list[Shelf]:
    """An account's collections without their papers, the one changed last first."""
    return _listed(store, Collection.account_id == number)


def public(store: Store, most: int = 200) -> list[Shelf]:
    """Collections that everybody may see and that hold something, the one changed last first."""
    held = select(Collected.slug).where(Collected.collection_id == Collection.id).exists()
    return _listed(store, Collection.public & ~Account.blocked & held, most)


def shelf(store: Store, collection: int, number: int | None) -> Shelf:
    """A collection with its papers, for whoever may see it; raises `NotFoundError` for others as for none.

    Those of an account that is blocked are seen by nobody else.
    """
    with store.session() as session:
        query = select(Collection, Account.name, Account.blocked).join(Account, Account.id == Collection.account_id)
        row = session.execute(query.where(Collection.id == collection)).one_or_none()
        if row is None or not ((row[0].public and not row[2]) or row[0].account_id == number):
            raise NotFoundError("There is no such collection.")
        papers = select(Collected.slug, Collected.note).where(Collected.collection_id == collection).order_by(Collected.place)
        return _shelf(row[0], row[1], [(slug, note) for slug, note in session.execute(papers)])


def owner(store: Store, collection: int) -> tuple[int, datetime] | None:
    """Whose a collection is, and since when; None where there is none."""
    query = select(Collection.account_id, Collection.made).where(Collection.id == collection)
    with store.session() as session:
        row = session.execute(query).one_or_none()
        return (row.account_id, row.made) if row is not None else None


def _listed(store: Store, which: ColumnElement[bool], most: int = MOST_COLLECTIONS) -> list[Shelf]:
    query = select(Collection, Account.name).join(Account, Account.id == Collection.account_id).where(which)
    sizes = select(Collected.collection_id, func.count()).group_by(Collected.collection_id)
    with store.session() as session:
        rows = session.execute(query.order_by(Collection.changed.desc(), Collection.id).limit(most)).all()
        wanted = sizes.where(Collected.collection_id.in_([row[0].id for row in rows]))
        counts: dict[int, int] = {row[0]: row[1] for row in session.execute(wanted)}
        return [_shelf(row[0], row[1], (), counts.get(row[0].id, 0)) for row in rows]


def _shelf(row: Collection, owner: str, papers: Sequence[tuple[str, str]], count: int | None = None) -> Shelf:
    return Shelf(
        row.id, row.account_id, owner, row.name, row.title, row.text, row.kind, row.public, row.made, row.changed, papers,
        len(papers) if count is None else count,
    )  # fmt: skip


def _checked(title: str, text: str) -> tuple[str, str, str]:
    title, text = " ".join(clean(title).split()), clean(text)
    name = re.sub(r"[\W_]+", "-", title.casefold()).strip("-")[:80]
    if not name or len(title) > LONGEST_TITLE:
        raise InputError(f"A collection has a title of 1 to {LONGEST_TITLE} characters.")
    if len(text) > LONGEST_TEXT:
        raise InputError(f"What a collection says of itself has {LONGEST_TEXT} characters at the most.")
    return title, text, name


def _own(session: Session, number: int, collection: int) -> Collection:
    found = session.get(Collection, collection)
    if found is None or found.account_id != number:
        raise NotFoundError("There is no such collection.")
    return found


def _new(session: Session, number: int, name: str, title: str, text: str, kind: str, public: bool, now: datetime) -> int:
    made = Collection(
        account_id=number, name=name, title=title, text=text, kind=kind, public=public, made=now, changed=now
    )  # fmt: skip
    session.add(made)
    session.flush()
    return made.id


def _put(session: Session, found: Collection, slug: str, note: str | None) -> None:
    there = session.get(Collected, (found.id, slug))
    if there is not None:
        there.note = there.note if note is None else note
    else:
        counted = select(func.count(), func.max(Collected.place)).where(Collected.collection_id == found.id)
        count, last = session.execute(counted).one()
        if count >= MOST_PAPERS:
            raise InputError(f"A collection holds {MOST_PAPERS} papers at the most.")
        values = {"place": 0 if last is None else last + 1, "note": note or "", "made": datetime.now(UTC)}
        session.execute(insert(Collected).values(collection_id=found.id, slug=slug, **values))
    found.changed = datetime.now(UTC)
