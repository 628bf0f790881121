"""What an attacker would try at accounts, links, sessions and forms. docs/guide/security.md says which rule each test is of."""

import asyncio
import io
import logging
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from types import SimpleNamespace
from urllib.parse import urljoin, urlsplit

import pytest
from fastapi.testclient import TestClient
from readership import BASE, mails
from serving import free_port, served
from sqlalchemy import event, select, update
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from broadsheet.errors import InputError, StoreError
from broadsheet.lab.people import ApiToken, SignIn, Token
from broadsheet.lab.store import Store
from broadsheet.lab.tables import Base
from broadsheet.readers import accounts, keys, mail, rates
from broadsheet.readers.accounts import LinkError, plain_address, plain_name
from broadsheet.readers.mail import one_line
from broadsheet.web import logs, pages, people
from broadsheet.web.app import create
from broadsheet.web.settings import Settings

TOKEN = "the-administrators-token"
numbers = count(1)


class House:
    """A site with readers and an administrator's token, which many browsers visit, each from a place of its own."""

    def __init__(self, folder, **settings):
        self.letters, self.store = folder / "letters", Store(folder / "home")
        given = {"readers": True, "meaning": False, "mail": str(self.letters), "sender": "papers@example.org", "token": TOKEN}
        self.app = create(Settings(**{**given, **settings}), self.store)
        self.base = settings.get("url", BASE)

    def browser(self, address="", app=None, client=None, **headers):
        number = next(numbers)
        client = client or f"198.51.{number // 250}.{number % 250}"
        made = TestClient(
            app or self.app, base_url=self.base, client=(client, 5), follow_redirects=False,
            headers={"origin": self.base, "accept": "text/html", **headers},
        )  # fmt: skip
        if address:
            assert made.post(self.link(made, address)).status_code == 303
        return made

    def ask(self, browser, address, **data):
        return browser.post("/sign-in", data={"address": address, **data})

    def letter(self, address):
        return mails(self.letters, address)[-1].get_body().get_content()

    def link(self, browser, address, **data):
        assert self.ask(browser, address, **data).status_code == 200
        return re.search(r"/sign-in/[\w-]+", self.letter(address))[0]

    def code(self, address):
        return re.search(r"as well: (\d{6})", self.letter(address))[1]

    def rows(self, table):
        with self.store.session() as session:
            found = list(session.scalars(select(table)))
            session.expunge_all()
            return found

    def everything(self):
        with self.store.engine.connect() as connection:
            return {table.name: sorted(map(str, connection.execute(select(table)))) for table in Base.metadata.sorted_tables}


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("BROADSHEET_DATABASE", raising=False)
        patch.setenv("BROADSHEET_HOME", str(tmp_path_factory.mktemp("house") / "home"))
        made = House(tmp_path_factory.mktemp("house"))
        with TestClient(made.app, base_url=BASE):
            yield made


@pytest.fixture
def address():
    return f"reader{next(numbers)}@example.org"


# Links


def test_a_look_uses_no_link_up_and_its_button_does_once(house, address):
    browser = house.browser()
    link = house.link(browser, address)
    for _ in range(3):
        answer = browser.get(link)
        assert answer.status_code == 200
        assert "set-cookie" not in answer.headers
    assert browser.head(link).status_code == 200
    assert browser.post(link).status_code == 303
    assert browser.post(link).status_code == browser.get(link).status_code == 410


def test_a_link_is_too_old_after_fifteen_minutes(house, address):
    browser = house.browser()
    link = house.link(browser, address)
    token = link.rpartition("/")[2]
    made = house.rows(Token)[-1]
    accounts.look(house.store, "sign-in", token, now=datetime.now(UTC) + timedelta(minutes=14))
    assert made.purpose == "sign-in"
    with house.store.session() as session:
        session.execute(update(Token).where(Token.digest == keys.digest(token)).values(expires=datetime.now(UTC)))
    assert browser.get(link).status_code == browser.post(link).status_code == 410
    with pytest.raises(LinkError, match="too old"):
        accounts.use(house.store, "sign-in", token)
    fresh, _ = accounts.ask(house.store, "sign-in", {"address": address})
    with pytest.raises(LinkError, match="too old"):
        accounts.look(house.store, "sign-in", fresh, now=datetime.now(UTC) + timedelta(minutes=15, seconds=1))


def test_a_link_serves_its_purpose_alone(house):
    token, _ = accounts.ask(house.store, "confirm", {"address": "x@example.org", "next": "/"})
    for path in (f"/sign-in/{token}", "/sign-in/nothing", f"/sign-in/{'x' * 3000}"):
        assert house.browser().post(path).status_code == 410


def test_another_browser_types_the_code_and_few_times(house, address):
    browser, other = house.browser(), house.browser()
    link, code = house.link(browser, address), house.code(address)
    assert "six digits" in other.get(link).text
    assert "six digits" not in browser.get(link).text
    assert other.post(link).status_code == 403
    wrong = f"{(int(code) + 1) % 10**6:06d}"
    assert other.post(link, data={"code": wrong}).status_code == 403
    assert other.post(link, data={"code": code}).status_code == 303
    assert address in other.get("/account").text

    link, code = house.link(browser, address), house.code(address)
    wrong = f"{(int(code) + 1) % 10**6:06d}"
    assert [other.post(link, data={"code": wrong}).status_code for _ in range(6)] == [403] * 4 + [410] * 2
    assert other.post(link, data={"code": code}).status_code == browser.post(link).status_code == 410


def together(work, times):
    """Does the same in threads that begin at once; what each gave, or raised."""
    found, gate = [], threading.Barrier(times)

    def one():
        gate.wait()
        try:
            found.append(work())
        except Exception as error:
            found.append(error)

    threads = [threading.Thread(target=one) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request, tmp_path, monkeypatch):
    """A store of its own, in each of the two databases."""
    monkeypatch.setenv("BROADSHEET_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("BROADSHEET_DATABASE", raising=False)
    if request.param == "postgresql":
        monkeypatch.setenv("BROADSHEET_DATABASE", request.getfixturevalue("database"))
    return Store()


def test_of_many_at_once_one_wins(store):
    token, code = accounts.ask(store, "sign-in", {"address": "ada@example.org"}, "browser")
    found = together(lambda: accounts.use(store, "sign-in", token, "browser"), 8)
    assert sorted(type(one).__name__ for one in found) == ["LinkError"] * 7 + ["dict"]
    token, code = accounts.ask(store, "sign-in", {"address": "ada@example.org"}, "browser")
    wrong = f"{(int(code) + 1) % 10**6:06d}"
    found = together(lambda: accounts.use(store, "sign-in", token, "another", wrong), 10)
    assert all(isinstance(one, LinkError) for one in found)
    with store.session() as session:
        assert session.get(Token, keys.digest(token)).tries == accounts.MOST_CODES

    limit = rates.Limit("tried", 5, 60)
    found = together(lambda: rates.count(store, limit, "somebody"), 9)
    assert sorted(type(one).__name__ for one in found) == ["NoneType"] * 5 + ["TooOftenError"] * 4
    later = datetime.now(UTC) + timedelta(seconds=61)
    found = together(lambda: rates.count(store, limit, "somebody", later), 9)
    assert sorted(type(one).__name__ for one in found) == ["NoneType"] * 5 + ["TooOftenError"] * 4

    found = together(lambda: accounts.sign_in(store, "ada@example.org")[::2], 6)
    assert {number for number, _ in found} == {found[0][0]}
    assert [new for _, new in found].count(True) == 1
    assert len({bytes(keys.site_key(Store())) for _ in range(2)}) == 1


# Enumeration and limits


def test_the_answer_and_the_work_are_the_same_for_every_address(house, address):
    house.browser(address)

    def asked(of):
        statements = []

        def note(connection, cursor, statement, *_):
            statements.append(re.sub(r"\s+", " ", statement))

        browser = house.browser()
        event.listen(house.store.engine, "before_cursor_execute", note)
        try:
            answer = house.ask(browser, of)
        finally:
            event.remove(house.store.engine, "before_cursor_execute", note)
        plain = {name: value for name, value in answer.headers.items() if name not in ("set-cookie", "content-length")}
        return answer.status_code, answer.text.replace(of, "…"), plain, sorted(answer.headers), statements

    house.ask(house.browser(), address)
    house.ask(house.browser(), "nobody@example.org")
    assert asked(address) == asked("nobody@example.org")
    assert len(mails(house.letters, "nobody@example.org")) == 2


def test_the_sixth_link_in_an_hour_is_refused(house, address):
    for who in (address, address.upper()):
        answers = [house.ask(house.browser(), who) for _ in range(5 if who == address else 0)]
        assert all(answer.status_code == 200 for answer in answers)
    answer = house.ask(house.browser(), address.upper())
    assert answer.status_code == 429
    assert 0 < int(answer.headers["retry-after"]) <= 3600
    assert len(mails(house.letters, address)) == 5
    assert house.ask(house.browser(), f"another-{address}").status_code == 200


def test_one_place_asks_for_thirty_links_an_hour_behind_a_proxy_as_well(house):
    def asked(proxied, trusted, k):
        app = ProxyHeadersMiddleware(house.app, trusted_hosts=trusted)
        browser = house.browser(app=app, client="127.0.0.1", **{"x-forwarded-for": proxied})
        return house.ask(browser, f"place{next(numbers)}-{k}@example.org").status_code

    network = "2001:db8:0:7"  # one customer's
    assert {asked(f"{network}::{k:x}", "127.0.0.1", k) for k in range(30)} == {200}
    assert asked(f"{network}:ffff::1", "127.0.0.1", 30) == 429
    assert asked("2001:db8:0:8::1", "127.0.0.1", 31) == 200
    assert asked("192.0.2.1", "127.0.0.1", 32) == 200
    said = {asked(f"192.0.2.{k}", "10.0.0.1", k) for k in range(2, 33)}  # nobody trusts who asks to say where it is
    assert said == {200, 429}


def test_counts_say_nothing_of_whom_they_count(house, address):
    house.ask(house.browser(client="203.0.113.9"), address)
    import hashlib

    kept = str(house.everything()["rates"])
    for text in (address, "203.0.113.9", f"asked for a link {address}", "asked for links from one place 203.0.113.9"):
        assert text not in kept
        assert hashlib.sha256(text.encode()).hexdigest()[:32] not in kept


# Sessions and cookies


def test_a_sign_in_begins_a_session_of_its_own_and_ends_the_one_before(house, address):
    browser = house.browser(address)
    before = browser.cookies["reader"]
    browser.post(house.link(browser, address))
    assert browser.cookies["reader"] != before
    assert "reader_browser" not in browser.cookies
    thief = house.browser()
    thief.cookies.set("reader", before)
    assert thief.get("/account").status_code == 303
    thief.cookies.set("reader", "of my choice")
    thief.post(house.link(thief, address))
    assert accounts.by_session(house.store, "of my choice") is None
    assert len(before) >= 43
    assert before not in str(house.everything())  # kept is a digest


def test_signing_out_ends_the_session_here_and_elsewhere(house, address):
    browser, other = house.browser(address), house.browser(address)
    secret = browser.cookies["reader"]
    assert browser.get("/sign-out").status_code == 405
    answer = browser.post("/sign-out")
    assert answer.status_code == 303
    browser.cookies.set("reader", secret)
    assert browser.get("/account").status_code == 303
    assert address in other.get("/account").text
    browser.post(house.link(browser, address))
    page = other.get("/account").text
    number = re.search(r'name="session" value="(\w{64})"', page)[1]
    other.post("/account/sessions/end", data={"session": number})
    assert browser.get("/account").status_code == 303
    third = house.browser(address)
    other.post("/account/sessions/end")
    assert (third.get("/account").status_code, other.get("/account").status_code) == (303, 200)


def test_a_session_ends_by_itself(house, address):
    secret = house.browser(address).cookies["reader"]
    number = accounts.by_session(house.store, secret).id
    now = datetime.now(UTC)
    assert accounts.by_session(house.store, secret, now + timedelta(days=13))
    with house.store.session() as session:
        session.execute(update(SignIn).where(SignIn.account_id == number).values(seen=now))
    assert accounts.by_session(house.store, secret, now + timedelta(days=14, minutes=1)) is None
    with house.store.session() as session:
        session.execute(update(SignIn).where(SignIn.account_id == number).values(seen=now + timedelta(days=29)))
    assert accounts.by_session(house.store, secret, now + timedelta(days=29, hours=23))
    assert accounts.by_session(house.store, secret, now + timedelta(days=30, minutes=1)) is None
    for _ in range(accounts.MOST_SESSIONS + 5):
        accounts.sign_in(house.store, address)
    assert len(accounts.sessions(house.store, number)) == accounts.MOST_SESSIONS


def test_over_tls_cookies_are_of_this_host_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("BROADSHEET_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("BROADSHEET_DATABASE", raising=False)
    safe = House(tmp_path, url="https://papers.example.org")
    with TestClient(safe.app, base_url=safe.base):
        _cookies_of(safe)


def _cookies_of(safe):
    browser = safe.browser()
    asked = safe.ask(browser, "ada@example.org")
    link = re.search(r"https://papers.example.org(/sign-in/[\w-]+)", safe.letter("ada@example.org"))[1]
    signed = browser.post(link)
    for answer, name in ((asked, "__Host-reader_browser"), (signed, "__Host-reader")):
        cookie = next(one for one in answer.headers.get_list("set-cookie") if one.startswith(f"{name}="))
        parts = {part.strip().split("=")[0].lower(): part.partition("=")[2] for part in cookie.split(";")[1:]}
        assert {"secure", "httponly"} <= set(parts)
        assert (parts["path"], parts["samesite"]) == ("/", "lax")
        assert "domain" not in parts
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
    answer = browser.post("/account/name", data={"name": "Ada"}, headers={"origin": "http://papers.example.org"})
    assert answer.status_code == 403
    secret = browser.cookies["__Host-reader"]
    fooled = safe.browser(cookie=f"reader={secret}")
    assert fooled.get("/account").status_code == 303  # a cookie that any neighbour may set is none of ours


def test_readers_sign_in_over_tls_alone():
    with pytest.raises(InputError, match="https"):
        Settings(host="0.0.0.0", token=TOKEN, readers=True, url="http://papers.example.org")


# Forms of other sites


def unsafe(app):
    """(method, path) of every route that changes something, with something in the place of its parameters."""
    for route in routes(app):
        for method in sorted(getattr(route, "methods", None) or ()):
            if method not in ("GET", "HEAD", "OPTIONS"):
                yield method, re.sub(r"\{[^}]*\}", "1", route.path)


def routes(app):
    """Every route, those of included routers as well."""
    waiting = list(app.routes)
    while waiting:
        route = waiting.pop(0)
        inner = getattr(route, "original_router", None) or getattr(route, "router", None)
        if inner is not None and not hasattr(route, "methods"):
            waiting = [*inner.routes, *waiting]
        elif hasattr(route, "methods"):
            yield route


def test_no_form_of_another_site_is_taken(house, address):
    browser = house.browser(address)
    del browser.headers["origin"]
    foreign = (
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "null", "sec-fetch-site": "cross-site"},
        {"origin": BASE, "sec-fetch-site": "same-site"},
        {"origin": f"{BASE}.evil.example"},
        {},
    )
    paths = list(unsafe(house.app))
    assert {"/account/name", "/sign-in", "/passkeys", "/account/delete", "/sign-out", "/account/keys"} <= {
        path for _, path in paths
    }
    before = house.everything()
    for method, path in paths:
        if path.startswith("/unsubscribe"):
            continue  # mail programs send it (RFC 8058): its address is the secret
        for headers in foreign[: 5 if path.startswith("/administrator") else None]:
            answer = browser.request(method, path, headers=headers)
            assert answer.status_code == 403, (method, path, headers, answer.status_code)
    assert house.everything() == before
    answer = browser.post(
        "/account/name", data={"name": "Own Form"}, headers={"origin": "null", "sec-fetch-site": "same-origin"}
    )
    assert answer.status_code == 303


def test_to_look_changes_nothing(house, address):
    browser, before = house.browser(address), None
    for _ in range(2):
        for route in routes(house.app):
            if "GET" in route.methods and "/events" not in route.path:
                answer = browser.get(re.sub(r"\{[^}]*\}", "1", route.path))
                assert answer.status_code < 500, route.path
        now = house.everything()
        assert before in (None, now)
        before = now


# Redirects, headers, logs


ELSEWHERE = [
    "https://evil.example", "//evil.example", "/\\evil.example", "\\\\evil.example", "/\t/evil.example", "/\n/evil.example", "javascript:alert(1)",
    "http:evil.example", "evil.example", "//[", "http://[", "/%0d%0aset-cookie:x", "/\r\nset-cookie: x=1", "///evil.example", "data:text/html,x", "",
    "/ok\u2028x", "https:/evil.example", "/a\\..\\evil", "?next=x",
]  # fmt: skip


def test_no_link_leads_elsewhere(house, address):
    for path in ELSEWHERE:
        there = people.local(path)
        assert urlsplit(urljoin(BASE, there)).netloc == urlsplit(BASE).netloc
        assert there.isprintable()
        assert there == "/" or path == there
        browser = house.browser(referer=path.encode("ascii", "ignore").decode().strip() or "/")
        assert house.browser().get("/sign-in", params={"next": path}).status_code == 200
        back = browser.post("/account/name").headers["location"]
        assert urlsplit(urljoin(BASE, back)).netloc == urlsplit(BASE).netloc
    assert people.local("/papers/hlop?x=1#claims") == "/papers/hlop?x=1#claims"
    browser = house.browser(address)
    link = house.link(browser, address, next="//evil.example/x")
    assert browser.post(link).headers["location"] == "/"


@pytest.mark.parametrize(
    "given",
    [
        "ada@example.org\nbcc: all@example.org", "ada@example.org\r\n\r\nhello", "ada@example.org, eve@example.org", "Ada <ada@example.org>",
        "ada@example.org\x00", "ada@example.org\u2028x", '"a b"@example.org', "ada@example", "@example.org", ".ada@example.org", "a..b@example.org",
        "ada@[192.0.2.1]", "ada@example.1", "a" * 65 + "@example.org", "ada@" + "a" * 64 + ".org", "<ada@example.org>", "ada@exämple.org", "",
    ],
)  # fmt: skip
def test_what_is_no_address_reaches_no_mail_server(house, given):
    with pytest.raises(InputError):
        plain_address(given)
    before = len(mails(house.letters))
    assert house.ask(house.browser(), given).status_code == 422
    assert len(mails(house.letters)) == before


def test_what_readers_write_makes_no_header(house):
    sender = mail.Sender("Papers\r\nBcc: all@example.org", "papers@example.org", BASE)
    made = mail.letter(
        sender, "ada@example.org", "A title\nBcc: all@example.org", "text", headers={"List-Id": "x\r\nBcc: all@example.org"}
    )
    read = mails_of(made)
    assert read["Bcc"] is None
    assert read["Subject"] == "A title Bcc: all@example.org"
    for to in ("ada@example.org\nBcc: x@example.org", "ada@example.org\r"):
        with pytest.raises(ValueError):
            mail.letter(sender, to, "s", "t")
    assert one_line("a\x00\x1b[31m\u2029b") == "a [31m b"


def mails_of(message):
    import email
    from email.policy import default

    return email.message_from_bytes(message.as_bytes(), policy=default)


@contextmanager
def logged(kind):
    """What the site's logs say, as `serve` has them."""
    stream, handler = io.StringIO(), logging.StreamHandler()
    handler.setStream(stream)
    handler.setFormatter(logs.Lines(kind))
    loggers = [logging.getLogger(name) for name in ("broadsheet", "broadsheet.access", "broadsheet.site")]
    levels = [one.level for one in loggers]
    logging.getLogger().addHandler(handler)
    for one in loggers:
        one.setLevel(logging.INFO)
    try:
        yield stream
    finally:
        logging.getLogger().removeHandler(handler)
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)


@pytest.mark.parametrize("kind", ["text", "json"])
def test_no_secret_and_no_address_is_logged(house, address, kind, monkeypatch):
    with logged(kind) as stream:
        browser, other = house.browser(), house.browser()
        link, code = house.link(browser, address), house.code(address)
        other.post(link, data={"code": "000000" if code != "000000" else "000001"})
        browser.get(link)
        browser.post(link)
        secret = browser.cookies["reader"]
        key = browser.post("/account/keys", data={"name": "k", "scope": "read"}).text.split("<code>")[1].split("</code>")[0]
        browser.get("/api/v1/papers/nothing", headers={"authorization": f"Bearer {key}"})
        browser.post("/account/address", data={"address": f"new-{address}"})
        new = re.search(r"/account/address/([\w-]+)", mails(house.letters, f"new-{address}")[-1].get_body().get_content())[1]
        browser.get(f"/account/address/{new}")
        browser.get(f"/unsubscribe/1/{'ab' * 16}")
        browser.get(f"/confirm/{'cd' * 16}")
        browser.get(f"/feeds/collections/7/{'ef' * 16}.atom")
        refuse = mail.MailError(f"The mail server refused the letter: 550 <{address}> is unknown")
        monkeypatch.setattr(mail.Folder, "send", lambda *_: (_ for _ in ()).throw(refuse))
        house.ask(browser, address)
        browser.post("/subscribe", data={"address": address})
        said = stream.getvalue()
    for text in (link.rpartition("/")[2], code, secret, key, new, "ab" * 16, "cd" * 16, "ef" * 16, address):
        assert text not in said
    assert "/sign-in/…" in said
    assert "/unsubscribe/…" in said
    assert said.count("a letter did not go out") == 2
    for wanted in ("signed in", "sign-in refused"):
        assert wanted in said


def test_what_is_asked_for_writes_no_line_of_its_own(house):
    with logged("text") as stream:
        house.browser().get("/nothing%0a2026-01-01T00:00:00Z info broadsheet.site: signed in account=1%1b[2J%e2%80%a8x")
        house.browser(**{"user-agent": "x"}).get("/sign-in/x%0ay")
        logging.getLogger("broadsheet.site").error("failed", extra={"error": "a\r\nb\x85c"})
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert not any(line.startswith("2026-01-01T00:00:00Z") for line in lines)
    assert "\x1b" not in stream.getvalue()


def test_the_token_of_a_link_is_in_no_referrer(browser, tmp_path, monkeypatch):
    """In Chromium: what the page of a link loads and where its form goes; the form has no origin then, and is taken all the same."""
    monkeypatch.setenv("BROADSHEET_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("BROADSHEET_DATABASE", raising=False)
    port = free_port()
    here = House(tmp_path, url=f"http://localhost:{port}", port=port)
    context = browser.new_context(base_url=here.base)
    page, sent = context.new_page(), []
    with served(here.app, port):
        page.goto("/sign-in")
        page.get_by_label("E-mail address").fill("ada@example.org")
        page.get_by_role("button", name="Send me a link").click()
        page.get_by_text("is on its way").wait_for()
        link = re.search(r"/sign-in/[\w-]+", waited(here, "ada@example.org"))[0]
        page.on("request", lambda request: sent.append((request.url, request.all_headers())))
        page.goto(link)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url("**/account")
        page.get_by_role("link", name="Trending").click()
        page.wait_for_url("**/trending")
    context.close()
    token = link.rpartition("/")[2]
    assert len(sent) > 5
    assert not [url for url, headers in sent if token in headers.get("referer", "")]


def waited(here, address):
    from waiting import until

    until(lambda: mails(here.letters, address))
    return here.letter(address)


def test_headers_of_every_answer(house, address):
    browser = house.browser(address)
    for path in (
        "/",
        "/account",
        "/sign-in",
        "/sign-in/x",
        "/nothing",
        "/search?q=x",
        "/about/privacy",
        "/static/site.css",
        "/api/v1/papers",
        "/healthz",
    ):
        headers = browser.get(path).headers
        policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'", path
        assert policy["script-src"] == policy["form-action"] == "'self'", path
        assert headers["x-content-type-options"] == "nosniff"
        assert "publickey-credentials" not in headers["permissions-policy"]  # then the site itself may use them
        assert "access-control-allow-origin" not in headers
        assert "strict-transport-security" not in headers
        assert headers["referrer-policy"] == ("no-referrer" if path == "/sign-in/x" else "same-origin")


def test_what_is_one_readers_alone_is_kept_nowhere(house, address):
    browser = house.browser(address)
    name = accounts.find(house.store, address).name
    for path in (
        "/",
        "/account",
        "/search?q=x",
        "/papers/hlop",
        "/runs",
        "/sign-in",
        "/about/api",
        "/compare?paper=none",
    ):
        answer = browser.get(path)
        assert name in answer.text, path
        assert answer.headers["cache-control"] == "private, no-store", path
        assert name not in house.browser().get(path).text


# Rights


def test_a_reader_starts_no_runs(house, address):
    """Whatever a link or a role grants, it is not what the administrator's token does."""
    browser = house.browser(address)
    accounts.set_role(house.store, address, "moderator")
    number = accounts.find(house.store, address).id
    key = accounts.new_token(house.store, number, "all", accounts.SCOPES)
    secret = browser.cookies["reader"]
    cookies = {"reader": secret, "broadsheet_session": secret}
    run = {"slug": "hlop", "experiment": "permuted"}
    ways = (
        house.browser(cookie=f"reader={secret}"),
        house.browser(cookie="; ".join(f"{name}={value}" for name, value in cookies.items())),
        house.browser(authorization=f"Bearer {key}"),
        house.browser(authorization=f"Bearer {secret}"),
        house.browser(client="127.0.0.1", cookie=f"reader={secret}"),
    )
    before = house.everything()["jobs"]
    for way in ways:
        assert way.post("/runs", data=run).status_code == 403
        assert way.post("/runs/1/cancel").status_code == 403
        assert way.post("/imports", data={"source": "2402.11984"}).status_code == 403
        assert way.post("/api/v1/jobs", json=run).status_code == 403
        assert way.post("/api/v1/imports", json={"source": "2402.11984"}).status_code == 403
        assert "Import papers" not in way.get("/runs").text
    assert house.everything()["jobs"] == before
    assert house.browser(authorization=f"Bearer {TOKEN}").get("/account").status_code == 303  # nor the other way round


def test_what_belongs_to_another_account_is_not_reached(house, address):
    mine, theirs = house.browser(address), house.browser(f"other-{address}")
    number = accounts.find(house.store, f"other-{address}").id
    theirs.post("/account/keys", data={"name": "theirs", "scope": "read"})
    session, key = accounts.sessions(house.store, number)[0].digest, accounts.tokens(house.store, number)[0].digest
    mine.post("/account/sessions/end", data={"session": session})
    mine.post("/account/keys/end", data={"key": key})
    mine.post("/account/passkeys/end", data={"passkey": "x"})
    mine.post("/account/links/end", data={"issuer": "x", "subject": "x"})
    assert len(accounts.sessions(house.store, number)) == len(accounts.tokens(house.store, number)) == 1
    assert f"other-{address}" not in mine.get("/account").text
    assert "theirs" not in mine.get("/account").text


def test_forms_change_what_they_name_alone(house, address):
    browser = house.browser(address)
    extra = {
        "role": "moderator",
        "id": "1",
        "address": "x@example.org",
        "blocked": "0",
        "account_id": "1",
        "key": "x",
        "made": "2020-01-01",
    }
    assert browser.post("/account/name", data={"name": f"Mass {next(numbers)}", **extra}).status_code == 303
    browser.post("/account/keys", data={"name": "k", "scope": ["read", "admin"], **extra})
    browser.post("/account/keys", data={"name": "k", "scope": "read", "expires": "2099-01-01", "scopes": "all"})
    found = accounts.find(house.store, address)
    assert found.role == "reader"
    made = accounts.tokens(house.store, found.id)
    assert [one.scopes for one in made] == ["read"]
    assert made[0].expires < datetime.now(UTC) + timedelta(days=366)
    answer = browser.post("/passkeys", json={"token": "x", "credential": "{}", "account": 1})
    assert answer.status_code == 422


def test_a_key_does_what_its_scopes_say_and_no_more(house, address, monkeypatch):
    browser = house.browser(address)
    number = accounts.find(house.store, address).id
    key = accounts.new_token(house.store, number, "k\x00\nx", ["votes"])
    assert key.startswith("bsr_")
    assert key not in str(house.everything())
    holder = house.browser(authorization=f"Bearer {key}")
    monkeypatch.setattr(pages, "mine", lambda *_: pytest.fail("marks of who may not see them"))
    assert holder.get("/").status_code == holder.get("/search?q=x").status_code == 200
    monkeypatch.undo()
    assert holder.get("/api/v1/me").status_code == 403
    sees = accounts.new_token(house.store, number, "sees", ["read"])
    said = house.browser(authorization=f"Bearer {sees}").get("/api/v1/me").json()
    assert (said["role"], said["scopes"]) == ("reader", ["read"])
    accounts.drop_token(house.store, number, keys.digest(sees))
    for path in (
        "/account/name",
        "/account/keys",
        "/account/delete",
        "/account/export",
        "/account/address",
        "/account/passkeys/options",
        "/sign-out",
    ):
        assert holder.post(path).status_code == 403, path
    assert holder.get("/account").status_code == 403
    with pytest.raises(InputError, match="scopes"):
        accounts.new_token(house.store, number, "x", ["votes", "everything"])
    for wrong in (key[:-1], "bsr_", key + "x"):
        assert house.browser(authorization=f"Bearer {wrong}").get("/").status_code == 401
    assert accounts.by_token(house.store, key, datetime.now(UTC) + timedelta(days=366)) is None
    for _ in range(accounts.MOST_KEYS - 1):
        accounts.new_token(house.store, number, "x", ["read"])
    with pytest.raises(InputError, match="at the most"):
        accounts.new_token(house.store, number, "x", ["read"])
    browser.post("/account/keys/end", data={"key": keys.digest(key)})
    assert holder.get("/").status_code == 401
    accounts.block(house.store, number)
    assert not [one for one in house.rows(ApiToken) if one.account_id == number]
    assert browser.get("/account").status_code == 303


# What is shown


HOSTILE = ["<script>alert(1)</script>", "Ada\u202egnp", "Αda", "admin", "Administrator", "m o d e r a t o r", "Broadsheet", "-", "x", "a" * 41,
           "Z\u0338\u0338\u0338algo", "\u200bAda", "Ada\u0000", "Аda", "{{7*7}}", "ada@example.org", "  "]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_names_that_deceive_are_none(house, name):
    with pytest.raises(InputError):
        plain_name(name)


def test_a_name_is_one_accounts_however_it_is_spelt(house, address):
    first, second = house.browser(address), house.browser(f"second-{address}")
    assert first.post("/account/name", data={"name": "José Núñez"}).status_code == 303
    for name in ("josé núñez", "Jose Nunez", "JOSE-NUNEZ", "Jose\u0301 Nu\u0301n\u0303ez", "Ｊｏｓé Núñez"):
        answer = second.post("/account/name", data={"name": name})
        assert answer.status_code == 422
        assert "Somebody has that name" in answer.text
    for name in ("李明", "Søren K.", "O'Neil", "Дмитрий", "नमस्ते", "Jean-Luc 2"):
        assert plain_name(name) == name


def test_what_browsers_and_keys_are_called_is_shown_as_text(house, address):
    attack = '"><script>alert(1)</script>'
    browser = house.browser(address, **{"user-agent": attack})
    page = browser.post("/account/keys", data={"name": attack, "scope": "read"}).text
    assert "<script>alert" not in page
    assert page.count("&lt;script&gt;alert(1)") == 2
    assert "<script>alert" not in house.browser().get("/sign-in", params={"next": f"/{attack}"}).text


# Troubles


def test_a_body_of_a_reader_is_small(house, address):
    browser = house.browser(address)
    assert browser.post("/account/name", data={"name": "x" * (2**20 + 1)}).status_code == 413
    assert house.browser().post("/passkeys", content=b"x" * (2**20 + 1)).status_code == 413


def test_while_the_store_is_away_reading_goes_on_and_nothing_is_let_in(house, address, monkeypatch):
    browser = house.browser(address)

    def away(*_, **__):
        raise StoreError("The store failed: it is away, postgresql://user:password@host")

    monkeypatch.setattr(accounts, "by_session", away)
    monkeypatch.setattr(accounts, "by_token", away)
    assert browser.get("/").status_code == 200
    for answer in (
        browser.get("/account"),
        browser.post("/account/name", data={"name": "Ada"}),
        browser.get("/", headers={"authorization": "Bearer bsr_x"}),
    ):
        assert answer.status_code == 503
        assert "password" not in answer.text


def test_a_mail_server_that_hangs_takes_few_threads():
    now, most, gate = [0], [0], threading.Event()

    class Hanging:
        def send(self, *_):
            now[0] += 1
            most[0] = max(most[0], now[0])
            gate.wait(0.1)
            now[0] -= 1

        def close(self):
            pass

    async def many():
        request = SimpleNamespace(app=SimpleNamespace(state=SimpleNamespace(letters=asyncio.Semaphore(people.LETTERS_AT_ONCE))))
        await asyncio.gather(*(people.send(request, Hanging(), None, "") for _ in range(12)))

    with ThreadPoolExecutor(1) as threads:  # a browser leaves a loop in this one
        threads.submit(asyncio.run, many()).result()
    assert (now[0], most[0]) == (0, people.LETTERS_AT_ONCE)


def test_errors_say_nothing_of_the_inside(house, address, monkeypatch):
    def broken(*_):
        raise RuntimeError(f"secret of {address}")

    browser = TestClient(house.app, base_url=BASE, headers={"origin": BASE}, raise_server_exceptions=False)
    monkeypatch.setattr(accounts, "ask", broken)
    answer = house.ask(browser, address)
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.headers["content-security-policy"]


# A site without readers


def test_nothing_changes_on_a_site_without_readers(tmp_path, monkeypatch, house):
    """Neither a route nor a header, a cookie, a word or a question to the store."""
    monkeypatch.setenv("BROADSHEET_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("BROADSHEET_DATABASE", raising=False)
    plain = create(Settings(meaning=False, token=TOKEN), Store())
    here = {(method, route.path) for route in routes(plain) for method in route.methods}
    there = {(method, route.path) for route in routes(house.app) for method in route.methods}
    assert here < there
    words = (
        "account",
        "sign-in",
        "passkey",
        "provider",
        "privacy",
        "subscri",
        "collection",
        "comment",
        "vote",
        "submit",
        "moderat",
        "confirm",
    )
    assert not [path for _, path in here if any(word in path for word in words)]
    asked = []
    visitor = TestClient(plain, base_url=BASE, client=("198.51.100.1", 5), headers={"cookie": "reader=x; __Host-reader=x"})
    with visitor:
        event.listen(plain.state.edition.store.engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
        for path in ("/", "/papers/hlop", "/search?q=dendrites", "/trending", "/verdicts", "/topics", "/compare", "/about/api"):
            answer = visitor.get(path)
            assert answer.status_code == 200
            assert "set-cookie" not in answer.headers
            assert "strict-transport-security" not in answer.headers
            for word in ("/sign-in", "/account", "/about/privacy", "passkeys.js", "Subscribe", "/submit", "/collections"):
                assert word not in answer.text, (path, word)
        for path in ("/sign-in", "/account", "/about/privacy", "/submit", "/collections"):
            assert visitor.get(path).status_code == 404
        assert visitor.post("/sign-in", data={"address": "ada@example.org"}, headers={"origin": BASE}).status_code in (404, 405)
    people_of = {
        table.name for table in Base.metadata.sorted_tables if table.name in house.everything() and table.name in OF_READERS
    }
    assert not [statement for statement in asked if re.search(rf"\b({'|'.join(people_of)})\b", statement)]


OF_READERS = {
    "accounts",
    "sessions",
    "api_tokens",
    "tokens",
    "votes",
    "comments",
    "notices",
    "collections",
    "subscriptions",
    "read_marks",
    "rates",
}


def test_only_a_site_with_readers_imports_what_they_need(tmp_path):
    import subprocess
    import sys

    code = (
        "import sys\nfrom broadsheet.web.app import create\nfrom broadsheet.web.settings import Settings\n"
        "from broadsheet.lab.store import Store\ncreate(Settings(meaning=False), Store())\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'webauthn', 'authlib', 'markdown_it', 'requests', 'joserfc'}))"
    )
    home = {"BROADSHEET_HOME": str(tmp_path / "home"), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], env=home, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# The list


def test_every_point_of_the_list_names_a_test_that_exists():
    from pathlib import Path

    root = Path(__file__).parents[2]
    rows = re.findall(r"^\| (\d+\.\d+\.\d+) \| (.+?) \| (.+?) \|$", (root / "docs/guide/security.md").read_text(), re.MULTILINE)
    assert len(rows) > 60
    assert len({number for number, _, _ in rows}) == len(rows)
    assert rows == sorted(rows, key=lambda row: [int(part) for part in row[0].split(".")])
    defined = set()
    for file in [*(root / "tests/readers").glob("test_*.py"), *(root / "tests/web").glob("test_*.py")]:
        defined |= set(re.findall(r"^def (test_\w+)\(", file.read_text(), re.MULTILINE))
    for number, _, tests in rows:
        named = re.findall(r"`(test_\w+)`", tests)
        assert named, number
        assert set(named) <= defined, (number, set(named) - defined)
