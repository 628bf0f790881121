"""How well search finds papers in a crowd: recall and time of a file of queries, by words, by meaning and by both.

    python bench/search.py tests/page/queries.toml [--crowd 0,3000,20000] [--others FILE.jsonl] [--vectors FILE] [--page FILE]

The papers asked for are those that ship, with the abstracts of a saved page where `--page` names one. The crowd is made up
(`tests/page/crowd.py`), or real records as JSON lines with `title` and `abstract`. `--vectors` keeps the vectors of passages for the next
time: the 20 000 take some ten minutes on two cores. Figures are written as JSON on standard output.

A file of queries has either `short-name = ["query", …]` or tables `[[query]]` with `text` and `paper`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import sqlite3
import sys
import time
import tomllib
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "page"))

from broadsheet.page.catalogue import Catalogue, ListedPaper
from broadsheet.page.facts import title_key
from broadsheet.page.meaning import Encoder, Nearest, passages
from broadsheet.page.names import Names
from broadsheet.page.saved import read_page
from broadsheet.page.search import DEPTH, UNRELATED, Words, blend, called

COMMON_QUERIES = ("learning", "neural networks", "model of learning in neural networks with data", "the", "deep learning model")


class Kept:
    """Vectors of passages in a file, made where they are missing."""

    def __init__(self, file: Path | str, encoder: Encoder) -> None:
        self._encoder = encoder
        self._file = sqlite3.connect(file, timeout=60)
        self._file.execute("CREATE TABLE IF NOT EXISTS vectors (digest TEXT PRIMARY KEY, value BLOB)")

    def encode(self, texts: Sequence[str], batch: int = 512) -> np.ndarray:
        keys = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
        found = np.zeros((len(texts), self._encoder.dimensions), np.float16)
        missing = []
        for k, key in enumerate(keys):
            row = self._file.execute("SELECT value FROM vectors WHERE digest = ?", (key,)).fetchone()
            if row:
                found[k] = np.frombuffer(row[0], np.float16)
            else:
                missing.append(k)
        missing.sort(key=lambda k: len(texts[k]))
        for start in range(0, len(missing), batch):
            part = missing[start : start + batch]
            found[part] = self._encoder.encode([texts[k] for k in part])
            rows = [(keys[k], found[k].tobytes()) for k in part]
            self._file.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)
            self._file.commit()
            print(f"\r{start + len(part)} of {len(missing)} passages embedded", end="", file=sys.stderr)
        return found.astype(np.float32)


def queries(file: Path) -> list[tuple[str, str]]:
    """(text, short name of the paper that it asks for) of a file of queries."""
    said = tomllib.loads(file.read_text())
    if isinstance(said.get("query"), list) and all(isinstance(one, dict) for one in said["query"]):
        return [(one["text"], one["paper"]) for one in said["query"]]
    return [(text, slug) for slug, texts in said.items() for text in texts]


def own_papers(page: Path | None) -> list[ListedPaper]:
    """The papers that ship, with what a saved page says of them."""
    papers = Catalogue().papers()
    if page is not None:
        by_title = {title_key(paper.title): paper for paper in papers.values()}
        for facts in read_page(page, date(2025, 12, 11)).papers:
            paper = by_title.get(title_key(facts.title))
            if paper is not None:
                paper.abstract = facts.abstract
    return [paper for paper in papers.values() if paper.summary]


def others(file: Path | None, count: int) -> list[ListedPaper]:
    if file is None:
        from crowd import crowd

        return [
            ListedPaper(
                f"other-{k}", facts.title, facts.arxiv, facts.published, names=list(facts.names or ()), abstract=facts.abstract
            )
            for k, facts in enumerate(crowd(count))
        ]
    with file.open() as lines:
        said = [json.loads(line) for _, line in zip(range(count), lines, strict=False)]
    return [ListedPaper(f"other-{k}", one["title"], one.get("arxiv"), abstract=one["abstract"]) for k, one in enumerate(said)]


def figures(asked: Sequence[tuple[str, str]], answers: Sequence[Sequence[str]], times: Sequence[float]) -> dict[str, Any]:
    ranks = np.array(
        [list(found).index(slug) + 1 if slug in found else np.inf for (_, slug), found in zip(asked, answers, strict=True)]
    )
    return {
        "recall@1": round(float(np.mean(ranks <= 1)), 3),
        "recall@5": round(float(np.mean(ranks <= 5)), 3),
        "mean reciprocal rank": round(float(np.mean(1 / ranks)), 3),
        "p50, ms": round(1e3 * float(np.percentile(times, 50)), 1),
        "p95, ms": round(1e3 * float(np.percentile(times, 95)), 1),
    }


def measure(asked: Sequence[tuple[str, str]], words: Words, names: Names, nearest: Nearest, encoder: Encoder) -> dict[str, Any]:
    """What each kind of search finds, and how long a query takes, its embedding included where it has one."""

    def by_words(text: str) -> list[str]:
        return words.search(text, DEPTH).slugs

    def by_meaning(text: str) -> list[str]:
        return [slug for slug, _ in nearest.search(encoder.encode([text])[0], DEPTH)]

    def by_both(text: str) -> list[str]:
        near = [(slug, cosine) for slug, cosine in nearest.search(encoder.encode([text])[0], DEPTH) if cosine > UNRELATED]
        return list(dict.fromkeys([*called(text, names, words), *blend(words.search(text, DEPTH), near)]))

    report = {}
    for name, kind in (("words", by_words), ("meaning", by_meaning), ("both", by_both)):
        kind(asked[0][0])
        answers, times = [], []
        for text, _ in asked:
            began = time.perf_counter()
            answers.append(kind(text))
            times.append(time.perf_counter() - began)
        report[name] = figures(asked, answers, times)
        missed = [f"{slug}: {text}" for (text, slug), found in zip(asked, answers, strict=True) if slug not in found[:5]]
        report[name]["missed"] = missed
    times = []
    for text in COMMON_QUERIES * 4:
        began = time.perf_counter()
        by_both(text)
        times.append(time.perf_counter() - began)
    report["common words, largest, ms"] = round(1e3 * max(times), 1)
    return report


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("queries", type=Path)
    options.add_argument("--crowd", default="0,3000,20000", help="Sizes of the crowd.")
    options.add_argument("--others", type=Path, default=None, help="Real records instead of made-up ones: JSON lines.")
    options.add_argument("--vectors", default=":memory:", help="A file that keeps vectors.")
    options.add_argument("--page", type=Path, default=None, help="A saved papers page with the abstracts.")
    options.add_argument("--threads", type=int, default=1, help="Of the encoder and of products of matrices; the site has one.")
    options.add_argument("--missed", action="store_true", help="Name the queries whose paper is not among the first five.")
    given = options.parse_args()
    asked = queries(given.queries)
    threadpool_limits(given.threads, "blas")
    encoder = Encoder.load(threads=given.threads)
    kept = Kept(given.vectors, encoder)
    own = own_papers(given.page)
    report: dict[str, Any] = {"queries": len(asked), "papers asked for": len({slug for _, slug in asked})}
    sizes = [int(size) for size in given.crowd.split(",")]
    crowd = others(given.others, max(sizes))
    for size in sizes:
        papers = [*own, *crowd[:size]]
        texts = [(paper.slug, text) for paper in papers for text in passages(paper)]
        vectors = kept.encode([text for _, text in texts])
        began = time.perf_counter()
        words, names = Words(papers), Names(papers)
        indexed = time.perf_counter() - began
        nearest = Nearest([slug for slug, _ in texts], vectors)
        found = {"passages": len(texts), "index of words and names, s": round(indexed, 1)}
        found |= measure(asked, words, names, nearest, encoder)
        if not given.missed:
            for kind in ("words", "meaning", "both"):
                del found[kind]["missed"]
        began = time.perf_counter()
        words.update([ListedPaper(f"new-{k}", f"A new paper, number {k}", abstract=papers[0].abstract) for k in range(50)])
        found["50 papers more, s"] = round(time.perf_counter() - began, 3)
        report[f"{len(own)} + {len(crowd[:size])}"] = found
    report["largest memory, MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps(report, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
