"""Passkeys: Chromium with a virtual authenticator at a served site, and answers that are not what was asked for."""

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from readership import mails
from serving import free_port, served
from sqlalchemy import select, update

from broadsheet.errors import InputError
from broadsheet.lab.people import Passkey, SignIn, Token
from broadsheet.lab.store import Store
from broadsheet.readers import accounts, passkeys
from broadsheet.readers.passkeys import party
from broadsheet.web.app import create
from broadsheet.web.settings import Settings
from waiting import follow, until

ADDRESS = "ada@example.org"


@pytest.fixture
def reader(browser, home, letters):
    """A window with an authenticator in it, signed in by a link; all that the console says beside refusals is an error."""
    port, store = free_port(), Store()
    url = f"http://localhost:{port}"
    settings = Settings(
        port=port, url=url, token="0123456789abcdef", meaning=False, readers=True, mail=str(letters), sender="p@example.org"
    )
    context = browser.new_context(base_url=url)
    page = context.new_page()
    said = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    devtools = context.new_cdp_session(page)
    devtools.send("WebAuthn.enable")
    devtools.send(
        "WebAuthn.addVirtualAuthenticator",
        {
            "options": {
                "protocol": "ctap2",
                "transport": "internal",
                "hasResidentKey": True,
                "hasUserVerification": True,
                "isUserVerified": True,
            }
        },
    )
    with served(create(settings, store), port):
        sign_in(page, letters)
        page.store = store
        yield page
        context.close()
    assert not [text for text in said if "status of 403" not in text], said


def sign_in(page, letters):
    page.goto("/sign-in")
    page.get_by_label("E-mail address").fill(ADDRESS)
    page.get_by_role("button", name="Send me a link").click()
    page.get_by_text("is on its way").wait_for()
    page.goto(re.search(r"/sign-in/[\w-]+", until(lambda: mails(letters, ADDRESS))[-1].get_body().get_content())[0])
    follow(page.get_by_role("button", name="Sign in"))
    assert page.url.endswith("/account")


def make(page, name="laptop"):
    page.goto("/account")
    page.get_by_label("A name for it").fill(name)
    page.get_by_role("button", name="Make a passkey").click()
    page.get_by_label("Name of passkey 1").wait_for()


def by_passkey(page):
    page.goto("/sign-in?next=/trending")
    page.get_by_role("button", name="Sign in with a passkey").click()


def test_a_passkey_is_made_named_used_and_removed(reader):
    make(reader)
    reader.get_by_label("Name of passkey 1").fill("the old laptop")
    follow(reader.get_by_role("button", name="Rename"))
    assert reader.url.endswith("/account#passkeys")
    assert reader.get_by_label("Name of passkey 1").input_value() == "the old laptop"
    reader.get_by_role("button", name="Sign out").click()
    reader.get_by_role("link", name="Sign in").wait_for()

    by_passkey(reader)
    reader.wait_for_url(re.compile(r":\d+/trending$"))
    with reader.store.session() as session:
        kept = session.scalars(select(Passkey)).one()
        assert kept.count > 0
        assert kept.used is not None
        assert len(list(session.scalars(select(SignIn)))) == 1
        assert all(row.used for row in session.scalars(select(Token).where(Token.purpose == "passkey")))
    reader.goto("/account")
    assert reader.get_by_text(ADDRESS).is_visible()

    follow(reader.get_by_role("button", name="Remove the old laptop"))
    assert reader.get_by_label("Name of passkey 1").count() == 0
    by_passkey(reader)
    reader.get_by_text("This passkey does not sign in here.").wait_for()


def test_the_same_device_is_asked_for_one_passkey(reader):
    make(reader)
    reader.get_by_label("A name for it").fill("again")
    reader.get_by_role("button", name="Make a passkey").click()
    reader.get_by_text("This device has a passkey of yours already.").wait_for()


def test_an_authenticator_whose_count_goes_back_is_a_copy(reader):
    make(reader)
    with reader.store.session() as session:
        session.execute(update(Passkey).values(count=1000))
    by_passkey(reader)
    reader.get_by_text("This passkey does not sign in here.").wait_for()


def test_who_signed_in_long_ago_signs_in_anew_to_make_one(reader):
    with reader.store.session() as session:
        session.execute(update(SignIn).values(made=session.scalars(select(SignIn.made)).one() - timedelta(hours=2)))
    reader.goto("/account")
    reader.get_by_label("A name for it").fill("late")
    reader.get_by_role("button", name="Make a passkey").click()
    reader.wait_for_url("**/sign-in?next=*")
    assert reader.get_by_text("sign in once more").is_visible()


def test_an_answer_is_taken_once_and_of_the_browser_that_asked(reader):
    """What a browser has signed is sent again, and from elsewhere."""
    make(reader)
    sent = []
    reader.on("request", lambda request: sent.append(request.post_data) if request.url.endswith("/passkeys") else None)
    by_passkey(reader)
    reader.wait_for_url(re.compile(r":\d+/trending$"))
    given = json.loads(sent[0])
    site = party(reader.url.removesuffix("/trending"), "Broadsheet")
    browser = next(one["value"] for one in reader.context.cookies() if one["name"] == "reader")
    for secret in (browser, "another browser"):
        with pytest.raises(InputError, match="begin anew"):
            passkeys.sign_in(reader.store, site, secret, given["token"], given["credential"])
    asked, _ = passkeys.begin(reader.store, site, "b")
    with pytest.raises(InputError, match="does not sign in"):  # what was signed for another challenge
        passkeys.sign_in(reader.store, site, "b", asked, given["credential"])


@pytest.mark.parametrize(
    "credential", ["", "null", "[]", "{}", '{"id": 1}', '{"id": "eA", "response": []}', '{"id": "eA", "rawId": "eA", "type": "public-key", "response": {}}']
)  # fmt: skip
def test_nonsense_is_refused_in_one_sentence(home, credential):
    store, site = Store(), party("http://localhost:8000", "Broadsheet")
    number, _, _ = accounts.sign_in(store, ADDRESS)
    with store.session() as session:
        session.add(Passkey(id="eA", account_id=number, public_key=b"x", count=0, name="x", made=datetime.now(UTC), used=None))
    token, _ = passkeys.begin(store, site, "b")
    with pytest.raises(InputError, match="This passkey does not sign in here"):
        passkeys.sign_in(store, site, "b", token, credential)
    with store.session() as session:
        reader = accounts.Reader(number, "Ada", ADDRESS, "reader")
    token, _ = passkeys.begin_adding(store, site, reader, "b")
    with pytest.raises(InputError, match="This passkey does not sign in here"):
        passkeys.add(store, site, number, "b", token, credential, "x")


def test_a_ceremony_is_of_its_account_and_its_kind(home):
    store, site = Store(), party("http://localhost:8000", "Broadsheet")
    (ada, _, _), (bob, _, _) = accounts.sign_in(store, ADDRESS), accounts.sign_in(store, "bob@example.org")
    token, options = passkeys.begin_adding(store, site, accounts.Reader(ada, "Ada", ADDRESS, "reader"), "b")
    assert ADDRESS not in json.dumps(options["user"]["id"])
    with pytest.raises(InputError, match="another account"):
        passkeys.add(store, site, bob, "b", token, "{}", "x")
    token, _ = passkeys.begin_adding(store, site, accounts.Reader(ada, "Ada", ADDRESS, "reader"), "b")
    with pytest.raises(InputError, match="not to sign in"):
        passkeys.sign_in(store, site, "b", token, "{}")


def test_passkeys_want_tls_and_a_name():
    assert party("https://papers.example.org/", "P").id == "papers.example.org"
    assert party("http://localhost:8000", "P").origin == "http://localhost:8000"
    for url in ("http://127.0.0.1:8000", "https://192.0.2.1", "https://[2001:db8::1]", "http://papers.example.org"):
        assert party(url, "P") is None


def test_a_site_under_a_number_offers_none(site):
    here = site(address=ADDRESS)
    here.base_url = "http://127.0.0.1:8000"
    assert "Make a passkey" not in here.get("/account").text
    assert here.post("/passkeys/options", headers={"origin": "http://127.0.0.1:8000"}).status_code == 404
