"""Patching: against one forward pass a cell, the official code's traces, and what must be so by construction."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from broadsheet.errors import InputError
from broadsheet.language import patched_runs
from broadsheet.language import tiny_world as tiny
from broadsheet.language.anatomy import embedding
from broadsheet.language.architectures import Sizes, new_model
from broadsheet.language.hooks import captured, hooked, patching, placing, skipping
from broadsheet.language.patch_maps import PatchMap, normalise, similarity
from broadsheet.language.patched_runs import difference, patched, read, says
from broadsheet.language.patching import activation_patching, noise_patching, patch_models
from broadsheet.language.statement_pairs import TokenPairs

OFFICIAL = json.loads((Path(__file__).parents[1] / "references" / "patching" / "official.json").read_text())
SIZES = Sizes(words=50, width=32, blocks=3, heads=2)
COLUMNS = 4


def made(kind, seed, **settings):
    """A small model with large weights, so that it says different things."""
    model = new_model(kind, SIZES, seed=seed, **settings).eval()
    for weights in model.parameters():
        weights.data *= 3 if weights.ndim > 1 else 1
    return model


@pytest.fixture(scope="module")
def pairs():
    dice = torch.Generator().manual_seed(0)
    true = torch.randint(0, 50, (3, 9), generator=dice)
    false = true.clone()
    false[:, 6] = (true[:, 6] + torch.randint(1, 50, (3,), generator=dice)) % 50
    return TokenPairs(true, false, COLUMNS, ("a", "[subject]", "b", "c"), (3, 4))


def cell_by_cell(source, target, pairs):
    """D by a whole forward pass for each prompt, place and token."""
    places = [(embedding(source), embedding(target)), (0, 0), (1, 1), (2, 2)]
    out = np.zeros((len(pairs), len(places), pairs.columns))
    with torch.no_grad():
        for row in range(len(pairs)):
            with captured(source, [place for place, _ in places]) as found:
                source(input_ids=pairs.true[row : row + 1])
            states = dict(found)
            for layer, (there, here) in enumerate(places):
                for column in range(pairs.columns):
                    with hooked(target, {here: patching(states[there], [column - pairs.columns])}):
                        logits = target(input_ids=pairs.false[row : row + 1]).logits[0, -1]
                    out[row, layer, column] = logits[3] - logits[4]
    return out


@pytest.mark.parametrize("kind", ["llama", "qwen3", "mistral", "olmo2", "gpt_neox", "gpt2", "bloom", "mixtral", "rwkv"])
def test_shared_passes_equal_one_pass_a_cell(kind, pairs):
    sizes = {"sliding_window": 5} if kind == "mistral" else {}  # shorter than the prompts: keys are dropped
    if kind == "rwkv":
        source, target = (new_model(kind, Sizes(words=50, width=32, blocks=3), seed=seed).eval() for seed in (1, 2))
    else:
        source, target = made(kind, 1, **sizes), made(kind, 2, **sizes)
    reading = read(target, pairs.false, COLUMNS)
    assert (reading.kept is None) == (kind in ("mistral", "rwkv"))
    assert reading.several == (kind in ("bloom", "rwkv"))
    expected = cell_by_cell(source, target, pairs)
    assert np.ptp(expected) > 1e-2
    for rows in (None, 5, 4):
        assert_allclose(activation_patching(source, target, pairs, rows=rows).differences, expected, atol=1e-5)
    within = activation_patching(target, target, pairs).differences
    assert_allclose(within, activation_patching(target, target, pairs, all_cells=True).differences, atol=1e-5)
    assert_allclose(within, cell_by_cell(target, target, pairs), atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_what_prompts_have_in_common_is_read_once(kind, pairs):
    model = made(kind, 1)
    ids = torch.cat([pairs.true, pairs.false])
    lengths = []
    with hooked(model, {embedding(model): lambda states: lengths.append(tuple(states.shape[:2])) or states}):
        together = read(model, ids, COLUMNS)
        alone = [read(model, ids[row : row + 1], COLUMNS) for row in range(len(ids))]
    assert lengths == [(3, 5), (6, 4), *[(1, 9)] * 6]  # three beginnings, six endings
    for row, one in enumerate(alone):
        mine = together[row : row + 1]
        for here, there in ((mine.states, one.states), (mine.logits, one.logits), *zip(mine.kept[1], one.kept[1], strict=True)):
            assert here.shape == there.shape
            assert_allclose(here, there, atol=1e-5)


@pytest.mark.parametrize(("call", "tokens"), [(2e7, 4 * 4), (0.0, 4 + 3 + 2 + 1)])
def test_runs_join_at_their_block_and_begin_at_their_token(call, tokens, pairs, monkeypatch):
    """Where calls cost nothing each token has passes of its own."""
    monkeypatch.setitem(patched_runs.CALL, "cpu", call)
    model = made("llama", 1)
    true, false = read(made("llama", 2), pairs.true, COLUMNS), read(model, pairs.false, COLUMNS)
    seen = dict.fromkeys(range(3), 0)

    def counting(layer):
        def look(states):
            seen[layer] += states.shape[0] * states.shape[1]
            return states

        return look

    score = difference(torch.full((3,), 3), torch.full((3,), 4))
    with hooked(model, {layer: counting(layer) for layer in seen}):
        found = patched(model, false, true.states, score)
    assert seen == {layer: len(pairs) * (layer + 1) * tokens for layer in seen}
    assert_allclose(found, patched(model, false, true.states, score, rows=1), atol=1e-5)


@pytest.mark.parametrize("name", ["within", "across", "within_no_question", "across_no_question"])
def test_maps_equal_those_of_the_official_code(name, shipped):
    found, asked = OFFICIAL[name], not name.endswith("question")
    true, false = (torch.tensor([tiny.encode(text) for text in found[kind]]) for kind in ("true", "false"))
    answers = (tiny.IDS["TRUE"], tiny.IDS["FALSE"]) if asked else None
    columns = np.shape(found["maps"])[2]
    pairs = TokenPairs(true, false, columns, ("",) * columns, answers)
    target = shipped("sft" if name.startswith("across") else "base")
    ours = activation_patching(shipped("base"), target, pairs, layers=(0, 1, 2))
    assert ours.mean.max() > 1
    assert_allclose(ours.differences, found["maps"], atol=1e-5)
    assert_allclose(normalise(np.mean(found["maps"], 0)), found["normalised"], atol=1e-12)


def test_own_states_change_nothing_and_all_states_of_a_layer_change_all(pairs):
    model = made("llama", 1)
    true, false = (read(model, ids, COLUMNS) for ids in (pairs.true, pairs.false))
    score, every = difference(torch.full((3,), 3), torch.full((3,), 4)), torch.arange(3)
    own = patched(model, false, false.states, score, all_cells=True)
    assert_allclose(own, score(false.logits, every)[:, None, None].expand(own.shape), atol=1e-5)
    whole = patched(model, false, true.states, score, together=True)
    assert whole.shape == (3, 4, 1)
    assert_allclose(whole, score(true.logits, every)[:, None, None].expand(whole.shape), atol=1e-5)
    assert (score(true.logits, every) - score(false.logits, every)).abs().min() > 1e-3
    assert patched(model, false, true.states, says(true.logits.argmax(-1)), together=True).min() == 1


def test_several_models_are_read_once_and_give_the_same_maps(pairs):
    models = {"a": made("gpt2", 1), "b": made("gpt2", 2)}
    shares = []
    maps = patch_models(models, pairs, [("a", "a"), ("a", "b")], block=2, report=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    for (source, target), found in maps.items():
        alone = activation_patching(models[source], models[target], pairs)
        assert_allclose(found.differences, alone.differences, atol=1e-5)
        assert_allclose(found.unpatched, alone.unpatched, atol=1e-5)
    few = activation_patching(models["a"], models["b"], pairs, layers=(1, -1))
    assert_allclose(few.differences, maps["a", "b"].differences[:, [2, 0]], atol=1e-5)
    assert few.layers == (1, -1)


def test_clean_states_are_put_back_into_a_noisy_run(pairs):
    model = made("llama", 1)
    found = noise_patching(model, pairs, scale=0.5, seed=4)
    assert len(found) == 6
    dice = torch.Generator().manual_seed(4)
    subject = torch.tensor([0.0, 1.0, 0.0, 0.0])[None, :, None]
    for kind, (ids, (right, wrong)) in enumerate(((pairs.true, (3, 4)), (pairs.false, (4, 3)))):
        embedded = embedding(model)(ids).detach()
        noise = torch.zeros_like(embedded)
        clean = embedded[:, -COLUMNS:]
        noise[:, -COLUMNS:] = 0.5 * torch.randn(clean.shape, generator=dice) * clean.abs() * subject
        with torch.no_grad(), captured(model, [1]) as states:
            model(input_ids=ids)
        kept = states[1]
        with torch.no_grad(), hooked(model, {embedding(model): lambda given, noise=noise: given + noise}):
            noisy = model(input_ids=ids).logits[:, -1]
            with hooked(model, {1: patching(kept, [-3])}):
                logits = model(input_ids=ids).logits[:, -1]
        rows = slice(3 * kind, 3 * kind + 3)
        assert_allclose(found.unpatched[rows], noisy[:, right] - noisy[:, wrong], atol=1e-5)
        assert_allclose(found.differences[rows, 2, 1], logits[:, right] - logits[:, wrong], atol=1e-5)
    with pytest.raises(InputError, match="answered with TRUE or FALSE"):
        noise_patching(model, TokenPairs(pairs.true, pairs.false, COLUMNS, pairs.names, None))


def test_rows_have_places_of_their_own_and_blocks_can_be_left_out():
    model = made("gpt_neox", 1)
    ids = torch.arange(12).reshape(2, 6)
    vectors = torch.full((2, 32), 7.0)
    with torch.no_grad(), captured(model, [0]) as found, hooked(model, {0: placing(vectors, *torch.tensor([[0, 1], [-1, 2]]))}):
        whole = model(input_ids=ids).logits
    assert not (found[0] == 7).any()
    states = found[0].clone()
    states[0, -1] = states[1, 2] = 7.0
    with (
        torch.no_grad(),
        skipping(model, 1, states),
        hooked(model, {"gpt_neox.layers.0.mlp": lambda _: pytest.fail("computed")}),
    ):
        assert_allclose(model(input_ids=ids).logits, whole, atol=1e-5)
    assert "forward" not in vars(model.gpt_neox.layers[0])


def test_maps_in_steps_and_how_alike_they_are(tmp_path):
    values = np.array([[-8.0, -8, 8], [-8, 0.5, -1]])
    assert_allclose(normalise(values), [[0, 0, 1], [0, 0.1, 0]])
    assert_allclose(normalise(np.full((2, 2), 3.0)), 0)
    rng = np.random.default_rng(0)
    different = np.array([[True, False, False], [False, False, False]])
    one, two = (
        PatchMap(rng.standard_normal((2, 4, 3)), np.zeros(2), np.ones(2), (-1, 0, 1, 2), ("[subject]", "is", ":"), different)
        for _ in range(2)
    )
    found = similarity(one, two)
    apart = np.abs(one.normalised - two.normalised)
    assert_allclose(found["pearson"], np.corrcoef(one.normalised.ravel(), two.normalised.ravel())[0, 1])
    assert found["largest_difference"] == apart.max()
    assert found["largest_at_knowledge"] == apart[:, 0].max()
    d = one.differences
    assert_allclose(one.by_role, np.stack([d[0, :, 0], (d[0, :, 1] + d[1, :, :2].mean(1)) / 2, d[:, :, 2].mean(0)], 1))
    joined = PatchMap.joined([one, two])
    assert_allclose(joined.mean, (one.mean + two.mean) / 2)
    joined.write(tmp_path / "map.npz")
    again = PatchMap.read(tmp_path / "map.npz")
    assert again.layers == joined.layers
    assert again.columns == joined.columns
    assert_allclose(again.differences, joined.differences)
    flat = PatchMap(np.zeros((1, 4, 3)), np.zeros(1), np.ones(1), (-1, 0, 1, 2), ("[subject]", "is", ":"), different[:1])
    assert np.isnan(similarity(one, flat)["pearson"])
    with pytest.raises(InputError, match="cannot be compared"):
        similarity(one, PatchMap(d, np.zeros(2), np.ones(2), (0, 1, 2, 3), one.columns, different))


def test_what_cannot_be_patched_is_refused_in_a_sentence(pairs):
    model = made("llama", 1)
    with pytest.raises(InputError, match="3 blocks, width 64 and 4 tokens cannot be put into a run of 3 blocks, width 32"):
        activation_patching(new_model("llama", Sizes(words=50, width=64, blocks=3)), model, pairs)
    with pytest.raises(InputError, match="Block 3 does not exist"):
        activation_patching(model, model, pairs, layers=(0, 3))
    with pytest.raises(InputError, match="The tokenizer gives the token 49; the embedding of the LlamaForCausalLM has 40"):
        activation_patching(new_model("llama", Sizes(words=40)), model, replace_ids(pairs, 49))
    with pytest.raises(InputError, match="longer than the GPT2LMHeadModel has positions for"):
        read(new_model("gpt2", Sizes(words=50, positions=6)), pairs.true, COLUMNS)
    with pytest.raises(InputError, match="10 columns are asked for; the prompts have 9 tokens"):
        read(model, pairs.true, 10)
    broken = made("llama", 1)
    broken.lm_head.weight.data[0] = torch.nan
    with pytest.raises(InputError, match=r"lm_head\.weight of the LlamaForCausalLM hold NaN"):
        activation_patching(broken, model, pairs)


def replace_ids(pairs, token):
    true = pairs.true.clone()
    true[0, 0] = token
    return TokenPairs(true, pairs.false, COLUMNS, pairs.names, pairs.answers)
