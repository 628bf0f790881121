"""Small models of six architectures: made, saved, loaded, and their parts found, against what the parts must do."""

import pytest
import torch
from numpy.testing import assert_allclose
from transformers.activations import ACT2FN

from broadsheet.errors import InputError
from broadsheet.language.anatomy import (
    attention,
    blocks,
    embedding,
    final_norm,
    linear_maps,
    matrix,
    mlp,
    part,
    path_of,
    unembedding,
)
from broadsheet.language.architectures import Sizes, configuration, new_model
from broadsheet.language.hooks import captured, clamping, hooked
from broadsheet.language.models import load
from broadsheet.language.tiny_world import WORDS, encode, tokenizer

KINDS = ["llama", "qwen2", "mistral", "olmo2", "gpt_neox", "gpt2"]
SIZES = Sizes(words=len(WORDS), width=32, blocks=3, heads=4, positions=24, mlp=48)
IDS = torch.randint(6, len(WORDS), (2, 7), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=KINDS)
def model(request):
    return new_model(request.param, SIZES, seed=3).eval()


def test_a_new_model_has_its_sizes_and_comes_back_from_a_folder(model, tmp_path):
    assert embedding(model).weight.shape == unembedding(model).weight.shape == (len(WORDS), 32)
    assert len(blocks(model)) == 3
    assert mlp(model, 0).neurons == 48
    assert model.config.max_position_embeddings == 24
    model.save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    again, words = load(str(tmp_path), attention="eager")
    assert type(again) is type(model)
    text = "the city of city_3 is in city_object_2 ."
    assert words([text])["input_ids"] == [encode(text)]
    with torch.no_grad():
        assert torch.equal(again(input_ids=IDS).logits, model(input_ids=IDS).logits)


def test_the_seed_decides_the_weights():
    one, same, other = (new_model("gpt2", SIZES, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(embedding(one).weight, embedding(same).weight)
    assert not torch.equal(embedding(one).weight, embedding(other).weight)
    config = configuration("llama", SIZES, rope_parameters={"rope_type": "default", "rope_theta": 500.0})
    assert new_model(config).config.rope_parameters["rope_theta"] == 500.0


def test_blocks_make_the_hidden_states_and_the_final_norm_the_logits(model):
    with torch.no_grad(), captured(model) as found:
        out = model(input_ids=IDS, output_hidden_states=True)
    for layer in (0, 1):  # the last of hidden_states has passed the norm
        assert torch.equal(found[layer], out.hidden_states[layer + 1])
    with torch.no_grad():
        normed = final_norm(model)(found[2])
        assert_allclose(normed, out.hidden_states[3], atol=1e-6)
        assert_allclose(unembedding(model)(normed), out.logits, atol=1e-5)


def test_without_its_attention_a_model_does_not_look_back(model):
    changed = IDS.clone()
    changed[:, 0] += 1
    silent = {attention(model, layer): torch.zeros_like for layer in range(3)}
    with torch.no_grad():
        assert (model(input_ids=changed).logits - model(input_ids=IDS).logits)[:, -1].abs().max() > 1e-4
        with hooked(model, silent):
            assert torch.equal(model(input_ids=changed).logits[:, 1:], model(input_ids=IDS).logits[:, 1:])


def test_an_mlp_is_down_of_act_of_gate_times_up(model):
    found = mlp(model, 1)
    act = ACT2FN[getattr(model.config, "hidden_act", None) or model.config.activation_function]
    into = [part for part in (found.up, found.gate) if part is not None]
    with torch.no_grad(), captured(model, into) as outputs, captured(model, [found.up, found.down], inputs=True) as inputs:
        model(input_ids=IDS)
    up, hidden = outputs[found.up], inputs[found.down]
    assert_allclose(hidden, act(outputs[found.gate]) * up if found.gate is not None else act(up), atol=1e-6)
    plain = inputs[found.up] @ matrix(found.up).T
    assert_allclose(up.detach(), (plain if found.up.bias is None else plain + found.up.bias).detach(), atol=1e-6)
    assert matrix(found.down).shape == matrix(found.up).shape[::-1] == (32, 48)


def test_a_clamped_neuron_stays_where_it_is_put(model):
    up = path_of(model, mlp(model, 2).up)
    with torch.no_grad(), captured(model, [up]) as plain:
        model(input_ids=IDS)
        with hooked(model, {up: clamping(5, 2.5, [-1])}), captured(model, [up]) as held:
            model(input_ids=IDS)
    change = held[up] - plain[up]
    assert (held[up][:, -1, 5] == 2.5).all()
    change[:, -1, 5] = 0
    assert change.abs().max() == 0


def test_linear_maps_are_all_matrices_of_a_block(model):
    found = linear_maps(model, 1)
    assert {id(one.weight) for one in found.values()} == {id(w) for w in blocks(model)[1].parameters() if w.ndim == 2}
    assert all(part(model, path) is one for path, one in found.items())


def test_inputs_of_blocks_are_the_outputs_before(model):
    with torch.no_grad(), captured(model, [0, 1]) as outputs, captured(model, [1, 2], inputs=True) as inputs:
        model(input_ids=IDS)
    assert torch.equal(inputs[1], outputs[0])
    assert torch.equal(inputs[2], outputs[1])


def test_mixtures_of_experts_and_encoders_say_what_they_lack():
    experts = new_model("mixtral", SIZES, num_local_experts=2)
    with pytest.raises(InputError, match="Block 0 of a MixtralForCausalLM has no MLP with separate maps"):
        mlp(experts, 0)
    assert attention(experts, 0) is part(experts, "model.layers.0.self_attn")
    with pytest.raises(InputError, match=r"has no part 'model.layers.7'"):
        part(experts, "model.layers.7")
    with pytest.raises(InputError, match="no attention"):
        attention(new_model("mamba", Sizes(words=20, width=16)), 0)
    with pytest.raises(InputError, match="no unembedding"):
        unembedding(experts.model)
    with pytest.raises(InputError, match="cannot be found"):
        blocks(torch.nn.Linear(2, 2))
    with pytest.raises(InputError, match="no part of"):
        path_of(experts, torch.nn.Linear(2, 2))
    with pytest.raises(InputError, match="no matrix"):
        matrix(final_norm(experts))


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: new_model("lama", SIZES), "no architecture 'lama'"),
        (lambda: new_model("clip", SIZES), "no causal language model"),
        (lambda: new_model("bloom", Sizes(words=20, mlp=7)), "no size 'mlp'"),
        (lambda: new_model("llama", SIZES, banana=1), "no 'banana'"),
        (lambda: new_model("llama", Sizes(words=20, width=30)), "cannot have these sizes"),
        (lambda: new_model("llama"), "needs sizes"),
    ],
)
def test_mistakes_get_a_sentence(made, said):
    with pytest.raises(InputError, match=said):
        made()
