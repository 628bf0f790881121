"""A digest of 2000 addresses whose sender, mail server connections and database are killed in the middle, again and again.

    python bench/digest_faults.py [--addresses 2000] [--kills 12] [--postgresql] [--seed 1]

Sender: `broadsheet digest` as a process, killed by SIGKILL at random moments; with `--postgresql` the database is killed as well,
in every third round, while the sender lives on. It writes as JSON on standard output how many letters each address got, and
which letters are named as unsure.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent.parent / "tests" / name) for name in ("readers", "soak", "")]

PAPERS = 30


def filled(addresses: int) -> Any:
    """A store with papers of today and addresses that follow what trends."""
    from followers import follow

    from broadsheet.lab.store import Store
    from broadsheet.page import Catalogue
    from broadsheet.page.facts import Facts

    store, today = Store(), datetime.now(UTC).date()
    papers = [
        Facts(f"Paper {k} of many", arxiv=f"2611.{k:05d}", abstract="What it finds. " * 30, published=str(today), upvotes=k)
        for k in range(PAPERS)
    ]
    Catalogue(store).add("hub", papers, today)
    follow(store, *(f"reader{k}@example.org" for k in range(addresses)))
    return store


class Round:
    """A sender that is killed after some letters, or whose database is, and started again."""

    def __init__(self, url: str) -> None:
        words = ["--mail", url, "--mail-from", "papers@example.org", "--url", "https://papers.example.org", "--no-meaning"]
        self.command = [sys.executable, "-m", "broadsheet.cli", "digest", *words]

    def run(self, taken: list[Any], after: int, database: Any = None) -> int:
        """Sends until all is sent, or until `after` letters; returns the exit code."""
        process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL)
        start = len(taken)

        def disturb() -> None:
            while process.poll() is None and len(taken) < start + after:
                time.sleep(0.002)
            time.sleep(random.uniform(0, 0.02))
            if database is None:
                process.kill()
            elif process.poll() is None:
                database.kill(9)
                time.sleep(1.0)
                database.start()

        if after:
            threading.Thread(target=disturb, daemon=True).start()
        return process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--addresses", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--postgresql", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    random.seed(asked.seed)
    with tempfile.TemporaryDirectory(prefix="digest-", dir="/tmp") as folder:
        os.environ["BROADSHEET_HOME"] = f"{folder}/home"
        database = None
        if asked.postgresql:
            from kills import Server, short_folder

            database = Server(short_folder() / "pg")
            os.environ["BROADSHEET_DATABASE"] = database.address
        print(json.dumps(measured(asked, database), indent=1))
        if database is not None:
            database.kill(9)


def measured(asked: argparse.Namespace, database: Any) -> dict[str, Any]:
    """What became of each address."""
    from smtp import MailServer

    store = filled(asked.addresses)
    codes: list[int] = []
    began = time.monotonic()
    with MailServer() as server:
        one = Round(server.url)
        for k in range(asked.kills):
            after = random.randint(1, max(2, asked.addresses // asked.kills))
            codes.append(one.run(server.mailbox.taken, after, database if k % 3 == 2 else None))
        for _ in range(5):
            codes.append(one.run(server.mailbox.taken, 0))
            if codes[-1] == 0:
                break
        counts = server.mailbox.counts()
    from followers import states

    store.engine.dispose()
    found = states(store)
    return {
        "addresses": asked.addresses,
        "exit codes": codes,
        "letters per address": dict(Counter(counts.get(f"reader{k}@example.org", 0) for k in range(asked.addresses))),
        "states": dict(Counter(state for each in found.values() for state in each)),
        "no letter": [to for to in found if not counts.get(to)],
        "of these named as unsure": [to for to, state in found.items() if not counts.get(to) and state == ["unsure"]],
        "seconds": round(time.monotonic() - began, 1),
    }


if __name__ == "__main__":
    main()
