"""Tokens, windows and the network of Neuroformer, against plain loops, the authors' program and the network itself without its
cache and without packing."""

from itertools import permutations
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import optax
import pytest
from jax.test_util import check_grads
from scipy.special import erf

from broadsheet.errors import DataError, InputError
from broadsheet.recordings import SpikeTokenizer
from broadsheet.recordings.neuroformer.contrastive import contrastive_loss, retrieval
from broadsheet.recordings.neuroformer.generation import nucleus, write
from broadsheet.recordings.neuroformer.model import NeuroformerNet, Sees, attended, gelu, token_losses
from broadsheet.recordings.neuroformer.official import load_official
from broadsheet.recordings.neuroformer.readouts import attention_connectivity, average_precision, direction_index, sensitivity
from broadsheet.recordings.neuroformer.recording import Recording
from broadsheet.recordings.neuroformer.tokens import ordering_term
from broadsheet.recordings.neuroformer.training import evaluate, optimiser
from broadsheet.recordings.neuroformer.windows import Rows, Windows, cut_windows, pack

REFERENCE = Path(__file__).parent.parent / "references" / "neuroformer.npz"
RNG = np.random.default_rng(0)
COUNTS = RNG.poisson(0.15, (60, 4)).astype(np.int32)
RECORDING = Recording(COUNTS, block=16, past_block=16, packed=4)


def loud(net):
    return jax.tree.map(lambda leaf: jax.device_put((10 if leaf.ndim == 2 else 1) * np.asarray(leaf)), net)


LOUD = loud(NeuroformerNet(RECORDING.config(width=8, heads=2, history=1), np.random.default_rng(1)))
trunk = eqx.filter_jit(lambda net, *given, **options: net(*given, **options))  # each operation by itself is a program, too


@eqx.filter_jit
def heads(net, rows, when):
    """What the trunk makes of rows, logits of the next offset, and of the next neuron where the offsets are `when`."""
    out = net(rows)
    return out, net.offset_logits(out.x, rows.offsets), net.id_logits(out.x, when, rows.ids, rows.offsets)


def on_device(rows):
    return jax.tree.map(jax.device_put, rows)


def softmax(logits):
    e = np.exp(logits - np.max(logits, axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("order", ["sorted", "random"])
def test_tokens_go_there_and_back(order):
    tokenizer = SpikeTokenizer(4)
    for stop in range(5, 61, 5):
        ids, offsets = tokenizer.encode(COUNTS, stop * 0.01, order)
        assert (np.diff(offsets[1:-1]) >= 0).all()
        np.testing.assert_array_equal(tokenizer.decode(ids, offsets), COUNTS[stop - 5 : stop])
    with pytest.raises(InputError, match="ends at bin 3"):
        tokenizer.encode(COUNTS, 0.03)


def test_the_ordering_term_counts_the_orders_of_a_bin():
    counts = np.array([[2, 1, 0, 1], [0, 0, 3, 0], [1, 1, 0, 0]])
    orders = [len(set(permutations(np.repeat(np.arange(4), row).tolist()))) for row in counts]
    assert ordering_term(counts) == pytest.approx(np.log(np.prod(orders)))


def test_windows_that_are_too_long_are_cut_and_counted():
    tokenizer = SpikeTokenizer(4)
    windows = cut_windows([COUNTS], tokenizer, 5, block=4, past_block=2)
    totals = COUNTS.reshape(12, 5, 4).sum(axis=(1, 2))
    assert windows.cut == (totals[1:] > 2).sum()
    assert windows.past_cut == (totals[:-1] > 2).sum()
    assert max(len(neurons) for _, neurons in windows.current) == 2


def test_a_packed_row_is_as_good_as_rows_of_their_own():
    every = np.arange(11)
    packed, single = RECORDING.data(every), RECORDING.data(every, packed=False)
    assert len(packed.rows.ids) < len(single.rows.ids)
    one, other = evaluate(LOUD, packed), evaluate(LOUD, single)
    np.testing.assert_allclose(one[2], other[2], atol=1e-5)
    np.testing.assert_allclose([one[0].sum(), one[1].sum()], [other[0].sum(), other[1].sum()], rtol=1e-5)


def test_windows_that_fill_rows_two_by_two_are_packed_so():
    """For each window of k spikes there is one that fills what it leaves of a row, in any order; no row has padding."""
    spikes = np.random.default_rng(3).permutation(np.r_[np.arange(7), 14 - np.arange(7)])  # with SOS, 1 to 7 tokens and 15 to 9
    trains = [(np.zeros(count, int), np.zeros(count, int)) for count in spikes]
    windows = Windows(trains, trains, np.arange(14), np.zeros(14), 0, 0, int(spikes.sum()))
    rows = pack(windows, SpikeTokenizer(4), block=16, past_block=14, segments=3)
    assert rows.segment.shape == (7, 16)
    assert (rows.segment >= 0).all()
    np.testing.assert_array_equal(np.sort(rows.window[rows.window >= 0]), np.arange(14))
    with pytest.raises(InputError, match="of 15 tokens with 14 before it does not fit a row of 16 and 13"):
        pack(windows, SpikeTokenizer(4), block=16, past_block=13, segments=3)


def test_a_batch_is_of_as_many_rows_as_hold_its_windows():
    data = RECORDING.data(np.arange(11))
    count = len(data.rows.ids)
    assert [data.rows_of(windows) for windows in (1, 11, 22)] == [1, count, count]
    assert data.rows_of(6) == round(6 * count / 11)


def test_probabilities_of_all_that_may_follow_sum_to_one():
    """Offsets, and for each of them neurons, after a token in the middle of a window."""
    rows = on_device(RECORDING.data(np.arange(4), packed=False).rows)
    total = 0.0
    for offset in range(9):
        _, *logits = heads(LOUD, rows, np.full(rows.ids.shape, offset))
        when, who = (softmax(np.asarray(each)[:, 1]) for each in logits)
        possible = who[:, :4].sum(axis=1) if offset < 5 else who[:, 5]
        total += when[:, offset] * possible
    np.testing.assert_allclose(total, 1, rtol=1e-5)


def test_what_cannot_follow_has_no_probability():
    rows = RECORDING.data(np.arange(4), packed=False).rows
    out, *logits = heads(LOUD, on_device(rows), rows.offsets)
    offsets, ids = map(np.asarray, logits)
    real = (rows.segment >= 0)[..., None]
    falls = (np.arange(9) < rows.offsets[..., None]) & real & (np.arange(9) < 5)
    assert np.where(falls, softmax(offsets), 0).max() == 0
    lower = (np.arange(7) < rows.ids[..., None]) & (rows.ids < 4)[..., None] & real
    assert np.where(lower, softmax(ids), 0).max() == 0
    found, when, _ = map(np.asarray, eqx.filter_jit(token_losses)(LOUD, out, on_device(rows)))
    assert np.isfinite(found).all()
    assert found.max() < 100
    assert when.max() < 100


def test_writing_with_a_cache_follows_the_probabilities_without_one():
    given = RECORDING.data(np.arange(4), packed=False)
    batch = given.batch(np.repeat(np.arange(4), 100))
    ids, offsets = write(LOUD, batch, jax.random.key(0), np.float32(1e-4), np.float32(1.0))  # the most likely each time
    ids, offsets = np.asarray(ids)[::100], np.asarray(offsets)[::100]
    rows = given.rows._replace(
        ids=np.concatenate([np.full((4, 1), 4), ids], axis=1)[:, :16], offsets=np.concatenate([np.zeros((4, 1), int), offsets], axis=1)[:, :16],
        place=np.broadcast_to(np.arange(16), (4, 16)), segment=np.zeros((4, 16), int),
    )  # fmt: skip
    rows = on_device(rows)
    when = np.asarray(heads(LOUD, rows, rows.offsets)[1]).argmax(axis=-1)
    who = np.asarray(heads(LOUD, rows, when.astype(np.int32))[2]).argmax(axis=-1)[:, :15]
    when = when[:, :15]
    live = (np.cumsum(ids == 5, axis=1) - (ids == 5)) == 0
    np.testing.assert_array_equal(ids[live], who[live])
    np.testing.assert_array_equal(offsets[live], when[live])


def test_attention_and_its_gradient_are_those_of_a_loop_and_of_differences():
    """The last query sees no key: it gets nothing, and no gradient."""
    rng = np.random.default_rng(0)
    q, keys, values = (rng.normal(size=(2, 3, n, 4)) for n in (5, 6, 6))
    mask = rng.random((2, 5, 6)) < 0.5
    mask[:, 0], mask[:, -1] = True, False
    expected = np.zeros(q.shape)
    for row, head, query in np.ndindex(q.shape[:3]):
        there = mask[row, query]
        weights = np.exp(keys[row, head, there] @ q[row, head, query])
        expected[row, head, query] = (weights / weights.sum()) @ values[row, head, there] if there.any() else 0.0
    with jax.enable_x64(True):
        given, made = (q, keys, values), jax.jit(lambda *parts: attended(*parts, mask))
        np.testing.assert_allclose(made(*given), expected, atol=1e-12)
        check_grads(made, given, order=1, modes=["rev"], atol=1e-7, rtol=1e-7)
        slope = jax.jit(jax.grad(lambda *parts: made(*parts).sum()))(*given)
        assert not np.asarray(slope)[:, :, -1].any()
        x = np.linspace(-6, 6, 101)
        np.testing.assert_allclose(jax.jit(gelu)(x), x * (1 + erf(x / np.sqrt(2))) / 2, atol=1e-14)


def test_the_optimiser_is_adamw_with_clipped_gradients():
    """The first gradient is too small to be clipped; matrices decay but for embeddings and places."""
    one_block = eqx.tree_at(lambda net: (net.state, net.fusion), LOUD, ((), ()))
    weights, _ = eqx.partition(one_block, eqx.is_inexact_array)
    slopes = jax.tree.map(lambda leaf: np.cos(np.arange(leaf.size, dtype=np.float32)).reshape(leaf.shape), weights)
    assert 0.01 * np.linalg.norm(np.concatenate([each.ravel() for each in jax.tree.leaves(slopes)])) < 1
    kept = {".embedding", ".place", ".past_place", ".known"}
    decayed = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf.ndim == 2 and jax.tree_util.keystr(path) not in kept, weights
    )
    schedule = optax.warmup_cosine_decay_schedule(0.0, 1e-2, 3, 30, 1e-3)
    plain = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, 0.9, 0.95, weight_decay=0.1, mask=decayed))

    def after_three_steps(rule):
        def step(carry, scale):
            now, state = carry
            updates, state = rule.update(jax.tree.map(lambda slope: scale * slope, slopes), state, now)
            return (optax.apply_updates(now, updates), state), None

        scales = np.array([0.01, 3.0, -1.0], np.float32)
        return jax.jit(lambda: jax.lax.scan(step, (weights, rule.init(weights)), scales)[0][0])()

    found = [after_three_steps(rule) for rule in (optimiser(1e-2, 30), plain)]
    for ours, expected, first in zip(*map(jax.tree.leaves, (*found, weights)), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-6)
        assert np.abs(np.asarray(ours) - np.asarray(first)).max() > 1e-4


def test_the_nucleus_is_the_fewest_values():
    logits, kept = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32)), jax.jit(nucleus)
    assert (np.asarray(kept(logits, 0.75)) > -100).tolist() == [True, True, False, False]
    assert (np.asarray(kept(logits, 1.0)) > -100).all()


def test_the_contrastive_loss_is_that_of_a_loop():
    rng = np.random.default_rng(0)
    u, v, there = rng.standard_normal((5, 3)), rng.standard_normal((5, 3)), np.array([1, 1, 0, 1, 1], bool)
    unit = lambda x: x / np.linalg.norm(x)  # noqa: E731
    each = []
    for i in np.flatnonzero(there):
        s = [unit(u[i]) @ unit(v[j]) / 0.5 for j in np.flatnonzero(there)]
        each.append(-unit(u[i]) @ unit(v[i]) / 0.5 + np.log(np.exp(s).sum()))
    assert float(jax.jit(contrastive_loss)(u, v, there)) == pytest.approx(np.mean(each), rel=1e-5)
    assert retrieval(u, u, 5) == 1.0


def test_readouts_see_what_is_there():
    data = RECORDING.data(np.arange(11))
    made = attention_connectivity(LOUD, data)
    assert made.past.shape == (4, 4)
    past = np.nansum(made.past)
    assert past > 0
    slopes = sensitivity(LOUD, data)
    row = RECORDING.data(np.arange(1), packed=False)
    first = row.rows._replace(
        **{
            name: getattr(row.rows, name)[:, :1]
            for name in ("ids", "offsets", "place", "segment", "target_ids", "target_offsets")
        }
    )

    def logits(gate):
        return np.asarray(trunk(LOUD, on_device(first), gate=gate).x)[0, 0] @ np.asarray(LOUD.head_ids.weight).T[:, :4]

    whole = np.ones(row.rows.past_ids.shape, np.float32)
    count = int((row.rows.past_segment >= 0).sum())
    by_hand = np.zeros((4, 4))
    for k in range(count):
        step = np.zeros_like(whole)
        step[0, k] = 1e-2
        moved = (logits(whole + step) - logits(whole - step)) / 2e-2
        by_hand[:, int(row.rows.past_ids[0, k])] += moved
    seen = np.bincount(row.rows.past_ids[0, :count], minlength=4)
    found = sensitivity(LOUD, RECORDING.data(np.arange(1)))
    np.testing.assert_allclose(found, by_hand / np.maximum(seen, 1), atol=2e-3)
    assert np.isfinite(slopes).all()


def test_scores_of_rankings():
    edges = np.zeros((3, 3), bool)
    edges[1, 0] = edges[2, 0] = True
    good = np.where(edges, 1.0, 0.0)
    assert average_precision(good, edges) == 1.0
    assert direction_index(good, edges) == 1.0
    assert direction_index(good + good.T, edges) == 0.5
    assert average_precision(np.full((3, 3), np.nan), edges) == pytest.approx(2 / 6)


@pytest.mark.parametrize("kind", ["waves", "learned"])
def test_logits_are_those_of_the_authors_program(kind):
    with np.load(REFERENCE) as stored:
        held = dict(stored)
    prefix = f"{kind}/weights/"
    state = {name.removeprefix(prefix): part for name, part in held.items() if name.startswith(prefix)}
    net = load_official(state, 2, (3, 10, 12), (3, 4, 4), (3, 3, 4))
    count, past = held["id"].shape[1], held["id_prev"].shape[1]
    here, behind = np.zeros((2, count), int), np.zeros((2, past), int)  # padding is attended there
    rows = Rows(
        held["id"], held["dt"], here + np.arange(count), here, here, here, held["id_prev"], held["dt_prev"], behind + np.arange(past),
        behind, np.zeros((2, 1), int),
    )  # fmt: skip
    out = trunk(net, on_device(rows), held["frames"][:, None], place=False)
    for head, expected in ((net.head_ids, "logits_id"), (net.head_offsets, "logits_dt")):
        np.testing.assert_allclose(np.asarray(out.x) @ np.asarray(head.weight).T, held[f"{kind}/{expected}"], atol=1e-5)
    assert held["behaviour_effect"] == 0  # a layer norm over one number leaves nothing of it
    del state["head_id.weight"]
    with pytest.raises(DataError, match=r"head_id\.weight"):
        load_official(state, 2)


def test_behaviour_is_seen_unless_it_is_hidden():
    recording = Recording(COUNTS, block=16, past_block=16, packed=4, behaviour=RNG.standard_normal((11, 2)))
    net = loud(NeuroformerNet(recording.config(width=8, heads=2, history=1, fusion=1), np.random.default_rng(1)))
    rows, _, behaviour = recording.data(np.arange(4)).batch(np.arange(1))
    rows = on_device(rows)
    for moves in (True, False):
        sees = Sees(behaviour=np.asarray(moves))
        one, other = (np.asarray(trunk(net, rows, None, b, sees=sees).x) for b in (behaviour, behaviour + 1))
        assert (np.abs(one - other).max() > 1e-4) == moves
