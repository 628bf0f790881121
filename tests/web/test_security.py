"""Who is answered, what is said to whom, and what becomes of those who never finish their request."""

import asyncio
import contextlib
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import feedparser
import pytest
import uvicorn
from browsing import client

from broadsheet.lab.engine import plan
from broadsheet.lab.external import load_repository
from broadsheet.lab.jobs import Jobs
from broadsheet.lab.messages import JobSpec, Progress, Started
from broadsheet.lab.store import Store
from broadsheet.web import administration, live, security
from broadsheet.web.app import create
from broadsheet.web.patience import Patient
from broadsheet.web.security import TRIES, WINDOW, Tries
from broadsheet.web.settings import Settings
from waiting import until

TOKEN = "a-token-of-enough-length"
SECRET = "/srv/private/weights.npz"


def public(**options):
    """A reader elsewhere of a site that has a token."""
    settings = Settings(host="0.0.0.0", token=TOKEN, meaning=False)
    return client(settings, address=options.pop("address", ("192.168.1.7", 5)), **options)


@pytest.mark.parametrize(
    "path", ["/", "/feeds/latest.atom", "/sitemap.xml", "/papers/hlop", "/topics/", "/api/v1/papers", "/healthz"]
)
def test_a_host_that_is_not_ours_is_refused(site, path):
    for host in ("evil.example", "evil.example:8000", "localhost@evil.example", "localhost/evil", "127.0.0.1.evil.example", ""):
        answer = site.get(path, headers={"host": host}, follow_redirects=False)
        assert answer.status_code == 421, host
        assert "location" not in answer.headers
        assert answer.headers["content-security-policy"]
    for host in ("localhost", "127.0.0.1:8000", "[::1]:8000"):
        assert site.get(path, headers={"host": host}).status_code == 200


def test_feeds_name_the_public_address_and_no_other(page):
    with client(Settings(url="https://papers.example.org/", token=TOKEN, meaning=False)) as site:
        for host in ("localhost:8000", "papers.example.org", "PAPERS.example.org:443"):
            read = feedparser.parse(site.get("/feeds/latest.atom", headers={"host": host}).content)
            assert read.feed.id == "https://papers.example.org/"
            assert read.entries[0].link == "https://papers.example.org/papers/fresh-paper-without-system"
        assert site.get("/", headers={"host": "other.example.org"}).status_code == 421


def test_wrong_tokens_have_a_limit_for_each_address(page, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(security, "time", SimpleNamespace(monotonic=lambda: now[0], time=time.time))
    # not by asyncio.sleep, which the loop of the page itself rests by
    monkeypatch.setattr(administration, "asyncio", SimpleNamespace(sleep=_no_sleep))
    with public() as here:
        for _ in range(TRIES):
            assert here.post("/administrator", data={"token": "wrong"}).status_code == 403
        for token in ("wrong", TOKEN):
            answer = here.post("/administrator", data={"token": token})
            assert answer.status_code == 429
            assert 0 < int(answer.headers["retry-after"]) <= WINDOW
        bearer = {"authorization": f"Bearer {TOKEN}"}
        assert here.post("/api/v1/imports", json={"source": "x"}, headers=bearer).status_code == 429
        assert "Import papers" not in here.get("/runs", headers=bearer).text
        assert here.get("/").status_code == 200  # reading goes on
        now[0] += WINDOW + 1
        assert here.post("/administrator", data={"token": TOKEN}, follow_redirects=False).status_code == 303


def run(work):
    """What a coroutine gives, in a thread: the browser's tests leave a loop in this one."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(asyncio.run, work).result()


async def _no_sleep(seconds):
    return None


def test_wrong_tokens_in_headers_count_as_well(page):
    run = {"slug": "elm-neuron", "experiment": "recall"}
    with public() as here:
        statuses = [
            here.post("/api/v1/jobs", json=run, headers={"authorization": f"Bearer {k}"}).status_code for k in range(TRIES + 2)
        ]
        assert statuses == [403] * (TRIES - 1) + [429] * 3


def test_addresses_that_are_kept_are_bounded():
    def asked(host):
        return SimpleNamespace(client=SimpleNamespace(host=host))

    tries = Tries(most=50)
    for k in range(1000):
        tries.right(asked(f"10.0.{k // 250}.{k % 250}"), "wrong", TOKEN)
    assert len(tries._wrong) == 50
    for k in range(TRIES):  # one customer has a whole network of IPv6 addresses
        tries.right(asked(f"2001:db8:1:2::{k:x}"), "wrong", TOKEN)
    assert tries.wait(asked("2001:db8:1:2:ffff::1"))
    assert not tries.wait(asked("2001:db8:1:3::1"))


def test_another_sites_page_can_sign_nobody_out(page):
    with public() as here:
        here.post("/administrator", data={"token": TOKEN})
        for headers in ({"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}):
            assert here.post("/administrator/leave", headers=headers, follow_redirects=False).status_code == 403
            assert "Sign out" in here.get("/runs").text
        assert here.post("/administrator/leave", headers={"origin": "http://localhost:8000"}).status_code == 200
        assert "Sign out" not in here.get("/runs").text


def test_why_a_job_failed_is_for_the_administrator(page):
    jobs = Jobs(Store())
    with public() as reader, public() as holder:
        holder.headers["authorization"] = f"Bearer {TOKEN}"
        number = jobs.start(JobSpec("hlop", "permuted"))
        jobs.end(number, "failed", f"{SECRET} cannot be read.")
        for path in ("/api/v1/jobs", f"/api/v1/jobs/{number}", "/runs"):
            assert SECRET not in reader.get(path).text
            assert "failed" in reader.get(path).text
            assert "The administrator sees why." in reader.get(path).text
            assert SECRET in holder.get(path).text
        for administrator in (False, True):
            said = run(_end(reader.app.state.live, administrator, number))
            assert (SECRET in said["data"]) is administrator
        reader.app.state.live.trouble = f"postgresql://user:password@host, {SECRET}"
        answer = reader.get("/healthz")
        assert (answer.status_code, answer.json()["trouble"]) == (503, "The store cannot be reached.")
        assert "password" not in reader.get("/").text


async def _end(watched, administrator, number):
    """What a reader is sent of a job's end."""
    stream = watched.events(None, administrator)
    waiting = asyncio.ensure_future(anext(stream))
    while not watched._readers:
        await asyncio.sleep(0.01)
    said = Jobs(watched.edition.store).events(0, number)[-1]
    for queue in watched._readers:
        queue.put_nowait(watched._event(number, said[2], said[0]))
    return await asyncio.wait_for(waiting, 10)


def test_a_repository_that_bears_a_papers_name_is_not_that_paper(page, tmp_path):
    (tmp_path / "claims.toml").write_text(
        '[repository]\nname = "hlop"\n[[experiment]]\nname = "mixing"\ncommand = "true {out}"\nablations = { off = "true {out}" }\nnulls = { none = "true {out}" }\n'
        '[[experiment.claim]]\nid = "C1"\nstatement = "it mixes"\nwhere = "here"\nchecks = [{ metric = "error", at_most = 1 }]\n'
    )
    store = Store()
    made = plan(load_repository(tmp_path), JobSpec("hlop", "mixing"), store)
    number = Jobs(store).start(made.job)
    with client() as site:
        assert [(job["slug"], job["repository"]) for job in site.get("/api/v1/jobs").json()] == [("hlop", True)]
        row = site.get("/runs").text
        assert "a repository of this machine" in row
        assert 'href="/papers/hlop"' not in row
        watched = site.app.state.live
        until(lambda: watched.active)
        assert watched.active_of("hlop") == ()
        assert "mixing" not in site.get("/papers/hlop").text
        Jobs(store).tell(number, Started("r", "system", 100, 0, 2))
        assert [live._of(event, "hlop") for event in watched.history(None)] == [False]


@contextlib.contextmanager
def served(app, **changes):
    """An application on a free port, in a thread, with uvicorn's protocol as the site has it."""
    protocol = type("Tested", (Patient,), changes)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", http=protocol, timeout_keep_alive=1))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = server.force_exit = True
        thread.join(20)


def test_two_hundred_readers_each_get_their_events_or_are_told_to_come_back(page, monkeypatch, caplog):
    monkeypatch.setattr(live, "MOST_READERS", 150)
    store = Store()
    jobs = Jobs(store)
    number = jobs.start(JobSpec("hlop", "permuted"))
    with served(create(Settings(meaning=False), store)) as port:

        async def reader():
            streams, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /api/v1/events?slug=hlop HTTP/1.1\r\nHost: localhost\r\n\r\n")
            text = b""
            while b"retry: " not in text and b'"fraction": 0.75' not in text:
                part = await streams.read(65536)
                if not part:
                    break
                text += part
            writer.close()
            return text

        async def all_of_them():
            waiting = [asyncio.ensure_future(reader()) for _ in range(200)]
            await asyncio.sleep(1.5)
            for said in (Started("r", "system", 100, 0, 1), Progress("r", 0.25), Progress("r", 0.5), Progress("r", 0.75)):
                await asyncio.to_thread(jobs.tell, number, said)
            return await asyncio.wait_for(asyncio.gather(*waiting), 60)

        answers = run(all_of_them())
    late = [text for text in answers if b"event: full" in text]
    assert len(late) == 50
    assert all(b"retry: 30000" in text and b"200 OK" in text for text in late)
    for text in answers:
        if text not in late:
            heard = [json.loads(line[6:]) for line in text.decode().splitlines() if line.startswith("data: {")]
            assert [event.get("fraction") for event in heard] == [None, 0.25, 0.5, 0.75]  # each once, in order
    assert not [record for record in caplog.records if record.exc_info]


def until_closed(connection, seconds=10.0):
    connection.settimeout(seconds)
    text = b""
    while part := connection.recv(65536):
        text += part
    return text


def test_requests_that_never_come_whole_are_ended(page, monkeypatch):
    monkeypatch.setattr(security, "PATIENCE", 0.5)
    with served(create(Settings(meaning=False), Store()), patience=0.5) as port:

        def begun(text):
            made = socket.create_connection(("127.0.0.1", port))
            made.sendall(text)
            return made

        assert until_closed(begun(b"")) == b""
        assert until_closed(begun(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-")).startswith(b"HTTP/1.1 408")
        answered = begun(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HT")  # a second one that stops
        answered.sendall(b"TP/1.1\r\n")
        assert until_closed(answered).startswith(b"HTTP/1.1 200")
        body = (
            b"POST /api/v1/imports HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n{"
        )
        assert until_closed(begun(body)).startswith(b"HTTP/1.1 408")
        dripping = begun(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
        began = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() < began + 10:
                dripping.sendall(b"a")
                time.sleep(0.05)
        assert time.monotonic() - began < 5  # no byte more prolongs it
        assert b" 431 " in until_closed(begun(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000))
        slow = begun(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")  # who listens has sent all there is
        slow.settimeout(2)
        assert slow.recv(100).startswith(b"HTTP/1.1 200")
        time.sleep(1.2)
        slow.setblocking(False)
        with contextlib.suppress(BlockingIOError):  # nothing new, and no end
            assert slow.recv(10_000)
