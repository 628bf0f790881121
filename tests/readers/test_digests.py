"""What a digest tells, and of what its letters are made, read by the standard library's parser."""

from datetime import timedelta
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
from followers import NOW, SENDER, TODAY, composed, edition, follow, letters, paper, states
from sqlalchemy import select

from broadsheet.errors import InputError
from broadsheet.lab.people import Issue
from broadsheet.lab.store import Store
from broadsheet.readers.digests import MOST, Composer
from broadsheet.readers.lists import Followed, followed


class Tags(HTMLParser):
    """Elements of a page, and where they lead."""

    def __init__(self, text):
        super().__init__()
        self.names, self.places = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.names.append(tag)
        self.places += [value for name, value in attributes if name in ("href", "src", "background", "action", "data")]


def draft(of, kind="trending", value="", rhythm="daily", before=None, day=TODAY):
    return Composer(of, SENDER).draft(Followed(kind, value), rhythm, day, before)


def issue(store, rhythm="daily"):
    with store.session() as session:
        found = session.scalars(select(Issue).where(Issue.rhythm == rhythm).order_by(Issue.id.desc())).first()
        session.expunge_all()
        return found


def test_each_paper_is_told_once_whenever_it_comes(home):
    store = Store()
    follow(store, "ada@example.org")
    old = [paper("old", TODAY - timedelta(days=5)), paper("yesterday", TODAY - timedelta(days=1)), paper("today")]
    composed(store, edition(*old), TODAY - timedelta(days=1))
    first = issue(store).text
    assert "On yesterday" in first
    assert "On old" not in first
    assert "On today" not in first
    late = paper("late", TODAY - timedelta(days=3))
    composed(store, edition(*old, late))
    second = issue(store).text
    assert second.index("On today") < second.index("On late")  # as they trend
    assert "On yesterday" not in second
    assert "On old" not in second
    follow(store, "ben@example.org")
    again = composed(store, edition(*old, late, paper("later")))
    assert (again.letters, issue(store).text) == (1, second)  # a digest stays as it is, and comes to whoever follows since
    assert states(store) == {"ada@example.org": ["waiting", "waiting"], "ben@example.org": ["waiting"]}


def test_nothing_new_is_no_letter(home):
    store = Store()
    follow(store, "ada@example.org")
    assert composed(store, edition(paper("old", TODAY - timedelta(days=40)))).letters == 0
    assert issue(store).text == ""
    assert states(store) == {}


def test_a_weekly_letter_comes_once_a_week(home):
    store = Store()
    monday = TODAY - timedelta(days=TODAY.weekday() + 7)
    follow(store, "ada@example.org", rhythm="weekly")
    papers = [paper(f"p{k}", monday - timedelta(days=6 - k)) for k in range(14)]
    counts = [composed(store, edition(*papers), monday + timedelta(days=k)).letters for k in range(8)]
    assert counts == [1, 0, 0, 0, 0, 0, 0, 1]
    told = issue(store, "weekly").text
    assert [k for k in range(14) if f"On p{k}\n" in told] == list(range(7, 14))


def test_lists_hold_what_their_pages_hold(home):
    one, two = paper("one", topics=["spikes"], names=["A. One"]), paper("two", topics=["waves"])
    of = edition(one, two, authors={"a. one": ("A. One", ["one"])})
    of.search = lambda query, filters, most: SimpleNamespace(
        slugs=["two"] if (query, filters.topic) == ("wave", "waves") else []
    )
    assert "On two" not in draft(of, "topic", "spikes").text
    assert "On one" in draft(of, "topic", "spikes").text
    assert draft(of, "author", "A. One").subject == "Papers of A. One: On one"
    search = followed(of.view, "search", "number=3&topic=waves&q=wave&since=&junk=1")
    assert search == Followed("search", "q=wave&topic=waves")
    assert "On two" in draft(of, search.kind, search.value).text
    assert draft(of, "topic", "gone").text == ""
    for kind, value in (("topic", "gone"), ("author", "nobody"), ("search", ""), ("search", "since=x"), ("nonsense", "")):
        with pytest.raises(InputError):
            followed(of.view, kind, value)
    with pytest.raises(InputError, match="too long"):
        followed(of.view, "search", "q=" + "ü" * 100)


def claim(name, verdict, leaning=None, kind="paper"):
    return SimpleNamespace(
        claim=SimpleNamespace(id=name, kind=kind, statement=f"Claim {name} is true"), verdict=verdict, leaning=leaning
    )


def test_changed_verdicts_are_told_and_code_that_changed_is_none():
    def of(*claims):
        return edition(paper("elm"), standings={"elm": SimpleNamespace(claims=claims, counts={})})

    first = draft(
        of(claim("C1", "holds"), claim("C2", "fails"), claim("C3", None), claim("X1", "holds", kind="check")), "verdicts"
    )
    assert first.text == ""
    changes = of(
        claim("C1", "stale", "holds"), claim("C2", "vacuous"), claim("C3", "holds"), claim("X1", "fails", kind="check")
    )
    second = draft(changes, "verdicts", before=first.known)
    assert "2 claims since the last letter" in second.text
    assert "C2: fails → vacuous" in second.text
    assert "C3: not run → holds" in second.text
    assert "Claim C1" not in second.text
    assert f"{SENDER.url}/papers/elm#C2" in second.text
    assert draft(of(claim("C2", None)), "verdicts", before=second.known).text == ""  # what was not run here says nothing


def test_a_long_list_is_cut_and_says_so():
    made = draft(edition(*(paper(f"p{k}") for k in range(25))))
    assert made.text.count(f"{SENDER.url}/papers/") == MOST["daily"]
    assert f"15 more: {SENDER.url}/trending" in made.text


HOSTILE = 'Bold\r\nBcc: eve@example.org <img src="https://t.example/x.gif" onerror=alert(1)> <!--unsubscribe--> \u2028.\u202e'


def test_a_letter_is_what_mail_programs_expect(home):
    store = Store()
    made = draft(edition(paper("bad", title=HOSTILE, abstract=HOSTILE, names=[HOSTILE], topics=[HOSTILE])), "topic", HOSTILE)
    message = letters(store).preview(made, 7, 3, "ada@example.org")
    raw = message.as_bytes()
    assert all(len(line) <= 998 for line in raw.split(b"\r\n"))
    assert b"\n" not in raw.replace(b"\r\n", b"")
    for name in (
        "From",
        "To",
        "Subject",
        "Date",
        "Message-ID",
        "List-Id",
        "List-Unsubscribe",
        "List-Unsubscribe-Post",
        "List-Archive",
    ):
        assert len(message.get_all(name)) == 1, name
    assert message["Bcc"] is None
    assert b"\nBcc" not in raw.partition(b"\r\n\r\n")[0]
    link = message["List-Unsubscribe"].strip().strip("<>")
    assert link.startswith("https://papers.example.org/unsubscribe/3/")
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert (message["Auto-Submitted"], message["Precedence"]) == ("auto-generated", "bulk")
    assert message["List-Id"].endswith("example.org>")
    assert message["List-Id"].count("<topic-") == 1
    assert message["Message-ID"] == letters(store).preview(made, 7, 3, "ada@example.org")["Message-ID"]
    assert message["Message-ID"] != letters(store).preview(made, 8, 3, "ada@example.org")["Message-ID"]
    text, html = (message.get_body((kind,)).get_content() for kind in ("plain", "html"))
    assert link in text
    assert link in html
    assert max(map(len, text.splitlines())) < 200
    tags = Tags(html)
    assert not {"img", "script", "link", "iframe", "form", "object", "svg"} & set(tags.names)
    assert all(place.startswith(SENDER.url + "/") for place in tags.places)
    assert tags.places.count(link) == 1


def test_days_to_come_and_long_gone_have_no_digest(home):
    for day in (TODAY + timedelta(days=1), TODAY - timedelta(days=60)):
        with pytest.raises(InputError, match="There are digests for today"):
            composed(Store(), edition(), day, NOW)
