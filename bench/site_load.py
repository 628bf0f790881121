"""The site under load: 20 000 papers, pages at a steady rate, search, and an import of 10 000 records.

    python bench/site_load.py [--papers 20000] [--rate 100] [--seconds 30] [--workers 1]

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
from datetime import date
from pathlib import Path
from statistics import quantiles
from urllib.parse import quote

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

    def __init__(self, port: int) -> None:
        self.port = port
        self.free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def get(self, path: str) -> tuple[int, int]:
        reader, writer = self.free.pop() if self.free else await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.split("content-length:")[1].split("\r\n")[0])
        await reader.readexactly(length)
        self.free.append((reader, writer))
        return int(head.split()[1]), length


async def steady(port: int, paths: list[str], rate: float) -> tuple[list[float], int]:
    """(latencies from the moment each request was due, ms; how many failed)."""
    client, times, failed = Client(port), [], 0
    began = time.perf_counter()

    async def one(k: int, path: str) -> None:
        nonlocal failed
        due = began + k / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        try:
            status, _ = await client.get(path)
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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "broadsheet.cli", "serve", "--port", str(port), "--workers", str(given.workers)]
    with subprocess.Popen([*command, "--no-runner"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as site:
        try:
            report |= asyncio.run(measure(port, list(known), given.rate, given.seconds, given.embed))
        finally:
            site.terminate()
    print(json.dumps(report, indent=1))


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
