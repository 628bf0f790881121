"""Letters of digests go out: each once, however the sender, the mail server or the database ends in the middle.

A letter is claimed in the store when all but its last line is with the mail server, which takes nothing before that line: until
then it waits, and goes out at the next try; from then on it is never sent again by itself. What a killed sender had claimed and
not noted as sent may have arrived or not: such letters are kept as `unsure`, and named.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from functools import lru_cache
from typing import Any, TypeVar

from sqlalchemy import Row, event, func, select, text, update

from broadsheet.errors import InputError, StoreError
from broadsheet.lab.people import Issue, Letter, Subscription
from broadsheet.lab.store import Store
from broadsheet.readers import keys, subscriptions
from broadsheet.readers.digests import LINK, Draft
from broadsheet.readers.lists import Followed
from broadsheet.readers.mail import MailError, Post, Sender, letter, one_line

PAUSES = (5, 15, 60, 240, 720)
"""Minutes before a letter that was refused for the time being is tried again; after the last of them it is given up."""

BETWEEN = (1.0, 5.0)
"""Seconds to wait after the mail server failed; when it has failed once more than there are numbers, the others wait."""

MOST_REFUSED = 10
"""Letters given up one after the other: then it is not their addresses, and the others wait."""

STORE_PATIENCE = 300.0
"""Seconds for which the store may be away in the middle."""

SERVER_PAUSE = 15
"""Minutes before a letter is tried again at which the mail server failed twice: it may be the letter."""

STORE_TRIES = 5
"""Times that one letter is begun where the store fails each time."""

AT_ONCE = 200
"""Letters that are read at once."""

NOT_PLAIN = re.compile(r"[^A-Za-z0-9 .,'-]+")
T = TypeVar("T")


@dataclass
class Summary:
    """What became of letters: `unsure` names those of which nobody knows whether they arrived, by number; `failure`: what went
    wrong last, in a sentence; `trouble`: the same where the others wait for that reason."""

    sent: int = 0
    later: int = 0
    refused: int = 0
    ended: int = 0
    unsure: list[int] = field(default_factory=list)
    waiting: int = 0
    failure: str = ""
    trouble: str = ""


class _Taken(Exception):
    """A letter is not this sender's: it has ended, or another one has it."""


class Letters:
    """Makes letters of digests, with the links and addresses that end their subscription."""

    def __init__(self, sender: Sender, key: bytes) -> None:
        self.sender, self.key = sender, key

    def envelope(self, subscription: int) -> str:
        """Where a letter comes back to: an address that says whose it was, and that nobody else can make."""
        signature = keys.signature(self.key, "returned", str(subscription))
        return f"bounces+{subscription}-{signature}@{self.sender.host}"

    def link(self, subscription: int) -> str:
        """The link that ends a subscription; it never expires."""
        return f"{self.sender.url}/unsubscribe/{subscription}/{subscriptions.unsubscribe_signature(self.key, subscription)}"

    def make(
        self, number: int, subscription: int, to: str, followed: Followed, subject: str, words: str, html: str
    ) -> EmailMessage:
        """One copy of a digest: RFC 2369, 2919 and 8058 say what its headers are."""
        url, link = self.sender.url, self.link(subscription)
        foot = f"-- \nYou get this letter because {to} asked for it.\nUnsubscribe: {link}\n"
        headers = {
            "List-Id": f"{one_line(NOT_PLAIN.sub(' ', followed.title), 60)} <{followed.label}.{self.sender.host}>",
            "List-Unsubscribe": f"<{link}>",
            "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
            "List-Archive": f"<{url}{followed.path}>",
            "List-Help": f"<{url}/subscribe>",
            "List-Owner": f"<mailto:{self.sender.address}>",
            "Precedence": "bulk",
        }
        name = f"{number}.{keys.signature(self.key, 'letter', str(number))[:16]}"
        return letter(self.sender, to, subject, f"{words}\n{foot}", html.replace(LINK, link), headers, name)

    def preview(self, draft: Draft, number: int, subscription: int, to: str) -> EmailMessage:
        """A letter of a digest that is not stored."""
        return self.make(number, subscription, to, draft.followed, draft.subject, draft.text, draft.html)


@contextmanager
def only_sender(store: Store) -> Iterator[None]:
    """Holds what one sender of a store has at a time; raises `InputError` where another one has it.

    The system frees it however the sender ends. Senders of other homes on the same PostgreSQL are kept out as well.
    """
    from filelock import FileLock, Timeout

    with ExitStack() as held:
        try:
            held.enter_context(FileLock(store.folder / "digest.lock", timeout=0))
        except Timeout:
            raise InputError("Letters are being sent just now, by another process.") from None
        if store.engine.dialect.name == "postgresql":
            with store.guarded():
                connection = held.enter_context(store.engine.connect())
                if not connection.execute(text("SELECT pg_try_advisory_lock(7023307)")).scalar():
                    raise InputError("Letters are being sent just now, from another home.")
                connection.commit()
                connection.detach()  # closed in the end, and not kept for others, so that the lock goes with it
        yield


def keep_through_power_cuts(store: Store) -> None:
    """Makes SQLite wait for the disk at each commit of this process: else a letter that went out could be forgotten."""
    if store.engine.dialect.name != "sqlite":
        return

    @event.listens_for(store.engine, "connect")
    def wait(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA synchronous = FULL")

    store.engine.dispose()


class Sending:
    """Sends the letters that wait, one after the other."""

    def __init__(
        self,
        store: Store,
        post: Post,
        letters: Letters,
        between: Sequence[float] = BETWEEN,
        patience: float = STORE_PATIENCE,
    ) -> None:
        self.store, self.post, self.letters = store, post, letters
        self._between, self._patience = between, patience
        self._mark = f"by {secrets.token_hex(8)}"
        self._failed = self._refused = 0
        self._issue = lru_cache(maxsize=64)(self._read_issue)

    def run(
        self, told: Callable[[int, int], None] = lambda done, all_: None, stopped: Callable[[], bool] = lambda: False
    ) -> Summary:
        """Sends until nothing that is due waits, the mail server fails, or `stopped` says so."""
        keep_through_power_cuts(self.store)
        with only_sender(self.store):
            summary = Summary(unsure=self._patiently(self._left_behind))
            total, done, last = self._patiently(self._count, due=True), 0, 0
            while not (summary.trouble or stopped()) and (rows := self._patiently(self._next, last)):
                for row in rows:
                    if summary.trouble or stopped():
                        break
                    last = row.id
                    self._send(row, summary)
                    done += 1
                    told(done, total)
            self.post.close()
            summary.waiting = self._patiently(self._count)
            return summary

    def _left_behind(self) -> list[int]:
        """Letters that a killed sender had claimed: kept as `unsure`."""
        with self.store.session() as session:
            left = list(session.scalars(select(Letter.id).where(Letter.state == "handed").order_by(Letter.id)))
            said = "the sender ended in its middle"
            session.execute(
                update(Letter).where(Letter.state == "handed").values(state="unsure", answer=said, changed=datetime.now(UTC))
            )
            return left

    def _count(self, due: bool = False) -> int:
        query = select(func.count()).select_from(Letter).where(Letter.state == "waiting")
        with self.store.session() as session:
            return session.scalar(query.where(Letter.due <= datetime.now(UTC)) if due else query) or 0

    def _next(self, last: int) -> Sequence[Any]:
        """Letters that are due, after the one that was tried last."""
        query = (
            select(Letter.id, Letter.tries, Letter.issue_id, Letter.subscription_id, Subscription.address)
            .join(Subscription, Subscription.id == Letter.subscription_id)
            .where(Letter.state == "waiting", Letter.due <= datetime.now(UTC), Letter.id > last)
        )
        with self.store.session() as session:
            return session.execute(query.order_by(Letter.id).limit(AT_ONCE)).all()

    def _read_issue(self, number: int) -> tuple[Followed, str, str, str] | None:
        query = select(Issue.kind, Issue.value, Issue.subject, Issue.text, Issue.html).where(Issue.id == number)
        with self.store.session() as session:
            row = session.execute(query).one_or_none()
        return (Followed(row.kind, row.value), row.subject, row.text, row.html) if row is not None else None

    def _send(self, row: Row[Any], summary: Summary) -> None:
        """Sends one letter; where the mail server fails, it is tried a second time."""
        issue = self._patiently(self._issue, row.issue_id)
        if issue is None:  # whoever followed has left just now
            return
        message = self.letters.make(row.id, row.subscription_id, row.address, *issue)
        if self._try(row, message, summary) and not summary.trouble and self._try(row, message, summary):
            due = datetime.now(UTC) + timedelta(minutes=SERVER_PAUSE)  # it may be this letter that the server fails at
            self._patiently(self._mark_as, row.id, "waiting", "the mail server failed twice", due=due)

    def _try(self, row: Row[Any], message: EmailMessage, summary: Summary) -> bool:
        """Tries to send a letter and notes what became of it; True where the mail server failed and has not taken it."""
        try:
            answer = self._handed(row, message)
        except _Taken:
            return False
        except MailError as error:
            failed = error.server and not error.unsure
            if failed:
                self._patiently(self._mark_as, row.id, "waiting", str(error))
                self._fail(error, summary)
            else:
                self._patiently(self._note, row, error, summary)
            return failed
        self._failed = self._refused = 0
        summary.sent += 1
        self._patiently(self._mark_as, row.id, "sent", answer)
        return False

    def _handed(self, row: Row[Any], message: EmailMessage) -> str:
        """What the mail server said when it took a letter. Where the store fails before the letter's last line, the server has
        not taken it, whatever the store has kept of the claim: the letter waits again, and is sent when the store is back."""
        for _ in range(STORE_TRIES):
            try:
                return self.post.send(message, self.letters.envelope(row.subscription_id), lambda: self._claim(row.id))
            except StoreError as error:
                failure = error
                self._patiently(self._release, row.id)
        raise failure

    def _claim(self, number: int) -> None:
        """Takes a letter, for good: what follows is its last line."""
        with self.store.session() as session:
            waits = update(Letter).where(Letter.id == number, Letter.state == "waiting")
            values = {"state": "handed", "answer": self._mark, "changed": datetime.now(UTC)}
            if not session.execute(waits.values(**values)).rowcount:  # type: ignore[attr-defined]
                raise _Taken

    def _release(self, number: int) -> None:
        """Lets a letter wait again that was claimed by this sender and not sent."""
        with self.store.session() as session:
            mine = update(Letter).where(Letter.id == number, Letter.state == "handed", Letter.answer == self._mark)
            session.execute(mine.values(state="waiting", answer=""))

    def _mark_as(self, number: int, state: str, answer: str, **more: Any) -> None:
        with self.store.session() as session:
            values = {"state": state, "answer": answer[:200], "changed": datetime.now(UTC), **more}
            session.execute(update(Letter).where(Letter.id == number).values(**values))

    def _note(self, row: Row[Any], error: MailError, summary: Summary) -> None:
        """What is done with a letter that the server refused, or of which it did not say whether it took it."""
        summary.failure = str(error)
        if error.unsure:
            self._mark_as(row.id, "unsure", str(error))
            summary.unsure.append(row.id)
            self._fail(error, summary)
        elif not error.lasting and row.tries < len(PAUSES):
            due = datetime.now(UTC) + timedelta(minutes=PAUSES[row.tries])
            self._mark_as(row.id, "waiting", str(error), tries=row.tries + 1, due=due)
            summary.later += 1
        else:
            self._give_up(row, error, summary)

    def _give_up(self, row: Row[Any], error: MailError, summary: Summary) -> None:
        now = datetime.now(UTC)
        with self.store.session() as session:
            refused = {"state": "refused", "answer": str(error)[:200], "changed": now}
            session.execute(update(Letter).where(Letter.id == row.id).values(**refused))
            status = error.status if error.lasting else ""
            ended = error.to and subscriptions.refused(session, row.subscription_id, self.letters.key, status, now)
        summary.ended += bool(ended)
        summary.refused += 1
        self._refused += 1
        if self._refused >= MOST_REFUSED:
            summary.trouble = f"{MOST_REFUSED} letters one after the other were refused. {error}"

    def _fail(self, error: MailError, summary: Summary) -> None:
        """Waits after a failure of the mail server, longer each time, and then gives up."""
        summary.failure = str(error)
        if self._failed >= len(self._between):
            summary.trouble = str(error)
        else:
            time.sleep(self._between[self._failed])
            self._failed += 1

    def _patiently(self, work: Callable[..., T], *given: Any, **more: Any) -> T:
        """Does something with the store, again and again while that is away, until patience is over."""
        end, pause = time.monotonic() + self._patience, 0.2
        while True:
            try:
                return work(*given, **more)
            except StoreError:
                if time.monotonic() > end:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, 5.0)
