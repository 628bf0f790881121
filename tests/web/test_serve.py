"""The whole site as processes: started, killed in the middle, started again."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import asdict
from datetime import date

import psutil
import pytest
from browsing import FRESH

from broadsheet.lab.jobs import Jobs
from broadsheet.lab.store import Store
from broadsheet.page import Catalogue
from broadsheet.page.facts import Facts
from broadsheet.web.settings import VARIABLE, Settings
from commands import call
from waiting import until


class Site:
    """`broadsheet serve` on a free port."""

    def __init__(self, *words, **env):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "broadsheet.cli", "serve", "--port", str(self.port), "--no-meaning", "--log", "json"]
        self.process = subprocess.Popen(
            [*command, *words], env={**os.environ, **env}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )  # fmt: skip
        self.lines = []
        threading.Thread(target=lambda: self.lines.extend(self.process.stderr), daemon=True).start()
        until(lambda: self.process.poll() is not None or self.answers())
        assert self.process.poll() is None, self.lines

    def answers(self):
        try:
            return self.get("/healthz")["status"] == "ok"
        except OSError:
            return False

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            return json.loads(answer.read())

    def post(self, path, body):
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read())

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self):
        self.process.terminate()
        self.process.wait(30)


def events(site, slug, wanted):
    """Reads server-sent events until one of the wanted kind came."""
    found = []
    with urllib.request.urlopen(f"{site.url}/api/v1/events?slug={slug}", timeout=60) as stream:
        for line in stream:
            if line.startswith(b"data:"):
                found.append(json.loads(line[5:]))
                if found[-1]["kind"] == wanted:
                    return found
    return found


def test_a_run_from_request_to_figure_and_a_graceful_end(home):
    site = Site()
    try:
        (job,) = site.post("/api/v1/jobs", {"slug": "sdr-dendrites", "experiment": "union", "preset": "smoke"})
        heard = events(site, "sdr-dendrites", "end")
        assert next(event["kind"] for event in heard if event["kind"] != "queued") == "start"
        assert {event["job"] for event in heard} == {job["id"]}
        assert heard[-1]["state"] == "done"
        assert site.get(f"/api/v1/jobs/{job['id']}")["state"] == "done"
        began = time.monotonic()
        waiting = threading.Thread(target=events, args=(site, "hlop", "never"), daemon=True)
        waiting.start()  # a reader who stays connected does not hold the end up
        time.sleep(0.5)
        site.stop()
        assert time.monotonic() - began < 15
        assert site.process.returncode == 0
    finally:
        site.process.kill()
    logged = [json.loads(line) for line in site.lines if line.startswith("{")]
    assert len(logged) == len(site.lines)
    assert {"job started", "job ended"} <= {line["event"] for line in logged}
    request = next(line for line in logged if line["event"] == "request" and line["path"] == "/api/v1/jobs")
    assert (request["method"], request["status"]) == ("POST", 202)
    assert len(Store().find(slug="sdr-dendrites")) == 1


def test_kill_the_site_while_it_runs_and_imports(any_home):
    """kill -9 three times, with a run and an import under way: afterwards everything is there, once."""
    Catalogue().add("hub", FRESH, date(2025, 12, 11))
    papers = [Facts(f"Paper number {k}", arxiv=f"2511.{k:05d}") for k in range(4000)]
    body = json.dumps([facts.known() for facts in papers]).encode()
    numbers = set()
    for wait in (0.15, 0.6, 1.5):
        site = Site()
        for job in site.post(
            "/api/v1/jobs", {"slug": "nested-dynamics", "experiment": "counting", "preset": "smoke", "seeds": 2}
        ):
            numbers.add(job["id"])
        sender = threading.Thread(target=_send, args=(site, body))
        sender.start()
        time.sleep(wait)
        site.kill()
        sender.join()
        listed = len(Catalogue(Store()).papers())
        assert listed in (44, 4044)  # all of the import, or nothing
    site = Site()
    try:
        assert json.loads(_send(site, body))["seen"] == 4000
        until(lambda: all(site.get(f"/api/v1/jobs/{number}")["state"] == "done" for number in numbers), 90)
    finally:
        site.stop()
    assert len(Catalogue(Store()).papers()) == 4044
    runs = [(run.experiment, run.variant, run.seed) for run in Store().find(slug="nested-dynamics")]
    assert len(runs) == len(set(runs))
    assert {seed for *_, seed in runs} == {100, 101}
    assert not [job for job in Jobs(Store()).recent() if job.state in ("running", "queued")]


def test_web_processes_end_with_a_killed_site(home):
    """Else they would keep the port, and no other site could start there."""
    site = Site("--workers", "2")
    until(lambda: len(_started(site, 2)) == 2)
    web = [psutil.Process(number) for number in _started(site, 2)]
    site.kill()
    psutil.wait_procs(web, 30)
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in web)


def _send(site, body):
    request = urllib.request.Request(f"{site.url}/api/v1/imports/page?name=x.json&as_of=2025-12-10", body)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()
    except OSError:
        return b""


def test_a_killed_database_is_told_and_comes_back(home, monkeypatch, tmp_path_factory, kill_server):
    pgserver = pytest.importorskip("pgserver", reason="PostgreSQL is not here: pip install '.[dev,postgres]'")
    place = tmp_path_factory.mktemp("pg")
    for folder in (place.parent.parent, place.parent):
        folder.chmod(0o755)
    server = pgserver.get_server(place, cleanup_mode=None)
    monkeypatch.setenv("BROADSHEET_DATABASE", server.get_uri())
    Catalogue().add("hub", FRESH, date(2025, 12, 11))
    site = Site("--workers", "2")
    try:
        first, _ = until(lambda: _started(site, 2))
        kill_server(place)
        until(lambda: _status(site, "/healthz") == 503, 30)
        assert _status(site, "/papers/fresh-paper-without-system") in (200, 503)
        assert _status(site, "/") == 200  # what was known is still shown
        assert _status(site, "/api/v1/jobs") == 503
        os.kill(first, signal.SIGKILL)  # the web process that follows has nothing to show yet, and ends nothing
        until(lambda: _started(site, 3))
        assert _status(site, "/") in (200, 503)
        server = pgserver.get_server(place, cleanup_mode="delete")
        (job,) = until(lambda: _asked(site, {"slug": "sdr-dendrites", "experiment": "union", "preset": "smoke"}))
        until(lambda: _state(site, job) == "done", 120)  # a runner that ended is started again after half a minute
        assert len(Catalogue(Store()).papers()) == 44
    finally:
        site.stop()
        server.cleanup()


def _started(site, count):
    """The numbers of the web processes that have started up, when there are as many."""
    lines = list(site.lines)
    if sum("Application startup complete" in line for line in lines) < count:
        return []
    return [int(found[1]) for line in lines if (found := re.search(r"Started server process \[(\d+)\]", line))]


def _status(site, path):
    try:
        with urllib.request.urlopen(site.url + path, timeout=20) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_a_worker_started_during_an_outage_says_so_until_the_store_is_back(home, monkeypatch):
    """uvicorn ends the whole site where a worker fails to start."""
    from fastapi.testclient import TestClient

    from broadsheet.errors import StoreError
    from broadsheet.web import app

    Catalogue().add("hub", FRESH, date(2025, 12, 11))
    away, session = [True], Store.session

    def sometimes(store):
        if away:
            raise StoreError("The store is away.")
        return session(store)

    monkeypatch.setattr(Store, "session", sometimes)
    monkeypatch.setattr(app.logs, "configure", lambda *_, **__: None)
    monkeypatch.setenv(VARIABLE, json.dumps(asdict(Settings(meaning=False))))
    with TestClient(app.worker()) as site:
        assert [site.get(path).status_code for path in ("/", "/papers/hlop", "/api/v1/papers", "/feeds/latest.atom")] == [
            503
        ] * 4
        assert site.get("/static/site.css").status_code == 200
        answer = site.get("/healthz")
        assert (answer.status_code, answer.json()["trouble"]) == (503, "The store cannot be reached.")
        away.clear()
        until(lambda: site.get("/healthz").status_code == 200)
        assert site.get("/papers/fresh-paper-without-system").status_code == 200


def test_a_runner_started_during_an_outage_waits_for_the_store(monkeypatch):
    from broadsheet.cli import serving
    from broadsheet.errors import StoreError

    outage = [StoreError("away"), StoreError("away")]

    def store():
        if outage:
            raise outage.pop()
        return "the store"

    monkeypatch.setattr("broadsheet.lab.store.Store", store)
    monkeypatch.setattr(serving.select, "select", lambda *_: ([], [], []))
    assert serving._store_when_back() == "the store"
    outage.append(StoreError("away"))
    monkeypatch.setattr(serving.select, "select", lambda *_: ([0], [], []))
    with pytest.raises(SystemExit):  # the site has ended
        serving._store_when_back()


def _asked(site, job):
    """The job as it was queued; nothing while the web process that is asked has not found the store again."""
    try:
        return site.post("/api/v1/jobs", job)
    except urllib.error.HTTPError as error:
        assert error.code == 503
        return []


def _state(site, job):
    """A job's state; nothing while a web worker still finds its connections broken."""
    try:
        return site.get(f"/api/v1/jobs/{job['id']}")["state"]
    except OSError:
        return None


@pytest.mark.parametrize(
    ("words", "env", "said"),
    [
        (["--host", "0.0.0.0"], {}, "set an administrator's token"),
        (["--host", "0.0.0.0"], {"BROADSHEET_TOKEN": "short"}, "too short"),
        (["--host", "203.0.113.7"], {"BROADSHEET_TOKEN": "x" * 20}, "cannot listen"),
        (["--token-file", "/nowhere"], {}, "nowhere"),
    ],
)
def test_it_refuses_to_start_in_one_sentence(home, words, env, said):
    done = call("serve", *words, code=2, **env)
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_watch_looks_once_and_says_why_not(home):
    done = subprocess.run(
        [sys.executable, "-m", "broadsheet.cli", "watch", "--once", "--no-embed"],
        env={**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 2
    assert re.search("daily papers could not be read", done.stderr)
    assert "Traceback" not in done.stderr
    assert "no live source" in call("watch", "page.txt", code=2).stderr


def test_backup_and_restore_by_command(page, tmp_path):
    assert "2 papers" in call("db", "backup", tmp_path / "all.zip").stdout
    assert "2 papers" in call("db", "restore", tmp_path / "all.zip", BROADSHEET_HOME=str(tmp_path / "other")).stdout
    assert "nothing was to be done" in call("db", "upgrade").stdout
    assert len(call("db", "restore", tmp_path / "all.zip", code=2).stderr.splitlines()) == 1
