"""Signing in through OpenID providers: a small provider with a key of its own, honest or not."""

import base64
import hashlib
import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from serving import free_port, served
from sqlalchemy import select

from broadsheet.errors import InputError
from broadsheet.lab.people import Account, Identity, Token
from broadsheet.lab.store import Store
from broadsheet.readers import providers
from broadsheet.web.app import create
from broadsheet.web.settings import Settings

SECRET = "a secret of the client"
KEYS = [rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2)]


def b64(given):
    given = json.dumps(given).encode() if isinstance(given, dict) else given
    return base64.urlsafe_b64encode(given).decode().rstrip("=")


class Provider:
    """An OpenID provider (code flow, PKCE, RS256) written with a signature alone; `lies` changes what it says."""

    def __init__(self):
        self.key, self.other = KEYS
        self.codes, self.lies, self.subject, self.name, self.seen = {}, {}, "0000-0002-1825-0097", "Ada Lovelace", []
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                provider.get(self)

            def do_POST(self):
                provider.post(self)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, to, status, body, **headers):
        text = json.dumps(body).encode()
        to.send_response(status)
        for name, value in {"content-type": "application/json", "content-length": str(len(text)), **headers}.items():
            to.send_header(name, value)
        to.end_headers()
        to.wfile.write(text)

    def get(self, to):
        path, query = urlsplit(to.path).path, {name: values[0] for name, values in parse_qs(urlsplit(to.path).query).items()}
        if path in self.lies.get("elsewhere", ()):
            self.answer(to, 302, {}, location=f"{self.issuer}/moved{path}")
            return
        path = path.removeprefix("/moved")
        if path == "/.well-known/openid-configuration":
            said = {
                "issuer": self.issuer, "authorization_endpoint": f"{self.issuer}/authorize", "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys", "authorization_response_iss_parameter_supported": True,
            }  # fmt: skip
            self.answer(to, 200, {**said, **self.lies.get("metadata", {})})
        elif path == "/keys":
            numbers = self.key.public_key().public_numbers()
            parts = {
                name: b64(value.to_bytes((value.bit_length() + 7) // 8, "big"))
                for name, value in (("n", numbers.n), ("e", numbers.e))
            }
            self.answer(to, 200, {"keys": [{"kty": "RSA", "use": "sig", "kid": "one", **parts}]})
        elif path == "/authorize":  # signs everybody in, as a provider with a session does
            self.answer(to, 302, {}, location=self.back(query))
        else:
            self.answer(to, 404, {})

    def back(self, query):
        """Where a browser is sent after a sign-in."""
        assert query["response_type"] == "code"
        assert query["code_challenge_method"] == "S256"
        code = b64(hashlib.sha256(query["state"].encode()).digest())
        self.codes[code] = query
        return query["redirect_uri"] + "?" + urlencode({"code": code, "state": query["state"], "iss": self.issuer})

    def post(self, to):
        form = {name: values[0] for name, values in parse_qs(to.rfile.read(int(to.headers["content-length"])).decode()).items()}
        self.seen.append(form)
        asked = self.codes.pop(form.get("code"), None)
        own = to.headers.get("authorization") == "Basic " + base64.b64encode(f"client:{SECRET}".encode()).decode()
        proof = b64(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if asked is None or not own or proof != asked["code_challenge"] or form["redirect_uri"] != asked["redirect_uri"]:
            self.answer(to, 400, {"error": "invalid_grant"})
            return
        now = int(time.time())
        claims = {
            "iss": self.issuer, "sub": self.subject, "aud": "client", "nonce": asked["nonce"], "iat": now, "exp": now + 300,
            "name": self.name, "email": "victim@example.org", "email_verified": True,
        }  # fmt: skip
        self.answer(
            to,
            200,
            {"access_token": "x", "token_type": "Bearer", "id_token": self.token({**claims, **self.lies.get("claims", {})})},
        )

    def token(self, claims):
        header = {"alg": "RS256", "kid": "one", **self.lies.get("header", {})}
        signed = f"{b64(header)}.{b64(claims)}"
        if header["alg"] == "none":
            return signed + "."
        key = self.other if self.lies.get("key") else self.key
        if header["alg"] == "HS256":  # the public key as a secret that both know
            import hmac

            pem = self.key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            return f"{signed}.{b64(hmac.new(pem, signed.encode(), 'sha256').digest())}"
        return f"{signed}.{b64(key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


@pytest.fixture
def provider():
    made = Provider()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def file(provider, tmp_path, monkeypatch):
    """The administrator's file, which names the environment's variable with the secret."""
    monkeypatch.setenv("CLIENT_SECRET", SECRET)
    place = tmp_path / "providers.toml"
    place.write_text(
        f'[[provider]]\nname = "The Lab"\nissuer = "{provider.issuer}"\nclient_id = "client"\nclient_secret_env = "CLIENT_SECRET"\n'
    )
    return str(place)


@pytest.fixture
def browser_at(site, file):
    """Browsers at one site."""
    first = site(providers=file)
    return lambda **options: site(app=first.app, **options)


def on_the_way(browser, path="/providers/the-lab", **data):
    """What a reader's browser asks the provider for."""
    answer = browser.post(path, data=data)
    assert answer.status_code == 200, answer.text
    address = answer.text.split('<a href="http://127', 1)[1].split('"', 1)[0]
    return {name: values[0] for name, values in parse_qs(urlsplit(address.replace("&amp;", "&")).query).items()}


def come_back(browser, provider, query):
    return browser.get(provider.back(query).removeprefix("http://localhost:8000"))


def held(store, table):
    with store.session() as session:
        found = list(session.scalars(select(table)))
        session.expunge_all()
        return found


def test_a_provider_signs_in_and_its_word_on_addresses_counts_for_nothing(browser_at, provider):
    victim = browser_at(address="victim@example.org")
    browser = browser_at()
    answer = come_back(browser, provider, on_the_way(browser, next="/trending"))
    assert (answer.status_code, answer.headers["location"]) == (303, "/account")  # a new account
    page = browser.get("/account").text
    assert "Ada Lovelace" in page
    assert "victim@example.org" not in page
    store = browser.app.state.edition.store
    assert [one.address for one in held(store, Account)] == ["victim@example.org", None]
    again = browser_at()
    assert come_back(again, provider, on_the_way(again, next="/trending")).headers["location"] == "/trending"
    assert len(held(store, Account)) == 2
    provider.subject, other = "0000-0001", browser_at()
    come_back(other, provider, on_the_way(other))
    assert len(held(store, Account)) == 3
    assert "victim@example.org" in victim.get("/account").text
    assert SECRET not in str(held(store, Token)[0].data)


def test_what_is_asked_is_proved(browser_at, provider):
    browser = browser_at()
    query = on_the_way(browser)
    assert query["scope"] == "openid profile"
    assert query["redirect_uri"] == "http://localhost:8000/providers/the-lab/callback"
    assert min(len(query[name]) for name in ("state", "nonce", "code_challenge")) >= 43
    come_back(browser, provider, query)
    assert len(provider.seen[0]["code_verifier"]) >= 43
    assert query["nonce"] != on_the_way(browser)["nonce"]


LIES = {
    "another issuer": {"claims": {"iss": "https://evil.example"}},
    "another audience": {"claims": {"aud": "another client"}},
    "several audiences": {"claims": {"aud": ["client", "another client"]}},
    "another party": {"claims": {"azp": "another client"}},
    "another nonce": {"claims": {"nonce": "of another sign-in"}},
    "no nonce": {"claims": {"nonce": None}},
    "too old": {"claims": {"exp": int(time.time()) - 600}},
    "no end": {"claims": {"exp": None}},
    "no subject": {"claims": {"sub": ""}},
    "a subject that is none": {"claims": {"sub": {"a": 1}}},
    "another key": {"key": True},
    "no signature": {"header": {"alg": "none"}},
    "a shared secret": {"header": {"alg": "HS256"}},
    "an unknown key": {"header": {"kid": "two"}},
    "a key of its own": {"key": True, "header": {"kid": "two", "jku": "http://127.0.0.1/keys"}},
    "metadata behind a redirect": {"elsewhere": ["/.well-known/openid-configuration"]},
    "keys behind a redirect": {"elsewhere": ["/keys"]},
    "metadata of another": {"metadata": {"issuer": "https://evil.example"}},
    "keys elsewhere": {"metadata": {"jwks_uri": "http://169.254.169.254/keys"}},
    "a token endpoint elsewhere": {"metadata": {"token_endpoint": "http://192.0.2.1/token"}},
}


def test_an_answer_that_cannot_be_believed_signs_nobody_in(browser_at, provider):
    browser = browser_at()
    for lie, lies in LIES.items():
        provider.lies = {}
        query = on_the_way(browser)
        provider.lies = lies
        answer = come_back(browser, provider, query)
        assert answer.status_code in (422, 502), lie
        assert "reader=" not in answer.headers.get("set-cookie", ""), lie
        assert held(browser.app.state.edition.store, Account) == [], lie
    provider.lies = {}
    assert come_back(browser, provider, on_the_way(browser)).status_code == 303


def test_an_answer_is_for_the_browser_that_asked_and_for_one_time(browser_at, provider):
    browser, other = browser_at(), browser_at()
    query = on_the_way(browser)
    assert come_back(other, provider, query).status_code == 403  # somebody is led into the account of another
    assert come_back(browser, provider, query).status_code == 303
    assert come_back(browser, provider, query).status_code == 403
    assert browser.get("/providers/the-lab/callback?state=x&code=y").status_code == 403
    assert browser.get("/providers/the-lab/callback?error=access_denied").status_code == 403
    assert browser.get("/providers/other/callback?state=x&code=y").status_code == 404
    query = on_the_way(other)
    back = provider.back(query).removeprefix("http://localhost:8000")
    assert other.get(back.replace(urlencode({"iss": provider.issuer}), "iss=https%3A%2F%2Fevil.example")).status_code == 403
    query = on_the_way(other)
    assert other.get(provider.back(query).removeprefix("http://localhost:8000").split("&iss=")[0]).status_code == 403


def test_linking_is_of_the_account_that_asked(browser_at, provider):
    ada, bob = browser_at(address="ada@example.org"), browser_at(address="bob@example.org")
    assert come_back(ada, provider, on_the_way(ada, "/account/providers/the-lab")).headers["location"] == "/account#links"
    assert "Ada Lovelace" in ada.get("/account").text
    answer = come_back(bob, provider, on_the_way(bob, "/account/providers/the-lab"))
    assert answer.status_code == 409
    assert "Another account is linked with that" in answer.text
    provider.subject = "another"
    query = on_the_way(bob, "/account/providers/the-lab")
    bob.post("/sign-out")
    assert come_back(bob, provider, query).status_code == 403
    assert [one.account_id for one in held(ada.app.state.edition.store, Identity)] == [1]
    provider.subject, elsewhere = "0000-0002-1825-0097", browser_at()
    come_back(elsewhere, provider, on_the_way(elsewhere))
    assert "ada@example.org" in elsewhere.get("/account").text
    link = {"issuer": provider.issuer, "subject": "0000-0002-1825-0097"}
    bob.sign_in("bob@example.org")
    bob.post("/account/links/end", data=link)
    assert len(held(ada.app.state.edition.store, Identity)) == 1
    assert ada.post("/account/links/end", data=link).status_code == 303
    assert held(ada.app.state.edition.store, Identity) == []


def test_the_last_way_in_is_kept(browser_at, provider):
    browser = browser_at()
    come_back(browser, provider, on_the_way(browser))
    answer = browser.post("/account/links/end", data={"issuer": provider.issuer, "subject": provider.subject})
    assert answer.status_code == 422
    assert "add an e-mail address first" in answer.text
    assert len(held(browser.app.state.edition.store, Identity)) == 1


def test_a_form_of_another_site_begins_nothing(browser_at):
    browser = browser_at(address="ada@example.org")
    for path in ("/providers/the-lab", "/account/providers/the-lab"):
        assert browser.post(path, headers={"origin": "https://evil.example"}).status_code == 403
    assert browser.get("/account/providers/the-lab").status_code == 405


def test_names_from_elsewhere_are_names_of_ours(browser_at, provider):
    for number, (given, shown) in enumerate(
        [("<script>", "Reader"), ("Administrator", "Reader"), ("x" * 500, "Reader"), ("Ada", "Ada")]
    ):
        provider.subject, provider.name, browser = str(number), given, browser_at()
        come_back(browser, provider, on_the_way(browser))
        page = browser.get("/account").text
        assert f"<h1>{shown}" in page
        assert "<script>" not in page
    assert max(len(one.name) for one in held(browser.app.state.edition.store, Identity)) <= 200


def test_a_provider_that_is_away(browser_at, provider):
    browser = browser_at()
    query = on_the_way(browser)
    back = provider.back(query)
    provider.server.shutdown()
    provider.server.server_close()
    assert browser.post("/providers/the-lab").status_code == 502
    assert browser.get(back.removeprefix("http://localhost:8000")).status_code == 502


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("provider = 1", "no \\[\\[provider\\]\\]"),
        ("[[provider", "no TOML"),
        ('[[provider]]\nname = "A"\nissuer = "http://evil.example"\nclient_id = "c"', "https://… is wanted"),
        ('[[provider]]\nname = "A"\nissuer = "https://a.example"', "client_id"),
        (
            '[[provider]]\nname = "A"\nissuer = "https://a.example"\nclient_id = "c"\nclient_secret_env = "NOT_THERE"',
            "NOT_THERE",
        ),
        ('[[provider]]\nname = "A"\nissuer = "https://a.example"\nclient_id = "c"\nscopes = ["email"]', "openid"),
        ('[[provider]]\nname = "A"\nissuer = "https://a.example"\nclient_id = "c"\nsecret = "x"', "no 'secret'"),
        (2 * '[[provider]]\nname = "A"\nissuer = "https://a.example"\nclient_id = "c"\n', "twice"),
    ],
)
def test_a_file_that_is_wrong_is_told_in_a_sentence(tmp_path, text, said):
    (tmp_path / "p.toml").write_text(text)
    with pytest.raises(InputError, match=said):
        providers.configured(str(tmp_path / "p.toml"))


def test_a_secret_is_never_shown(file):
    assert SECRET not in repr(providers.configured(file))


@contextmanager
def window(browser, url):
    context = browser.new_context(base_url=url)
    page = context.new_page()
    said = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    yield page
    context.close()
    assert not said


def test_in_a_real_browser(browser, home, letters, file, provider):
    """Cookies, the policy of our pages and the way through another site's redirect, as Chromium takes them."""
    port, store = free_port(), Store()
    url = f"http://localhost:{port}"
    settings = Settings(
        port=port,
        url=url,
        token="0123456789abcdef",
        meaning=False,
        readers=True,
        mail=str(letters),
        sender="p@example.org",
        providers=file,
    )
    with served(create(settings, store), port), window(browser, url) as page:
        page.goto("/sign-in?next=/topics")
        page.get_by_role("button", name="Sign in with The Lab").click()
        page.wait_for_url(f"{url}/account")
        assert page.get_by_role("heading", name="Ada Lovelace").is_visible()
        assert page.get_by_role("cell", name="The Lab", exact=True).is_visible()
