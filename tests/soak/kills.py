"""Random kills of every kind of process, and whether anything is lost, doubled, stuck or left behind.

    python tests/soak/kills.py 50 [--seed 1] [--kinds run,serve]

Each kill starts a command on one of two homes, whose stores are SQLite and PostgreSQL, sends SIGKILL or SIGTERM at a random
moment, waits until the processes that it started have ended by themselves, and looks. What was there before has to be there
still; runs are whole and there once; an import is there whole or not at all; nothing of a scratch folder or a temporary file is
left, and no job runs, after SIGTERM at once and after SIGKILL when the next command has started. In the end every command that
was killed is run to its end and has to give what it gives without kills.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))
from waiting import until

BROADSHEET = [sys.executable, "-m", "broadsheet.cli"]
PAPER, EXPERIMENT = "sdr-dendrites", "union"
IMPORTED = 1500
CLAIMS = """
[repository]
name = "sleeper"
title = "One that takes its time"

[[experiment]]
name = "nap"
command = "python3 nap.py {seed} {out}"
ablations = { awake = "python3 nap.py 0 {out}" }
nulls = { constant = "python3 nap.py 0 {out}" }

[[experiment.claim]]
id = "C1"
statement = "the seed comes out"
where = "section 1"
ablation = "awake"
null = "constant"
checks = [{ metric = "seed", at_least = 1.0 }]
"""
NAP = """
import json, sys, tempfile, time
with tempfile.TemporaryDirectory():
    time.sleep(0.3)
json.dump({"seed": float(sys.argv[1])}, open(sys.argv[2], "w"))
"""


class World:
    """A home, its store, and what was put into it."""

    def __init__(self, place: Path, database: str | None, server: Server | None = None) -> None:
        self.place, self.database, self.server = place, database, server
        self.home, self.temporary = place / "home", place / "tmp"
        self.temporary.mkdir(parents=True)
        self.known: dict[str, str] = {}  # run -> checksum of its arrays
        self.jobs: set[int] = set()
        self.imports, self.seeds, self.trainings = 0, [], 0

    def environment(self) -> dict[str, str]:
        env = os.environ | {
            "BROADSHEET_HOME": str(self.home), "TMPDIR": str(self.temporary), "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(self.place.parent / "programs"), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        env.pop("BROADSHEET_DATABASE", None)
        return env | ({"BROADSHEET_DATABASE": self.database} if self.database else {})

    def store(self):
        """The store, from this process, which holds nothing of it otherwise."""
        from broadsheet.lab.store import Store

        with in_environment(self.environment()):
            return Store()

    def processes(self) -> list[psutil.Process]:
        """All that work on this home, but for this one."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                mine = process.environ().get("BROADSHEET_HOME") == str(self.home)
                if mine and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found


class Server:
    """A PostgreSQL server that can be killed and started again."""

    def __init__(self, place: Path) -> None:
        import pgserver

        self.place = place
        place.mkdir(parents=True)
        for folder in place.relative_to("/").parents:
            with contextlib.suppress(PermissionError):
                (Path("/") / folder).chmod((Path("/") / folder).stat().st_mode | 0o055)  # the server runs as another user
        self.made = pgserver.get_server(place, cleanup_mode=None)
        self.address = self.made.get_uri()

    def kill(self, number: int) -> None:
        """SIGTERM would wait for all to go away, so that SIGINT stands in its place."""
        postmaster = psutil.Process(int((self.place / "postmaster.pid").read_text().splitlines()[0]))
        family = [*postmaster.children(), postmaster]
        postmaster.send_signal(signal.SIGINT if number == signal.SIGTERM else number)
        until(lambda: not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in family))

    def start(self) -> None:
        import pgserver

        for left in (self.place / "postmaster.pid", *self.place.glob(".s.PGSQL.*")):
            left.unlink(missing_ok=True)
        pgserver.PostgresServer._instances.pop(self.place, None)
        self.made = pgserver.get_server(self.place, cleanup_mode=None)


def short_folder() -> Path:
    """A folder whose path is short: a home's temporary files are its own only then, as sockets may be among them."""
    return Path(tempfile.mkdtemp(prefix="kills-", dir="/tmp"))


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


@contextlib.contextmanager
def in_environment(env: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(env)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


class Matrix:
    """The kills of one go, and what was found wrong."""

    def __init__(self, place: Path, seed: int, worlds: tuple[str, ...] = ("sqlite", "postgresql")) -> None:
        self.random = random.Random(seed)
        self.place = place
        self.wrong: list[str] = []
        self.counts: Counter[tuple[str, str]] = Counter()
        self.lasts: dict[str, float] = {}  # how long a command of a kind takes at most
        server = Server(place / "server") if "postgresql" in worlds else None
        self.worlds = [World(place / name, server.address if server and name == "postgresql" else None,
                             server if name == "postgresql" else None) for name in worlds]  # fmt: skip
        self.repository = place / "sleeper"
        self.repository.mkdir()
        (self.repository / "claims.toml").write_text(CLAIMS)
        (self.repository / "nap.py").write_text(NAP)
        self.frames = place / "frames.extxyz"
        self.kinds: dict[str, Callable[[World], None]] = {
            "build": self.build, "verify": self.verify, "run": self.run, "import": self.imports, "serve": self.serve,
            "runner": self.runner, "worker": self.worker, "web": self.web, "postgresql": self.postgresql,
            "train": self.train,
        }  # fmt: skip

    # one kill of each kind

    def build(self, world: World) -> None:
        self.command(world, "build", ["build", "--minutes", "0.5", "--out", str(world.place / "report.html")], 8.0)

    def verify(self, world: World) -> None:
        self.command(world, "verify", ["verify", str(self.repository), "--seeds", "6"], 5.0)

    def run(self, world: World) -> None:
        self.command(world, "run", self.asked(world), 5.0)

    def imports(self, world: World) -> None:
        number = world.imports
        words = ["import", str(self.records(number)), "--as-of", "2025-11-01", "--no-embed"]
        if self.command(world, "import", words, 2.5):
            world.imports = max(world.imports, number + 1)  # what is listed may have been counted already

    def serve(self, world: World) -> None:
        self.queue(world)
        words, _ = self.site(self.random.choice(("1", "2")))
        self.command(world, "serve", words, 7.0, {0, 143})

    def runner(self, world: World) -> None:
        self.queue(world)
        self.command(world, "runner", ["work", "--no-meaning"], 6.0, {0, 143})

    def worker(self, world: World) -> None:
        """A process of a `run` is killed: it is started again, and the command gives all."""
        process = self.start(world, self.asked(world))
        number = self.signal()

        def workers() -> list[psutil.Process]:
            return [each for each in world.processes() if "broadsheet.lab.worker" in each.cmdline()]

        found = until(lambda: process.poll() is not None or workers())
        if found is not True:
            time.sleep(self.random.uniform(0.0, 2.0))
            with contextlib.suppress(psutil.Error):
                found[0].send_signal(number)
        self.counts["worker", signal.Signals(number).name] += 1
        _, said = process.communicate(timeout=120)
        self.check(process.returncode == 0, f"worker: {process.returncode} {said[-300:]}")
        self.look(world, "worker", at_once=True)

    def web(self, world: World) -> None:
        """One of the site's web processes is killed: the site answers on, and ends in good order."""
        words, port = self.site("2")
        process, number = self.start(world, words), self.signal()

        def webs() -> list[psutil.Process]:
            return [each for each in world.processes() if "spawn_main" in " ".join(each.cmdline())]

        until(lambda: len(webs()) == 2)
        time.sleep(self.random.uniform(0.0, 4.0))
        with contextlib.suppress(psutil.Error):
            self.random.choice(webs()).send_signal(number)
        self.counts["web", signal.Signals(number).name] += 1
        with contextlib.suppress(AssertionError):
            until(lambda: answers(port), 30)
        self.check(answers(port), "web: the site does not answer")
        process.terminate()
        _, said = process.communicate(timeout=120)
        self.check(process.returncode == 0, f"web: {process.returncode} {said[-300:]}")
        self.look(world, "web", at_once=True)

    def postgresql(self, world: World) -> None:
        """The server is killed under a command, which says so in a sentence."""
        world = next((each for each in self.worlds if each.server), world)
        if world.server is None:
            return
        words = self.random.choice([self.asked(world), ["verify", str(self.repository), "--seeds", "6"]])
        process = self.start(world, words)
        time.sleep(self.random.uniform(0.5, 4.0))
        number = self.signal()
        world.server.kill(number)
        self.counts["postgresql", signal.Signals(number).name] += 1
        _, said = process.communicate(timeout=120)
        self.check(process.returncode in (0, 1, 2), f"postgresql: {process.returncode} {said[-400:]}")
        self.check("Traceback" not in said, f"postgresql: {said[-400:]}")
        world.server.start()
        self.look(world, "postgresql")

    def train(self, world: World) -> None:
        world.trainings = 1
        self.command(world, "train", self.training(world.place / "potential.safetensors"), 9.0)

    # what they are started with

    def site(self, workers: str) -> tuple[list[str], int]:
        """`serve` on a free port."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        return ["serve", "--port", str(port), "--no-meaning", "--workers", workers], port

    def asked(self, world: World) -> list[str]:
        """A run of seeds that were not asked for before."""
        seeds = [len(world.seeds) + 100, len(world.seeds) + 101]
        world.seeds += seeds
        return ["run", PAPER, "-e", EXPERIMENT, "-p", "smoke", *(word for seed in seeds for word in ("--seed", str(seed)))]

    def queue(self, world: World) -> None:
        from broadsheet.lab.jobs import Jobs
        from broadsheet.lab.messages import JobSpec

        seed = len(world.seeds) + 100
        world.seeds += [seed, seed + 1]
        jobs = Jobs(world.store())
        for each in (seed, seed + 1):
            world.jobs.add(jobs.queue(JobSpec(PAPER, EXPERIMENT, "smoke", seeds=(each,))))

    def records(self, number: int) -> Path:
        file = self.place / f"records-{number}.json"
        if not file.exists():
            rows = [{"title": f"Number {number} of {k}", "arxiv": f"{2500 + number}.{k:05d}"} for k in range(IMPORTED)]
            file.write_text(json.dumps(rows))
        return file

    def training(self, out: Path) -> list[str]:
        if not self.frames.exists():
            from ase.build import bulk
            from ase.calculators.emt import EMT
            from ase.io import write

            frames = []
            for k in range(24):
                atoms = bulk("Cu", cubic=True)
                atoms.rattle(0.05, seed=k)
                atoms.calc = EMT()
                atoms.get_forces()
                frames.append(atoms)
            write(self.frames, frames, format="extxyz")
        return ["atoms", "train", str(self.frames), "--out", str(out), "--network", "schnet", "--width", "16",
                "--steps", "60", "--batch", "4", "--evaluate-every", "5", "--cutoff", "4"]  # fmt: skip

    # kill and look

    def signal(self) -> int:
        return self.random.choice((signal.SIGKILL, signal.SIGTERM))

    def start(self, world: World, words: list[str]) -> subprocess.Popen:
        return subprocess.Popen(
            [*BROADSHEET, *words], env=world.environment(), cwd=world.place, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def command(
        self, world: World, kind: str, words: list[str], longest: float, ends: frozenset | set = frozenset({143})
    ) -> bool:
        """Starts a command and kills it; whether it had ended before."""
        process, number = self.start(world, words), self.signal()
        began = time.monotonic()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(self.random.uniform(0.05, self.lasts.get(kind, longest)))
        early = process.poll() is not None
        if early:
            self.lasts[kind] = 0.8 * (time.monotonic() - began)
        if not early:
            process.send_signal(number)
            self.counts[kind, signal.Signals(number).name] += 1
        _, said = process.communicate(timeout=120)
        if not early and number == signal.SIGTERM:
            unborn = process.returncode == -signal.SIGTERM  # Python itself was starting or ending
            finished = process.returncode == 0
            # Python ends by SIGINT itself where the interruption came in text that is executed, as in making a dataclass
            told = process.returncode == -signal.SIGINT and "stopped" in said
            self.check(
                unborn or finished or told or process.returncode in ends,
                f"{kind}: SIGTERM gave {process.returncode} {said[-300:]}",
            )
            self.check("Traceback" not in said, f"{kind}: {said[-600:]}")
            if process.returncode == 143:
                self.check("stopped" in said, f"{kind}: SIGTERM said nothing: {said[-300:]!r}")
        self.look(world, kind, at_once=number == signal.SIGTERM or early)
        return early and process.returncode == 0

    def look(self, world: World, kind: str, at_once: bool = False) -> None:
        """What is wrong; `at_once`: nothing may be left before another command has started either."""
        from broadsheet.lab.jobs import Jobs, tidy

        left: list = []
        with contextlib.suppress(AssertionError):
            until(lambda: not world.processes(), 30)
        for process in world.processes():
            with contextlib.suppress(psutil.Error):
                left.append(" ".join(process.cmdline())[:200])
                process.kill()
        self.check(not left, f"{kind}: left alive: {left}")
        store = world.store()
        jobs = Jobs(store)
        if at_once:
            self.settled(world, kind, jobs)
        with in_environment(world.environment()):
            tidy(store)
        self.settled(world, f"{kind}, tidied", jobs)
        names = [file.name for file in (world.home / "processes").glob("*")]
        self.check(len(names) <= 1, f"{kind}: names of processes left: {names}")
        self.whole(world, kind, store)
        with store.session() as session:
            from sqlalchemy import func, select

            from broadsheet.lab.tables import Listed

            listed = session.scalar(select(func.count()).select_from(Listed))
        self.check(listed % IMPORTED == 0, f"{kind}: {listed} papers are listed")
        self.check(listed >= IMPORTED * world.imports, f"{kind}: papers were lost, {listed} are left")
        world.imports = max(world.imports, listed // IMPORTED)
        store.engine.dispose()

    def settled(self, world: World, kind: str, jobs) -> None:
        """No job runs, and nothing temporary is left."""
        stuck = [(job.id, job.owner) for job in jobs.recent(5000, states=("running", "cancelling"))]
        self.check(not stuck, f"{kind}: jobs still run: {stuck}")
        states = {job.id: job.state for job in jobs.recent(5000)}
        lost = [(job, states.get(job)) for job in world.jobs if states.get(job) not in ("queued", "done")]
        self.check(not lost, f"{kind}: jobs of the queue were lost: {lost}")
        places = [*(world.home / "scratch").glob("*"), *world.temporary.iterdir(), *world.home.rglob("*.part")]
        self.check(not places, f"{kind}: left: {[str(place.relative_to(world.place)) for place in places]}")

    def whole(self, world: World, kind: str, store) -> None:
        """All runs are there, once, and can be read."""
        rows = store.find()
        found = {}
        for row in rows:
            record = json.loads((store.runs / row.id / "run.json").read_text())
            self.check(record["id"] == row.id, f"{kind}: {row.id} holds {record['id']}")
            arrays = store.runs / row.id / "arrays.npz"
            store.report(row)
            found[row.id] = hashlib.sha256(arrays.read_bytes()).hexdigest() if arrays.exists() else ""
        folders = {folder.name for folder in store.runs.iterdir()}
        self.check(folders == set(found), f"{kind}: folders and rows differ: {folders ^ set(found)}")
        same = Counter((row.slug, row.experiment, row.preset, row.variant, row.seed, json.dumps(row.config)) for row in rows)
        self.check(not (same - Counter(set(same))), f"{kind}: doubled: {same - Counter(set(same))}")
        lost = [name for name, digest in world.known.items() if found.get(name) != digest]
        self.check(not lost, f"{kind}: runs were lost or changed: {lost}")
        world.known = found

    def check(self, holds: bool, what: str) -> None:
        if not holds:
            self.wrong.append(what)
            print(f"  wrong: {what}", flush=True)

    def go(self, count: int, kinds: list[str]) -> None:
        """So many kills, each kind as often as the others, in a random order."""
        drawn: list[str] = []
        while sum(self.counts.values()) < count:
            if not drawn:
                drawn = self.random.sample(kinds, len(kinds))
            kind, world = drawn[-1], self.random.choice(self.worlds)
            began, before = time.monotonic(), sum(self.counts.values())
            self.kinds[kind](world)
            if sum(self.counts.values()) > before:  # else it had ended by itself
                drawn.pop()
            print(f"{sum(self.counts.values()):3d} {kind} ({world.place.name}), {time.monotonic() - began:.1f} s", flush=True)

    def finish(self) -> None:
        """Every command again, to its end: all is there that there would be without kills."""
        for world in self.worlds:
            seeds = [word for seed in world.seeds for word in ("--seed", str(seed))]
            whole = [["run", PAPER, "-e", EXPERIMENT, "-p", "smoke", *seeds]] if seeds else []
            whole += [["verify", str(self.repository), "--seeds", "6"]]
            whole += [["import", str(self.records(k)), "--as-of", "2025-11-01", "--no-embed"] for k in range(world.imports + 1)]
            for words in whole:
                process = self.start(world, words)
                _, said = process.communicate(timeout=300)
                self.check(process.returncode == 0, f"{words[:2]} again: {process.returncode} {said[-300:]}")
            world.imports += 1
            if world.jobs:
                self.work_off(world)
            self.look(world, "the end", at_once=True)
            if world.trainings:
                self.compare(world)

    def work_off(self, world: World) -> None:
        """A runner comes to the end of the queue."""
        from broadsheet.lab.jobs import Jobs

        jobs, process = Jobs(world.store()), self.start(world, ["work", "--no-meaning"])
        with contextlib.suppress(AssertionError):
            until(lambda: not jobs.recent(5000, states=("queued", "running")), 200)
        process.terminate()
        process.communicate(timeout=120)
        states = Counter(job.state for job in jobs.recent(5000) if job.id in world.jobs)
        self.check(states == {"done": len(world.jobs)}, f"the queue in the end: {states}")

    def compare(self, world: World) -> None:
        """The training that was killed, gone on with, and one that was not, give the same file."""
        digests = []
        for name in ("potential", "undisturbed"):
            out = world.place / f"{name}.safetensors"
            process = self.start(world, self.training(out))
            _, said = process.communicate(timeout=300)
            self.check(process.returncode == 0, f"train: {process.returncode} {said[-300:]}")
            digests.append(hashlib.sha256(out.read_bytes()).hexdigest())
        self.check(digests[0] == digests[1], "train: the killed training gives another potential")
        beside = [file.name for file in world.place.glob("*") if "checkpoint" in file.name or file.name.endswith(".part")]
        self.check(not beside, f"train: left: {beside}")

    def close(self) -> None:
        for world in self.worlds:
            if world.server is not None:
                world.server.kill(signal.SIGINT)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=date.today().toordinal())
    parser.add_argument("--kinds", default="")
    given = parser.parse_args()
    print(f"{given.count} kills, seed {given.seed}")
    place = short_folder()
    began = time.monotonic()
    matrix = Matrix(place, given.seed)
    try:
        matrix.go(given.count, given.kinds.split(",") if given.kinds else list(matrix.kinds))
        matrix.finish()
    finally:
        matrix.close()
        shutil.rmtree(place, ignore_errors=True)
    for (kind, name), number in sorted(matrix.counts.items()):
        print(f"{kind:12} {name:8} {number}")
    print(f"{sum(matrix.counts.values())} kills in {time.monotonic() - began:.0f} s; {len(matrix.wrong)} things went wrong.")
    return 1 if matrix.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
