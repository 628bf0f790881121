"""Installs the package with extras into this environment and says meanwhile what is downloaded and how far it is.

    python tools/install.py papers,web

It needs nothing but pip; what pip itself says goes into a log, whose end is shown where it fails. All packages are those of
`locks/`, by the hashes of their files, but for PyTorch, whose build is the machine's choice: it is taken by its version.
"""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).parents[1]
LOG = Path(sys.prefix) / "install.log"
SITE = Path(sysconfig.get_path("purelib"))
ABOUT = {
    "papers,web": "what all papers and the site need, about 150 packages: 700 MB to download, 2.9 GB unpacked, 1 to 5 minutes",
    "all": "what the tests, the documentation and all extras need besides, about 65 packages: 200 MB",
}
CUDA = "Where the registry's PyTorch brings CUDA (Linux), it is 3 GB more; a CPU build that is installed before is kept."
LOCKS = {"papers,web": ["core"], "all": ["core", "site", "all"]}
FILE = re.compile(r"^\s*(Downloading|Using cached|Processing) (\S+?)(?:\.metadata)?(?: \(([\d.]+) ([kMG])B\))?(?: \(from .*)?$")
LARGE = 20.0  # MB: named while they come
QUIET = 15.0  # s without a word


def main(extras: str) -> int:
    """Runs pip; returns its exit status."""
    print(f"Installing {ABOUT[extras]}.", flush=True)
    if not installed("torch"):
        print(CUDA, flush=True)
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off"]
    locks = [word for name in LOCKS[extras] for word in ("--requirement", f"locks/{name}.txt")]
    began = time.monotonic()
    status = 0
    with LOG.open("w", buffering=1) as log:  # by line, as what pip says of mistakes goes there directly
        for what in (
            ["--require-hashes", "--no-deps", *locks],
            ["--constraint", "constraints.txt", "torch"],
            ["--no-deps", "--no-build-isolation", "--editable", "."],
        ):
            process = subprocess.Popen([*pip, *what], cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True, bufsize=1)
            follow(process.stdout, log)
            status = process.wait()
            if status:
                break
    if status:
        print("".join(LOG.read_text().splitlines(keepends=True)[-15:]), f"pip failed; all that it said is in {LOG}.", sep="\n")
    else:
        print(f"Installed in {time.monotonic() - began:.0f} s.", flush=True)
    return status


def follow(lines: Iterable[str], log: TextIO) -> None:
    """Tells of large files as they come, of all others now and then, and how many packages are unpacked."""
    seen: set[str] = set()
    megabytes, spoke = 0.0, time.monotonic()
    done = threading.Event()
    for line in lines:
        log.write(line)
        if line.startswith("Installing collected packages"):
            wanted = line.count(",") + 1
            print(f"  Unpacking {wanted} packages.", flush=True)
            threading.Thread(target=count, args=(wanted, done), daemon=True).start()
        found = FILE.match(line)
        if found is None or not found[2].endswith((".whl", ".tar.gz")):
            continue
        file = found[2].rsplit("/", 1)[-1]
        size = float(found[3]) * {"k": 0.001, "M": 1.0, "G": 1000.0}[found[4]] if found[3] else on_disk(found[2])
        small = ".metadata" in line
        megabytes += 0.0 if small else size
        seen.add(file)
        if (size >= LARGE and not small) or time.monotonic() - spoke > QUIET:
            name, version = file.split("-")[:2]
            spoke = time.monotonic()
            print(f"  {len(seen)} packages, {megabytes:.0f} MB so far: {name} {version}, {size:.0f} MB", flush=True)
    done.set()


def count(wanted: int, done: threading.Event) -> None:
    """Says now and then how many of the packages that are wanted are unpacked."""
    before = len(list(SITE.glob("*.dist-info")))
    while not done.wait(QUIET):
        print(f"  {len(list(SITE.glob('*.dist-info'))) - before} of {wanted} are unpacked.", flush=True)


def on_disk(path: str) -> float:
    """The size of a file that pip takes from this machine, MB; 0 where it is none."""
    return Path(path).stat().st_size / 1e6 if Path(path).is_file() else 0.0


def installed(name: str) -> bool:
    return any(SITE.glob(f"{name}-*.dist-info"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
