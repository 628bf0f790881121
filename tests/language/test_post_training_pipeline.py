"""Post-training in stages: what is taken as it is, what is made anew, what a kill or a full disk leaves; scores against counting."""

import errno
import itertools
import json
import os
import signal
import sys
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

from broadsheet.errors import BroadsheetError, InputError, JobError, MissingExtraError
from broadsheet.language.characters import character_model, character_tokenizer
from broadsheet.language.diversity.scores import pass_at_k
from broadsheet.language.post_training import evaluation
from broadsheet.language.post_training.evaluation import Task, evaluate, harness, majority, read_suite, scores
from broadsheet.language.post_training.on_policy import OnPolicy
from broadsheet.language.post_training.pipeline import PostTrain
from broadsheet.language.post_training.rewards import said, verified
from broadsheet.language.post_training.sampling import answers
from broadsheet.language.post_training.settings import DPOSettings, RLSettings, SFTSettings

SHORT = {"steps": 4, "batch": 8, "rate": 1e-3, "save_every": 2, "log_every": 1}
SFT, DPO = SFTSettings(**SHORT), DPOSettings(**SHORT)
RL = RLSettings(**SHORT, group=4, answer_tokens=2)


def chat(question, answer):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


SUMS = list(itertools.product(range(4), range(4)))
CHATS = [{"messages": chat(f"{a}+{b}=?", str(a + b))} for a, b in SUMS]
PROMPTS = [{"prompt": chat(f"{a}+{b}=?", "")[:1], "label": str(a + b)} for a, b in SUMS]
PAIRS = [{"prompt": chat("hi", "")[:1], "chosen": chat("", "good day")[1:], "rejected": chat("", "oi")[1:]}] * 16


def digit(text, label):
    """Which answers begin with a digit: half of an untrained model's are told apart."""
    return float(text[:1].isdigit() or text[:1].islower())


def stages(folder, *, sft=SFT, report=None, reward=None, model=None):
    """The three stages of the tests."""
    trained = PostTrain(model or character_model(0), character_tokenizer(), folder, report=report)
    trained.sft(CHATS, sft).dpo(PROMPTS, DPO, build=OnPolicy(digit, samples=4, answer_tokens=2))
    return trained.rlvr(PROMPTS, None if reward else "gsm8k", RL, reward=reward)


def weights(folder):
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


def same(one, two):
    return all(torch.equal(value, two[name]) for name, value in one.items())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with the three stages, trained without interruption."""
    folder = tmp_path_factory.mktemp("whole")
    stages(folder)
    return folder


def test_each_stage_is_a_folder_that_transformers_loads_alone(whole):
    assert sorted(place.name for place in whole.iterdir()) == [".lock", "1-sft", "2-dpo", "3-rlvr"]
    before = character_model(0).state_dict()
    for name in ("1-sft", "2-dpo", "3-rlvr"):
        after = weights(whole / name)
        assert not same(before, after)
        before = after
        record = json.loads((whole / name / "stage.json").read_text())
        assert record["settings"]["batch"] == 8
        assert record["data"]["rows"] == 16
        assert set(record["versions"]) >= {"torch", "trl"}
        assert len([one for one in record["log"] if "loss" in one]) == 4
    pairs = [json.loads(line) for line in (whole / "2-dpo" / "pairs.jsonl").read_text().splitlines()]
    assert all(digit(said(pair["chosen"]), "") > digit(said(pair["rejected"]), "") for pair in pairs)
    ask = pipeline("text-generation", model=str(whole / "3-rlvr"), max_new_tokens=2)
    assert ask([chat("1+1=?", "")[:1]])[0][0]["generated_text"][-1]["role"] == "assistant"


def test_what_is_unchanged_is_taken_and_what_follows_a_change_is_made_anew(whole):
    kept = {name: (whole / name / "stage.json").stat().st_mtime_ns for name in ("1-sft", "2-dpo", "3-rlvr")}
    again = stages(whole)
    assert [stage.found for stage in again.stages] == [True, True, True]
    assert kept == {name: (whole / name / "stage.json").stat().st_mtime_ns for name in kept}
    assert same(again.model.state_dict(), weights(whole / "3-rlvr"))
    for changed in (
        PostTrain(character_model(1), character_tokenizer()),
        PostTrain(character_model(0), character_tokenizer()),
    ):
        assert changed.identity != again.identity


def test_a_changed_stage_replaces_the_old_one_and_those_after_it(whole, tmp_path):
    short = {"steps": 1, "batch": 8}
    prompts = [{"prompt": "a", "completion": "b"}] * 8
    first = PostTrain(character_model(0), character_tokenizer(), tmp_path).sft(prompts, SFTSettings(**short))
    first.sft(prompts, SFTSettings(**short), name="more")
    second = PostTrain(character_model(0), character_tokenizer(), tmp_path).sft(prompts, SFTSettings(**short, seed=1))
    second.sft(prompts, SFTSettings(**short), name="more")
    assert [stage.found for stage in second.stages] == [False, False]
    third = PostTrain(character_model(0), character_tokenizer(), tmp_path).sft(prompts, SFTSettings(**short, seed=1))
    assert third.sft(prompts[:4] * 2, SFTSettings(**short), name="more").stages[1].found  # the same rows
    assert third.stages[1].record["identity"] != first.stages[1].record["identity"]
    fourth = PostTrain(character_model(0), character_tokenizer(), tmp_path).sft(prompts[:7], SFTSettings(**short, seed=1))
    assert not fourth.stages[0].found
    assert sorted(place.name for place in tmp_path.iterdir()) == [".lock", "1-sft", "2-more"]


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked")
@pytest.mark.parametrize(("title", "share"), [("2-dpo", 0.75), ("3-rlvr", 1.0)])
def test_a_killed_run_ends_as_an_uninterrupted_one(title, share, whole, tmp_path):
    model = character_model(0)

    def killing(name, done, latest):
        if name == title and done >= share:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        torch.set_num_threads(1)  # the threads of the parent are not there
        try:
            stages(tmp_path, report=killing, model=model)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert not (tmp_path / title).exists()
    before = [place.name for place in tmp_path.iterdir() if place.is_dir() and place.name[0] != "."]
    resumed = stages(tmp_path)
    assert [stage.found for stage in resumed.stages] == [stage.folder.name in before for stage in resumed.stages]
    assert len(before) == int(title[0]) - 1
    assert same(weights(tmp_path / "3-rlvr"), weights(whole / "3-rlvr"))
    assert not list(tmp_path.glob(".[0-9]*"))


def test_a_kill_while_folders_are_renamed_loses_neither_the_old_stage_nor_the_new(tmp_path):
    from broadsheet.language.post_training.stages import settle

    scratch, place = tmp_path / ".1-sft-x", tmp_path / "1-sft"
    for folder, content in ((scratch / "whole", "new"), (scratch / "before", "old")):  # killed between the two renames
        folder.mkdir(parents=True)
        (folder / "stage.json").write_text(content)
    settle(scratch, place)
    assert (place / "stage.json").read_text() == "new"
    assert not scratch.exists()


def test_a_reward_that_fails_keeps_the_stages_and_checkpoints_and_goes_on(tmp_path):
    calls, broken = [], []

    def reward(prompts, completions, **named):
        calls.append(1)
        value = float("nan") if len(calls) > 3 and not broken else 1.0
        return [value * (k % 2) if value == 1.0 else value for k in range(len(completions))]

    trained = PostTrain(character_model(0), character_tokenizer(), tmp_path)
    with pytest.raises(JobError, match="The reward reward gave nan for the answer"):
        trained.rlvr(PROMPTS, settings=RL, reward=reward)
    with pytest.raises(InputError, match="give it anew"):
        trained.rlvr(PROMPTS, settings=RL, reward=reward)
    assert [place.name for place in tmp_path.glob(".1-rlvr-*/checkpoints/checkpoint-*")] == ["checkpoint-2"]


def test_a_full_disk_is_told_in_one_sentence_and_nothing_is_lost(tmp_path, monkeypatch):
    model = character_model(0)
    saved, full = type(model).save_pretrained, [True]

    def save(self, folder, *arguments, **named):
        if full[0] and os.path.basename(str(folder)) == "part":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return saved(self, folder, *arguments, **named)

    monkeypatch.setattr(type(model), "save_pretrained", save)
    with pytest.raises(JobError, match=r"1-sft could not be written .*No space left on device"):
        PostTrain(model, character_tokenizer(), tmp_path).sft(CHATS, SFT)
    full[0] = False
    steps = []
    PostTrain(character_model(0), character_tokenizer(), tmp_path, report=lambda *news: steps.append(news)).sft(CHATS, SFT)
    assert not steps  # all of them were in the last checkpoint


def test_the_divergence_is_measured_from_the_model_that_enters_the_stage(whole):
    log = json.loads((whole / "3-rlvr" / "stage.json").read_text())["log"]
    assert log[0]["kl"] == pytest.approx(0, abs=1e-4)


def test_ppo_is_a_stage_as_well(tmp_path):
    trained = PostTrain(character_model(0), character_tokenizer(), tmp_path)
    trained.rlvr(PROMPTS, digit, replace(RL, algorithm="ppo", steps=1))
    assert not same(weights(tmp_path / "1-rlvr"), character_model(0).state_dict())


@pytest.mark.parametrize(
    ("train", "says"),
    [
        (lambda it: it.sft([{"messages": chat("a" * 200, "b")}], SFT), "Prompt 1 has 205 tokens; nothing is left"),
        (lambda it: it.dpo([PAIRS[0] | {"prompt": chat("a" * 200, "")[:1]}], DPO), "Prompt 1 has 205 tokens"),
        (lambda it: it.rlvr([PROMPTS[0] | {"prompt": chat("a" * 200, "")[:1]}], "gsm8k", RL), "Prompt 1 has 205 tokens"),
        (lambda it: it.rlvr(CHATS, "gsm8k", RL), "no 'label' among prompt"),
        (lambda it: it.rlvr(PROMPTS, None, RL), "no 'verifier' among prompt, label"),
        (lambda it: it.rlvr(PROMPTS, "nonsense", RL), "no verifier called 'nonsense'"),
        (lambda it: it.dpo(PROMPTS, DPO, build=OnPolicy(lambda text, label: 1.0, samples=2, answer_tokens=2)), "no pairs"),
        (lambda it: it.sft(PROMPTS, SFT), "no 'completion'"),
        (lambda it: PostTrain(character_model(0)), "needs the tokenizer"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(train, says, tmp_path):
    with pytest.raises(BroadsheetError, match=says):
        train(PostTrain(character_model(0), character_tokenizer(), tmp_path))


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "1-sft").mkdir()
    (tmp_path / "1-sft" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="is no stage"):
        PostTrain(character_model(0), character_tokenizer(), tmp_path).sft(CHATS, SFT)
    assert (tmp_path / "1-sft" / "mine.txt").read_text() == "mine"


def test_a_verified_reward_is_worth_what_it_is_told():
    reward = verified(worth=10.0)
    rows = {"completions": ["it is 4", "4"], "label": ["4", "5"], "verifier": ["gsm8k", "exact"]}
    assert reward(prompts=["", ""], **rows) == [10.0, 0.0]


def test_pass_and_majority_against_all_draws():
    right = [1, 0, 0, 1, 0]
    for k in range(1, 6):
        draws = list(itertools.combinations(right, k))
        assert pass_at_k(5, 2, k) == pytest.approx(sum(map(max, draws)) / len(draws))
    assert majority(["a", "b", "a", "c"], [1, 0, 1, 0], 4) == 1.0
    assert majority(["a", "b", "b", "a"], [1, 0, 0, 1], 4) == 0.5
    assert majority(["a", "b", "b", "b"], [1, 0, 0, 0], 2) == 0.25


def test_scores_of_a_task_by_hand():
    task = Task("t", ("p", "q"), ("4", "7"), ("gsm8k", "gsm8k"))
    found = scores(task, ["4", "6"], [["2+2=4", "four: 4", "5"], ["7", "8", "8"]], (1, 3))
    assert found == pytest.approx(
        {"prompts": 2, "greedy": 0.5, "sampled": 0.5, "pass@1": 0.5, "maj@1": 0.5, "pass@3": 1.0, "maj@3": 0.5}
    )
    form = Task("f", ("p",), ({"func_name": "validate_lowercase"},), ("ifeval",))
    loose = scores(form, ["HERE IT IS:\nall is lower"])
    assert (loose["greedy"], loose["greedy_loose"]) == (0.0, 1.0)


def test_answers_are_those_of_generating_one_by_one_and_leave_the_generator_alone():
    words = character_tokenizer()
    model = character_model(0).eval()
    prompts = [chat("1+1=?", "")[:1], chat("a longer question", "")[:1], "plain text"]
    state = torch.random.get_rng_state()
    together = answers(model, words, prompts, tokens=5)
    assert torch.equal(torch.random.get_rng_state(), state)
    for prompt, [answer] in zip(prompts, together, strict=True):
        text = (
            prompt if isinstance(prompt, str) else words.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        )
        ids = words(text, return_tensors="pt")["input_ids"]
        for _ in range(5):
            with torch.no_grad():
                ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], 1)
            if ids[0, -1] == words.eos_token_id:
                break
        start = len(words(text)["input_ids"])
        assert answer == words.decode(ids[0, start:], skip_special_tokens=True)
    drawn = answers(model, words, prompts, tokens=5, samples=3, temperature=1.0, seed=1)
    assert drawn == answers(model, words, prompts, tokens=5, samples=3, temperature=1.0, seed=1)
    assert [len(texts) for texts in drawn] == [3, 3, 3]
    with pytest.raises(InputError, match=r"Prompt 2 has .* context of 128"):
        answers(model, words, ["a", "b" * 200], tokens=4)


def test_unseen_tasks_are_read_only_when_they_are_asked_for(tmp_path):
    rows = [
        {"prompt": "1+1=", "label": "2", "verifier": "gsm8k", "task": name, "split": split}
        for name, split in (("seen", "dev"), ("hidden", "unseen"))
    ]
    (tmp_path / "suite.jsonl").write_text("\n".join(map(json.dumps, rows)))
    model, words = character_model(0), character_tokenizer()
    assert list(evaluate(model, words, tmp_path, tokens=2)["tasks"]) == ["seen"]
    assert list(evaluate(model, words, tmp_path / "suite.jsonl", tokens=2, unseen=True)["tasks"]) == ["hidden"]
    trained = PostTrain(model, words, tmp_path / "out")
    assert trained.evaluate(rows, tokens=2) == PostTrain(model, words, tmp_path / "out").evaluate(rows, tokens=2)
    assert len(list((tmp_path / "out" / "scores").iterdir())) == 1


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"prompt": "a", "label": "b"}], "row 1 has no 'verifier'"),
        ([{"prompt": "a", "label": "b", "verifier": "none"}], "no verifier called 'none'"),
        ([{"prompt": "a", "label": "b", "verifier": "exact", "split": "test"}], "the split is 'test'"),
        ([], "no tasks"),
        (["a"], "an object"),
    ],
)
def test_a_suite_that_is_none_is_told_in_one_sentence(rows, says):
    with pytest.raises(BroadsheetError, match=says):
        read_suite(rows)


def test_without_lm_eval_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(MissingExtraError, match=r"needs the extra 'evaluation'"):
        harness(None, None, ["gsm8k"])


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    character_model(0).save_pretrained(tmp_path)
    words = character_tokenizer()
    words.add_tokens(["<more>"])
    words.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="it is another model's"):
        PostTrain(str(tmp_path)).sft(CHATS, SFT)
    assert AutoTokenizer.from_pretrained(tmp_path)
    assert evaluation.SPLITS == ("dev", "unseen")
