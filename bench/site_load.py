"""The site under load: 20 000 papers, pages at a steady rate, search, and an import of 10 000 records.

    python bench/site_load.py [--papers 20000] [--rate 100] [--seconds 30] [--workers 1] [--readers]

With `--readers` the site has 5000 accounts, 100 000 votes and 50 000 comments; pages are asked for by nobody, by somebody who is
signed in, and while readers vote, and a digest of 5000 addresses is composed.

Everything runs on this machine, the client included. It writes the figures as JSON on standard output.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from broadsheet.lab.store import Store

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "page"))

QUERIES = ("spike sorting", "post-synaptic potential", "how do networks forget", "dendritc neuron", "optimal transport of cells",
           "graph of molecules", "active learning for water", "quantised language models", "replay in the hippocampus",
           "exotic mesons", "sea ice emulators", "membrane noise", "contrastive pretraining of speech", "safe policies")  # fmt: skip


def percentiles(times: list[float]) -> dict[str, float]:
    """p50, p95, p99 and the largest, in ms."""
    cut = quantiles(times, n=100)
    return {"p50": round(cut[49], 1), "p95": round(cut[94], 1), "p99": round(cut[98], 1), "max": round(max(times), 1)}


class Client:
    """Requests over connections that are kept."""

    def __init__(self, port: int, cookie: str = "") -> None:
        self.port = port
        self.cookie = f"Cookie: {cookie}\r\n" if cookie else ""
        self.free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, path: str, method: str = "GET", form: str = "") -> tuple[int, int]:
        """(status, length of the answer)."""
        reader, writer = self.free.pop() if self.free else await asyncio.open_connection("127.0.0.1", self.port)
        kind = f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(form)}\r\n" if form else ""
        own = f"Host: 127.0.0.1:{self.port}\r\nOrigin: http://127.0.0.1:{self.port}\r\n"
        writer.write(f"{method} {path} HTTP/1.1\r\n{own}{self.cookie}{kind}\r\n{form}".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.split("content-length:")[1].split("\r\n")[0])
        await reader.readexactly(length)
        self.free.append((reader, writer))
        return int(head.split()[1]), length


async def steady(port: int, paths: list[str], rate: float, cookies: Sequence[str] = ("",)) -> tuple[list[float], int]:
    """(latencies from the moment each request was due, ms; how many failed), by turns of those who have the cookies."""
    clients, times, failed = [Client(port, cookie) for cookie in cookies], [], 0
    began = time.perf_counter()

    async def one(k: int, path: str) -> None:
        nonlocal failed
        due = began + k / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        try:
            status, _ = await clients[k % len(clients)].ask(path)
            failed += status != 200
        except (OSError, asyncio.IncompleteReadError):
            failed += 1
        times.append(1000 * (time.perf_counter() - due))

    await asyncio.gather(*(one(k, path) for k, path in enumerate(paths)))
    return times, failed


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    for name, value in (("papers", 20_000), ("rate", 100), ("seconds", 30), ("workers", 1)):
        options.add_argument(f"--{name}", type=int, default=value)
    options.add_argument(
        "--embed", action="store_true", help="Embed all papers first (minutes), so that search goes by meaning."
    )
    options.add_argument("--readers", action="store_true", help="People have accounts; see above.")
    options.add_argument("--home", type=Path, default=None, help="A home folder to make, or to use again.")
    given = options.parse_args()
    place = given.home or Path(tempfile.mkdtemp())
    os.environ["BROADSHEET_HOME"] = str(place)
    from records import records

    from broadsheet.lab.store import Store
    from broadsheet.page import Catalogue, meaning

    report: dict[str, object] = {"papers": given.papers}
    catalogue = Catalogue(Store())
    known = catalogue.papers()
    if len(known) < given.papers:
        made = records(given.papers, length=4)
        began = time.perf_counter()
        catalogue.add("arxiv", made[:10_000], date(2025, 12, 10))
        report["import of 10 000 records, s"] = round(time.perf_counter() - began, 2)
        catalogue.add("arxiv", made[10_000:], date(2025, 12, 10))
        known = catalogue.papers()
    if given.embed:
        texts = meaning.missing(catalogue.store, known.values())
        began = time.perf_counter()
        if texts:
            meaning.embed(catalogue.store, meaning.Encoder.load(), texts)
            report["embedding, papers/s"] = round(len(texts) / (time.perf_counter() - began))
    sessions: list[str] = []
    if given.readers:
        began = time.perf_counter()
        sessions = people(catalogue.store, list(known))
        report["accounts, votes and comments made in, s"] = round(time.perf_counter() - began, 1)
        report["digest"] = digest(catalogue.store)
        os.environ |= {
            "BROADSHEET_READERS": "1",
            "BROADSHEET_MAIL": str(place / "letters"),
            "BROADSHEET_MAIL_FROM": "a@example.org",
        }
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "broadsheet.cli", "serve", "--port", str(port), "--workers", str(given.workers)]
    with subprocess.Popen([*command, "--no-runner"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as site:
        try:
            report |= asyncio.run(measure(port, list(known), given.rate, given.seconds, given.embed))
            if given.readers:
                report |= asyncio.run(measure_readers(port, list(known), given.rate, given.seconds, sessions))
        finally:
            site.terminate()
    print(json.dumps(report, indent=1))


def people(store: Store, slugs: list[str], accounts: int = 5000, votes: int = 100_000, comments: int = 50_000) -> list[str]:
    """Fills a store with readers whose votes go mostly to few papers; returns secrets of sessions."""
    from sqlalchemy import func, insert, select

    from broadsheet.lab.people import Account, Comment, Subscription, Vote
    from broadsheet.readers.accounts import open_session
    from broadsheet.readers.notices import recount

    draw, now = random.Random(2), datetime.now(UTC)
    long_ago = now - timedelta(days=60)
    with store.session() as session:
        if session.scalar(select(func.count()).select_from(Account)):
            return [open_session(session, session.get_one(Account, number), "bench", now) for number in range(1, 51)]
        rows = [
            {"address": f"r{k}@example.org", "name": f"Reader {k}", "key": f"reader{k}", "role": "reader", "blocked": False}
            for k in range(accounts)
        ]  # fmt: skip
        session.execute(insert(Account), [{**row, "made": long_ago, "seen": now} for row in rows])
        cast = {(slugs[int(len(slugs) * draw.random() ** 3)], draw.randint(1, accounts)) for _ in range(int(1.4 * votes))}
        session.execute(insert(Vote), [
            {"slug": slug, "account_id": number, "made": now - timedelta(days=60 * draw.random())} for slug, number in list(cast)[:votes]
        ])  # fmt: skip
        text = "The claim holds here as well; I ran it on **three** seeds and got $x^2 = 0.31 \\pm 0.02$. " * 3
        session.execute(insert(Comment), [
            {"slug": slugs[int(len(slugs) * draw.random() ** 3)], "account_id": draw.randint(1, accounts), "text": text, "state": "shown",
             "made": now - timedelta(days=60 * draw.random())}
            for _ in range(comments)
        ])  # fmt: skip
        session.execute(insert(Subscription), [
            {"address": f"r{k}@example.org", "kind": "trending", "value": "", "rhythm": "daily", "state": "active", "made": long_ago}
            for k in range(accounts)
        ])  # fmt: skip
        session.flush()
        noticed = set(session.scalars(select(Vote.slug))) | set(session.scalars(select(Comment.slug)))
        for slug in noticed:
            recount(session, [slug], now)
    return people(store, slugs)


def digest(store: Store) -> dict[str, object]:
    """How long a digest of all subscriptions takes to compose."""
    from broadsheet.page.edition import Edition
    from broadsheet.readers.digests import Composer, compose
    from broadsheet.readers.mail import Sender

    edition = Edition(store)
    began = time.perf_counter()
    edition.refresh()
    sender = Sender("Papers", "papers@example.org", "https://papers.example.org")
    made = compose(store, lambda: Composer(edition, sender), date.today())
    return {"letters": made.letters, "composed in, s": round(time.perf_counter() - began, 2)}


async def measure_readers(port: int, slugs: list[str], rate: int, seconds: int, sessions: list[str]) -> dict[str, object]:
    """Pages for who is signed in, and for everybody while others vote."""
    draw, found = random.Random(3), {}
    count, cookies = rate * seconds, [f"reader={secret}" for secret in sessions]
    busy = slugs[: len(slugs) // 50]  # those with most votes and comments
    for name, paths in (
        ("front page, signed in, ms", ["/"] * count),
        ("pages of the most noticed papers, signed in, ms", [f"/papers/{draw.choice(busy)}" for _ in range(count)]),
    ):
        times, failed = await steady(port, paths, rate, cookies)
        found[name] = {**percentiles(times), "failed": failed, "requests": len(times)}
    voting = asyncio.create_task(_vote(port, busy, seconds, sessions))
    times, failed = await steady(port, [f"/papers/{draw.choice(busy)}" for _ in range(count)], rate)
    found["pages of the most noticed papers while others vote, ms"] = {**percentiles(times), "failed": failed}
    found["votes a second meanwhile"] = round(await voting / seconds, 1)
    return found


async def _vote(port: int, slugs: list[str], seconds: int, sessions: list[str]) -> int:
    """Two votes a second, of ever other readers; returns how many were taken."""
    draw, taken = random.Random(4), 0
    for k in range(2 * seconds):
        status, _ = await Client(port, f"reader={sessions[k % len(sessions)]}").ask(
            f"/papers/{draw.choice(slugs)}/vote", "POST", "vote=true"
        )
        taken += status == 303
        await asyncio.sleep(0.5)
    return taken


async def measure(port: int, slugs: list[str], rate: int, seconds: int, by_meaning: bool) -> dict[str, object]:
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz") as answer:
                health = json.loads(answer.read())
            if health["by_meaning"] or not by_meaning:
                break
        except OSError:
            pass
        await asyncio.sleep(0.2)
    await steady(port, ["/"] * 200, rate)
    draw = random.Random(1)
    count = rate * seconds
    found: dict[str, object] = {"by meaning": health["by_meaning"], "rate, 1/s": rate}
    for name, paths in (
        ("front page, ms", ["/"] * count),
        ("paper pages (each once), ms", [f"/papers/{slug}" for slug in draw.sample(slugs, min(count, len(slugs)))]),
        ("search, ms", [f"/search?q={quote(draw.choice(QUERIES))}+{k}" for k in range(10 * seconds)]),
    ):
        times, failed = await steady(port, paths, 10 if name.startswith("search") else rate)
        found[name] = {**percentiles(times), "failed": failed, "requests": len(times)}
    return found


if __name__ == "__main__":
    main()
