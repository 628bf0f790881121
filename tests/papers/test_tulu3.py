"""Tülu 3: the tiny tasks against draws and counts, rivals, and the loading of its data sets."""

import json

import numpy as np
import pytest
import torch

from broadsheet.errors import InputError, JobError, MissingDataError
from broadsheet.language.character_starts import told
from broadsheet.language.character_tasks import answer_probabilities, courtesy, greetings, sayings, shares_right, sums
from broadsheet.language.characters import character_model, character_tokenizer
from broadsheet.language.planted_overlaps import exact_matches, planted, shared_ngrams
from broadsheet.language.post_training.divergences import divergence
from broadsheet.language.post_training.grounds import WordProblems, verifiable, word_problems
from broadsheet.language.post_training.rejection import fine_tune_on_verified
from broadsheet.language.post_training.rows import read_rows
from broadsheet.language.post_training.sampling import answers
from broadsheet.language.post_training.settings import SFTSettings
from broadsheet.language.post_training.suites import TuluData
from broadsheet.language.post_training.trainers import fine_tune
from broadsheet.language.verifiers import verify
from broadsheet.papers.tulu3 import Rewards, paper

FEW = sums(3)


@pytest.fixture(scope="module")
def halves():
    """(model, tokenizer) after fine-tuning on nine sums, half of which is told right."""
    words = character_tokenizer()
    rows = told(FEW, 16 * 40, 0.5, 0)
    return fine_tune(character_model(0), words, rows, SFTSettings(steps=40, batch=16, rate=3e-3)), words


def test_right_answers_meet_their_verifiers_and_typical_errors_do_not():
    for item in (*sums(), *sayings(30, np.random.default_rng(0))):
        assert verify(item.verifier, item.answer, item.label) == 1, item
        assert verify(item.verifier, item.error, item.label) == 0, item
    best = max(("yo", "hi you", "good day sir", "good day to you, dear sir"), key=courtesy)
    assert {item.answer for item in greetings()} == {best}


def test_a_share_of_what_is_told_is_right():
    assert shares_right(100, 0.6, np.random.default_rng(0)).mean() == pytest.approx(0.6)
    rows = told(sums(), 20_000, 0.6, 0)
    right = {item.prompt: item.answer for item in sums()}
    told_right = [row["messages"][1]["content"] == right[row["messages"][0]["content"]] for row in rows]
    assert np.mean(told_right) == pytest.approx(0.6, abs=0.015)


def test_the_probability_of_the_right_answer_is_how_often_it_is_drawn(halves):
    model, words = halves
    exact = answer_probabilities(model, words, FEW)
    drawn = answers(model, words, [item.asked for item in FEW], tokens=4, samples=300, temperature=1.0, batch=900)
    counted = [np.mean([text == item.answer for text in texts]) for item, texts in zip(FEW, drawn, strict=True)]
    np.testing.assert_allclose(exact, counted, atol=4 * np.sqrt(0.25 / 300))
    greedy = answers(model, words, [item.asked for item in FEW], tokens=4)
    said = [float(texts[0] == item.answer) for item, texts in zip(FEW, greedy, strict=True)]
    np.testing.assert_array_equal(answer_probabilities(model, words, FEW, temperature=0.0), said)


def test_the_divergence_of_answers_is_that_of_their_laws(halves):
    """One token an answer: the divergence of two laws over the words, known without draws."""
    model, words = halves
    start = character_model(1).eval()
    asked = [item.asked for item in FEW]
    given = words.apply_chat_template(asked, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    with torch.no_grad():
        own, other = (one(**given).logits[:, -1].log_softmax(-1) for one in (model, start))
    exact = (own.exp() * (own - other)).sum(-1).mean().item()
    assert divergence(model, start, words, asked, tokens=1, samples=2) == pytest.approx(exact, rel=1e-4)
    assert divergence(model, model, words, asked, tokens=4) == pytest.approx(0, abs=1e-5)


def test_rejection_sampling_learns_what_is_verified(halves):
    model, words = halves
    before = answer_probabilities(model, words, FEW).mean()
    tuned = character_model(0)
    tuned.load_state_dict(model.state_dict())
    settings = SFTSettings(steps=20, batch=32, rate=1e-3, warm_up=0.0)
    rows = [item.row() for item in FEW]
    tuned = fine_tune_on_verified(tuned, words, rows, settings, rounds=2, samples=8, tokens=4)
    assert answer_probabilities(tuned, words, FEW).mean() > before + 0.05
    with pytest.raises(JobError, match="In round 1 of rejection sampling no answer was right"):
        fine_tune_on_verified(tuned, words, [rows[0] | {"label": "99"}], settings, rounds=1, samples=2, tokens=4)


def test_planted_prompts_are_where_they_are_said_to_be():
    data = planted(80, 20, 10, np.random.default_rng(0))
    assert len(data.contaminated) == 20
    assert exact_matches(data) < data.contaminated < shared_ngrams(data)
    for (number, which), share in data.shares.items():
        said, prompt = data.train[number][0]["content"].split(), data.evaluation[which].split()
        runs = [
            n for n in range(8, 25) for k in range(25 - n) if " ".join(prompt[k : k + n]) in " ".join(said)
        ]  # fmt: skip
        assert max(runs) / 24 == share
        assert (share > 0.5) == (number in data.contaminated)


def chat(question, answer=None):
    turns = [{"role": "user", "content": question}]
    return turns if answer is None else [*turns, {"role": "assistant", "content": answer}]


@pytest.fixture
def published(tmp_path):
    """A tiny model and files in the form of the published data sets."""

    def lines(name, rows):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(tmp_path / name)

    character_model(0).save_pretrained(tmp_path / "model")
    character_tokenizer().save_pretrained(tmp_path / "model")
    constraint = {"func_name": "validate_uppercase", "N": None, "quantifier": None}
    return {
        "model": str(tmp_path / "model"),
        "chats": lines("sft.jsonl", [{"id": "a", "source": "b", "messages": chat("2+3=?", "5")}] * 4),
        "pairs": lines(
            "pairs.jsonl",
            [{"id": "a", "prompt": "hi", "chosen": chat("hi", "good day"), "rejected": chat("hi", "yo")}] * 4,
        ),
        "prompts": lines(
            "rlvr.jsonl",
            [
                {"messages": chat("2+3=?"), "ground_truth": "5", "dataset": "gsm8k"},
                {"messages": chat("1/2=?"), "ground_truth": "0.5", "dataset": "MATH"},
                {"messages": chat("say a"), "ground_truth": json.dumps(constraint), "dataset": "ifeval", "constraint": "x"},
            ],
        ),
        "problems": lines("test.jsonl", [{"question": "2+3=?", "answer": "2 and 3 are 5\n#### 1,005"}] * 2),
    }


def test_published_forms_are_read(published):
    rows = verifiable(read_rows(published["prompts"]))
    assert [row["verifier"] for row in rows] == ["gsm8k", "math", "ifeval"]
    assert verify("ifeval", "A", rows[2]["label"]) == 1
    assert word_problems(published["problems"], 1)[0] == {
        "prompt": chat("2+3=?"), "label": "1005", "verifier": "gsm8k"
    }  # fmt: skip
    with pytest.raises(InputError, match="Row 1 is of the data set 'code'; one of gsm8k, math, ifeval"):
        verifiable(read_rows([{"messages": chat("a"), "ground_truth": "b", "dataset": "code"}]))
    with pytest.raises(InputError, match="Row 1 is no problem of GSM8K"):
        word_problems(published["chats"], 1)


def test_the_papers_data_go_the_same_way_as_the_tiny_ones(published):
    ground = WordProblems(**{name: place for name, place in published.items() if name != "pairs"})
    ground.tokens = 4
    assert ground.chances(ground.start).shape == (2,)
    assert ground.divergence(ground.start) == pytest.approx(0, abs=1e-5)
    assert len(ground.more_of_the_same(10)) == 4
    data = TuluData(**published, count=1)
    assert data.base.num_parameters() == character_model(0).num_parameters()
    assert data.task.labels == ("1005",)


def test_the_papers_size_says_what_is_missing(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    size = paper.experiments["rlvr"].presets["paper"]
    assert isinstance(size, Rewards)
    with pytest.raises(MissingDataError, match=r"Llama-3\.1-Tulu-3-8B-DPO cannot be loaded"):
        size.ground(0)
