"""From the form to the one-click end: in a browser without JavaScript, with a mail server of this machine."""

import os
import re
import sys
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest
from followers import TODAY, follow
from readership import Browser
from smtp import MailServer
from sqlalchemy import select, update

from broadsheet.cli import serving
from broadsheet.lab.people import Issue, Subscription
from broadsheet.lab.store import Store
from broadsheet.page import Catalogue
from broadsheet.page.facts import Facts
from broadsheet.readers import keys, subscriptions
from broadsheet.readers.lists import Followed
from broadsheet.web.app import create
from broadsheet.web.settings import Settings
from commands import call
from waiting import until

BASE = "http://localhost:8000"
ADA, BEN = "ada@example.org", "ben@example.org"


@pytest.fixture
def store(home):
    made = Store()
    facts = [
        Facts(
            "A fresh paper", arxiv="2611.00001", abstract="We find spikes.", names=("A. One",), published=str(TODAY), upvotes=9
        )
    ]
    Catalogue(made).add("hub", facts, TODAY)
    return made


@pytest.fixture
def server():
    with MailServer() as made:
        yield made


@pytest.fixture
def browser(store, server):
    return Browser(store, None, mail=server.url)


def digest(server, *words, code=0):
    return call(
        "digest", "--mail", server.url, "--mail-from", "papers@example.org", "--url", BASE, "--no-meaning", *words, code=code
    )


def rows(store):
    with store.session() as session:
        found = list(session.scalars(select(Subscription).order_by(Subscription.id)))
        session.expunge_all()
        return found


def link_in(message):
    return re.search(rf"{BASE}(/confirm/[\w-]+)", message.get_body(("plain",)).get_content())[1]


def subscribe(browser, server, address=ADA, **data):
    assert browser.post("/subscribe", data={"address": address, **data}).status_code == 200
    return link_in(server.mailbox.to(address.strip().lower())[-1])


def test_subscribe_confirm_read_and_leave_by_one_click(browser, server, store, client_of_nobody):
    assert "Get trending papers by mail" in browser.get("/").text
    link = subscribe(browser, server, " Ada@Example.org", kind="trending", rhythm="daily")
    digest(server)
    assert len(server.mailbox.taken) == 1  # nothing before it is confirmed
    assert client_of_nobody.get(link).status_code == client_of_nobody.get(link).status_code == 200
    assert rows(store)[0].state == "pending"
    done = client_of_nobody.post(link, headers={"origin": BASE})  # another browser than the one that asked
    assert done.status_code == 200
    assert "Trending papers" in done.text
    assert client_of_nobody.post(link, headers={"origin": BASE}).status_code == client_of_nobody.get(link).status_code == 410

    assert "New letters: 1, of digests: 1" in digest(server).stdout
    assert "Letters: 0 sent" in digest(server).stdout
    _, message = server.mailbox.to(ADA)
    assert message["Subject"] == "Trending papers: A fresh paper"
    path = message["List-Unsubscribe"].strip().strip("<>").removeprefix(BASE)
    page = client_of_nobody.get(path)
    assert page.status_code == 200
    assert "Trending papers" in page.text
    assert rows(store)
    for how in ({"data": {"List-Unsubscribe": "One-Click"}}, {"files": {"List-Unsubscribe": (None, "One-Click")}}):
        answer = client_of_nobody.post(path, **how)
        assert answer.status_code == 200
        assert not {"location", "set-cookie"} & set(answer.headers)
        assert rows(store) == []
    assert client_of_nobody.get(path).status_code == 200


@pytest.fixture
def client_of_nobody(store, server):
    """Whoever has a link: a mail program, without cookies, origin and session."""
    from fastapi.testclient import TestClient

    settings = Settings(readers=True, meaning=False, mail=server.url, sender="papers@example.org")
    with TestClient(create(settings, store), base_url=BASE, follow_redirects=False) as made:
        yield made


def test_links_that_are_not_ours_are_all_answered_alike(browser, store, server):
    follow(store, ADA, BEN)
    good = subscriptions.unsubscribe_signature(keys.site_key(store), 1)
    wrong = [
        f"/unsubscribe/2/{good}", f"/unsubscribe/1/{good[:-1]}", f"/unsubscribe/01/{good}", f"/unsubscribe/{10**30}/{good}",
        f"/unsubscribe/1/{good.upper()}x", "/unsubscribe/1/é", f"/unsubscribe/٣/{good}", "/unsubscribe/x/y",
    ]  # fmt: skip
    answers = [browser.request(method, path) for path in wrong for method in ("GET", "POST")]
    assert {answer.status_code for answer in answers} == {404}
    assert len({re.search(r"<main.*</main>", answer.text, re.DOTALL)[0] for answer in answers}) == 1
    assert len(rows(store)) == 2
    body = b"--x\r\nContent-Disposition: form-data; name=a; filename=b\r\n\r\n" + b"y" * 2000
    headers = {"content-type": "multipart/form-data; boundary=x", "origin": "https://mail.example"}
    assert browser.post(f"/unsubscribe/1/{good}", content=body, headers=headers).status_code == 200  # the link says enough
    assert [row.address for row in rows(store)] == [BEN]


def test_leaving_all_lists_for_ever(browser, server, store):
    follow(store, ADA)
    follow(store, ADA, kind="verdicts")
    follow(store, BEN)
    link = f"/unsubscribe/1/{subscriptions.unsubscribe_signature(keys.site_key(store), 1)}"
    assert "Unsubscribe from all lists" in browser.get(link).text
    assert browser.post(link, data={"all": "yes", "never": "yes"}).status_code == 200
    assert [row.address for row in rows(store)] == [BEN]
    before = browser.post("/subscribe", data={"address": "cy@example.org"}).text.replace("cy@example.org", "")
    after = browser.post("/subscribe", data={"address": ADA}).text.replace(ADA, "")
    assert before == after  # whoever asks learns nothing, and no letter goes out
    assert not server.mailbox.to(ADA)


def test_the_same_answer_for_known_and_unknown_addresses(browser, server, store):
    follow(store, ADA)
    answers = {browser.post("/subscribe", data={"address": to}).text.replace(to, "") for to in (ADA, BEN)}
    assert len(answers) == 1
    assert len(server.mailbox.to(ADA)) == len(server.mailbox.to(BEN)) == 1
    before = rows(store)[0]
    browser.post(link_in(server.mailbox.to(ADA)[0]))
    assert rows(store)[0].confirmed == before.confirmed  # it was confirmed long ago
    assert [row.state for row in rows(store)] == ["active", "pending"]


def test_what_the_form_refuses(browser, store, server):
    for data, code in (
        ({"address": "x"}, 422), ({"address": "a@b.example\r\nBcc: c@d.example"}, 422), ({"address": ADA, "rhythm": "hourly"}, 422),
        ({"address": ADA, "kind": "topic", "value": "none such"}, 404), ({"address": ADA, "kind": "search", "value": "q="}, 422),
        ({"address": ADA, "kind": "all"}, 422), ({"address": ADA, "state": "active"}, 200),
    ):  # fmt: skip
        assert browser.post("/subscribe", data=data).status_code == code, data
    assert [row.state for row in rows(store)] == ["pending"]
    assert browser.post("/subscribe", data={"address": BEN}, headers={"origin": "https://evil.example"}).status_code == 403
    codes = [browser.post("/subscribe", data={"address": ADA}).status_code for _ in range(6)]
    assert codes[0] == 200
    assert codes[-1] == 429
    with Browser(store, None, mail="", sender="") as without:
        assert without.post("/subscribe", data={"address": BEN}).status_code == 503
        assert "by mail" not in without.get("/").text


def test_a_site_without_readers_has_none_of_it(store):
    from fastapi.testclient import TestClient

    with TestClient(create(Settings(meaning=False), store), base_url=BASE) as made:
        assert made.get("/subscribe").status_code == made.post("/unsubscribe/1/x").status_code == 404
        assert not [path for path in ("/", "/verdicts", "/trending") if "by mail" in made.get(path).text]


def test_nobody_writes_to_others_through_the_form(browser, server):
    """The first letter has no word that whoever asks has typed."""
    words = "Win\x00 now\r\nat https://spam.example"
    search = "q=" + quote(words) + "&x=1" * 100
    assert browser.post("/subscribe", data={"address": BEN, "kind": "search", "value": search}).status_code == 200
    (letter,) = server.mailbox.to(BEN)
    assert "spam" not in letter.as_string()
    assert "Papers that a search finds" in letter.get_content()


def test_addresses_that_were_not_confirmed_are_forgotten(browser, server, store):
    link = subscribe(browser, server)
    subscriptions.forget(store, datetime.now(UTC) + timedelta(days=6))
    assert len(rows(store)) == 1
    subscriptions.forget(store, datetime.now(UTC) + timedelta(days=8))
    assert rows(store) == []
    assert browser.post(link).status_code == 410
    with pytest.raises(subscriptions.LinkError):
        subscriptions.confirm(
            store, subscribe(browser, server).removeprefix("/confirm/"), datetime.now(UTC) + timedelta(days=3)
        )


def test_a_number_is_never_given_twice(any_home):
    """An old link must not end what somebody else follows."""
    store = Store()
    follow(store, ADA)
    first = subscriptions.addresses(store, Followed("trending"), "daily")[0][0]
    subscriptions.unsubscribe(store, first)
    follow(store, BEN)
    assert subscriptions.addresses(store, Followed("trending"), "daily")[0][0] != first


def test_an_account_changes_and_ends_what_it_gets(store, letters):
    follow(store, BEN)
    ada = Browser(store, letters, ADA)
    page = ada.get("/subscribe?kind=author&value=a.+one").text
    assert "Papers of A. One" in page
    assert 'action="/account/subscriptions"' in page
    assert ada.post("/account/subscriptions", data={"kind": "author", "value": "A. One", "rhythm": "weekly"}).status_code == 303
    assert ada.post("/account/subscriptions", data={"kind": "trending"}).status_code == 303
    assert "Papers of A. One" in ada.get("/account/subscriptions").text
    mine = [row for row in rows(store) if row.address == ADA]
    assert {(row.kind, row.rhythm, row.state) for row in mine} == {
        ("author", "weekly", "active"),
        ("trending", "daily", "active"),
    }
    assert ada.post(f"/account/subscriptions/{mine[0].id}", data={"rhythm": "daily"}).status_code == 303
    assert ada.post(f"/account/subscriptions/{mine[0].id}", data={"rhythm": "x"}).status_code == 422
    assert ada.post("/account/subscriptions/1", data={"rhythm": "weekly"}).status_code == 404  # somebody else's
    ada.post("/account/subscriptions/1/end")
    assert rows(store)[0].address == BEN
    assert rows(store)[0].rhythm == "daily"
    assert ada.post(f"/account/subscriptions/{mine[0].id}/end").status_code == 303
    assert ada.post("/account/subscriptions/all/end", headers={"origin": "https://evil.example"}).status_code == 403
    assert ada.post("/account/subscriptions/all/end").status_code == 303
    assert [row.address for row in rows(store)] == [BEN]
    nobody = Browser(store, letters)
    assert nobody.get("/account/subscriptions").headers["location"].startswith("/sign-in")


def test_the_same_over_the_api(store, letters):
    from broadsheet.readers import accounts

    ada = Browser(store, letters, ADA)
    follow(store, BEN)
    number = accounts.by_session(store, ada.cookies["reader"]).id
    secrets = {scope: accounts.new_token(store, number, "x", [scope]) for scope in ("read", "subscriptions")}
    api = Browser(store, letters)

    def ask(method, path="", scope="subscriptions", **options):
        return api.request(
            method, f"/api/v1/me/subscriptions{path}", headers={"authorization": f"Bearer {secrets[scope]}"}, **options
        )

    made = ask("POST", json={"kind": "search", "value": "q=spikes&junk=1", "rhythm": "weekly"})
    assert made.status_code == 201
    assert (made.json()["value"], made.json()["title"]) == ("q=spikes", "Papers that “spikes” finds")
    own = made.json()["id"]
    assert [one["id"] for one in ask("GET", scope="read").json()] == [own]
    assert ask("GET").status_code == ask("POST", scope="read", json={"kind": "trending"}).status_code == 403
    assert ask("PATCH", f"/{own}", json={"rhythm": "daily"}).json()["rhythm"] == "daily"
    assert ask("PATCH", "/1", json={"rhythm": "weekly"}).status_code == ask("DELETE", "/1").status_code == 404
    assert ask("DELETE", f"/{own}").status_code == 204
    assert ask("DELETE", f"/{own}").status_code == 404
    assert api.get("/api/v1/me/subscriptions").status_code == 401
    assert [row.address for row in rows(store)] == [BEN]


def test_a_suppressed_address_that_signs_in_may_ask_again(store, letters):
    follow(store, ADA)
    assert "1 subscription ended" in call("readers", "suppress", "Ada@example.org").stdout
    assert rows(store) == []
    assert subscriptions.suppressed(store, ADA)
    ada = Browser(store, letters, ADA)
    ada.post("/account/subscriptions", data={"kind": "trending"})
    assert [row.state for row in rows(store)] == ["active"]
    assert not subscriptions.suppressed(store, ADA)


def test_the_words_of_a_search_go_with_who_followed_it(store, server):
    follow(store, ADA, kind="search", value="q=spikes")
    digest(server)
    with store.session() as session:
        assert session.scalars(select(Issue.value)).all() == ["q=spikes"]
    subscriptions.unsubscribe(store, 1)
    with store.session() as session:
        assert session.scalars(select(Issue.value)).all() == []


def test_a_dry_run_writes_files_and_stores_nothing(store, server, tmp_path):
    follow(store, ADA, BEN)
    said = digest(server, "--dry-run", tmp_path / "out").stdout
    assert ": 2; nothing was sent" in said
    assert len(list((tmp_path / "out").glob("*.eml"))) == 2
    assert not server.mailbox.taken
    assert "Letters: 2 sent" in digest(server).stdout


def test_a_site_sends_digests_from_an_hour_on_until_all_is_sent(monkeypatch, tmp_path):
    monkeypatch.setattr(serving, "AGAIN", 0.01)
    log = tmp_path / "log"
    script = f"import sys; f = open({str(log)!r}, 'a+'); f.write('x'); f.seek(0); sys.exit(len(f.read()) < 3)"
    early, late = datetime(2026, 11, 29, 6, 59, tzinfo=UTC), datetime(2026, 11, 29, 7, 0, tzinfo=UTC)
    made = serving._Digests(7)
    assert [made.due(early), made.due(late)] == [False, True]
    made = serving._Digests(0)
    made.start(([sys.executable, "-c", script], dict(os.environ)))
    until(lambda: made._done)
    made.stop()
    assert log.read_text() == "xxx"  # twice letters had to wait
    assert not made.due(datetime.now(UTC))
    assert "Digests need --readers" in call("serve", "--digest-hour", "7", code=2).stderr


def test_what_a_digest_needs_is_said(store, server):
    assert "--url and --mail-from" in call("digest", "--mail", server.url, code=2).stderr
    words = ("--mail-from", "papers@example.org", "--url", BASE)
    assert "--mail, or --dry-run" in call("digest", *words, code=2).stderr
    assert "no date" in digest(server, "--day", "tomorrow", code=2).stderr
    follow(store, ADA)
    stopped = call("digest", "--mail", "smtp://127.0.0.1:1", *words, "--no-meaning", code=1)
    assert "1 wait" in stopped.stdout
    assert "cannot be used" in stopped.stderr
    with store.session() as session:
        session.execute(update(subscriptions.Letter).values(due=subscriptions.Letter.changed))
    assert "Letters: 1 sent" in digest(server).stdout
