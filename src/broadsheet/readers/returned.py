"""Letters that came back: delivery reports (RFC 3464), complaints (RFC 5965), and anything else sent to a return address.

Whose letter it was says a signature that only this site can make: in the return address that it came to, or in the letter that
is quoted. Nothing else in what comes from outside is believed.
"""

from __future__ import annotations

import email
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from email.policy import compat32

from broadsheet.errors import InputError
from broadsheet.files import MIB
from broadsheet.lab.store import Store
from broadsheet.readers import keys, subscriptions

LARGEST = 2 * MIB
MOST_PARTS = 50
"""Bytes of a message, and parts of it, that are looked at."""

ADDRESS = re.compile(r"bounces\+(\d{1,10})-([0-9a-f]{32})@", re.IGNORECASE)
LINK = re.compile(r"/unsubscribe/(\d{1,10})/([0-9a-f]{32})\b")
STATUS = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})")
PLAIN = re.compile(r"\b55\d[ -](5\.1\.\d)\b")
"""What a report in plain text says of a mailbox that there is not."""

OUTER = ("To", "Delivered-To", "X-Original-To", "Envelope-To", "Cc")
QUOTED = ("Return-Path", "Sender", "List-Unsubscribe", "Errors-To")
"""Headers in which the return address of a letter stands, or its link: of the message, and of the letter in it."""

COMPLAINTS = ("abuse", "fraud", "virus", "other", "opt-out", "opt-out-list")
"""Kinds of feedback that say that somebody wants no letters."""


@dataclass(frozen=True)
class Returned:
    """What came back: of which subscription, and why. `status`: as RFC 3463 has it, `complaint`, or empty where it says nothing
    of the address: a receipt, a delay, an answering machine."""

    subscription: int
    status: str


def read(raw: bytes, key: bytes) -> Returned:
    """What a message that came back says; raises `InputError` where it is none of a letter from this site."""
    if len(raw) > LARGEST:
        raise InputError(f"The message has {len(raw) / MIB:.1f} MiB; at most {LARGEST / MIB:g} MiB are read.")
    try:
        message = email.message_from_bytes(raw, policy=compat32)
        parts = _parts(message)
        return Returned(_whose(message, parts, key), _status(message, parts))
    except (RecursionError, ValueError, LookupError, TypeError, AttributeError):  # what the parser makes of hostile input
        raise InputError("That is no message that can be read.") from None


def take_in(store: Store, raw: bytes) -> str:
    """Reads a message that came back and does what follows from it; returns what was done, in a sentence without an address."""
    found = read(raw, keys.site_key(store))
    if not found.status:
        return f"Nothing is wrong with subscription {found.subscription}."
    if subscriptions.returned(store, found.subscription, found.status):
        return f"Subscription {found.subscription} has ended ({found.status})."
    return f"Noted that a letter of subscription {found.subscription} came back ({found.status})."


def _parts(message: Message) -> list[Message]:
    """The first parts of a message, each behind what holds it."""
    found: list[Message] = []
    left = [message]
    while left and len(found) < MOST_PARTS:
        part = left.pop(0)
        found.append(part)
        inner = part.get_payload()
        if isinstance(inner, list):
            left[:0] = [each for each in inner if isinstance(each, Message)]
    return found


def _whose(message: Message, parts: list[Message], key: bytes) -> int:
    """The subscription that the signatures are of."""
    for purpose, pattern, text in _places(message, parts):
        for number, signature in pattern.findall(text):
            if keys.signed(key, purpose, str(int(number)), signature.lower()):
                return int(number)
    raise InputError("The message bears no return address of this site.")


def _places(message: Message, parts: list[Message]) -> Iterator[tuple[str, re.Pattern[str], str]]:
    for name in OUTER:
        for value in message.get_all(name, []):
            yield "returned", ADDRESS, str(value)[:2000]
    for part in parts[1:]:
        kind = part.get_content_type()
        quoted = part if kind != "text/rfc822-headers" else email.message_from_string(_text(part), policy=compat32)
        for name in QUOTED:
            for value in quoted.get_all(name, []):
                yield "returned", ADDRESS, str(value)[:2000]
                yield "unsubscribe", LINK, re.sub(r"\s", "", str(value)[:2000])


def _text(part: Message) -> str:
    payload = part.get_payload(decode=True)
    return payload[:100_000].decode(errors="replace") if isinstance(payload, bytes) else ""


def _status(message: Message, parts: list[Message]) -> str:
    """Why it came back; the worst of what is said of several recipients, as each letter has one."""
    kind = str(message.get_param("report-type", "")).lower()
    if kind == "feedback-report" or any(part.get_content_type() == "message/feedback-report" for part in parts):
        said = " ".join(_feedback(part) for part in parts if part.get_content_type() == "message/feedback-report")
        return "complaint" if any(word in said.split() for word in COMPLAINTS) else ""
    reports = [part for part in parts if part.get_content_type() == "message/delivery-status"]
    if reports or kind == "delivery-status":
        return max((_delivery(block) for report in reports for block in _blocks(report)), default="")
    if _answered_by_machine(message):
        return ""
    found = PLAIN.search(" ".join(_text(part) for part in parts if part.get_content_maintype() == "text"))
    return found[1] if found else "4.0.0"


def _blocks(report: Message) -> list[Message]:
    inner = report.get_payload()
    return [each for each in inner if isinstance(each, Message)] if isinstance(inner, list) else []


def _delivery(block: Message) -> str:
    """The status of a recipient whose letter failed; empty for what was delivered, is late, or speaks of no recipient."""
    if str(block.get("Action", "")).strip().lower() != "failed":
        return ""
    found = STATUS.search(str(block.get("Status", "")))
    return ".".join(found.groups()) if found and found[1] != "2" else "4.0.0"


def _feedback(part: Message) -> str:
    """The kind of a complaint; the parser has its fields as text, or as a message of their own."""
    inner = part.get_payload()
    fields = inner[0] if isinstance(inner, list) and inner and isinstance(inner[0], Message) else None
    if fields is None:
        fields = email.message_from_string(_text(part), policy=compat32)
    return str(fields.get("Feedback-Type", "")).strip().lower()


def _answered_by_machine(message: Message) -> bool:
    """Whether it is the answer of somebody's answering machine."""
    auto = str(message.get("Auto-Submitted", "no")).strip().lower()
    precedence = str(message.get("Precedence", "")).strip().lower()
    return auto.startswith("auto-replied") or precedence in ("auto_reply", "bulk", "junk") or "X-Autoreply" in message
