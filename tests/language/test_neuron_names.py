"""Names of neurons against whole products in float64, on models in memory and in folders that are not loaded."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from safetensors.torch import load_file, save_file

from broadsheet.errors import DataError, InputError, MissingDataError
from broadsheet.language.anatomy import final_norm, matrix, mlp, norm_before, unembedding
from broadsheet.language.architectures import Sizes, new_model
from broadsheet.language.feature_neurons import NeuronMap, agreement, decode_neurons, find_neurons, token_z
from broadsheet.language.neuron_weights import SITES, neuron_weights
from broadsheet.language.tiny_world import IDS, WORDS, tokenizer
from broadsheet.language.token_directions import NORMS, TokenDirections
from broadsheet.language.word_variants import share_of_one_word, variants

KINDS = ["llama", "qwen2", "qwen3", "mistral", "olmo2", "gpt_neox", "gpt2"]
SIZES = Sizes(words=70, width=32, blocks=2, heads=4, positions=24, mlp=48)


def made(kind, **settings):
    """A random model whose norms have gains and shifts of their own."""
    model = new_model(kind, SIZES, seed=3, **settings).eval()
    dice = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim == 1:
                weights.add_(0.3 * torch.randn(weights.shape, generator=dice))
    return model


@pytest.fixture(scope="module", params=KINDS)
def model(request):
    return made(request.param)


def whole(model, site, norm):
    """Every score (layers, neurons, words), written out in float64."""
    words, scores = matrix(unembedding(model)).detach().double(), []
    for layer in range(2):
        rows = matrix(getattr(mlp(model, layer), site)).detach()
        rows = (rows.T if site == "down" else rows).double()
        if norm == "cosine":
            scores.append(torch.stack([torch.nn.functional.cosine_similarity(row, words) for row in rows]))
        else:
            with torch.no_grad():
                rows = final_norm(model)(rows.float()).double() if norm == "final_norm" else rows
            scores.append(rows @ words.T)
    return torch.stack(scores).numpy()


def test_names_are_those_of_the_whole_product_in_memory_and_from_a_folder(model, tmp_path):
    model.save_pretrained(tmp_path, max_shard_size="30KB")
    sites = [site for site in SITES if site != "gate" or mlp(model, 0).gate is not None]
    for site, norm in [*((site, "raw") for site in sites), *(("up", norm) for norm in NORMS[1:])]:
        scores = whole(model, site, norm)
        order = np.argsort(-scores, axis=-1)
        for source, block in ((model, 7), (tmp_path, 48)):
            found = decode_neurons(source, site, norm, topk=4, block=block)
            assert (found.ids == order[..., :4]).all()
            assert (found.low_ids == order[..., ::-1][..., :4]).all()
            assert_allclose(found.scores, np.take_along_axis(scores, order[..., :4], -1), atol=1e-5)
            assert_allclose(found.mean, scores.mean(-1), atol=1e-5)
            assert_allclose(found.std, scores.std(-1), atol=1e-5)
            assert_allclose(found.zmax, (scores.max(-1) - scores.mean(-1)) / scores.std(-1), atol=1e-3)


def test_one_token_is_found_among_all_neurons(model, tmp_path):
    model.save_pretrained(tmp_path)
    scores = whole(model, "up", "raw")
    z = (scores - scores.mean(-1, keepdims=True)) / scores.std(-1, keepdims=True)
    found = find_neurons(tmp_path, [5, 9], k=3)
    best = np.abs(z[..., [5, 9]]).max(-1)
    assert_allclose([abs(each.z) for each in found], np.sort(best.ravel())[::-1][:3], atol=1e-3)
    assert_allclose([scores[each.layer, each.neuron, each.token] for each in found], [each.score for each in found], atol=1e-5)
    assert_allclose(token_z(model, 5, block=5)[1], token_z(tmp_path, 5)[1], atol=1e-5)


def test_what_a_row_reads_of_the_residual_stream_is_folded_from_the_norm_before_it(model, tmp_path):
    """Against the derivative of what the norm and the row give, at a state that the norm leaves as it is."""
    model.save_pretrained(tmp_path)
    norm = norm_before(model, 1, mlp(model, 1).up)
    signs = torch.tensor([1.0, -1.0]).repeat(16)
    row = matrix(mlp(model, 1).up)[3].detach()
    if norm is None:
        reads = row
    else:
        moved = torch.autograd.functional.jacobian(lambda state: norm(state[None])[0], signs)
        moved += (moved @ signs)[:, None] * signs / 32  # a norm takes away what lies along the state; the reader keeps it
        reads = row @ (moved + torch.outer(norm(signs[None])[0].detach() - norm(torch.zeros(1, 32))[0].detach(), signs) / 32)
        reads = reads.detach()
    wanted = matrix(unembedding(model)).detach() @ reads
    for source in (model, tmp_path):
        found = decode_neurons(source, topk=3, fold_layer_norm=True)
        assert found.ids[1, 3].tolist() == wanted.topk(3).indices.tolist()
        assert_allclose(found.scores[1, 3], wanted.topk(3).values, atol=1e-3)


def test_scores_in_bfloat16_first_change_no_name():
    dice = torch.Generator().manual_seed(0)
    words = torch.randn(3000, 48, generator=dice) * torch.rand(3000, 1, generator=dice)
    rows = torch.randn(60, 48, generator=dice)
    norm = torch.nn.RMSNorm(48)
    for name in NORMS:
        for kind in (torch.float32, torch.bfloat16):
            fast, slow = (TokenDirections(words.to(kind), norm, name, coarse=coarse) for coarse in (True, False))
            for one, other in zip(
                fast.top(fast.readers(rows), 8, (1, -1)), slow.top(slow.readers(rows), 8, (1, -1)), strict=True
            ):
                assert_allclose(one[0], other[0], atol=1e-5)
                assert (one[1] == other[1]).all()
    exact = words[:1].bfloat16()  # every token scores alike, so that no bound can prove anything
    same = TokenDirections(exact.expand(3000, 48).contiguous(), norm, coarse=True)
    assert_allclose(same.top(rows, 8)[0][0], (rows @ exact[0].float())[:, None].expand(60, 8), atol=1e-5)
    assert same.unproved == 60


def test_large_weights_on_the_disk_are_decoded_in_little_memory(tmp_path):
    """In a process of its own: 144 MB of scores and 100 MB of weights, in less than 60 MB."""
    small = new_model("llama", Sizes(words=12_000, width=32, blocks=2, mlp=16))
    dice = torch.Generator().manual_seed(0)
    neurons = 1500
    state = {}
    for name, weights in small.state_dict().items():
        shape = [neurons if size == 16 else size for size in weights.shape]
        state[name] = torch.randn(shape, generator=dice, dtype=torch.bfloat16)
    small.config.intermediate_size = neurons
    small.config.save_pretrained(tmp_path)
    save_file(state | {"more": torch.zeros(100 * 2**20, dtype=torch.uint8)}, tmp_path / "model.safetensors", {"format": "pt"})
    code = f"""
from pathlib import Path
import torch
from broadsheet.language.feature_neurons import decode_neurons, find_neurons
torch.set_num_threads(1)
def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
warm = torch.randn(64, 64) @ torch.randn(64, 64)
find_neurons({str(tmp_path / "tiny")!r}, 1, k=1)
before = peak()
found = decode_neurons({str(tmp_path)!r}, topk=2, block=256)
print(peak() - before, found.ids.shape, sep=";")
"""
    if not sys.platform.startswith("linux"):
        pytest.skip("the peak of a process's memory is read from /proc")
    small.config.intermediate_size = 16
    small.save_pretrained(tmp_path / "tiny")
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    grown, shape = said.strip().splitlines()[-1].split(";")
    assert shape == "(2, 1500, 2)"
    assert float(grown) < 60


def test_parts_that_are_done_are_not_made_again(tmp_path, monkeypatch):
    model = made("llama")
    wanted = decode_neurons(model, parts=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    monkeypatch.setattr("broadsheet.language.feature_neurons._decode_layer", pytest.fail)
    again = decode_neurons(model, parts=tmp_path)
    assert (again.ids == wanted.ids).all()
    assert (again.std == wanted.std).all()


def test_a_map_finds_its_tokens_and_comes_back_from_a_file(base, tmp_path):
    found = decode_neurons(base, topk=5)
    token = int(found.ids[1, 7, 0])
    rows = found.find(token, k=1000)
    high = {(each.layer, each.neuron) for each in rows if each.z > 0}
    assert high == set(map(tuple, np.argwhere((found.ids == token).any(-1)).tolist()))
    assert len(rows) - len(high) == int((found.low_ids == token).sum())
    assert [abs(each.z) for each in rows] == sorted((abs(each.z) for each in rows), reverse=True)
    assert all(each.token == token for each in rows)
    found.save(tmp_path / "map.npz")
    again = NeuronMap.load(tmp_path / "map.npz")
    assert agreement(found, again) == (1.0, pytest.approx(np.ones(3)))
    assert again.find(token) == found.find(token)
    with pytest.raises(InputError, match="site is up in one and down"):
        agreement(found, replace(found, site="down"))
    with pytest.raises(InputError, match="3 x 192 and 2 x 192"):
        agreement(found, replace(found, mean=found.mean[:2]))
    with pytest.raises(InputError, match="token 463 is outside the vocabulary"):
        found.find([1, 463])
    with pytest.raises(InputError, match="No token"):
        found.find([])
    np.savez(tmp_path / "other.npz", ids=found.ids)
    (tmp_path / "text.npz").write_text("no archive")
    for name in ("other.npz", "text.npz", "none.npz"):
        with pytest.raises(DataError, match="holds no map of neurons"):
            NeuronMap.load(tmp_path / name)


def test_fine_tuning_keeps_names_and_another_seed_has_others(base, shipped):
    one, two = decode_neurons(base), decode_neurons(shipped("sft"))
    total, layers = agreement(one, two)
    assert total == pytest.approx((one.ids[..., 0] == two.ids[..., 0]).mean())
    assert total == pytest.approx(layers.mean())
    assert total > 0.6


def test_spellings_of_a_word_are_one():
    class Words:
        texts = ("dog", " dog", " Dogs", "dot", " ", "grass", "gras")

        def __len__(self):
            return len(self.texts)

        def batch_decode(self, rows, **_):
            return [self.texts[row[0]] for row in rows]

        def tokenize(self, text):
            return text.split()

    assert variants(Words(), "dogs") == [0, 1, 2]
    assert variants(Words(), "grass") == [5]
    with pytest.raises(InputError, match=r"No token is 'hot dog', in any spelling; the tokenizer cuts it into 2: hot \| dog"):
        variants(Words(), "hot dog")
    assert share_of_one_word(np.array([[[0, 2, 3, 1]]]), Words.texts)[0, 0] == 0.75
    assert variants(tokenizer(), "city_object_3") == [IDS["city_object_3"]]
    with pytest.raises(InputError, match=f"token 463; texts are given for {len(WORDS)}"):
        share_of_one_word(np.array([[[463]]]), WORDS)


def test_what_cannot_be_decoded_is_said_in_a_sentence(tmp_path):
    model = made("gpt2")
    for options, said in (
        ({"site": "gate"}, "have no gate"), ({"site": "side"}, "site is 'side'"), ({"norm": "softmax"}, "norm is 'softmax'"),
        ({"topk": 0}, "topk is 0"), ({"topk": 71}, "topk is 71"), ({"block": 0}, "block is 0"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=said):
            decode_neurons(model, **options)
    with pytest.raises(InputError, match="no MLP with separate maps"):
        decode_neurons(new_model("mixtral", SIZES, num_local_experts=2))
    with pytest.raises(InputError, match="no unembedding"):
        decode_neurons(made("llama").model)
    with pytest.raises(InputError, match="token 70 is outside"):
        find_neurons(model, 70)
    with pytest.raises(MissingDataError, match="no such folder"):
        decode_neurons(str(tmp_path / "none"))
    with pytest.raises(MissingDataError, match=r"has no config.json"):
        decode_neurons(tmp_path)
    llama = made("llama")
    llama.config.save_pretrained(tmp_path)
    with pytest.raises(MissingDataError, match="no weights in safetensors"):
        decode_neurons(tmp_path)
    llama.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    missing = {name: each for name, each in state.items() if "layers.1.mlp.up" not in name}
    save_file(missing, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match=r"no weights 'model.layers.1.mlp.up_proj.weight'"):
        decode_neurons(tmp_path)
    state["model.layers.1.mlp.up_proj.weight"][2, 2] = torch.nan
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match="weights up of layer 1 hold NaN"):
        decode_neurons(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(DataError, match="cannot be read"):
        decode_neurons(tmp_path)


def test_tied_and_renamed_unembeddings_are_found_on_the_disk(tmp_path):
    for kind, tied in (("qwen2", True), ("gpt_neox", False), ("gpt2", True)):
        model = made(kind, tie_word_embeddings=tied)
        model.save_pretrained(tmp_path / kind)
        assert torch.equal(neuron_weights(tmp_path / kind).unembedding(), neuron_weights(model).unembedding())
