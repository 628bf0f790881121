"""Quantisation of causal language models: against plain NumPy, the official code's numbers, and the models themselves."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from broadsheet.errors import InputError
from broadsheet.language.anatomy import blocks, linear_maps, matrix, part, unembedding
from broadsheet.language.architectures import Sizes, new_model
from broadsheet.language.block_by_block import Walk
from broadsheet.language.quantisation import perplexity, quantise, quantize_hf, windows
from broadsheet.language.quantisers import AdaQuant, AdaRound, FlexRound, RoundToNearest, Scheme
from broadsheet.language.reconstruction import METHODS
from broadsheet.language.tiny_world import WORDS, World, tokenizer
from broadsheet.numerics.quantisation import Grid, from_codes, to_codes

KINDS = ["llama", "qwen2", "mistral", "olmo2", "gpt_neox", "gpt2"]
SIZES = Sizes(words=len(WORDS), width=32, blocks=3, heads=4, positions=24, mlp=48)
IDS = torch.randint(6, len(WORDS), (7, 9), generator=torch.Generator().manual_seed(0))
REFERENCE = Path(__file__).parents[1] / "references" / "flexround_linear.npz"
FLAT = Sizes(words=len(WORDS), width=16, blocks=2, heads=2, positions=24, mlp=24)
FEW = {"iters": 2, "batch": 3}


def weights(outputs=6, inputs=12, seed=0):
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed))


# quantisers


@pytest.mark.parametrize("per", ["tensor", "channel", "group"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_output_of_a_layer_is_that_of_a_plain_numpy_quantiser(bits, symmetric, per):
    w, x = weights(), weights(5, 12, seed=1)
    scheme = Scheme(bits, symmetric, per, group_size=4)
    made = RoundToNearest(w, scheme).frozen()
    step, zero = (np.repeat(value.numpy().astype(np.float32), 12 // value.shape[1], axis=1) for value in (made.step, made.zero))
    grid = Grid(step, zero, bits, symmetric)
    assert_array_equal(made.codes.numpy(), to_codes(w.numpy(), grid))
    plain = from_codes(to_codes(w.numpy(), grid), grid)
    assert_array_equal(made.values().numpy(), plain)
    assert_allclose(torch.nn.functional.linear(x, made.values()), x.numpy() @ plain.T, atol=1e-6)
    assert made.step.unique().numel() == {"tensor": 1, "channel": 6, "group": 18}[per]


@pytest.mark.parametrize("symmetric", [True, False])
def test_flexround_divides_by_all_factors_and_multiplies_by_the_step_alone(symmetric):
    w, scheme = weights(), Scheme(3, symmetric)
    made = FlexRound(w, scheme)
    assert_allclose(made().detach(), RoundToNearest(w, scheme)(), atol=1e-6)
    rng = np.random.default_rng(0)
    for factor in (made.log_step, made.log_weights, made.log_rows):
        factor.data += torch.from_numpy(rng.normal(0, 0.3, factor.shape)).float()
    s1, s2, s3 = (factor.detach().double().exp().numpy()[:, 0] for factor in (made.log_step, made.log_weights, made.log_rows))
    low, high = (-4, 3) if symmetric else (-made.zero[:, 0].numpy(), 7 - made.zero[:, 0].numpy())
    plain = s1 * np.clip(np.round(w.numpy() / (s1 * s2 * s3)), low, high)
    assert_allclose(made().detach(), plain, atol=1e-5)
    assert_array_equal(made.frozen().values(), made().detach())


@pytest.mark.parametrize("case", ["asymmetric4", "asymmetric3", "whole4", "symmetric3", "symmetric2"])
def test_flexround_is_that_of_the_official_code(case):
    with np.load(REFERENCE) as held:
        theirs = {name.removeprefix(f"{case}."): torch.from_numpy(held[name]) for name in held.files if name.startswith(case)}
    bits, symmetric = int(case[-1]), case.startswith("symmetric")
    scheme = Scheme(bits, symmetric, clip=case.startswith("asymmetric"), norm=2.4)
    step, zero = scheme.grid(theirs["weights"])
    assert_allclose(step[..., 0], theirs["delta"], rtol=1e-6)
    assert_array_equal(zero[..., 0], theirs["zero"])
    ours = FlexRound(theirs["weights"], scheme)
    learned = (ours.log_step, ours.log_weights, ours.log_rows)
    for k, factor in enumerate(learned, 1):
        factor.data = theirs[f"delta{k}"].reshape(factor.shape)
    out = torch.nn.functional.linear(theirs["inputs"], ours())
    assert_allclose(out.detach(), theirs["out"], atol=1e-6)
    out.square().sum().backward()
    for k, factor in enumerate(learned, 1):
        wanted = theirs[f"gradient{k}"]
        assert_allclose(factor.grad.reshape(wanted.shape), wanted, rtol=1e-5, atol=1e-6 * float(wanted.abs().max()))


def test_adaround_ends_on_one_of_the_two_nearest_levels():
    w, scheme = weights(), Scheme(3)
    made = AdaRound(w, scheme)
    assert_allclose(made().detach(), w.clamp(-4 * made.first_step[:, 0], 3 * made.first_step[:, 0]), atol=1e-5)  # h is the rest
    assert made.penalty(0.1) == 0.0
    h = made.up().detach().numpy()
    assert_allclose(made.penalty(0.6).detach(), 0.01 * np.sum(1 - np.abs(2 * h - 1) ** 11), rtol=1e-5)  # halfway from 20 to 2
    made.logits.data = torch.where(weights(seed=3)[:, None] > 0, 9.0, -9.0)
    levels = (w / made.first_step[:, 0]).floor() + (weights(seed=3) > 0)
    assert_allclose(made.frozen().codes, levels.clamp(-4, 3))
    assert float(made.penalty(1.0).detach()) == 0.0


def test_adaquant_adds_before_it_rounds():
    w, scheme = weights(), Scheme(3)
    made = AdaQuant(w, scheme)
    made.added.data += 1.0  # a whole step
    wanted = ((w / made.first_step[:, 0]).round() + 1).clamp(-4, 3)
    assert_allclose(made.frozen().codes, wanted)


def test_schemes_refuse_what_cannot_be():
    with pytest.raises(InputError, match="9 bits"):
        Scheme(9)
    with pytest.raises(InputError, match="per 'row'"):
        Scheme(per="row")
    with pytest.raises(InputError, match="A group has 0 inputs"):
        Scheme(per="group", group_size=0)
    with pytest.raises(InputError, match="12 inputs cannot be divided into groups of 5"):
        RoundToNearest(weights(), Scheme(per="group", group_size=5))


# block by block


@pytest.mark.parametrize("kind", [*KINDS, "bloom", "opt", "gemma3_text", "mixtral", "phi3"])
@pytest.mark.parametrize("files", [False, True])
def test_block_by_block_a_model_does_what_it_does_at_once(kind, files, tmp_path):
    settings = {"pad_token_id": 0} if kind == "phi3" else {}
    sizes = {"positions": None, "mlp": None} if kind == "bloom" else {}
    model = new_model(kind, Sizes(**(vars(SIZES) | sizes)), seed=1, **settings).eval()
    with torch.no_grad():
        wanted = model(input_ids=IDS, output_hidden_states=True).hidden_states
    walk = Walk(model, IDS, batch=3, folder=tmp_path if files else None)  # 3, 3 and 1 rows
    states = walk.embedded()
    for layer in range(2):  # what follows the last block has passed the norm
        assert_allclose(states[slice(0, 7)], wanted[layer], atol=1e-5)
        walk.advance(layer, states)
    assert_allclose(states[torch.tensor([6, 0, 3])], wanted[2][[6, 0, 3]], atol=1e-5)
    assert bool(list(tmp_path.iterdir())) == files
    states.close()
    assert not list(tmp_path.iterdir())


def test_blocks_that_see_more_than_hidden_states_are_refused():
    model = new_model("llama", SIZES)
    ids: list = []
    model.model.register_forward_pre_hook(lambda module, given, named: ids.append(named["input_ids"]), with_kwargs=True)

    def tell(module, given, named):
        return given, named | {"words": ids[-1]}

    blocks(model)[1].register_forward_pre_hook(tell, with_kwargs=True)
    with pytest.raises(InputError, match="Block 1 of a LlamaForCausalLM gets more of a text than hidden states"):
        Walk(model, IDS)


# whole models


@pytest.mark.parametrize(
    ("kind", "method"), [*((kind, "flexround") for kind in KINDS), ("gpt2", "gptq"), *(("llama", method) for method in METHODS)]
)
def test_all_maps_of_all_blocks_are_quantised_and_nothing_else(kind, method):
    model = new_model(kind, FLAT, seed=2)
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    made = quantise(
        model, IDS, Scheme(3, symmetric=False), method=method, granularity="layer" if kind == "qwen2" else "block", **FEW
    )
    paths = {path for layer in range(2) for path in linear_maps(model, layer)}
    assert set(made.integers) == paths
    for path, integers in made.integers.items():
        values = matrix(part(model, path))
        assert_array_equal(values.detach(), integers.values())
        assert max(row.unique().numel() for row in values) <= 8
        assert 0 <= integers.codes.min() <= integers.codes.max() <= 7
    others = {name: value for name, value in model.state_dict().items() if name.removesuffix(".weight") not in paths}
    assert all(torch.equal(value, kept[name]) for name, value in others.items())
    assert len(made.errors) == 2
    assert model.training
    assert all(value.requires_grad for value in model.parameters())


def test_perplexity_is_that_of_the_mean_loss(base):
    held = torch.tensor(World(0).probe(20, 40))
    before = perplexity(base, held)
    with torch.no_grad():
        logits = base(input_ids=held).logits
        by_hand = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), held[:, 1:].flatten())
    assert_allclose(before, float(by_hand.exp()), rtol=1e-5)


@pytest.fixture(scope="module")
def calibration():
    return torch.tensor(World(0).probe(16, 24, seed=1))


def quantised(shipped, calibration, **options):
    model = shipped("base")
    made = quantise(model, calibration, Scheme(2), **{"iters": 12, "batch": 8} | options)
    return model, made


def test_learned_rounding_keeps_outputs_better_than_the_nearest_level(shipped, calibration):
    for method in ("rtn", "gptq", "flexround", "adaround", "adaquant"):
        _, made = quantised(shipped, calibration, method=method)
        if method == "rtn":
            assert_allclose(made.errors, made.nearest, rtol=1e-4)
        else:
            assert all(ours < nearest for ours, nearest in zip(made.errors, made.nearest, strict=True)), method
    _, by_layer = quantised(shipped, calibration, granularity="layer", lr=1e-2)
    assert all(ours < nearest for ours, nearest in zip(by_layer.errors, by_layer.nearest, strict=True))


def test_an_interrupted_work_goes_on_to_the_same_end(shipped, calibration, tmp_path):
    _, wanted = quantised(shipped, calibration, iters=3)

    def stop(share, live):
        if share > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantised(shipped, calibration, iters=3, folder=tmp_path, report=stop)
    assert (tmp_path / "block-0000.safetensors").exists()
    assert not (tmp_path / "block-0001.safetensors").exists()
    first = (tmp_path / "block-0000.safetensors").stat().st_mtime_ns
    _, made = quantised(shipped, calibration, iters=3, folder=tmp_path)
    assert (tmp_path / "block-0000.safetensors").stat().st_mtime_ns == first
    assert made.errors == wanted.errors
    assert made.nearest == wanted.nearest
    for path, integers in wanted.integers.items():
        assert torch.equal(integers.codes, made.integers[path].codes)
        assert torch.equal(integers.step, made.integers[path].step)


def test_states_of_two_thousand_texts_are_not_in_memory():
    """States take 2 x 65 MB; with a folder the process takes a small part of that."""
    script = """
import resource, sys, tempfile, torch
from pathlib import Path
from broadsheet.language.architectures import Sizes, new_model
from broadsheet.language.quantisation import quantise
from broadsheet.language.quantisers import Scheme
model = new_model("llama", Sizes(words=50, width=128, blocks=1, positions=64, mlp=64))
ids = torch.randint(0, 50, (2000, 64))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
with tempfile.TemporaryDirectory() as folder:
    quantise(model, ids[:80], Scheme(), iters=1, batch=40, folder=Path(folder))
    before = peak()
    quantise(model, ids, Scheme(), iters=1, batch=40, folder=Path(folder))
print(peak() - before)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(ran.stdout) < 40


# texts


def test_windows_cut_texts_laid_end_to_end():
    model, words = new_model("llama", SIZES), tokenizer()
    texts = ["the city of", "is in ."] * 5
    ids = windows(model, words, texts, 4)
    stream = [row for text in texts for row in (*words(text)["input_ids"], words.eos_token_id)][:-1]
    assert ids.tolist() == [stream[k : k + 4] for k in range(0, len(stream) - 3, 4)]
    assert windows(model, words, texts, 1000).shape == (1, 24)  # as many as there are positions
    assert windows(model, words, texts[:1], 1000).shape == (1, 3)


def test_mistakes_get_a_sentence():
    model, words = new_model("llama", SIZES), tokenizer()
    with pytest.raises(InputError, match="two or more are wanted"):
        quantize_hf(model, words, ["the"])
    with pytest.raises(InputError, match="The tokenizer gives the token"):
        quantize_hf(new_model("llama", Sizes(words=20)), words, ["the city of city_3 is in ."])
    with pytest.raises(InputError, match="The method 'best' is unknown"):
        quantise(model, IDS, method="best")
    with pytest.raises(InputError, match="The granularity is 'row'"):
        quantise(model, IDS, granularity="row")
    with pytest.raises(InputError, match="48 inputs cannot be divided into groups of 32"):
        quantise(model, IDS, Scheme(per="group", group_size=32))
    with pytest.raises(InputError, match="longer than the GPT2LMHeadModel has positions for"):
        quantise(new_model("gpt2", SIZES), IDS.repeat(1, 4))
    with pytest.raises(InputError, match="The tokenizer gives the token"):
        quantise(model, IDS + 400)
    with torch.no_grad():
        unembedding(model).weight[0] = torch.nan  # is not read
        blocks(model)[1].input_layernorm.weight[0] = torch.inf
    with pytest.raises(InputError, match=r"hold NaN or infinity|gives NaN or infinity"):
        quantise(model, IDS, method="rtn")
