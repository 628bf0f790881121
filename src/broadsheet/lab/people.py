"""The store's tables of readers: accounts, letters, votes, comments, collections.

Secrets of a site are kept as their SHA-256 alone (tokens, sessions, keys of the API). What belongs to an account goes with it:
rows that bear `account_id` are deleted, or lose it and every word of the account's, when the account is.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Float, ForeignKey, Index, Integer, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from broadsheet.lab.tables import Base, Moment

LONGEST_ADDRESS = 254
"""Characters of an e-mail address (RFC 5321)."""

DIGEST = 64
"""Characters of a SHA-256."""


class Account(Base):
    """A reader. `address` is confirmed, in lower case, None for one who came by a provider and has confirmed none; `key`: the
    name as it is compared; `role`: `reader` or `moderator`. The number of one that has left is never given again."""

    __tablename__ = "accounts"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    address: Mapped[str | None] = mapped_column(String(LONGEST_ADDRESS), unique=True)
    name: Mapped[str] = mapped_column(String(60))
    key: Mapped[str] = mapped_column(String(60), unique=True)
    role: Mapped[str] = mapped_column(String(20), default="reader")
    blocked: Mapped[bool] = mapped_column(default=False)
    made: Mapped[datetime] = mapped_column(Moment)
    seen: Mapped[datetime] = mapped_column(Moment)


class Identity(Base):
    """Who an account is elsewhere, as an OpenID provider has confirmed: an ORCID, a Hugging Face name, a group's own."""

    __tablename__ = "identities"

    issuer: Mapped[str] = mapped_column(String(200), primary_key=True)
    subject: Mapped[str] = mapped_column(String(200), primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"), index=True)
    name: Mapped[str] = mapped_column(String(200))
    made: Mapped[datetime] = mapped_column(Moment)


class Passkey(Base):
    """A public key that signs its account in (WebAuthn)."""

    __tablename__ = "passkeys"

    id: Mapped[str] = mapped_column(String(400), primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"), index=True)
    public_key: Mapped[bytes] = mapped_column(LargeBinary)
    count: Mapped[int] = mapped_column(Integer)
    name: Mapped[str] = mapped_column(String(60))
    made: Mapped[datetime] = mapped_column(Moment)
    used: Mapped[datetime | None] = mapped_column(Moment)


class Token(Base):
    """A link that was mailed, or a step of a sign-in: what it is for, until when, and by which browser it was asked for.

    `purpose`: `sign-in`, `confirm` (a subscription), `address` (a new one of an account), `passkey`, `provider`. Links that end
    a subscription are made with a key of the site instead: each letter has the same one, and it never expires.
    """

    __tablename__ = "tokens"

    digest: Mapped[str] = mapped_column(String(DIGEST), primary_key=True)
    purpose: Mapped[str] = mapped_column(String(20))
    data: Mapped[dict[str, Any]] = mapped_column(JSON)
    browser: Mapped[str] = mapped_column(String(DIGEST), default="")
    made: Mapped[datetime] = mapped_column(Moment)
    expires: Mapped[datetime] = mapped_column(Moment, index=True)
    used: Mapped[datetime | None] = mapped_column(Moment)
    tries: Mapped[int] = mapped_column(Integer, default=0)


class SignIn(Base):
    """A session: one browser in which an account is signed in."""

    __tablename__ = "sessions"

    digest: Mapped[str] = mapped_column(String(DIGEST), primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"), index=True)
    agent: Mapped[str] = mapped_column(String(200))
    made: Mapped[datetime] = mapped_column(Moment)
    seen: Mapped[datetime] = mapped_column(Moment)
    expires: Mapped[datetime] = mapped_column(Moment)


class ApiToken(Base):
    """A key of the API: an account's, for some scopes, separated by spaces."""

    __tablename__ = "api_tokens"

    digest: Mapped[str] = mapped_column(String(DIGEST), primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"), index=True)
    name: Mapped[str] = mapped_column(String(60))
    scopes: Mapped[str] = mapped_column(String(200))
    made: Mapped[datetime] = mapped_column(Moment)
    seen: Mapped[datetime | None] = mapped_column(Moment)
    expires: Mapped[datetime] = mapped_column(Moment)


class Secret(Base):
    """A random key of the site, made when it is first wanted: links and return addresses are made with it."""

    __tablename__ = "secrets"

    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    value: Mapped[str] = mapped_column(String(DIGEST))


class Rate(Base):
    """How often something was done since `start`; the key is a digest of what and by whom."""

    __tablename__ = "rates"

    key: Mapped[str] = mapped_column(String(DIGEST), primary_key=True)
    start: Mapped[datetime] = mapped_column(Moment, index=True)
    count: Mapped[int] = mapped_column(Integer)


class Subscription(Base):
    """A list that an address follows. `kind`: `trending`, `topic`, `search`, `author`, `verdicts`; `value`: which; `rhythm`:
    `daily` or `weekly`; `state`: `pending` until its link is followed, then `active`; `returned`: letters that came back of
    late, `returned_last` the last of them. A number is never given again: links that end a subscription are made of it."""

    __tablename__ = "subscriptions"
    __table_args__ = (UniqueConstraint("address", "kind", "value"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    address: Mapped[str] = mapped_column(String(LONGEST_ADDRESS), index=True)
    account_id: Mapped[int | None] = mapped_column(ForeignKey("accounts.id"), index=True)
    kind: Mapped[str] = mapped_column(String(20))
    value: Mapped[str] = mapped_column(String(400))
    rhythm: Mapped[str] = mapped_column(String(10))
    state: Mapped[str] = mapped_column(String(10), index=True)
    made: Mapped[datetime] = mapped_column(Moment)
    confirmed: Mapped[datetime | None] = mapped_column(Moment)
    returned: Mapped[int] = mapped_column(Integer, default=0)
    returned_last: Mapped[datetime | None] = mapped_column(Moment)


class Suppressed(Base):
    """An address, as a keyed digest, that gets no more letters, and why: `bounce`, `complaint` or `asked`."""

    __tablename__ = "suppressed"

    digest: Mapped[str] = mapped_column(String(DIGEST), primary_key=True)
    why: Mapped[str] = mapped_column(String(20))
    made: Mapped[datetime] = mapped_column(Moment)


class Issue(Base):
    """A digest as it was composed, once for all who follow the same list: subject and content of one period, empty where there
    was nothing to tell. `known`: what the list held then, of which the next one tells what is new."""

    __tablename__ = "issues"
    __table_args__ = (UniqueConstraint("kind", "value", "rhythm", "period"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    kind: Mapped[str] = mapped_column(String(20))
    value: Mapped[str] = mapped_column(String(400))
    rhythm: Mapped[str] = mapped_column(String(10))
    period: Mapped[str] = mapped_column(String(10))
    subject: Mapped[str] = mapped_column(String(200))
    text: Mapped[str] = mapped_column(Text)
    html: Mapped[str] = mapped_column(Text)
    known: Mapped[dict[str, Any]] = mapped_column(JSON)
    made: Mapped[datetime] = mapped_column(Moment)


class Letter(Base):
    """One copy of an issue for one subscription, which gets one a period at the most.

    `state`: `waiting`, `handed` (its last byte goes to the server now), `sent`, `unsure` (the server never said whether it took
    it), `refused`.
    """

    __tablename__ = "letters"
    __table_args__ = (
        UniqueConstraint("subscription_id", "period"),
        Index("ix_letters_state_due", "state", "due"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    issue_id: Mapped[int] = mapped_column(ForeignKey("issues.id"), index=True)
    subscription_id: Mapped[int] = mapped_column(ForeignKey("subscriptions.id"))
    period: Mapped[str] = mapped_column(String(10))
    state: Mapped[str] = mapped_column(String(10))
    tries: Mapped[int] = mapped_column(Integer, default=0)
    due: Mapped[datetime] = mapped_column(Moment)
    changed: Mapped[datetime] = mapped_column(Moment)
    answer: Mapped[str] = mapped_column(String(200), default="")


class Vote(Base):
    """An account's vote for a paper."""

    __tablename__ = "votes"

    slug: Mapped[str] = mapped_column(String(120), primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"), primary_key=True, index=True)
    made: Mapped[datetime] = mapped_column(Moment)


class Notice(Base):
    """What readers made of a paper: votes, their weight in trending, comments. `revision`: of the readers' news at a change."""

    __tablename__ = "notices"

    slug: Mapped[str] = mapped_column(String(120), primary_key=True)
    votes: Mapped[int] = mapped_column(Integer, default=0)
    weight: Mapped[float] = mapped_column(Float, default=0.0)
    comments: Mapped[int] = mapped_column(Integer, default=0)
    revision: Mapped[int] = mapped_column(Integer, index=True)


class Comment(Base):
    """A comment on a paper, or on one of its claims (`claim`), or an answer to a comment (`parent_id`).

    `state`: `shown`, `waiting` (for a moderator), `hidden` (by one), `deleted` (by its author, its text with it). `run`: a link
    to a run that the comment speaks of; `reproduced`: `yes`, `no` or empty, of a claim; `author`: whether a confirmed author of
    the paper wrote it.
    """

    __tablename__ = "comments"
    __table_args__ = (Index("ix_comments_slug_claim", "slug", "claim"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    slug: Mapped[str] = mapped_column(String(120))
    claim: Mapped[str] = mapped_column(String(40), default="")
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("comments.id"), index=True)
    account_id: Mapped[int | None] = mapped_column(ForeignKey("accounts.id"), index=True)
    text: Mapped[str] = mapped_column(Text)
    run: Mapped[str] = mapped_column(String(400), default="")
    reproduced: Mapped[str] = mapped_column(String(10), default="")
    author: Mapped[bool] = mapped_column(default=False)
    state: Mapped[str] = mapped_column(String(10))
    made: Mapped[datetime] = mapped_column(Moment)
    edited: Mapped[datetime | None] = mapped_column(Moment)


class Wording(Base):
    """How a comment read before an edit, for moderators; it goes with the comment."""

    __tablename__ = "wordings"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    comment_id: Mapped[int] = mapped_column(ForeignKey("comments.id"), index=True)
    text: Mapped[str] = mapped_column(Text)
    made: Mapped[datetime] = mapped_column(Moment)


class Complaint(Base):
    """A reader's report of a comment; `outcome` is empty until a moderator has looked."""

    __tablename__ = "complaints"

    comment_id: Mapped[int] = mapped_column(ForeignKey("comments.id"), primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"), primary_key=True, index=True)
    reason: Mapped[str] = mapped_column(String(400))
    made: Mapped[datetime] = mapped_column(Moment)
    outcome: Mapped[str] = mapped_column(String(10), default="")


class Authorship(Base):
    """An account that says it is an author of a paper; `state`: `asked`, `confirmed`, `refused`."""

    __tablename__ = "authorships"

    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    slug: Mapped[str] = mapped_column(String(120), primary_key=True, index=True)
    state: Mapped[str] = mapped_column(String(10))
    words: Mapped[str] = mapped_column(String(400), default="")
    made: Mapped[datetime] = mapped_column(Moment)


class Collection(Base):
    """An account's list of papers. `kind`: empty, or `later` for the one that each account has to read later."""

    __tablename__ = "collections"
    __table_args__ = (UniqueConstraint("account_id", "name"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"), index=True)
    name: Mapped[str] = mapped_column(String(80))
    title: Mapped[str] = mapped_column(String(120))
    text: Mapped[str] = mapped_column(Text, default="")
    kind: Mapped[str] = mapped_column(String(10), default="")
    public: Mapped[bool] = mapped_column(default=False)
    made: Mapped[datetime] = mapped_column(Moment)
    changed: Mapped[datetime] = mapped_column(Moment)


class Collected(Base):
    """A paper of a collection: its place and a note."""

    __tablename__ = "collected"

    collection_id: Mapped[int] = mapped_column(ForeignKey("collections.id"), primary_key=True)
    slug: Mapped[str] = mapped_column(String(120), primary_key=True)
    place: Mapped[int] = mapped_column(Integer)
    note: Mapped[str] = mapped_column(Text, default="")
    made: Mapped[datetime] = mapped_column(Moment)


class ReadMark(Base):
    """A paper that an account has read."""

    __tablename__ = "read_marks"

    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    slug: Mapped[str] = mapped_column(String(120), primary_key=True)
    made: Mapped[datetime] = mapped_column(Moment)


class Submission(Base):
    """What a reader brings: an arXiv identifier (`paper`) or a repository with a `claims.toml` (`repository`).

    `state`: `waiting`, `accepted`, `refused`; `answer`: the administrator's words.
    """

    __tablename__ = "submissions"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"), index=True)
    kind: Mapped[str] = mapped_column(String(20))
    value: Mapped[str] = mapped_column(String(400))
    note: Mapped[str] = mapped_column(String(400), default="")
    state: Mapped[str] = mapped_column(String(10), index=True)
    answer: Mapped[str] = mapped_column(String(400), default="")
    made: Mapped[datetime] = mapped_column(Moment)
    settled: Mapped[datetime | None] = mapped_column(Moment)
