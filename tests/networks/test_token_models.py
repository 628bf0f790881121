"""Tasks of memory, models of tokens and n-grams of bytes, against what a person would count."""

import sys
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from broadsheet.dynamics import rollout
from broadsheet.errors import DataError, InputError, MissingDataError
from broadsheet.networks.byte_text import ByteNGram, pieces, python_documentation, read_bytes_split, windows
from broadsheet.networks.delayed_recall import QUERY, SYMBOLS, accuracies, delayed_recall, recall_by_key, selective_copy
from broadsheet.networks.token_models import LeakyTraces, TokenLSTM, TokenTransformer, count, matched


def test_the_answers_stand_in_the_tokens():
    tokens, answers = map(np.asarray, jax.jit(delayed_recall, static_argnums=(1, 2))(jax.random.key(0), 50, 7))
    assert tokens.shape == (50, 9)
    np.testing.assert_array_equal(tokens[:, 0], answers)
    assert np.all((tokens[:, 1:-1] >= SYMBOLS) & (tokens[:, 1:-1] < QUERY))
    assert np.all(tokens[:, -1] == QUERY)
    tokens, answers = map(np.asarray, jax.jit(selective_copy, static_argnums=(1, 2))(jax.random.key(1), 50, 7))
    for row, answer in zip(tokens.tolist(), answers, strict=True):
        assert row[row.index(SYMBOLS) + 1] == answer
        assert row.count(SYMBOLS) == 1
    tokens, answers = map(np.asarray, jax.jit(recall_by_key, static_argnums=(1, 2, 3))(jax.random.key(2), 50, 3, 5))
    assert tokens.shape == (50, 12)
    for row, answer in zip(tokens.tolist(), answers, strict=True):
        assert dict(zip(row[0:6:2], row[1:6:2], strict=True))[row[-1]] == answer
        assert len(set(row[0:6:2])) == 3


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda key: delayed_recall(key, 0, 5), "batch = 0"),
        (lambda key: delayed_recall(key, 2, 0), "delay = 0"),
        (lambda key: selective_copy(key, 2, 1), "length = 1"),
        (lambda key: recall_by_key(key, 2, 5, 1), "5 pairs"),
        (lambda key: TokenTransformer(5, 6, 1, 4, key=key), "even number"),
    ],
)
def test_impossible_tasks_are_refused(make, said):
    with pytest.raises(InputError, match=said):
        make(jax.random.key(0))


def test_steps_of_a_transformer_and_filling_change_nothing():
    model = TokenTransformer(13, 8, 1, 2, context=9, key=jax.random.key(0))
    tokens = np.random.default_rng(0).integers(0, 13, (6, 9))
    logits = jax.jit(jax.vmap(model.logits))
    np.testing.assert_allclose(jax.jit(lambda row: rollout(model, row)[1])(tokens[0]), logits(tokens)[0], atol=1e-5)
    short, long = (np.argmax(logits(rows)[:, -1], axis=1) for rows in (tokens[:, :5], tokens))
    sets = [(tokens[:, :5], short), (tokens, (long + (np.arange(6) < 2)) % 13)]
    assert accuracies(model, sets) == pytest.approx([1, 4 / 6])


def test_traces_are_exponential_sums():
    model = LeakyTraces(5, 3, (2.0, 20.0), key=jax.random.key(0))
    tokens = np.array([1, 4, 0, 0, 2])
    state = jax.jit(lambda tokens: rollout(model, tokens)[0])(jnp.asarray(tokens))
    x = np.asarray(model.embedding)[tokens]
    for tau, found in zip((2.0, 20.0), state, strict=True):
        np.testing.assert_allclose(found, (np.exp(-np.arange(4, -1, -1) / tau)[:, None] * x).sum(axis=0), rtol=1e-5)


def test_sizes_are_matched():
    made = matched(lambda width: TokenLSTM(13, width, key=jax.random.key(0)), 3100, range(4, 40))
    assert count(made) == 13 * 18 + 4 * 18 * (18 + 18 + 1) + 13 * 18 + 13


def test_n_grams_are_witten_and_bells():
    text = np.frombuffer(b"abracadabra, abracadabra; a cad brab", np.uint8)
    test = np.frombuffer(b"cadabrazacb", np.uint8)
    counts = [Counter(bytes(text[i : i + n + 1]) for i in range(len(text) - n)) for n in range(3)]

    def chance(context, byte):
        p = 1 / 256
        for n in range(min(len(context), 2) + 1):
            known = {gram: c for gram, c in counts[n].items() if gram[:n] == context[len(context) - n :]}
            if known:
                total, kinds = sum(known.values()), len(known)
                p = (known.get(context[len(context) - n :] + byte, 0) + kinds * p) / (total + kinds)
        return p

    wanted = [-np.log2(chance(bytes(test[max(0, i - 2) : i]), bytes(test[i : i + 1]))) for i in range(1, len(test))]
    assert ByteNGram(text, order=2).bits(test[None]) == pytest.approx(np.mean(wanted), rel=1e-12)
    with pytest.raises(InputError, match="order = 8"):
        ByteNGram(text, order=8)
    with pytest.raises(InputError, match="holds no context"):
        ByteNGram(text[:2], order=2)


def test_texts_of_the_published_formats(tmp_path, monkeypatch):
    raw = np.random.default_rng(0).integers(32, 127, 4000).astype(np.uint8)
    (tmp_path / "enwik8").write_bytes(raw.tobytes())
    train, test = read_bytes_split(tmp_path / "enwik8", 3000)
    np.testing.assert_array_equal(train, raw[:3000])
    np.testing.assert_array_equal(test, raw[3800:])
    wiki = tmp_path / "wiki"
    wiki.mkdir()
    with pytest.raises(MissingDataError, match="neither"):
        read_bytes_split(wiki)
    lines = [" = Valkyria = \n", "", " Text of the article . \n"] * 60
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    for part in ("train", "test"):
        parquet.write_table(arrow.table({"text": lines}), wiki / f"{part}-00000-of-00001.parquet")
    train, test = read_bytes_split(wiki)
    assert train.tobytes() == "".join(lines).encode() == test.tobytes()
    for part in ("train", "test"):
        (wiki / f"wiki.{part}.tokens").write_text("".join(lines) * 2)
    assert len(read_bytes_split(wiki)[0]) == 2 * len(train)
    (tmp_path / "enwik8.zip").write_bytes(b"PK\x03\x04" + bytes(3000))
    for file, said in ((tmp_path / "enwik8.zip", "unpack"), (tmp_path / "none", "enwik8")):
        with pytest.raises((DataError, MissingDataError), match=said):
            read_bytes_split(file)
    (tmp_path / "short").write_bytes(b"a")
    with pytest.raises(DataError, match="0 bytes"):
        read_bytes_split(tmp_path / "short")
    with pytest.raises(InputError, match="shorter than a piece"):
        pieces(raw, 5000, 3)
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(MissingDataError, match="pydoc_data"):
        python_documentation()


def test_documentation_is_cut_by_topics():
    train, test = python_documentation()
    assert len(train) > 5 * len(test) > 50_000
    assert test[2000:2300].tobytes() not in train.tobytes()
    batch = next(windows(train, 3, 20, np.random.default_rng(0)))
    assert batch.shape == (3, 20)
    assert all(row.astype(np.uint8).tobytes() in train.tobytes() for row in batch)
    assert pieces(test, 10, 4).shape == (4, 10)
