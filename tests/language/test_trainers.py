"""Trainings by TRL's trainers: what they teach, and that an interruption changes nothing."""

import pytest
import torch

from broadsheet.errors import InputError, JobError
from broadsheet.language.characters import TULU_TEMPLATE, character_model, character_tokenizer
from broadsheet.language.post_training.rewards import reward_function, said
from broadsheet.language.post_training.settings import DPOSettings, RLSettings, SFTSettings
from broadsheet.language.post_training.trainers import Run, fine_tune, last_checkpoint, prefer, reinforce


def chat(question, answer):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


SUMS = [(a, b) for a in range(4) for b in range(4)]
CHATS = [{"messages": chat(f"{a}+{b}=?", str(a + b))} for a, b in SUMS]
PAIRS = [{"prompt": chat("hi", "")[:1], "chosen": chat("", "good day")[1:], "rejected": chat("", "oi")[1:]}] * 16
PROMPTS = [{"prompt": chat(f"{a}+{b}=?", "")[:1], "label": str(a + b)} for a, b in SUMS]


def right(prompts, completions, label, **named):
    return [float(said(answer)[:1] == wanted) for answer, wanted in zip(completions, label, strict=True)]


class Interrupted(Exception):
    pass


def stopping(at):
    def watch(share, record):
        if share >= at:
            raise Interrupted

    return watch


def trainings(run):
    """A short training of each kind, from the same model."""
    words = character_tokenizer()
    common = {"steps": 6, "batch": 8, "rate": 1e-3, "save_every": 2, "log_every": 1}
    answers = {"group": 4, "answer_tokens": 2}  # two prompts a step, so that there are several passes over them
    return {
        "sft": lambda: fine_tune(character_model(0), words, CHATS, SFTSettings(**common), run),
        "dpo": lambda: prefer(character_model(0), words, PAIRS, DPOSettings(**common), run),
        "simpo": lambda: prefer(character_model(0), words, PAIRS, DPOSettings(**common, loss="simpo"), run),
        "grpo": lambda: reinforce(character_model(0), words, PROMPTS[:4], right, RLSettings(**common, **answers), run),
        "rloo": lambda: reinforce(
            character_model(0), words, PROMPTS[:6], right, RLSettings(**common, **answers, algorithm="rloo"), run
        ),
        "twice": lambda: reinforce(
            character_model(0), words, PROMPTS, right, RLSettings(**common | {"save_every": 1}, **answers, updates=2), run
        ),
    }


@pytest.mark.parametrize("kind", ["sft", "dpo", "simpo", "grpo", "rloo", "twice"])
def test_an_interrupted_training_ends_as_an_uninterrupted_one(kind, tmp_path):
    whole = trainings(Run())[kind]()
    with pytest.raises(Interrupted):
        trainings(Run(tmp_path, watch=stopping(0.6)))[kind]()
    (tmp_path / "checkpoint-5").mkdir()  # as if it had been killed while it wrote the next
    assert last_checkpoint(tmp_path).name == "checkpoint-2"
    again = Run(tmp_path)
    resumed = trainings(again)[kind]()
    for (name, one), two in zip(whole.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, two), name
    assert len([record for record in again.records if "loss" in record]) == 6


def test_fine_tuning_learns_what_the_assistant_says_and_nothing_else():
    words = character_tokenizer()
    model = fine_tune(character_model(0), words, CHATS, SFTSettings(steps=120, batch=16, rate=3e-3))
    ids = torch.tensor(words.apply_chat_template([row["messages"] for row in CHATS], return_dict=True)["input_ids"])
    with torch.no_grad():
        guessed = model(ids).logits.argmax(-1)[:, :-1]
    start = len(words.apply_chat_template(CHATS[0]["messages"][:1], add_generation_prompt=True, return_dict=True)["input_ids"])
    assert (guessed[:, start - 1 :] == ids[:, start:]).float().mean() > 0.95
    assert (guessed[:, 4 : start - 1] == ids[:, 5:start]).float().mean() < 0.5


def test_an_adapter_is_merged_into_the_weights():
    before = character_model(0)
    words = character_tokenizer()
    model = fine_tune(character_model(0), words, CHATS, SFTSettings(steps=3, batch=8, rate=1e-2, adapter=4))
    assert type(model) is type(before)
    changed = {name for name, weights in model.named_parameters() if not torch.equal(weights, before.get_parameter(name))}
    assert "model.layers.0.mlp.down_proj.weight" in changed
    assert "model.embed_tokens.weight" not in changed


def test_the_template_is_tulus():
    words = character_tokenizer()
    assert words.chat_template == TULU_TEMPLATE
    talk = [{"role": "system", "content": "be"}, *chat("a", "b"), *chat("c", "d")]
    said = words.apply_chat_template(talk, tokenize=False)
    assert said == "<|system|>\nbe\n<|user|>\na\n<|assistant|>\nb<eos>\n<|user|>\nc\n<|assistant|>\nd<eos>"


@pytest.mark.parametrize(
    ("reward", "says"),
    [
        (lambda prompts, completions, **named: 1 / 0, "The reward .* failed: ZeroDivisionError"),
        (lambda prompts, completions, **named: [float("nan")] * len(completions), "gave nan for the answer"),
        (lambda prompts, completions, **named: [1.0], "gave 1 values for 8 answers"),
    ],
)
def test_a_reward_that_fails_is_told_in_one_sentence_and_the_checkpoint_stays(reward, says, tmp_path):
    calls = []

    def later(**named):
        calls.append(1)
        return right(**named) if len(calls) < 3 else reward(**named)

    settings = RLSettings(steps=4, batch=8, group=4, answer_tokens=2, rate=1e-3, save_every=1)
    with pytest.raises(JobError, match=says):
        reinforce(character_model(0), character_tokenizer(), PROMPTS, later, settings, Run(tmp_path))
    assert last_checkpoint(tmp_path).name == "checkpoint-2"


def test_a_reward_keeps_its_name():
    assert reward_function(right).__name__ == "right"


@pytest.mark.parametrize(
    ("train", "says"),
    [
        (
            lambda m, w: fine_tune(m, w, [{"text": "a"}], SFTSettings(steps=1)),
            "messages, or prompt and completion; there is no",
        ),
        (lambda m, w: fine_tune(m, w, [], SFTSettings(steps=1)), "no rows"),
        (lambda m, w: prefer(m, w, [{"prompt": "a", "chosen": "b"}], DPOSettings(steps=1)), "no 'rejected'"),
        (lambda m, w: reinforce(m, w, [{"text": "a"}], right, RLSettings(steps=1)), "no 'prompt'"),
        (
            lambda m, w: reinforce(
                m, w, [PROMPTS[0], {"prompt": chat("a" * 200, "")[:1], "label": ""}], right, RLSettings(answer_tokens=4)
            ),
            "Prompt 2 has .* context of 128",
        ),
        (lambda m, w: RLSettings(group=1), "group is 1"),
        (lambda m, w: RLSettings(batch=10, group=4), "no multiple"),
        (lambda m, w: DPOSettings(loss="ipo"), "one of sigmoid_norm"),
        (lambda m, w: SFTSettings.read({"stepz": 3}, "[sft]"), r"\[sft\] has no setting 'stepz'"),
        (lambda m, w: SFTSettings.read({"steps": "3"}, "[sft]"), r"\[sft\]: steps is '3'; int is wanted"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(train, says):
    with pytest.raises(InputError, match=says):
        train(character_model(0), character_tokenizer())


def test_reinforcement_is_anchored_to_the_model_as_given_not_as_loaded(tmp_path):
    words, first = character_tokenizer(), character_model(0)
    first.save_pretrained(tmp_path)
    loaded = type(first).from_pretrained(tmp_path)
    trained = fine_tune(loaded, words, CHATS, SFTSettings(steps=60, batch=16, rate=3e-3))
    run = Run()
    reinforce(
        trained, words, PROMPTS, right, RLSettings(steps=1, batch=16, group=4, answer_tokens=2, beta=0.5, log_every=1), run
    )
    assert run.records[0]["kl"] == pytest.approx(0, abs=1e-4)
