"""How sure a model is, and entropy neurons, against the authors' program, SciPy and models made for it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.special import log_softmax
from scipy.stats import entropy

from broadsheet.errors import InputError
from broadsheet.language.anatomy import matrix, mlp, unembedding
from broadsheet.language.architectures import Sizes, new_model
from broadsheet.language.confidence import (
    entropy_neurons,
    iou,
    last_vectors,
    mean_ablated,
    mean_activations,
    read_confidence,
    select,
)
from broadsheet.language.hooks import captured
from broadsheet.language.tiny_world import World

REFERENCE = Path(__file__).parents[1] / "references" / "post_training" / "directions.json"


@pytest.fixture(scope="module")
def rows():
    return World(0).probe(12, 20).tolist()


@pytest.mark.parametrize("name", ["base", "sft"])
def test_entropy_neurons_are_those_of_the_official_code(name, shipped):
    theirs = json.loads(REFERENCE.read_text())["neurons"]
    found = entropy_neurons(shipped(name))
    assert_allclose(found.norms, theirs[name]["norm"], rtol=1e-5)
    assert_allclose(found.logit_var, theirs[name]["logit_var"], rtol=1e-4, atol=1e-7)
    assert_allclose(found.ratio, theirs[name]["ratio"], rtol=1e-4)
    assert sorted(found.candidates) == theirs[name]["candidates"]


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mistral", "olmo2", "gpt_neox", "gpt2"])
def test_models_of_each_kind_against_a_plain_loop(kind):
    model = new_model(kind, Sizes(words=30, width=16, blocks=2, mlp=12)).eval()
    found = entropy_neurons(model, top=0.5, n=3, processed=False)
    down, words = matrix(mlp(model, 1).down).detach().numpy(), matrix(unembedding(model)).detach().numpy()
    for neuron in range(12):
        w = down[:, neuron]
        cosines = [w @ u / np.linalg.norm(w) / np.linalg.norm(u) for u in words]
        assert found.norms[neuron] == pytest.approx(np.linalg.norm(w), rel=1e-5)
        assert found.logit_var[neuron] == pytest.approx(np.var(cosines, ddof=1), rel=1e-4)
    long = sorted(range(12), key=lambda k: -found.norms[k])[:6]
    assert list(found.candidates) == sorted(long, key=lambda k: found.logit_var[k])[:3]
    assert_allclose(last_vectors(model), down.T)


@pytest.mark.parametrize("kind", ["llama", "gpt_neox"])
def test_processed_says_what_an_added_neuron_does_to_the_logits(kind):
    """A step along a neuron's output vector, through the final norm that holds its scale, moves the logits by that much."""
    model = new_model(kind, Sizes(words=30, width=16, blocks=2, mlp=12)).eval()
    norm = model.model.norm if kind == "llama" else model.gpt_neox.final_layer_norm
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.2, 3, 16))
        vectors = torch.tensor(last_vectors(model))
        if kind == "gpt_neox":
            vectors = vectors - vectors.mean(1, keepdim=True)
        moved = (vectors * norm.weight) @ matrix(unembedding(model)).T  # (neurons, words)
        words = matrix(unembedding(model)) * norm.weight
        if kind == "gpt_neox":
            words = words - words.mean(1, keepdim=True)
        words = words - words.mean(0)
    moved = moved - moved.mean(1, keepdim=True)
    found = entropy_neurons(model)
    wanted = (moved / vectors.norm(dim=1, keepdim=True) / words.norm(dim=1)).var(1)
    assert_allclose(found.logit_var, wanted, rtol=1e-4)


def test_confidence_against_scipy(base, rows):
    found = read_confidence(base, [*rows, rows[0][:7]], batch=5, bins=10)
    with torch.no_grad():
        laws = [log_softmax(base(torch.tensor([row])).logits[0, :-1].double().numpy(), -1) for row in [*rows, rows[0][:7]]]
    assert_allclose(found.entropy, [entropy(np.exp(law), axis=1).mean() for law in laws], rtol=1e-4)
    assert_allclose(found.largest, [np.exp(law).max(1).mean() for law in laws], rtol=1e-4)
    top = np.concatenate([np.exp(law).max(1) for law in laws])
    right = np.concatenate([law.argmax(1) == row[1:] for law, row in zip(laws, [*rows, rows[0][:7]], strict=True)])
    assert found.accuracy == pytest.approx(right.mean())
    error = 0.0
    for low in np.arange(10) / 10:
        here = (top >= low) & (top < low + 0.1)
        if here.any():
            error += here.mean() * abs(right[here].mean() - top[here].mean())
    assert found.ece == pytest.approx(error, abs=1e-6)


def test_a_model_that_knows_nothing_is_calibrated():
    model = new_model("llama", Sizes(words=16, width=16, blocks=1)).eval()
    with torch.no_grad():
        model.lm_head.weight.zero_()
    found = read_confidence(model, np.random.default_rng(0).integers(1, 16, (50, 20)).tolist()).summary()
    assert found["entropy"] == pytest.approx(np.log(16), rel=1e-5)
    assert found["max_probability"] == pytest.approx(1 / 16)
    assert found["ece"] == pytest.approx(abs(found["accuracy"] - 1 / 16), abs=1e-6)


def test_neurons_are_held_at_their_means(base, rows):
    means = mean_activations(base, rows, batch=5)
    down = mlp(base, 2).down
    with torch.no_grad(), captured(base, [down], inputs=True) as seen:
        base(torch.tensor(rows))
    assert_allclose(means, seen[down].mean((0, 1)), atol=1e-5)
    with mean_ablated(base, [3, 7], means), torch.no_grad(), captured(base, [down]) as held:
        base(torch.tensor(rows))
    states = seen[down].clone()
    states[..., [3, 7]] = torch.tensor(means[[3, 7]], dtype=torch.float32)
    with torch.no_grad():
        assert_allclose(held[down], down(states), atol=1e-5)
    before = read_confidence(base, rows).entropy
    with mean_ablated(base, [], means):
        assert_allclose(read_confidence(base, rows).entropy, before, rtol=1e-6)


def test_choosing_and_comparing_sets():
    norms, statistic = np.array([1.0, 5, 4, 3, 2, 6, 7, 8]), np.array([0.0, 3, 2, 1, 0, 9, 8, 7])
    assert list(select(norms, statistic, 0.5, 2)) == [1, 7]
    assert iou([1, 2, 3], [3, 4]) == 0.25
    assert iou([], []) == 0.0


def test_mistakes_get_a_sentence(base, rows):
    with pytest.raises(InputError, match="share within"):
        entropy_neurons(base, top=0)
    with pytest.raises(InputError, match="no next token"):
        read_confidence(base, [[1]])
    with pytest.raises(InputError, match="the token 500"):
        read_confidence(base, [[1, 500]])
    with pytest.raises(InputError, match="no texts"):
        mean_activations(base, [])
    experts = new_model("mixtral", Sizes(words=30, width=16, blocks=1))
    with pytest.raises(InputError, match="no MLP with separate maps"):
        entropy_neurons(experts)
