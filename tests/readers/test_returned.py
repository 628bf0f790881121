"""Messages that came back, as mail servers write them, and as nobody should."""

import io
import sys
from email.message import EmailMessage

import pytest
from followers import SENDER, edition, follow, letters, paper
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broadsheet.errors import InputError
from broadsheet.lab.store import Store
from broadsheet.readers import keys, subscriptions
from broadsheet.readers.digests import Composer
from broadsheet.readers.lists import Followed
from broadsheet.readers.returned import LARGEST, Returned, read, take_in
from commands import call

KEY = b"k" * 32
ADA, BEN = "ada@example.org", "ben@example.org"


def address(number=1, key=KEY):
    return f"bounces+{number}-{keys.signature(key, 'returned', str(number))}@example.org"


def parts(kind, headers, *bodies):
    """A report of several parts, each (content type, text)."""
    lines = [
        *headers,
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type={kind};\r\n boundary="=_b/1"',
        "",
        "For people.",
    ]
    for content, text in bodies:
        lines += ["--=_b/1", f"Content-Type: {content}", "", text]
    return "\r\n".join([*lines, "--=_b/1--", ""]).encode()


def report(status, action="failed", to=None, original=""):
    """A delivery report as Postfix writes it."""
    headers = [
        "Return-Path: <>",
        "From: MAILER-DAEMON@mx.example.net",
        f"To: {to or address()}",
        "Auto-Submitted: auto-replied",
    ]
    said = [
        "Reporting-MTA: dns; mx.example.net", "Arrival-Date: Sun, 29 Nov 2026 10:00:00 +0000", "",
        "Final-Recipient: rfc822; ada@example.org", f"Action: {action}", f"Status: {status}", "Diagnostic-Code: smtp; 550 no",
    ]  # fmt: skip
    bodies = [
        ("text/plain", "This is the mail system. 550 5.1.1 is of somebody else"),
        ("message/delivery-status", "\r\n".join(said)),
    ]
    return parts("delivery-status", headers, *bodies, *([("message/rfc822", original)] if original else []))


def complaint(kind="abuse", key=KEY):
    """A complaint as RFC 5965 has it; who complains is left out, and the letter itself says whose it is."""
    link = f"https://papers.example.org/unsubscribe/1/{keys.signature(key, 'unsubscribe', '1')}"
    letter = f"From: papers@example.org\r\nTo: redacted@example.net\r\nList-Unsubscribe:\r\n <{link}>\r\n\r\n…"
    said = f"Feedback-Type: {kind}\r\nUser-Agent: Provider/1\r\nVersion: 1\r\n"
    bodies = [("text/plain", "This is an abuse report."), ("message/feedback-report", said), ("message/rfc822", letter)]
    return parts("feedback-report", ["From: feedback@provider.example", "To: abuse@example.org"], *bodies)


def plain(text, **headers):
    made = EmailMessage()
    made["From"], made["To"] = "somebody@example.net", address()
    for name, value in headers.items():
        made[name.replace("_", "-")] = value
    made.set_content(text)
    return made.as_bytes()


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (report("5.1.1"), "5.1.1"),
        (report("5.7.1"), "5.7.1"),
        (report("4.4.7"), "4.4.7"),  # given up after days
        (report("4.4.1", "delayed"), ""),
        (report("2.0.0", "delivered"), ""),
        (report("nonsense"), "4.0.0"),
        (complaint(), "complaint"),
        (complaint("not-spam"), ""),
        (plain("Sorry, I could not deliver it.\n550 5.1.1 <ada@example.org>: no such user"), "5.1.1"),
        (plain("What is this?"), "4.0.0"),
        (plain("I am on holiday. 550 5.1.1", Auto_Submitted="auto-replied (vacation)"), ""),
    ],
)
def test_what_comes_back(raw, status):
    assert read(raw, KEY) == Returned(1, status)
    assert read(raw.replace(b"\r\n", b"\n"), KEY) == Returned(1, status)


def test_a_letter_that_this_site_sent_is_known_again_when_it_is_quoted(home):
    store = Store()
    draft = Composer(edition(paper("news")), SENDER).draft(
        Followed("trending"), "daily", subscriptions.datetime.now().date(), None
    )
    letter = letters(store).preview(draft, 9, 4, ADA)
    raw = report("5.2.2", to="postmaster@example.org", original=letter.as_string())
    assert read(raw, keys.site_key(store)) == Returned(4, "5.2.2")


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"\x00\xff" * 50, b"To: bounces+1@example.org\r\n\r\nx", report("5.1.1", to=address(key=b"x" * 32)),
        report("5.1.1", to=address().replace("+1-", "+2-")), complaint(key=b"x" * 32), b"x" * (LARGEST + 1),
        b"To: " + b"bounces+1-" * 200_000, (b"Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n") * 3000,
        b"Content-Type: message/rfc822\r\n\r\n" * 3000, plain("x").replace(b"bounces+1-", b"bounces+99999999999999999999-"),
    ],
)  # fmt: skip
def test_what_is_none_is_refused_in_a_sentence(raw):
    with pytest.raises(InputError, match="message"):
        read(raw, KEY)


BLOCKS = st.sampled_from([b"\r\n", b"--a", b"Content-Type: ", b"multipart/report; boundary=a", b"message/delivery-status", b"To: ",
                          b"Status: 5.1.1", b"Action: failed", b"=?utf-8?q?", b"\xff", address().encode(), b": ", b"message/rfc822"])  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.one_of(BLOCKS, st.binary(max_size=12)), max_size=40))
def test_no_message_does_harm(pieces):
    try:
        found = read(b"".join(pieces), KEY)
    except InputError:
        return
    assert found.subscription == 1


def addressed(store, number, status, **options):
    return report(status, to=address(number, keys.site_key(store)), **options)


def left(store):
    return sorted(to for kind in ("trending", "verdicts") for _, to in subscriptions.addresses(store, Followed(kind), "daily"))


def test_what_follows(any_home):
    store = Store()
    follow(store, ADA, BEN)
    follow(store, ADA, kind="verdicts")
    assert "Nothing is wrong" in take_in(store, addressed(store, 1, "4.4.1", action="delayed"))
    assert "has ended (5.7.1)" in take_in(store, addressed(store, 3, "5.7.1"))
    assert left(store) == [ADA, BEN]  # of several lists the one
    assert "came back" in take_in(store, addressed(store, 3, "5.7.1"))  # again: it has ended
    for _ in range(4):
        assert "Noted" in take_in(store, addressed(store, 2, "4.2.2"))
    assert "has ended (4.2.2)" in take_in(store, addressed(store, 2, "4.2.2"))
    assert left(store) == [ADA]
    assert not subscriptions.suppressed(store, BEN)
    follow(store, ADA, kind="verdicts")
    assert "has ended (5.1.1)" in take_in(store, addressed(store, 1, "5.1.1"))
    assert left(store) == []  # there is no such mailbox
    assert subscriptions.suppressed(store, ADA)


def test_from_a_pipe_and_a_file(home, tmp_path, monkeypatch):
    store = Store()
    follow(store, ADA)
    file = tmp_path / "returned.eml"
    file.write_bytes(complaint(key=keys.site_key(store)))
    said = call("readers", "returned", file).stdout
    assert "has ended (complaint)" in said
    assert "@" not in said
    assert subscriptions.suppressed(store, ADA)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"hello")))
    assert "no return address" in call("readers", "returned", "-", code=2).stderr
