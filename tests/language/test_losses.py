"""Losses of post-training: against closed forms, token by token, and TRL's trainers."""

import numpy as np
import pytest
import torch

from broadsheet.language.characters import character_model, character_tokenizer
from broadsheet.language.post_training import losses
from broadsheet.language.post_training.parity import our_pair_losses, padded, trl_pair_loss
from broadsheet.language.post_training.settings import DPOSettings, SFTSettings
from broadsheet.language.post_training.trainers import fine_tune

PAIRS = [("a+b=?", "7", "12 or so"), ("hello", "good day sir", "yo"), ("say", "x", "yy"), ("1+1=?", "2", "3")]


def alone(model, words, prompt, answer):
    """Log-probability of each token of an answer and its end, by NumPy from the logits of one text."""
    ids = words(prompt, add_special_tokens=False)["input_ids"]
    start, ids = len(ids), ids + words(answer, add_special_tokens=False)["input_ids"] + [words.eos_token_id]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0].double().numpy()
    laws = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return np.array([laws[t - 1, ids[t]] for t in range(start, len(ids))])


def closed_form(now, before, prompt, chosen, rejected, words, settings):
    read = {(m, a): alone(m, words, prompt, a) for m in (now, before) for a in (chosen, rejected)}
    mean = settings.loss != "sigmoid"
    pull = (lambda x: x.mean()) if mean else (lambda x: x.sum())
    m = pull(read[now, chosen]) - pull(read[now, rejected])
    if settings.loss != "simpo":
        m -= pull(read[before, chosen]) - pull(read[before, rejected])
    return np.log1p(np.exp(-(settings.beta * m - settings.margin)))


def models(dtype):
    made = [character_model(seed).to(dtype).eval() for seed in (0, 1)]
    for model in made:
        model.set_attn_implementation("sdpa")  # the eager one gives no numbers for padding in float64
    return made


SETTINGS = [
    DPOSettings(batch=4, beta=5.0),
    DPOSettings(batch=4, loss="sigmoid", beta=0.1),
    DPOSettings(batch=4, loss="simpo", beta=2.0, margin=0.5),
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: s.loss)
@pytest.mark.parametrize("side", ["left", "right"])
def test_losses_of_pairs_are_their_closed_forms(settings, side):
    words, (now, before) = character_tokenizer(), models(torch.float64)
    found = our_pair_losses(now, before, words, PAIRS, settings, side).detach().numpy()
    wanted = [closed_form(now, before, *pair, words, settings) for pair in PAIRS]
    np.testing.assert_allclose(found, wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: s.loss)
def test_losses_of_pairs_are_those_of_trl(settings):
    words, (now, before) = character_tokenizer(), models(torch.float32)
    ours = our_pair_losses(now, before, words, PAIRS, settings).mean().item()
    assert trl_pair_loss(now, before, words, PAIRS, settings) == pytest.approx(ours, abs=1e-5)


def test_the_slope_of_the_loss_by_the_margin():
    m = torch.tensor([0.3, -0.2], dtype=torch.float64, requires_grad=True)
    none = torch.zeros(2, dtype=torch.float64)
    one = torch.ones(2)
    losses.length_normalised_dpo_loss(m, none, none, none, one, one, beta=5.0).sum().backward()
    torch.testing.assert_close(m.grad, -5 * torch.sigmoid(-5 * m.detach()))


def labelled(words):
    ids, attention, answer = padded(words, [(prompt, text) for prompt, text, _ in PAIRS], "right")
    return ids, attention, ids.where(answer, losses.IGNORED)


def test_the_loss_of_fine_tuning_is_that_of_all_tokens_however_a_batch_is_cut():
    words, (model, _) = character_tokenizer(), models(torch.float64)
    ids, attention, labels = labelled(words)
    told = np.concatenate([alone(model, words, prompt, text) for prompt, text, _ in PAIRS])
    logits = model(input_ids=ids, attention_mask=attention).logits
    assert losses.fine_tuning_loss(logits, labels).item() == pytest.approx(-told.mean(), abs=1e-9)
    parts = [losses.fine_tuning_loss(logits[k : k + 1], labels[k : k + 1], len(told)).item() for k in range(len(PAIRS))]
    assert sum(parts) == pytest.approx(-told.mean(), abs=1e-9)


def test_fine_tuning_ends_at_the_same_weights_however_a_batch_is_cut():
    words = character_tokenizer()
    rows = [
        {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": text}]} for prompt, text, _ in PAIRS
    ]
    whole, cut = (
        fine_tune(character_model(0), words, rows, SFTSettings(steps=2, batch=4, device_batch=size, rate=1e-3))
        for size in (4, 1)
    )
    for one, two in zip(whole.parameters(), cut.parameters(), strict=True):
        torch.testing.assert_close(one, two, atol=2e-5, rtol=0)
