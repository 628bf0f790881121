"""Subscriptions: asked for, confirmed by a link, changed, ended; and addresses that get no more letters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, delete, func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from broadsheet.errors import InputError, NotFoundError, StoreError
from broadsheet.lab.people import Account, Issue, Letter, Subscription, Suppressed
from broadsheet.lab.store import Store
from broadsheet.readers import accounts, keys, rates
from broadsheet.readers.accounts import LinkError
from broadsheet.readers.lists import Followed, plain_rhythm

CONFIRM = "confirm"
CONFIRM_LIFE = timedelta(hours=48)
PENDING_LIFE = timedelta(days=7)
"""How long a link to confirm works, and how long an address that was not confirmed is kept."""

KEPT = timedelta(days=60)
"""How long it is kept which letters went out."""

LATEST = timedelta(days=7)
"""How old a digest may be whose letters could not be sent; then they are given up."""

MOST = 100
"""Lists that one address may follow."""

MOST_RETURNED = 5
RETURNED_LIFE = timedelta(days=45)
"""So many letters that came back for a time end a subscription; after so long without one, counting begins anew."""

PER_ADDRESS = rates.Limit("asked for letters", 10, 24 * 3600)


@dataclass(frozen=True)
class Following:
    """A subscription as its reader sees it."""

    id: int
    followed: Followed
    rhythm: str
    since: datetime


def ask(store: Store, address: str, followed: Followed, rhythm: str, now: datetime | None = None) -> str | None:
    """Notes what an address asks for, and returns the token of the link that confirms it; None where it gets no letter: it is
    suppressed, or follows too much already.

    Nothing that the address gets already changes before its link is followed.
    """
    now = now or datetime.now(UTC)
    plain_rhythm(rhythm)
    rates.count(store, PER_ADDRESS, address, now)
    if suppressed(store, address):
        return None
    try:
        number = _row(store, address, followed, rhythm, now)
    except InputError:
        return None
    token, _ = accounts.ask(store, CONFIRM, {"subscription": number, "rhythm": rhythm}, life=CONFIRM_LIFE, now=now)
    return token


def _row(store: Store, address: str, followed: Followed, rhythm: str, now: datetime) -> int:
    """The number of the row of an address and a list; a new one is pending."""
    try:
        with store.session() as session:
            row = _find(session, address, followed)
            if row is None:
                if (session.scalar(select(func.count()).where(Subscription.address == address)) or 0) >= MOST:
                    raise InputError(f"No address follows more than {MOST} lists.")
                row = _new(address, followed, rhythm, now)
                session.add(row)
                session.flush()
            elif row.state == "pending":
                row.rhythm, row.made = rhythm, now
            return row.id
    except StoreError as error:
        if isinstance(error.__cause__, IntegrityError):  # the same at the same moment
            return _row(store, address, followed, rhythm, now)
        raise


def _find(session: Session, address: str, followed: Followed) -> Subscription | None:
    query = select(Subscription).where(
        Subscription.address == address, Subscription.kind == followed.kind, Subscription.value == followed.value
    )
    return session.scalars(query).one_or_none()


def _new(address: str, followed: Followed, rhythm: str, now: datetime) -> Subscription:
    return Subscription(
        address=address, account_id=None, kind=followed.kind, value=followed.value, rhythm=rhythm, state="pending", made=now,
        confirmed=None, returned=0, returned_last=None,
    )  # fmt: skip


def look(store: Store, token: str) -> None:
    """Raises `LinkError` where a link to confirm does not work any more."""
    accounts.look(store, CONFIRM, token)


def confirm(store: Store, token: str, now: datetime | None = None) -> Following:
    """Begins the subscription whose link this is; raises `LinkError` for a link that is unknown, used or too old."""
    now = now or datetime.now(UTC)
    asked = accounts.use(store, CONFIRM, token, now=now)
    with store.session() as session:
        row = session.get(Subscription, asked["subscription"])
        if row is None:
            raise LinkError("This link is too old; ask for a new one.")
        _begin(session, row, asked["rhythm"], now)
        return _shown(row)


def _begin(session: Session, row: Subscription, rhythm: str, now: datetime) -> None:
    row.state, row.rhythm, row.returned, row.returned_last = "active", rhythm, 0, None
    row.confirmed = row.confirmed or now
    owner = accounts.of_address(session, row.address)
    row.account_id = owner.id if owner else None


def follow(store: Store, number: int, followed: Followed, rhythm: str, now: datetime | None = None) -> Following:
    """Begins a subscription of an account at once: its address is confirmed, and asks for letters again if it wanted none."""
    now = now or datetime.now(UTC)
    with store.session() as session:
        address = accounts.account(session, number).address
    if not address:
        raise InputError("Your account has no address yet; give it one first.")
    row_id = _row(store, address, followed, plain_rhythm(rhythm), now)
    key = keys.site_key(store)
    with store.session() as session:
        session.execute(delete(Suppressed).where(Suppressed.digest == keys.signature(key, "suppressed", address)))
        row = session.get(Subscription, row_id)
        if row is None:
            raise NotFoundError("There is no such subscription.")
        _begin(session, row, rhythm, now)
        return _shown(row)


def of_account(store: Store, number: int) -> list[Following]:
    """What an account follows, by title."""
    with store.session() as session:
        rows = session.scalars(select(Subscription).where(_own(session, number), Subscription.state == "active"))
        return sorted((_shown(row) for row in rows), key=lambda one: one.followed.title.casefold())


def addresses(store: Store, followed: Followed, rhythm: str) -> list[tuple[int, str]]:
    """(number, address) of all who follow a list."""
    query = select(Subscription.id, Subscription.address).where(
        Subscription.kind == followed.kind, Subscription.value == followed.value, Subscription.rhythm == rhythm,
        Subscription.state == "active",
    )  # fmt: skip
    with store.session() as session:
        return [(number, address) for number, address in session.execute(query.order_by(Subscription.id))]


def change(store: Store, account: int, number: int, rhythm: str) -> Following:
    """Gives a subscription of an account another rhythm; raises `NotFoundError` where the account has no such one."""
    with store.session() as session:
        row = session.scalars(select(Subscription).where(_own(session, account), Subscription.id == number)).one_or_none()
        if row is None or row.state != "active":
            raise NotFoundError("There is no such subscription.")
        row.rhythm = plain_rhythm(rhythm)
        return _shown(row)


def leave(store: Store, account: int, number: int | None = None) -> int:
    """Ends one subscription of an account, or all; returns how many."""
    with store.session() as session:
        wanted = select(Subscription.id).where(_own(session, account))
        if number is not None:
            wanted = wanted.where(Subscription.id == number)
        return end(session, session.scalars(wanted).all())


def _own(session: Session, number: int) -> ColumnElement[bool]:
    """What belongs to an account: what it follows, and what its confirmed address does."""
    address = session.scalars(select(Account.address).where(Account.id == number)).one_or_none()
    return or_(Subscription.account_id == number, Subscription.address == (address or ""))


def _shown(row: Subscription) -> Following:
    return Following(row.id, Followed(row.kind, row.value), row.rhythm, row.confirmed or row.made)


def end(session: Session, numbers: Sequence[int]) -> int:
    """Ends subscriptions: address and letters go with them, and digests of searches that nobody else follows. Returns how many
    there were."""
    count = 0
    for start in range(0, len(numbers), 500):
        part = numbers[start : start + 500]
        session.execute(delete(Letter).where(Letter.subscription_id.in_(part)))
        count += session.execute(delete(Subscription).where(Subscription.id.in_(part))).rowcount  # type: ignore[attr-defined]
    followed = select(Subscription.value).where(Subscription.kind == "search")
    session.execute(delete(Issue).where(Issue.kind == "search", Issue.value.not_in(followed)))  # somebody's own words
    return count


def unsubscribe_signature(key: bytes, number: int) -> str:
    """What stands behind a subscription's number in the links that end it."""
    return keys.signature(key, "unsubscribe", str(number))


def unsubscribe(store: Store, number: int, every: bool = False, never: bool = False) -> None:
    """Ends a subscription whose link was followed, or all of its address; with `never` the address gets no more letters.

    What has ended already stays so.
    """
    key = keys.site_key(store)
    with store.session() as session:
        row = session.get(Subscription, number)
        if row is None:
            return
        if never:
            _suppress(session, key, row.address, "asked")
        end(session, _of(session, row.address) if every or never else [row.id])


def of_link(store: Store, number: int) -> Followed | None:
    """The list of a subscription whose link was followed; None where it has ended."""
    with store.session() as session:
        row = session.get(Subscription, number)
        return Followed(row.kind, row.value) if row is not None else None


def _of(session: Session, address: str) -> Sequence[int]:
    return session.scalars(select(Subscription.id).where(Subscription.address == address)).all()


def suppress(store: Store, address: str, why: str = "asked") -> int:
    """Ends all of an address and lets nobody ask for letters to it any more; returns how many subscriptions ended."""
    key = keys.site_key(store)
    with store.session() as session:
        _suppress(session, key, address, why)
        return end(session, _of(session, address))


def _suppress(session: Session, key: bytes, address: str, why: str) -> None:
    digest = keys.signature(key, "suppressed", address)
    if session.get(Suppressed, digest) is None:
        session.add(Suppressed(digest=digest, why=why, made=datetime.now(UTC)))


def suppressed(store: Store, address: str) -> bool:
    """Whether an address gets no letters."""
    key = keys.site_key(store)
    with store.session() as session:
        return session.get(Suppressed, keys.signature(key, "suppressed", address)) is not None


def returned(store: Store, number: int, status: str, now: datetime | None = None) -> bool:
    """Notes that a letter came back, by its status (RFC 3463), or `complaint`; returns whether that ended the subscription.

    5.1.x says that there is no such mailbox, and a complaint that nothing is wanted: each ends all that the address follows.
    Other permanent failures end the one subscription, as do several for a time.
    """
    now = now or datetime.now(UTC)
    key = keys.site_key(store)
    with store.session() as session:
        row = session.get(Subscription, number)
        if row is None:
            return False
        if status == "complaint" or no_mailbox(status):
            _suppress(session, key, row.address, "complaint" if status == "complaint" else "bounce")
            return bool(end(session, _of(session, row.address)))
        if status.startswith("5") or _counted(row, now) >= MOST_RETURNED:
            return bool(end(session, [number]))
        return False


def refused(session: Session, number: int, key: bytes, status: str, now: datetime) -> bool:
    """Notes that the mail server did not take an address; returns whether that ended the subscription.

    As servers refuse for many reasons, only one that says that there is no such mailbox counts at once.
    """
    row = session.get(Subscription, number)
    if row is None:
        return False
    if no_mailbox(status):
        _suppress(session, key, row.address, "bounce")
        return bool(end(session, _of(session, row.address)))
    return _counted(row, now) >= MOST_RETURNED and bool(end(session, [number]))


def _counted(row: Subscription, now: datetime) -> int:
    late = row.returned_last is None or row.returned_last < now - RETURNED_LIFE
    row.returned, row.returned_last = (1 if late else row.returned + 1), now
    return row.returned


def no_mailbox(status: str) -> bool:
    """Whether a status says that the address itself is wrong; 5.1.7 and 5.1.8 are of the sender's."""
    return status.startswith("5.1.") and status not in ("5.1.7", "5.1.8")


def forget(store: Store, now: datetime | None = None) -> None:
    """Drops addresses that were not confirmed in time, and what letters went out long ago; gives up what waits too long."""
    now = now or datetime.now(UTC)
    with store.session() as session:
        late = select(Subscription.id).where(Subscription.state == "pending", Subscription.made < now - PENDING_LIFE)
        end(session, session.scalars(late).all())
        old = select(Issue.id).where(Issue.made < now - LATEST)
        waited = update(Letter).where(Letter.state == "waiting", Letter.issue_id.in_(old))
        session.execute(waited.values(state="refused", answer="too old", changed=now))
        session.execute(delete(Letter).where(Letter.state != "waiting", Letter.changed < now - KEPT))
        used = select(Letter.issue_id).distinct()
        session.execute(delete(Issue).where(Issue.made < now - KEPT, Issue.id.not_in(used)))
