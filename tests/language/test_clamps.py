"""Clamps against what their formula says, and each batched way against one clamp at a time."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from broadsheet.errors import InputError
from broadsheet.language.anatomy import blocks, matrix, mlp
from broadsheet.language.architectures import Sizes, new_model
from broadsheet.language.clamp_effects import (
    clamp_curve,
    clamp_effects,
    concept_changes,
    planted,
    push_effects,
    pushed_changes,
    random_neurons,
)
from broadsheet.language.clamps import clamp, mentions, next_log_probabilities, side_effects, steered
from broadsheet.language.hooks import captured
from broadsheet.language.tiny_world import IDS, World, encode, tokenizer

PROMPT = encode("<bos> the city of city_3 is in")


def following(model, prompt):
    with torch.no_grad():
        return model(input_ids=torch.tensor([prompt])).logits[0, -1].log_softmax(-1)


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt_neox", "gpt2"])
@pytest.mark.parametrize("site", ["up", "hidden"])
def test_a_clamp_moves_the_stream_along_the_neurons_column(kind, site):
    model = new_model(kind, Sizes(words=50, width=32, blocks=2, mlp=40), seed=2).eval().double()
    found, ids, index, value = mlp(model, 1), torch.arange(6)[None] + 5, 7, 3.0
    with torch.no_grad(), captured(model, [1, found.up]) as plain, captured(model, [found.down], inputs=True) as hidden:
        model(input_ids=ids)
    with torch.no_grad(), captured(model, [1]) as held, clamp(model, {(1, index): value}, site, positions=[-1, 2]):
        model(input_ids=ids)
    h, u = hidden[found.down][0, :, index], plain[found.up][0, :, index]
    if site == "hidden":
        change = value - h
    elif found.gate is not None:
        change = h / u * (value - u)
    else:
        act = blocks(model)[1].mlp.act
        change = act(torch.full_like(u, value)) - act(u)
    wanted = torch.zeros(6, 32, dtype=torch.float64)
    for position in (5, 2):
        wanted[position] = change[position] * matrix(found.down)[:, index].detach()
    assert_allclose((held[1] - plain[1])[0].detach(), wanted.detach(), atol=1e-10)


def test_rows_of_clamps_are_clamps_one_at_a_time_and_leave_nothing_behind(base):
    before = following(base, PROMPT)
    rows = [(0, 3, 5.0), (2, 3, -8.0), (0, 3, -5.0), (1, 100, 2.0)]
    found, pushes = clamp_effects(base, PROMPT, rows)
    for row, (layer, neuron, value) in enumerate(rows):
        with clamp(base, {(layer, neuron): value}):
            assert_allclose(found[row], following(base, PROMPT), atol=1e-4)
    pushed = push_effects(base, PROMPT, [row[:2] for row in rows], pushes)
    assert_allclose(pushed, found, atol=1e-4)  # a neuron that pushes as far as itself
    assert torch.equal(following(base, PROMPT), before)


def test_a_push_is_as_long_whichever_neuron_makes_it(base):
    _, pushes = clamp_effects(base, PROMPT, [(1, 3, 9.0)])
    lengths = []
    for neuron in (3, 50):
        down = mlp(base, 1).down
        with captured(base, [down]) as plain:
            next_log_probabilities(base, torch.tensor([PROMPT]))
        kept = plain[down].clone()
        with captured(base, [down]) as moved:
            push_effects(base, PROMPT, [(1, neuron)], pushes)
        lengths.append((moved[down] - kept)[0].norm(dim=-1))
    assert_allclose(lengths[0].detach(), lengths[1].detach(), rtol=1e-3)
    assert_allclose(lengths[0].detach(), pushes[0].abs(), rtol=1e-3)


def test_a_curve_is_its_clamps_and_its_controls_are_theirs(base):
    token, values = IDS["city_object_2"], [-4.0, 0.0, 4.0]
    curve = clamp_curve(base, tokenizer(), "the city of city_3 is in", token, (2, 9), values, controls=2, seed=5)
    prompt = tokenizer()("the city of city_3 is in")["input_ids"]
    plain = following(base, prompt)
    others = random_neurons(base, 2, 2, 5, without=[9])
    for k, value in enumerate(values):
        with clamp(base, {(2, 9): value}):
            held = following(base, prompt)
        assert curve.p[k] == pytest.approx(float(held[token].exp()), rel=1e-4)
        assert curve.rank[k] == int((held > held[token]).sum())
        assert curve.kl[k] == pytest.approx(float((plain.exp() * (plain - held)).sum()), abs=1e-5)
        for row, other in enumerate(others):
            with clamp(base, {(2, other): value}):
                assert curve.change[row, k] == pytest.approx(float(following(base, prompt)[token] - plain[token]), abs=1e-4)
    assert curve.plain == pytest.approx(float(plain[token].exp()), rel=1e-5)
    assert_allclose(curve.effect, np.log(curve.p / curve.plain), atol=1e-6)


def test_a_planted_neuron_steers_and_goes_away_again(base):
    token, neuron = IDS["city_object_1"], (2, 4)
    before = [weights.clone() for weights in base.parameters()]
    found = mlp(base, 2)
    with captured(base, [found.gate], inputs=True) as seen:
        next_log_probabilities(base, torch.tensor([PROMPT]))
    state = seen[found.gate][0, -1]
    word = base.lm_head.weight[token].detach()
    with planted(base, neuron, gate=state / state.square().sum(), down=word / word.norm()):
        curve = clamp_curve(base, None, PROMPT, token, neuron, [0.0, 5.0, 10.0, 20.0], controls=0)
        changes, pushes = concept_changes(base, [PROMPT], [token], [neuron, (0, 1)], 10.0)
        others = pushed_changes(base, [PROMPT], [token], [neuron, neuron], pushes)
    assert (np.diff(curve.p) > 0).all()
    assert curve.monotone == pytest.approx(1.0)
    assert curve.change.shape == (0, 4)
    assert changes[0] == pytest.approx(math.log(curve.p[2] / curve.plain), abs=1e-3)
    assert others[0] == pytest.approx(changes[0], abs=1e-3)
    assert all(torch.equal(one, other) for one, other in zip(before, base.parameters(), strict=True))


def test_side_effects_are_perplexities_and_a_divergence(base):
    texts = [row.tolist() for row in World(0).probe(3, 10)] + [[5]]
    found = side_effects(base, texts, {(1, 3): 6.0})
    losses, clamped, kl = [], [], []
    for text in texts[:3]:
        ids = torch.tensor([text])
        with torch.no_grad():
            before = base(input_ids=ids).logits[0, :-1].log_softmax(-1)
            with clamp(base, {(1, 3): 6.0}):
                after = base(input_ids=ids).logits[0, :-1].log_softmax(-1)
        losses.append(-before[torch.arange(9), ids[0, 1:]])
        clamped.append(-after[torch.arange(9), ids[0, 1:]])
        kl.append(torch.nn.functional.kl_div(after, before, log_target=True, reduction="none").sum(-1))
    assert found["perplexity"] == pytest.approx(float(torch.cat(losses).mean().exp()), rel=1e-5)
    assert found["clamped_perplexity"] == pytest.approx(float(torch.cat(clamped).mean().exp()), rel=1e-5)
    assert found["kl"] == pytest.approx(float(torch.cat(kl).mean()), rel=1e-3)


def test_what_is_written_under_a_clamp_is_that_of_the_whole_passes(base):
    prompts = [PROMPT, PROMPT[:4], encode("<bos> the city of city_5 is in")]
    written = steered(base, prompts, {(2, 9): 15.0, (0, 3): -9.0}, tokens=4)
    assert written.shape == (3, 1, 4)
    for k, prompt in enumerate(prompts):
        text = list(prompt)
        with clamp(base, {(2, 9): 15.0, (0, 3): -9.0}):
            for _ in range(4):
                text.append(int(following(base, text).argmax()))
        assert written[k, 0].tolist() == text[-4:]
    samples = steered(base, prompts, {}, tokens=2, samples=3, temperature=1.0)
    assert samples.shape == (3, 3, 2)
    assert mentions(torch.tensor([[[1, 2], [3, 4]], [[2, 2], [4, 1]]]), [1, 9]) == 0.5


def test_mistakes_get_a_sentence(base):
    model = new_model("gpt2", Sizes(words=50, width=16, blocks=1))
    for make, said in (
        (lambda: clamp(base, {(0, 192): 1.0}), "Neuron 192 of layer 0 does not exist; it has 192"),
        (lambda: clamp(base, {(3, 0): 1.0}), "Block 3 does not exist"),
        (lambda: clamp(base, {(0, 0): math.nan}), "cannot be held at nan"),
        (lambda: clamp(base, {(0, 0): 1.0}, "gate"), "site is 'gate'"),
        (lambda: planted(model, (0, 1), gate=torch.ones(16)), "has no gate"),
    ):
        with pytest.raises(InputError, match=said), make():
            pass
    with (
        pytest.raises(InputError, match="Position 7 does not exist; the text has 7"),
        clamp(base, {(0, 0): 1.0}, positions=[7]),
    ):
        following(base, PROMPT)
    for options, said in (
        ({"token": 463}, "token 463 is outside"), ({"prompt": [463]}, "gives the token 463"), ({"prompt": []}, "prompt has no token"),
        ({"values": []}, "No value"),
    ):  # fmt: skip
        given = {"prompt": PROMPT, "token": 5, "neuron": (0, 0), "values": [1.0]} | options
        with pytest.raises(InputError, match=said):
            clamp_curve(base, None, **given)
    with pytest.raises(InputError, match="No text has two tokens"):
        side_effects(base, [[1]], {})
