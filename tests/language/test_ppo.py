"""PPO with verifiable rewards: advantages against closed forms, a bandit with a known optimum, interruptions."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from broadsheet.errors import InputError, JobError
from broadsheet.language.architectures import Sizes, new_model
from broadsheet.language.characters import character_model, character_tokenizer
from broadsheet.language.post_training.advantages import generalised_advantages, token_rewards, whitened
from broadsheet.language.post_training.losses import token_log_probabilities
from broadsheet.language.post_training.ppo import ValueModel, policy_loss, reinforce_by_ppo, value_loss
from broadsheet.language.post_training.rewards import said
from broadsheet.language.post_training.settings import RLSettings
from broadsheet.language.post_training.trainers import Run, last_checkpoint

ASKED = [{"prompt": [{"role": "user", "content": question}], "label": question} for question in ("a", "b", "c", "d")]


def answers(lengths, tokens, seed=0):
    rng = np.random.default_rng(seed)
    valid = torch.arange(tokens) < torch.tensor(lengths)[:, None]
    return [torch.tensor(rng.standard_normal((len(lengths), tokens))) for _ in range(2)] + [valid]


@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    discount=st.floats(0.5, 1),
    trace=st.floats(0, 1),
    seed=st.integers(0, 100),
)
def test_advantages_are_the_discounted_sum_of_surprises(lengths, discount, trace, seed):
    rewards, values, valid = answers(lengths, 6, seed)
    found, returns = generalised_advantages(rewards, values, valid, discount, trace)
    for row, length in enumerate(lengths):
        v = [*values[row, :length].tolist(), 0.0]
        surprise = [rewards[row, t].item() + discount * v[t + 1] - v[t] for t in range(length)]
        for t in range(6):
            wanted = sum((discount * trace) ** (k - t) * surprise[k] for k in range(t, length)) if t < length else 0.0
            assert found[row, t].item() == pytest.approx(wanted, abs=1e-9)
            assert returns[row, t].item() == pytest.approx(wanted + (v[t] if t < length else 0.0), abs=1e-9)


def test_without_a_trace_advantages_are_surprises_and_with_a_whole_one_what_is_still_to_come():
    rewards, values, valid = answers([4, 2], 5)
    whole, returns = generalised_advantages(rewards, values, valid, 1.0, 1.0)
    kept = rewards.where(valid, 0.0)
    to_come = kept.flip(1).cumsum(1).flip(1)
    torch.testing.assert_close(whole, (to_come - values).where(valid, 0.0))
    torch.testing.assert_close(returns, to_come.where(valid, 0.0))
    at_once, _ = generalised_advantages(rewards, values, valid, 1.0, 0.0)
    assert at_once[1, 1].item() == pytest.approx((rewards[1, 1] - values[1, 1]).item())


def test_the_score_falls_on_the_last_token_and_the_divergence_on_each():
    ratio = torch.tensor([[0.5, -1.0, 9.0], [2.0, 1.0, 1.0]])
    valid = torch.tensor([[True, True, False], [True, True, True]])
    found = token_rewards(torch.tensor([10.0, -10.0]), ratio, valid, 0.1)
    torch.testing.assert_close(found, torch.tensor([[-0.05, 10.1, 0.0], [-0.2, -0.1, -10.1]]))


def test_whitened_values_have_mean_0_and_variance_1_where_they_are_valid():
    x, _, valid = answers([3, 6, 1], 6)
    held = whitened(x, valid)[valid]
    assert held.mean().item() == pytest.approx(0, abs=1e-12)
    assert held.var(unbiased=False).item() == pytest.approx(1, abs=1e-6)
    assert not whitened(x, valid)[~valid].any()


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "clipped"),
    [(1.5, 1.0, -1.2, True), (1.5, -1.0, 1.5, False), (0.5, 1.0, -0.5, False), (0.5, -1.0, 0.8, True), (1.1, 2.0, -2.2, False)],
)
def test_the_policys_loss_is_clipped_where_a_ratio_went_too_far(ratio, advantage, loss, clipped):
    found = policy_loss(torch.tensor([ratio]).log(), torch.zeros(1), torch.tensor([advantage]), 0.2)
    assert found[0].item() == pytest.approx(loss)
    assert bool(found[1]) == clipped


def test_the_values_loss_is_that_of_the_worse_of_value_and_clipped_value():
    found = value_loss(torch.tensor([1.0, 1.0]), torch.tensor([0.0, 0.9]), torch.tensor([1.0, 0.0]), 0.2)
    torch.testing.assert_close(found, torch.tensor([0.5 * 0.8**2, 0.5]))


def test_a_bandit_ends_at_its_optimum_with_a_divergence_from_the_start():
    """One token a prompt, reward r(a): the best policy is proportional to reference(a) exp(r(a) / beta)."""
    words, start = character_tokenizer(), character_model(0, width=16, blocks=1)
    worth = {"1": 1.0, "2": 0.5, "3": 0.8}
    beta = 0.3

    def reward(prompts, completions, **named):
        return [worth.get(said(answer), 0.0) for answer in completions]

    settings = RLSettings(
        algorithm="ppo", steps=50, batch=128, group=128, rate=1e-2, schedule="linear", answer_tokens=1, beta=beta, updates=2
    )
    trained = reinforce_by_ppo(copy.deepcopy(start), words, ASKED[:1], reward, settings)
    asked = words.apply_chat_template(ASKED[0]["prompt"], add_generation_prompt=True, return_dict=True, return_tensors="pt")
    with torch.no_grad():
        before, after = (model(**asked).logits[0, -1].double().softmax(-1) for model in (start, trained))
    r = torch.tensor([worth.get(words.decode([k], skip_special_tokens=True), 0.0) for k in range(len(before))]).double()
    best = before * (r / beta).exp()
    optimum = beta * best.sum().log()
    best /= best.sum()

    def aim(law):
        return (law * (r - beta * (law / before).log())).sum()

    assert aim(best).item() == pytest.approx(optimum.item())
    assert 0.5 * (after - best).abs().sum() < 0.1
    assert aim(after) > aim(before) + 0.95 * (optimum - aim(before))


def right(prompts, completions, label, **named):
    return [float(said(answer)[:1] == wanted) for answer, wanted in zip(completions, label, strict=True)]


COMMON = {"algorithm": "ppo", "batch": 8, "group": 2, "answer_tokens": 2, "rate": 1e-3, "save_every": 2, "log_every": 1}


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("adapter", [0, 4])
def test_an_interrupted_training_ends_as_an_uninterrupted_one(adapter, tmp_path):
    words, settings = character_tokenizer(), RLSettings(**COMMON, steps=5, updates=2, adapter=adapter)

    def stop(share, record):
        if share >= 0.6:
            raise Interrupted

    def train(run):
        return reinforce_by_ppo(character_model(0), words, ASKED, right, settings, run)

    whole = train(Run())
    with pytest.raises(Interrupted):
        train(Run(tmp_path, watch=stop))
    (tmp_path / "checkpoint-4").mkdir()  # as if it had been killed while it wrote the next
    assert last_checkpoint(tmp_path).name == "checkpoint-2"
    again = Run(tmp_path)
    resumed = train(again)
    assert type(resumed) is type(character_model(0))
    for (name, one), two in zip(whole.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, two), name
    assert [record["step"] for record in again.records] == [1, 2, 3, 4, 5]


def test_parts_of_a_batch_make_the_same_step():
    words = character_tokenizer()
    one, two = (
        reinforce_by_ppo(
            character_model(0), words, ASKED, lambda prompts, completions, **named: [float(len(said(c))) for c in completions],
            RLSettings(**COMMON | {"log_every": 1}, steps=1, device_batch=size, temperature=1e-4),
        )
        for size in (8, 2)
    )  # fmt: skip
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_an_answer_that_does_not_end_gets_the_reward_for_that():
    run = Run()
    settings = RLSettings(**COMMON | {"answer_tokens": 1}, steps=1, no_end=-10.0, beta=0.0, trace=1.0)
    reinforce_by_ppo(character_model(0), character_tokenizer(), ASKED, right, settings, run)
    [record] = run.records
    # the value begins as 0, so its loss is half the squared reward, cut at no distance: -10 where no end was drawn
    assert record["value_loss"] == pytest.approx(50 * (1 - record["ended"]), rel=0.1)


def test_the_value_of_a_token_does_not_know_what_comes_after_it():
    model = ValueModel(character_model(0))
    torch.nn.init.normal_(model.head.weight)
    ids = torch.arange(10)[None]
    other = ids.clone()
    other[0, 6:] = 3
    one, two = (model(x, torch.ones_like(x)) for x in (ids, other))
    torch.testing.assert_close(one[0, :6], two[0, :6])
    assert not torch.allclose(one[0, 6:], two[0, 6:])


def test_padding_changes_nothing():
    model = character_model(0).eval()
    ids = torch.tensor([[7, 8, 9, 10]])
    padded = torch.tensor([[0, 0, 7, 8, 9, 10]])
    from broadsheet.language.post_training.losses import places

    attention = (padded != 0).long()
    with torch.no_grad():
        plain = token_log_probabilities(model(input_ids=ids).logits, ids)
        shifted = model(input_ids=padded, attention_mask=attention, position_ids=places(attention)).logits
    torch.testing.assert_close(token_log_probabilities(shifted, padded)[:, 2:], plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("reward", "error", "says"),
    [
        (lambda prompts, completions, **named: 1 / 0, JobError, "failed: ZeroDivisionError"),
        (lambda prompts, completions, **named: [float("nan")] * len(completions), JobError, "gave nan for the answer"),
    ],
)
def test_a_reward_that_fails_is_told_in_one_sentence(reward, error, says):
    with pytest.raises(error, match=says):
        reinforce_by_ppo(character_model(0), character_tokenizer(), ASKED, reward, RLSettings(**COMMON, steps=1))


def test_a_prompt_without_room_for_an_answer_is_refused():
    rows = [{"prompt": "a" * 127}]
    with pytest.raises(InputError, match=r"Prompt 1 has 127 tokens; .* context of 128"):
        reinforce_by_ppo(character_model(0), character_tokenizer(), rows, right, RLSettings(**COMMON, steps=1))


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mistral", "olmo2", "gpt_neox", "gpt2"])
def test_any_causal_model_is_trained(kind):
    words = character_tokenizer()
    model = new_model(kind, Sizes(words=len(words), width=16, blocks=1, positions=32), seed=0)
    before = copy.deepcopy(model)
    run = Run()

    def letters(prompts, completions, **named):
        return [float(sum(sign.islower() for sign in said(answer))) for answer in completions]

    trained = reinforce_by_ppo(model, words, ASKED, letters, RLSettings(**COMMON, steps=2, beta=0.1), run)
    assert run.records[0]["kl"] == pytest.approx(0, abs=1e-5)  # padding is read alike by the sampler and by the losses
    assert any(not torch.equal(one, two) for one, two in zip(trained.parameters(), before.parameters(), strict=True))
