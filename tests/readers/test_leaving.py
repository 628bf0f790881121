"""An account's address, export and deletion; the administrator's commands; what is kept, and for how long."""

import json
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from readership import mails
from sqlalchemy import LargeBinary, delete, select, update

from broadsheet.errors import InputError
from broadsheet.lab import people
from broadsheet.lab.backup import backup, restore
from broadsheet.lab.people import (
    Account,
    ApiToken,
    Authorship,
    Collected,
    Collection,
    Comment,
    Complaint,
    Identity,
    Issue,
    Letter,
    Notice,
    Passkey,
    Rate,
    ReadMark,
    SignIn,
    Submission,
    Subscription,
    Suppressed,
    Token,
    Vote,
    Wording,
)
from broadsheet.lab.store import Store
from broadsheet.lab.tables import Base
from broadsheet.readers import accounts, keeping, leaving, notices, privacy, providers, rates, subscriptions
from broadsheet.readers.lists import Followed
from commands import call

ADA, BOB = "ada@example.org", "bob@example.org"
NAME = "Ada Quillfeather"
NOW = datetime.now(UTC)


def fill(store, number, other):
    """Something of an account in every table, and of another beside it."""
    with store.session() as session:
        issue = Issue(
            kind="trending", value="", rhythm="daily", period="2026-01-01", subject="s", text="t", html="h", known={}, made=NOW
        )
        first = Subscription(
            address=ADA, account_id=number, kind="trending", value="", rhythm="daily", state="active", made=NOW, returned=0
        )
        second = Subscription(
            address=ADA, account_id=None, kind="topic", value="x", rhythm="daily", state="pending", made=NOW, returned=0
        )
        theirs = Subscription(
            address=BOB, account_id=other, kind="trending", value="", rhythm="daily", state="active", made=NOW, returned=0
        )
        mine = Comment(
            slug="hlop", account_id=number, text=f"{NAME} says so", run=f"https://example.org/{NAME}", state="shown", made=NOW
        )
        session.add_all([issue, first, second, theirs, mine])
        session.flush()
        reply = Comment(slug="hlop", account_id=other, parent_id=mine.id, text="an answer", state="shown", made=NOW)
        shelf = Collection(account_id=number, name="n", title=f"of {NAME}", text=NAME, made=NOW, changed=NOW)
        session.add_all([reply, shelf])
        session.flush()
        session.add_all(
            [
                Letter(
                    issue_id=issue.id,
                    subscription_id=first.id,
                    period="2026-01-01",
                    state="sent",
                    due=NOW,
                    changed=NOW,
                    answer=f"250 {ADA}",
                ),
                Wording(comment_id=mine.id, text=f"{NAME} said", made=NOW),
                Complaint(comment_id=reply.id, account_id=number, reason=NAME, made=NOW),
                Complaint(comment_id=mine.id, account_id=other, reason=f"{NAME} is rude", made=NOW),
                Collected(collection_id=shelf.id, slug="hlop", place=1, note=NAME, made=NOW),
                Vote(slug="hlop", account_id=number, made=NOW),
                Vote(slug="hlop", account_id=other, made=NOW),
                ReadMark(account_id=number, slug="hlop", made=NOW),
                Authorship(account_id=number, slug="hlop", state="asked", words=NAME, made=NOW),
                Submission(account_id=number, kind="paper", value="2402.11984", note=NAME, state="waiting", made=NOW),
                Identity(issuer="https://orcid.org", subject="0000", account_id=number, name=NAME, made=NOW),
                Passkey(id="k", account_id=number, public_key=b"k", count=0, name=NAME, made=NOW),
            ]
        )
        notices.recount(session, ["hlop"])
    accounts.new_token(store, number, NAME, ["read"])
    accounts.ask(store, "sign-in", {"address": ADA, "next": "/"})
    leaving.ask_for_address(store, number, "new@example.org")
    leaving.ask_for_address(store, other, ADA)


def everything(store):
    """Every column of every row of the whole database, as text."""
    with store.engine.connect() as connection:
        for table in Base.metadata.sorted_tables:
            for row in connection.execute(select(table)).mappings():
                for name, value in row.items():
                    text = (
                        value.decode("latin-1")
                        if isinstance(table.c[name].type, LargeBinary) and value
                        else json.dumps(value, default=str)
                    )
                    yield f"{table.name}.{name}: {text}"


def found(store, *words):
    return [line for line in everything(store) if any(word.casefold() in line.casefold() for word in words)]


@pytest.fixture
def both(site, letters):
    """Two signed-in readers, and something of theirs in every table."""
    ada = site(address=ADA)
    bob = site(address=BOB, app=ada.app)
    ada.post("/account/name", data={"name": NAME})
    store = Store()
    fill(store, 1, 2)
    return ada, bob, store


def test_a_deleted_account_leaves_nothing(both):
    ada, bob, store = both
    assert {line.split(".")[0] for line in found(store, ADA, "quillfeather")} >= {
        "accounts", "subscriptions", "tokens", "comments", "wordings", "complaints", "collections", "collected", "authorships",
        "submissions", "identities", "passkeys", "api_tokens", "letters",
    }  # fmt: skip
    key = ada.post("/account/keys", data={"name": "k", "scope": "read"}).text.split("<code>")[1].split("</code>")[0]
    answer = ada.post("/account/delete", data={"name": "quillfeather"})
    assert answer.status_code == 422
    assert found(store, ADA)
    answer = ada.post("/account/delete", data={"name": NAME.lower()})
    assert answer.status_code == 200
    assert "Your account is deleted" in answer.text
    assert found(store, ADA, "quillfeather") == []
    with store.session() as session:
        for table in Base.metadata.tables.values():
            for column in table.c:
                if any(one.column.table.name == "accounts" for one in column.foreign_keys):
                    assert 1 not in session.scalars(select(column)).all(), table.name
        place = session.scalars(select(Comment).where(Comment.account_id.is_(None))).one()
        assert (place.text, place.run, place.state) == ("", "", "deleted")
        assert session.scalars(select(Comment.parent_id).where(Comment.account_id == 2)).one() == place.id
        notice = session.get(Notice, "hlop")
        assert (notice.votes, notice.comments) == (1, 1)
    assert ada.get("/account").status_code == 303
    assert ada.get("/api/v1/papers", headers={"authorization": f"Bearer {key}"}).status_code == 401
    assert bob.get("/account").status_code == 200
    assert ADA not in "".join(path.read_text() for path in store.folder.rglob("*.log"))
    number, _, new = accounts.sign_in(store, ADA)
    assert (number, new) == (3, True)  # the number of who has left is nobody's


def test_deletion_knows_every_table_that_has_an_account():
    bearing = {
        table.name
        for table in Base.metadata.tables.values()
        if any(key.column.table.name == "accounts" for column in table.c for key in column.foreign_keys)
    }
    assert bearing == {table.__tablename__ for table in leaving.OWN} | {"comments", "subscriptions"}


def test_an_export_has_all_that_is_the_accounts_and_nothing_of_others(both):
    ada, _, store = both
    answer = ada.post("/account/export")
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["cache-control"] == "private, no-store"
    held = answer.json()
    assert held["account"]["address"] == ADA
    full = {name for name, rows in held.items() if rows}
    assert full == {"account", "comments", "subscriptions", "wordings", "collected"} | {
        table.__tablename__ for table in leaving.OWN
    }
    assert BOB not in answer.text
    assert "is rude" not in answer.text
    assert not re.search(r"[0-9a-f]{64}", answer.text)  # no digest of a secret
    assert len(held["subscriptions"]) == 2
    assert call("readers", "export", ADA).stdout == json.dumps(held, ensure_ascii=False, indent=1) + "\n"


def test_a_post_of_who_signed_in_long_ago_asks_for_a_new_sign_in(both):
    ada, _, store = both
    with store.session() as session:
        session.execute(update(SignIn).values(made=NOW - timedelta(hours=2)))
    for path in (
        "/account/delete",
        "/account/export",
        "/account/address",
        "/account/keys",
        "/account/passkeys/end",
        "/account/links/end",
    ):
        answer = ada.post(
            path, data={"name": NAME, "address": "new@example.org"}, headers={"referer": "http://localhost:8000/account"}
        )
        assert answer.headers["location"] == "/sign-in?next=%2Faccount", path
    assert "sign in once more" in ada.get("/sign-in").text
    assert found(store, "quillfeather")


def follow(browser, letters, address):
    return re.search(r"/account/address/[\w-]+", mails(letters, address)[-1].get_body().get_content())[0]


def test_another_address_is_confirmed_by_a_link_to_it_and_told_to_the_old_one(both, letters, site):
    ada, bob, store = both
    elsewhere = site(address=ADA, app=ada.app)
    assert ada.post("/account/address", data={"address": "New@example.org"}).status_code == 200
    link = follow(ada, letters, "new@example.org")
    assert ada.get(link).headers["referrer-policy"] == "no-referrer"
    assert bob.get(link).status_code == bob.post(link).status_code == 410
    assert site(app=ada.app).post(link).headers["location"].startswith("/sign-in")
    assert "new@example.org" not in ada.get("/account").text
    assert ada.post(link).status_code == 303
    assert ada.post(link).status_code == ada.get(link).status_code == 410
    assert "new@example.org" in ada.get("/account").text
    assert elsewhere.get("/account").status_code == 303  # other sessions have ended
    told = mails(letters, ADA)[-1].get_body().get_content()
    assert "another e-mail address" in told
    assert "new@example.org" not in told
    with store.session() as session:
        assert set(session.scalars(select(Subscription.address).where(Subscription.state == "active"))) == {
            "new@example.org",
            BOB,
        }


def test_an_address_of_another_account_is_told_to_nobody_before_it_is_proved(both, letters):
    ada, bob, store = both
    assert ada.post("/account/address", data={"address": BOB}).text == ada.post("/account/address", data={"address": BOB}).text
    page = ada.post("/account/address", data={"address": "nobody@example.org"}).text
    assert page.replace("nobody@example.org", BOB) == ada.post("/account/address", data={"address": BOB}).text
    answer = ada.post(follow(ada, letters, BOB))
    assert answer.status_code == 409
    assert {one.address for one in accounts.everybody(store)} == {ADA, BOB}


def test_the_administrator_looks_after_accounts(both, letters, site):
    ada, bob, store = both
    listed = call("readers", "list").stdout
    assert NAME in listed
    assert ADA not in listed
    assert ADA in call("readers", "list", "--addresses").stdout
    assert json.loads(call("readers", "list", "--json").stdout)[0]["role"] == "reader"
    call("readers", "moderator", ADA)
    assert accounts.find(store, NAME).role == "moderator"
    call("readers", "moderator", NAME, "--off")
    assert accounts.find(store, ADA).role == "reader"
    with store.session() as session:
        assert session.get(Notice, "hlop").votes == 2
    call("readers", "block", NAME)
    assert ada.get("/account").status_code == 303
    with store.session() as session:
        assert session.get(Notice, "hlop").votes == 1
    browser = site(app=ada.app)
    browser.post("/sign-in", data={"address": ADA})
    link = re.search(r"/sign-in/[\w-]+", mails(letters, ADA)[-1].get_body().get_content())[0]
    answer = browser.post(link)
    assert answer.status_code == 422
    assert "blocked" in answer.text
    call("readers", "block", NAME, "--off")
    call("readers", "delete", BOB, "--yes")
    assert bob.get("/account").status_code == 303
    assert "No account has the address" in call("readers", "export", BOB, code=2).stderr
    assert "No account has the name" in call("readers", "moderator", "nobody", code=2).stderr


def test_the_administrators_link_signs_in_with_its_code(site):
    address, code = call("readers", "link", "Eve@example.org", "--url", "https://papers.example.org/").stdout.splitlines()
    assert address.startswith("https://papers.example.org/sign-in/")
    browser, path = site(mail="", sender=""), address.removeprefix("https://papers.example.org")
    assert "This site sends no letters" in browser.get("/sign-in").text
    assert "six digits" in browser.get(path).text
    assert browser.post(path).status_code == 403
    assert browser.post(path, data={"code": code.rpartition(" ")[2]}).status_code == 303
    assert "eve@example.org" in browser.get("/account").text


def test_the_page_of_privacy_names_every_column(site):
    held = {}
    for one in privacy.HELD:
        held.setdefault(one.table, []).extend(one.columns.split())
    stored = {
        table.__tablename__: sorted(column.name for column in table.__table__.c)
        for table in vars(people).values()
        if isinstance(table, type) and issubclass(table, Base) and table is not Base and table.__module__ == people.__name__
    }
    assert {table: sorted(columns) for table, columns in held.items()} == stored
    page = site().get("/about/privacy").text
    for one in privacy.HELD:
        assert all(words in page for words in (one.table, one.columns.replace(" ", ", ")))
    assert "15 minutes (to confirm letters 48 hours), and 1 day more" in page


def test_what_is_kept_no_longer_is_dropped(home):
    store, day = Store(), timedelta(days=1)
    number, _, _ = accounts.sign_in(store, ADA)
    fill(store, number, accounts.sign_in(store, BOB)[0])
    rates.count(store, rates.Limit("x", 1, 60), "y")
    keeping.tidy(store)
    kept = {table: _count(store, table) for table in (Token, SignIn, Rate, Subscription, Letter, Issue, ApiToken)}
    assert all(kept.values())
    keeping.tidy(store, NOW + 2 * day)
    assert (_count(store, Token), _count(store, Rate)) == (0, 0)
    keeping.tidy(store, NOW + 15 * day)
    assert _count(store, SignIn) == 0
    with store.session() as session:
        assert set(session.scalars(select(Subscription.state))) == {"active"}
    keeping.tidy(store, NOW + 61 * day)
    assert (_count(store, Letter), _count(store, Issue)) == (0, 0)
    assert _count(store, ApiToken) == 1
    keeping.tidy(store, NOW + 400 * day)
    assert _count(store, ApiToken) == 0
    assert (_count(store, Account), _count(store, Comment), _count(store, Vote)) == (2, 2, 2)


def _count(store, table):
    with store.session() as session:
        return len(session.scalars(select(table)).all())


def test_a_deletion_is_whole_or_not_at_all(both, monkeypatch):
    _, _, store = both
    before = sorted(everything(store))
    monkeypatch.setattr(notices, "recount", _broken)
    with pytest.raises(InputError):
        leaving.delete_account(store, 1)
    assert sorted(everything(store)) == before


def _broken(*_):
    raise InputError("in the middle")


def test_deletion_and_export_in_postgresql(database, tmp_path, monkeypatch):
    monkeypatch.setenv("BROADSHEET_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BROADSHEET_DATABASE", database)
    store = Store()
    (ada, _, _), (bob, _, _) = accounts.sign_in(store, ADA), accounts.sign_in(store, BOB)
    accounts.rename(store, ada, NAME)
    fill(store, ada, bob)
    assert leaving.export(store, ada)["votes"]
    leaving.delete_account(store, ada)
    assert found(store, ADA, "quillfeather") == []
    keeping.tidy(store, NOW + timedelta(days=400))
    with store.session() as session:
        session.execute(delete(Suppressed))


def test_what_nobody_confirmed_at_the_new_address_ends_nothing(both, letters):
    ada, _, store = both
    with store.session() as session:
        session.add(
            Subscription(
                address="new@example.org", account_id=None, kind="trending", value="", rhythm="weekly", state="pending",
                made=NOW, returned=0,
            )
        )  # fmt: skip
    ada.post("/account/address", data={"address": "new@example.org"})
    assert ada.post(follow(ada, letters, "new@example.org")).status_code == 303
    with store.session() as session:
        moved = session.scalars(select(Subscription).where(Subscription.address == "new@example.org")).all()
        assert [(row.kind, row.rhythm, row.state, row.account_id) for row in moved] == [("trending", "daily", "active", 1)]


def test_after_a_restore_no_number_is_given_that_went_out_in_a_link(any_home, tmp_path):
    store = Store()
    accounts.sign_in(store, ADA)
    subscriptions.follow(store, 1, Followed("trending"), "daily")
    backup(store, tmp_path / "all.zip")
    accounts.sign_in(store, BOB)  # of which the archive knows nothing
    late = subscriptions.follow(store, 2, Followed("trending"), "daily").id
    if url := os.environ.get("BROADSHEET_DATABASE"):
        with store.engine.begin() as connection:
            for table in reversed(Base.metadata.sorted_tables):
                if table.name != "revisions":
                    connection.execute(delete(table))
    other = Store(tmp_path / "other", url)
    restore(other, tmp_path / "all.zip")
    number = accounts.sign_in(other, "new@example.org")[0]
    assert number > 2
    assert subscriptions.follow(other, number, Followed("verdicts"), "daily").id > late


def test_of_two_that_remove_the_last_ways_in_one_fails(any_home):
    store = Store()
    with store.session() as session:
        ada = Account(address=None, name="Ada", key="ada", role="reader", blocked=False, made=NOW, seen=NOW)
        session.add(ada)
        session.flush()
        number = ada.id
        session.add_all(
            Identity(issuer="https://orcid.org", subject=name, account_id=number, name="", made=NOW) for name in ("1", "2")
        )
    with ThreadPoolExecutor(1) as threads:
        with store.session() as session:
            session.execute(delete(Identity).where(Identity.subject == "1"))
            accounts.check_way_in(session, number)
            other = threads.submit(providers.unlink, store, number, "https://orcid.org", "2")
            time.sleep(0.5)
        with pytest.raises(InputError, match="Nothing else"):
            other.result()


def test_who_voted_much_leaves_soon(home):
    store = Store()
    number = accounts.sign_in(store, ADA)[0]
    with store.session() as session:
        session.add_all(Vote(slug=f"paper-{k}", account_id=number, made=NOW) for k in range(2000))
    began = time.process_time()
    leaving.delete_account(store, number)  # nobody else writes meanwhile
    assert time.process_time() - began < 5
