"""What is stored of readers, why, and for how long: one table, by which the page about it is made."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from broadsheet.readers import accounts, keeping, subscriptions


@dataclass(frozen=True)
class Held:
    """Columns of a table that serve one end, separated by spaces: what they hold, why, and until when."""

    table: str
    columns: str
    what: str
    why: str
    until: str


def _span(time: timedelta) -> str:
    if time < timedelta(hours=1):
        return f"{time.seconds // 60} minutes"
    hours = time // timedelta(hours=1)
    return f"{hours} hours" if hours <= 48 and hours != 24 else f"{time.days} day{'s' if time.days > 1 else ''}"


LEAVING = "until you delete your account"
WITH_IT = "until you take it back, or delete your account"
NOBODY = "names nobody"

HELD = (
    Held(
        "accounts",
        "id name key role blocked",
        "your name here, whether you moderate, whether you are shut out",
        "to show who wrote what, and to let you in or not",
        LEAVING,
    ),
    Held(
        "accounts",
        "address",
        "your e-mail address, which no other reader sees",
        "to mail you links to sign in, and letters that you ask for",
        "until you change it or delete your account",
    ),
    Held(
        "accounts",
        "made seen",
        "when you came first and last",
        "votes of new accounts count for less, and you see where you are signed in",
        LEAVING,
    ),
    Held(
        "identities",
        "issuer subject account_id name made",
        "who you are at a provider that you linked (an ORCID)",
        "to sign you in, and to confirm that you are an author",
        "until you remove the link or delete your account",
    ),
    Held(
        "passkeys",
        "id account_id public_key count name made used",
        "the public half of each passkey, its name and last use",
        "to sign you in",
        "until you remove it or delete your account",
    ),
    Held(
        "tokens",
        "digest purpose browser made expires used tries",
        "digests of links that were mailed, and of the browser that asked",
        "each link works once, where it was asked for",
        f"{_span(accounts.LINK)} (to confirm letters {_span(subscriptions.CONFIRM_LIFE)}), and {_span(keeping.TOKENS)} more",
    ),
    Held(
        "tokens",
        "data",
        "what a link is for: an address, a page to come back to",
        "to do it when the link is followed",
        f"as long as the link, and {_span(keeping.TOKENS)} more",
    ),
    Held(
        "sessions",
        "digest account_id agent made seen expires",
        "a digest of each session, what its browser calls itself, first and last use",
        "to keep you signed in, and to let you end it",
        f"until you sign out, {_span(accounts.IDLE)} after its last use, {_span(accounts.SESSION)} at most",
    ),
    Held(
        "api_tokens",
        "digest account_id name scopes made seen expires",
        "a digest of each key of the API, what it may do, last use",
        "to let your programs in",
        f"until you end it, or {_span(keeping.KEYS)} after its time",
    ),
    Held(
        "secrets",
        "name value",
        "the site's own random key",
        "to make links and digests that nobody can forge",
        f"always; it {NOBODY}",
    ),
    Held(
        "rates",
        "key start count",
        "how often something was done, under a keyed digest of the account, address or network address",
        "to stop what is done too often",
        "1 day",
    ),
    Held(
        "subscriptions",
        "id address account_id kind value rhythm state made confirmed returned returned_last",
        "an address, the list that it follows, when that was confirmed, letters that came back",
        "to send what was asked for, and to stop where nobody is",
        f"until you unsubscribe or delete your account; {_span(subscriptions.PENDING_LIFE)} where it is never confirmed",
    ),
    Held(
        "suppressed",
        "digest why made",
        "a keyed digest of an address that wants no letters, or does not exist",
        "to send it none again",
        "always: without it the wish would be forgotten",
    ),
    Held(
        "issues",
        "id kind value rhythm period subject text html known made",
        f"each letter as it was composed; it {NOBODY}",
        "to send the same to all who follow a list",
        f"{_span(subscriptions.KEPT)}",
    ),
    Held(
        "letters",
        "id issue_id subscription_id period state tries due changed answer",
        "which letter went to which subscription, and what the mail server said",
        "so that nobody gets one twice",
        f"{_span(subscriptions.KEPT)}, or until you unsubscribe",
    ),
    Held(
        "votes", "slug account_id made", "what you voted for; others see the number alone", "to show what readers like", WITH_IT
    ),
    Held(
        "notices",
        "slug votes weight comments revision",
        f"numbers of votes and comments of a paper; it {NOBODY}",
        "to show them",
        "as long as the paper",
    ),
    Held(
        "comments",
        "id slug claim parent_id account_id text run reproduced author state made edited",
        "what you wrote, which everybody sees with your name",
        "to discuss papers",
        "until you delete it or your account: then its place stays, without a word and a name",
    ),
    Held(
        "wordings",
        "id comment_id text made",
        "how your comment read before you edited it, for moderators",
        "so that answers keep their sense",
        "as long as the comment",
    ),
    Held(
        "complaints",
        "comment_id account_id reason made outcome",
        "what you reported, for moderators",
        "to look after the discussion",
        "until the comment's author or you delete the account",
    ),
    Held(
        "authorships",
        "account_id slug state words made",
        "which papers you say you wrote, and whether that is confirmed",
        "to mark the authors' answer",
        LEAVING,
    ),
    Held(
        "collections",
        "id account_id name title text kind public made changed",
        "your collections; others see the public ones with your name",
        "to keep papers together",
        "until you delete it or your account",
    ),
    Held(
        "collected",
        "collection_id slug place note made",
        "papers of a collection, and your notes",
        "to keep papers together",
        "until you take them out",
    ),
    Held("read_marks", "account_id slug made", "what you marked as read; nobody else sees it", "to show it to you", WITH_IT),
    Held(
        "submissions",
        "id account_id kind value note state answer made settled",
        "what you brought, and the administrator's answer",
        "to look at it, and to tell you",
        LEAVING,
    ),
)
"""Every column of the tables of readers."""

ELSEWHERE = (
    ("Cookies", "One says which session is yours, one which browser asked for a link. Neither is set for who only reads."),
    ("The log", "A line of a request has the path, without the secret of a link, and the network address; one of a sign-in the "
     "number of the account. The administrator's system says how long it is kept. No address, token or code is in it."),
    ("Letters", "They hold no picture that would tell that they are read, and no link that counts who follows it. The mail "
     "server keeps its own log."),
    ("Backups", "An archive that was made before you left holds what there was; the administrator throws it away in time, "
     "and deletes you again where one is restored."),
    ("Third parties", "Nothing is loaded from elsewhere, and nothing is sent to anybody but the mail server, and to a provider "
     "where you choose to sign in through one."),
)  # fmt: skip
