"""The memory inside models of six kinds: added and removed without a trace, cached, saved, trained."""

import copy
import json

import pytest
import torch
from numpy.testing import assert_allclose
from transformers import DynamicCache, StaticCache, Trainer, TrainingArguments

from broadsheet.errors import DataError, InputError
from broadsheet.language.anatomy import attention
from broadsheet.language.architectures import Sizes, new_model
from broadsheet.language.hooks import captured
from broadsheet.language.resonance_adapter import (
    SynapticResonanceConfig,
    add_synaptic_resonance,
    memories,
    remove_synaptic_resonance,
    reset_memory,
    resonance_of,
)
from broadsheet.language.resonance_files import load_resonance, save_resonance

KINDS = ("llama", "qwen2", "qwen3", "mistral", "olmo2", "gpt_neox", "gpt2")
WORDS = 60


def make(kind="llama", seed=0, **settings):
    return new_model(kind, Sizes(words=WORDS, width=32, blocks=2), seed=seed, **settings).eval()


def waken(model, **settings):
    """A memory that speaks."""
    add_synaptic_resonance(model, SynapticResonanceConfig(**{"kappa": 2.0, "chunk": 8} | settings), seed=1)
    with torch.no_grad():
        for memory in memories(model).values():
            memory.gamma.fill_(0.5)
    return model


def texts(rows=2, tokens=20, seed=0):
    return torch.randint(0, WORDS, (rows, tokens), generator=torch.Generator().manual_seed(seed))


def logits(model, ids, **options):
    with torch.no_grad():
        return model(input_ids=ids, **options).logits


def hooks(model):
    return {name: (len(part._forward_hooks), len(part._forward_pre_hooks)) for name, part in model.named_modules()}


@pytest.mark.parametrize("kind", KINDS)
def test_added_and_removed_without_a_trace(kind):
    model, ids = make(kind), texts()
    before, state, kept = logits(model, ids), {name: x.clone() for name, x in model.state_dict().items()}, hooks(model)
    frozen = next(iter(dict(model.named_parameters())))
    model.get_parameter(frozen).requires_grad_(False)
    learning = {name: x.requires_grad for name, x in model.named_parameters()}
    assert add_synaptic_resonance(model) is model
    assert torch.equal(logits(model, ids), before)
    assert {name for name, x in model.named_parameters() if x.requires_grad} == {
        name for name in dict(model.named_parameters()) if ".resonance." in name
    }
    remove_synaptic_resonance(model)
    waken(model)
    assert (logits(model, ids) - before).abs().max() > 0.01
    assert remove_synaptic_resonance(model) is model
    assert torch.equal(logits(model, ids), before)
    assert list(model.state_dict()) == list(state)
    assert all(torch.equal(x, state[name]) for name, x in model.state_dict().items())
    assert hooks(model) == kept
    assert {name: x.requires_grad for name, x in model.named_parameters()} == learning


@pytest.mark.parametrize("kind", KINDS)
def test_a_cache_goes_on_where_it_ended(kind):
    model, ids = waken(make(kind)), texts()
    whole, cache, parts = logits(model, ids), DynamicCache(config=model.config), []
    name = "past_key_values" if "past_key_values" in model.forward.__code__.co_varnames else "cache"
    with torch.no_grad():
        for piece in ids.split([7, 4, *[1] * 9], 1):
            parts.append(model(input_ids=piece, use_cache=True, **{name: cache}).logits)
    assert_allclose(torch.cat(parts, 1), whole, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_generation_with_a_cache_is_that_without(kind):
    model, ids = waken(make(kind)), texts()
    for options in ({}, {"num_beams": 2}):
        asked = {"max_new_tokens": 6, "do_sample": False} | options
        assert torch.equal(model.generate(ids, **asked), model.generate(ids, use_cache=False, **asked))


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("key", ["previous", "current"])
def test_padding_on_the_left_is_not_there(kind, key):
    model, ids = waken(make(kind), key=key), texts()
    padded = torch.cat([torch.full((2, 5), 3), ids], 1)
    mask = (torch.arange(25) >= 5).long().expand(2, -1)
    places = (mask.cumsum(1) - 1).clamp_min(0)
    assert_allclose(logits(model, padded, attention_mask=mask, position_ids=places)[:, 5:], logits(model, ids), atol=2e-5)
    asked = {"max_new_tokens": 6, "do_sample": False}
    found = model.generate(padded, attention_mask=mask, **asked)[:, 25:]
    assert torch.equal(found, model.generate(ids, **asked)[:, 20:])


def test_a_window_that_slides_has_a_memory_beyond_it():
    model = make("mistral", sliding_window=4)
    ids, other = texts(1, 30), texts(1, 30)
    other[:, :8] = texts(1, 8, seed=5)
    assert torch.equal(logits(model, ids)[:, -1], logits(model, other)[:, -1])
    waken(model)
    assert (logits(model, ids)[:, -1] - logits(model, other)[:, -1]).abs().max() > 1e-3
    asked = {"max_new_tokens": 12, "do_sample": False}
    assert torch.equal(model.generate(ids, **asked), model.generate(ids, use_cache=False, **asked))


@pytest.mark.parametrize("rule", ["hebb", "delta"])
def test_no_token_changes_what_comes_before(rule):
    model, ids = waken(make(), rule=rule, chunk=32), texts(1, 30)
    before = logits(model, ids)
    for t in (5, 17, 29):
        changed = ids.clone()
        changed[:, t] = (ids[:, t] + 1) % WORDS
        assert torch.equal(logits(model, changed)[:, :t], before[:, :t])


def test_rows_of_a_cache_may_be_chosen_and_repeated_but_not_taken_back():
    model, ids = waken(make()), texts(3, 8)
    cache = DynamicCache(config=model.config)
    logits(model, ids, cache=cache, use_cache=True)
    again = copy.deepcopy(cache)
    rows = torch.tensor([2, 0])
    cache.batch_select_indices(rows)
    more = texts(2, 3, seed=4)
    assert_allclose(
        logits(model, more, cache=cache, use_cache=True), logits(model, torch.cat([ids[rows], more], 1))[:, 8:], atol=2e-5
    )
    again.batch_repeat_interleave(2)
    more = texts(6, 3, seed=4)
    whole = torch.cat([ids.repeat_interleave(2, 0), more], 1)
    assert_allclose(logits(model, more, cache=again, use_cache=True), logits(model, whole)[:, 8:], atol=2e-5)
    with pytest.raises(InputError, match="cannot take back tokens"):
        again.crop(-2)
    again.reset()
    assert_allclose(logits(model, more, cache=again, use_cache=True), logits(model, more), atol=2e-5)


def test_a_cache_from_before_the_memory_and_a_mask_of_attention_are_refused():
    model, ids = make(), texts()
    cache = DynamicCache(config=model.config)
    logits(model, ids, cache=cache, use_cache=True)
    waken(model)
    with pytest.raises(InputError, match="filled without the memory"):
        logits(model, ids[:, :1], cache=cache, use_cache=True)
    with pytest.raises(InputError, match="mask of padding"):
        logits(model, ids, attention_mask=torch.zeros(2, 1, 20, 20))
    static = StaticCache(config=model.config, max_cache_len=32)
    assert_allclose(logits(model, ids, cache=static, use_cache=True), logits(model, ids), atol=2e-5)


def test_a_memory_that_stays_from_call_to_call():
    model, ids = waken(make(), reset=False), texts(2, 20)
    alone = logits(model, ids[:, 10:], use_cache=False)
    reset_memory(model)
    logits(model, ids[:, :10], use_cache=False)
    after = logits(model, ids[:, 10:], use_cache=False)
    assert (after - alone).abs().max() > 1e-3
    reset_memory(model)
    assert torch.equal(logits(model, ids[:, 10:], use_cache=False), alone)
    assert logits(model, texts(3, 5), use_cache=False).shape == (3, 5, WORDS)  # another batch begins anew


def test_a_copy_has_a_memory_of_its_own():
    model, ids = waken(make()), texts()
    before, twin = logits(model, ids), None
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for memory in memories(model).values():
            memory.gamma.zero_()
    assert torch.equal(logits(twin, ids), before)
    remove_synaptic_resonance(twin)
    assert torch.equal(logits(twin, ids), logits(model, ids))
    assert not memories(twin)


def test_the_module_is_the_recurrence_by_hand():
    """One block, one head, kappa = 0, from the attention's input: linear attention over the tokens before."""
    model = make("gpt2")
    waken(model, heads=1, kappa=0.0, layers=(1,), lam=0.9)
    ids, place = texts(1, 9), attention(model, 1)
    with captured(model, [place], inputs=True) as seen:
        with_memory = logits(model, ids)
    memory, h = memories(model)[1], seen[place][0]
    with torch.no_grad():
        keys, values = memory.memory(h), memory.value(h)
        r = torch.sigmoid(memory.relevance(h))[:, 0]
        keys = keys / (keys.norm(dim=1, keepdim=True) + 1e-6)
        added = torch.zeros_like(h)
        for t in range(9):
            m = sum((0.9 ** (t - 1 - i) * r[i] * (keys[i - 1] @ keys[t]) * values[i] for i in range(1, t)), torch.zeros(32))
            added[t] = memory.out(memory.gamma * m / (m.square().mean() + 1e-6).sqrt())
    remove_synaptic_resonance(model)
    handle = place.register_forward_hook(lambda module, given, out: (out[0] + added, *out[1:]))
    assert_allclose(logits(model, ids), with_memory, atol=1e-5)
    handle.remove()


def test_half_precision_keeps_the_memory_in_full():
    model, ids = make().to(torch.bfloat16), texts()
    before = logits(model, ids)
    add_synaptic_resonance(model)
    assert torch.equal(logits(model, ids), before)
    assert all(x.dtype == torch.float32 for memory in memories(model).values() for x in memory.parameters())
    cache = DynamicCache(config=model.config)
    assert logits(model, ids, cache=cache, use_cache=True).dtype == torch.bfloat16
    assert cache.layers[0].resonance.S.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(logits(model, ids)).all()


@pytest.mark.parametrize("layers", [None, (1,)])
def test_saved_and_loaded(tmp_path, layers):
    model, ids = waken(make(), layers=layers, learn_lam=True), texts()
    before = logits(model, ids)
    save_resonance(model, tmp_path)
    again = load_resonance(make(), tmp_path)
    assert torch.equal(logits(again, ids), before)
    assert set(memories(again)) == ({0, 1} if layers is None else {1})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["resonance.json", "resonance.safetensors"]
    half = load_resonance(make().to(torch.bfloat16), tmp_path)  # the same model in another precision
    assert logits(half, ids).dtype == torch.bfloat16


def test_an_adapter_of_another_model_is_refused(tmp_path):
    save_resonance(waken(make()), tmp_path)
    for other, said in (
        (make("qwen2"), "its kind is qwen2, not llama"),
        (make(seed=1), "its weights are others"),
        (new_model("llama", Sizes(words=WORDS, width=64, blocks=2)), "its width is 64, not 32"),
        (new_model("llama", Sizes(words=WORDS, width=32, blocks=3)), "its blocks is 3, not 2"),
    ):
        with pytest.raises(InputError, match=said):
            load_resonance(other, tmp_path)
        assert not memories(other)
    assert memories(load_resonance(make(seed=1), tmp_path, same_base=False))


def test_damaged_adapters_are_refused(tmp_path):
    save_resonance(waken(make()), tmp_path)
    facts, weights = tmp_path / "resonance.json", tmp_path / "resonance.safetensors"
    good, bytes_ = json.loads(facts.read_text()), weights.read_bytes()

    def refused(said, kind=DataError):
        model = make()
        with pytest.raises(kind, match=said):
            load_resonance(model, tmp_path)
        assert not memories(model)

    facts.write_text(json.dumps(good | {"config": good["config"] | {"layers": [0]}}))
    refused("does not fit its configuration")
    facts.write_text(json.dumps(good | {"config": good["config"] | {"colour": 1}}))
    refused("'colour'")
    facts.write_text(json.dumps(good | {"config": good["config"] | {"lam": "x"}}))
    refused("wrong kind")
    facts.write_text("[]")
    refused("no memory's")
    facts.write_text(json.dumps(good))
    weights.write_bytes(bytes_[:200])
    refused("truncated|not|damaged")
    broken = waken(make())
    with torch.no_grad():
        memories(broken)[0].value.weight[0, 0] = torch.nan
    save_resonance(broken, tmp_path)
    refused("NaN")
    weights.unlink()
    refused("no such file", InputError)


def test_wrong_requests_are_refused():
    model = make()
    with pytest.raises(InputError, match="5 heads"):
        add_synaptic_resonance(model, SynapticResonanceConfig(heads=5))
    with pytest.raises(InputError, match="Block 7 does not exist"):
        add_synaptic_resonance(model, SynapticResonanceConfig(layers=(7,)))
    with pytest.raises(InputError, match="has no memory"):
        remove_synaptic_resonance(model)
    with pytest.raises(InputError, match="no memory to save"):
        save_resonance(model, "nowhere")
    add_synaptic_resonance(model)
    with pytest.raises(InputError, match="already"):
        add_synaptic_resonance(model)
    for wrong in ({"lam": 0.0}, {"kappa": -1.0}, {"rule": "oja"}, {"form": "tree"}, {"key": "next"}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            SynapticResonanceConfig(**wrong)


def test_a_model_without_attention_is_refused_and_left_as_it_was():
    model = new_model("mamba", Sizes(words=WORDS, width=32, blocks=2))
    with pytest.raises(InputError, match="has no attention"):
        add_synaptic_resonance(model)
    assert all(x.requires_grad for x in model.parameters())


def test_what_a_memory_does_with_a_text():
    found = resonance_of(waken(make()), texts(2, 12))
    assert found["rho"].shape == found["relevance"].shape == (2, 4, 12)
    assert found["S"].shape == (2, 4, 8, 8)
    assert (found["rho"][:, :, 0] == 0).all()


class Rows(torch.utils.data.Dataset):
    def __init__(self):
        self.ids = texts(1, 12).repeat(32, 1)

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, k):
        return {"input_ids": self.ids[k], "labels": self.ids[k], "attention_mask": torch.ones_like(self.ids[k])}


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_trainer_trains_the_adapter_alone(tmp_path, checkpointing):
    model = make("llama")
    base = {name: x.clone() for name, x in model.named_parameters()}
    add_synaptic_resonance(model, SynapticResonanceConfig(chunk=16, learn_lam=True))
    own = {name: x.clone() for name, x in model.named_parameters() if name not in base}
    if checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable()
    trainer = Trainer(
        model,
        TrainingArguments(
            str(tmp_path), max_steps=6, per_device_train_batch_size=4, learning_rate=0.03, report_to=[], logging_steps=1,
            save_strategy="no", use_cpu=True, disable_tqdm=True,
        ),
        train_dataset=Rows(),
    )  # fmt: skip
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0] - 0.1
    assert all(torch.equal(x, base[name]) for name, x in model.named_parameters() if name in base)
    assert not any(torch.equal(model.get_parameter(name), x) for name, x in own.items())
    save_resonance(model, tmp_path / "adapter")
    assert torch.equal(logits(load_resonance(make("llama"), tmp_path / "adapter"), texts()), logits(model.eval(), texts()))
