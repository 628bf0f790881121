"""Writes the files of `locks/`: which files of which packages are installed, by their hashes; to be run when pyproject.toml or
constraints.txt changes.

    uv --version; python tools/lock.py

The versions are those of constraints.txt; the hashes are those that the registry gives for all files of a version, whatever the
system. PyTorch is in none of the files, nor what only PyTorch needs: which of its builds (for CPUs, for which CUDA) is right is
the machine's to say, and each has other files. `tools/install.py` installs it by version.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PARTS = {"core": ["papers", "web"], "site": ["papers", "web", "search", "postgres", "readers"], "all": ["all"]}
"""Each file has what its extras need, without what the files before it have for the same systems."""

BUILD = "hatchling>=1.25\neditables\n"  # what builds the package itself
OLDEST = "3.11.9"
LEFT_OUT = "torch"
HEAD = "# Made by tools/lock.py: pip install --require-hashes --no-deps -r {files}. PyTorch is not in it; see there.\n"
ENTRY = re.compile(r"^(?P<name>[\w.-]+)==.*?(?=^\S|\Z)", re.M | re.S)
VIA = re.compile(r"^    #(?: via)? {1,3}(\S.*)$", re.M)


def main() -> int:
    done: dict[str, str] = {}
    files: list[str] = []
    for part, extras in PARTS.items():
        found = entries(compiled(extras))
        files.append(f"locks/{part}.txt")
        new = [lines for name, lines in found.items() if done.get(name) != lines]
        (ROOT / files[-1]).parent.mkdir(exist_ok=True)
        (ROOT / files[-1]).write_text(HEAD.format(files=" -r ".join(files)) + "".join(new))
        print(f"{files[-1]}: {len(new)} packages")
        done |= found
    return 0


def compiled(extras: list[str]) -> str:
    """What uv works out for some extras, with hashes, and with the packages that each is needed by."""
    with tempfile.TemporaryDirectory() as folder:
        build = Path(folder) / "build.in"
        build.write_text(BUILD)
        words = [
            "uv",
            "pip",
            "compile",
            "--no-config",
            "--quiet",
            "pyproject.toml",
            str(build),
            "--constraint",
            "constraints.txt",
        ]
        words += [word for extra in extras for word in ("--extra", extra)]
        words += ["--universal", "--python-version", OLDEST, "--generate-hashes", "--no-header", "--no-emit-index-url"]
        return subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def entries(text: str) -> dict[str, str]:
    """Package -> its lines with hashes, without PyTorch and what only it needs."""
    blocks = {match["name"]: match[0] for match in ENTRY.finditer(text)}
    users = {name: {user for user in VIA.findall(block) if user in blocks or "pyproject" in user or user.startswith("-r")}
             for name, block in blocks.items()}  # fmt: skip
    gone = {LEFT_OUT}
    while more := {name for name in blocks.keys() - gone if users[name] and users[name] <= gone}:
        gone |= more
    return {name: re.sub(r"^    #.*\n", "", block, flags=re.M) for name, block in blocks.items() if name not in gone}


if __name__ == "__main__":
    sys.exit(main())
