"""Classifiers of pairs, tiny tasks whose answers are known, and problems read from data sets as they are published."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    LlamaConfig,
    LlamaForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from broadsheet.errors import DataError, InputError, MissingDataError
from broadsheet.language.characters import character_model, character_tokenizer
from broadsheet.language.closed_answers import Sampler
from broadsheet.language.closed_tasks import task_named
from broadsheet.language.diversity.classifier import (
    ClassifierPartitioner,
    load_classifier,
    pair_classifier,
    pair_tokenizer,
    train_pairs,
)
from broadsheet.language.diversity.drawn import Drawn
from broadsheet.language.diversity.partitions import OraclePartitioner
from broadsheet.language.diversity.problems import RewardModel, conversations, mathematics
from broadsheet.language.diversity.rewards import DarlingReward
from broadsheet.language.diversity.training import reinforced
from broadsheet.language.make_number import MANY_WORDS, MakeNumber

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 90}
PAIRS = [("3+4", "4+3"), ("12", "a much longer answer than that"), ("x", "y"), ("7-2 = 5", "5"), ("a b", "a b c")]


def classifiers():
    """Encoders with one or two outputs, with types of tokens and without, and a decoder."""
    words, plain = pair_tokenizer(), character_tokenizer()
    pad = {"pad_token_id": 0}
    own = {"cls_token_id": 85, "sep_token_id": 86, "bos_token_id": None, "eos_token_id": 1, "attn_implementation": "sdpa"}
    return {
        "bert": (BertForSequenceClassification(BertConfig(**SIZES, **pad)), words),
        "bert-one-output": (BertForSequenceClassification(BertConfig(**SIZES, **pad, num_labels=1)), words),
        "roberta": (RobertaForSequenceClassification(RobertaConfig(**SIZES, **pad, type_vocab_size=1)), words),
        "modernbert": (ModernBertForSequenceClassification(ModernBertConfig(**SIZES, **pad, **own)), words),
        "llama": (LlamaForSequenceClassification(LlamaConfig(**SIZES, num_labels=2)), plain),
    }


def plain_probability(model, words, one, other):
    """A pair alone: joined by the tokenizer, or between its end tokens."""
    if words.sep_token_id is not None:
        given = words(one, other, return_tensors="pt")
        given = {name: value for name, value in given.items() if name != "token_type_ids" or model.config.model_type == "bert"}
    else:
        end = words.eos_token_id
        ids = [end, *words(one)["input_ids"], end, *words(other)["input_ids"], end]
        given = {"input_ids": torch.tensor([ids])}
    with torch.no_grad():
        logits = model(**given).logits[0]
    return float(torch.sigmoid(logits[0]) if len(logits) == 1 else logits.softmax(-1)[1])


@pytest.mark.parametrize("name", classifiers())
def test_batches_of_pairs_are_judged_as_each_alone(name):
    torch.manual_seed(1)
    model, words = classifiers()[name]
    found = ClassifierPartitioner(model, words, tokens=60).probabilities(PAIRS)
    np.testing.assert_allclose(found, [plain_probability(model, words, *pair) for pair in PAIRS], atol=1e-5)
    assert np.ptp(found) > 1e-6


def test_classifiers_that_cannot_judge_pairs_are_refused(tmp_path):
    words = pair_tokenizer()
    with pytest.raises(InputError, match="3 outputs judges no pairs"):
        ClassifierPartitioner(BertForSequenceClassification(BertConfig(**SIZES, num_labels=3)), words)
    small = BertForSequenceClassification(BertConfig(**SIZES | {"vocab_size": 20}))
    with pytest.raises(InputError, match="the embedding of the BertForSequenceClassification has 20"):
        ClassifierPartitioner(small, words).probabilities(PAIRS)
    with pytest.raises(InputError, match="a probability is wanted"):
        ClassifierPartitioner(small, words, 1.5)
    broken = pair_classifier(words)
    torch.nn.init.constant_(broken.classifier.bias, float("nan"))
    with pytest.raises(InputError, match="NaN"):
        ClassifierPartitioner(broken, words).probabilities(PAIRS)
    BertModel(BertConfig(**SIZES)).save_pretrained(tmp_path / "headless")
    words.save_pretrained(tmp_path / "headless")
    with pytest.raises(DataError, match="no trained classifier of pairs"):
        load_classifier(str(tmp_path / "headless"))


def test_long_answers_are_cut_to_the_positions_that_there_are():
    words = pair_tokenizer()
    partitioner = ClassifierPartitioner(pair_classifier(words, positions=24), words, short_rule=False)
    assert partitioner.side == 10
    found = partitioner.probabilities([("a" * 10, "b" * 10), ("a" * 500, "b" * 500)])
    assert found[0] == pytest.approx(found[1], abs=1e-6)


def test_training_learns_pairs_and_a_folder_gives_the_same(tmp_path):
    words = pair_tokenizer()
    pairs, labels = [("1+2", "2+1"), ("1+2", "1-2"), ("3*4", "4*3"), ("3*4", "3+4")], [1, 0, 1, 0]
    model = train_pairs(pair_classifier(words, 0), words, pairs, labels, steps=60, batch=16)
    found = ClassifierPartitioner(model, words, short_rule=False).probabilities(pairs)
    assert (found > 0.5).astype(int).tolist() == labels
    model.save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    again = ClassifierPartitioner.load(str(tmp_path), short_rule=False)
    np.testing.assert_allclose(again.probabilities(pairs), found, atol=1e-6)
    assert again.partition(["1+2", "2+1", "1-2"])[:2] == [0, 0]
    with pytest.raises(InputError, match="4 pairs and 1 labels"):
        train_pairs(model, words, pairs, [1])


@pytest.mark.parametrize("plus", ["+", MANY_WORDS])
def test_make_number_is_what_arithmetic_says(plus):
    task = MakeNumber(plus)
    for prompt, row, count in zip(task.prompts, task.scores, task.good_classes(), strict=True):
        number = int(prompt[0])
        sums = {tuple(sorted((a, number - a))) for a in range(number + 1) if number - a <= 9}
        differences = {(a, a - number) for a in range(number, 10)}
        products = {tuple(sorted((a, number // a))) for a in range(1, 10) if number % a == 0 and number // a <= 9}
        assert count == len(sums) + len(differences) + len(products)
        right = [eval(answer.replace(answer[1], "+") if answer[1] in plus else answer) == number for answer in task.answers]
        assert row.tolist() == right
    assert task.meaning(f"3{plus[-1]}4") == task.meaning("4+3") != task.meaning("3*4")
    assert task.meaning("7-3") != task.meaning("3-7")
    assert task.makes("7+٣") is task.makes("3 + 4") is task.makes("") is None
    pairs, labels = task.labelled_pairs(400, 3)
    assert sum(labels) == 200
    assert [task.meaning(a) == task.meaning(b) for a, b in pairs] == [bool(one) for one in labels]
    assert all(a != b for a, b in pairs)


def test_plus_signs_are_checked():
    with pytest.raises(InputError, match="different characters"):
        MakeNumber("++")
    with pytest.raises(InputError, match="There is no task 'x'"):
        task_named("x")


@pytest.mark.parametrize("name", ["make number", "name one"])
def test_demonstrations_are_as_right_as_is_asked(name):
    task = task_named(name)
    shown = task.demonstrations(2000, 0, right=1.0)
    assert all(task.score(prompt, answer) > 0 for prompt, answer in shown)
    mixed = np.mean([task.score(prompt, answer) > 0 for prompt, answer in task.demonstrations(2000, 0)])
    assert 0.6 < mixed < 0.75


@pytest.mark.parametrize(("name", "temperature"), [("make number", 1.0), ("name one", 0.7)])
def test_what_a_model_answers_is_exact(name, temperature):
    task, words, model = task_named(name), character_tokenizer(), character_model(0).eval()
    torch.nn.init.normal_(model.model.embed_tokens.weight, std=0.3)
    sampler = Sampler(model, words, task)
    prompt, total = 1, 0.0
    for answer, score in zip(task.answers, task.scores[prompt], strict=True):
        if score:
            asked, told = (words(text)["input_ids"] for text in (task.prompts[prompt], answer))
            with torch.no_grad():
                p = torch.softmax(
                    model(input_ids=torch.tensor([asked + told])).logits[0, len(asked) - 1 :].double() / temperature, -1
                )
            total += float(
                torch.stack([p[k, token] for k, token in enumerate(told)]).prod() * p[len(told), words.all_special_ids].sum()
            )
    assert sampler.at(temperature).classes[prompt].sum() == pytest.approx(total, rel=1e-4)


def test_the_temperature_of_a_pass_rate_is_found():
    task, words = task_named("name one"), character_tokenizer()
    sampler = Sampler(character_model(0).eval(), words, task)
    for row, told in enumerate(words(list(task.answers))["input_ids"]):  # as a model that prefers what is right
        for place, token in enumerate([*told, words.eos_token_id]):
            logits, of = sampler.places[place]
            logits[:, of[row], token] += torch.tensor(6.0 * task.scores[:, row])
    wanted = sampler.at(0.8).pass_at(1)
    assert sampler.at(0.6).pass_at(1) > wanted > sampler.at(1.5).pass_at(1)
    assert sampler.at_pass(wanted).pass_at(1) == pytest.approx(wanted, rel=1e-3)


def test_expectations_of_exact_answers_are_means_over_draws():
    from broadsheet.language.closed_answers import Answers

    task = MakeNumber()
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(len(task.answers), 0.1), size=9) * (0.3 + 0.7 * task.scores)
    p /= p.sum(1, keepdims=True)
    answers = Answers(task, p)
    distinct, right = [], []
    for row, scores in zip(p, task.scores, strict=True):
        for draw in rng.choice(len(row), (2000, 4), p=row):
            good = [k for k in draw if scores[k]]
            distinct.append(len({task.meaning(task.answers[k]) for k in good}))
            right.append(bool(good))
    assert answers.distinct(4) == pytest.approx(np.mean(distinct), abs=0.04)
    assert answers.pass_at(4) == pytest.approx(np.mean(right), abs=0.02)
    assert answers.quality == pytest.approx(answers.pass_at(1))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A tiny model that answers, one that judges pairs, and one that scores conversations."""
    root, words, pairs = tmp_path_factory.mktemp("models"), character_tokenizer(), pair_tokenizer()
    model = character_model(0)
    model.save_pretrained(root / "model")
    words.save_pretrained(root / "model")
    pair_classifier(pairs, 0).save_pretrained(root / "pairs")
    pairs.save_pretrained(root / "pairs")
    config = LlamaConfig(**SIZES, num_labels=1, pad_token_id=0)
    LlamaForSequenceClassification(config).save_pretrained(root / "scores")
    words.save_pretrained(root / "scores")
    return root


def test_problems_with_answers_are_read_as_they_are_published(folders, tmp_path):
    rows = [{"problem": f"What is {k}+1?", "answer": str(k + 1), "solution": "..."} for k in range(8)]
    (tmp_path / "problems.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    how = {"held_out": 3, "draws": 4, "tokens": 6}
    found = mathematics(str(folders / "model"), str(tmp_path / "problems.jsonl"), str(folders / "pairs"), **how)
    assert len(found.rows) == 5
    assert found.quality([r"so \boxed{3}", "4"], prompts=["", ""], answer=["3", "3"]) == [1.0, 0.0]
    at = found.look(found.model()).at(1.0)
    assert 0 <= at.pass_at(1) <= at.pass_at(4) <= 1
    (tmp_path / "other.jsonl").write_text('{"prompt": "x"}\n')
    with pytest.raises(DataError, match="row 1 has no 'problem'; it has prompt"):
        mathematics(str(folders / "model"), str(tmp_path / "other.jsonl"), str(folders / "pairs"), **how)
    with pytest.raises(DataError, match="8 prompts that can be used; 22 at least"):
        mathematics(str(folders / "model"), str(tmp_path / "problems.jsonl"), str(folders / "pairs"), held_out=20)


def test_a_data_set_that_is_not_here_is_told(folders, monkeypatch):
    def unreachable(*_, **__):
        raise ConnectionError("Couldn't reach 'agentica-org/nowhere' on the Hub")

    monkeypatch.setattr("datasets.load_dataset", unreachable)
    with pytest.raises(MissingDataError, match="agentica-org/nowhere cannot be read from the Hugging Face Hub"):
        mathematics(str(folders / "model"), "agentica-org/nowhere", str(folders / "pairs"))


def test_conversations_are_read_and_scored_and_trained_on(folders, tmp_path):
    turns = [{"role": "user", "content": "name a tree"}, {"role": "assistant", "content": "oak"}]
    kept = [{"conversation": turns, "language": "English", "toxic": False}] * 6
    left = [
        {"conversation": turns, "language": "German", "toxic": False},
        {"conversation": turns, "language": "English", "toxic": True},
    ]
    pa.parquet.write_table(pa.Table.from_pylist(left + kept), tmp_path / "talk.parquet")
    found = conversations(
        str(folders / "model"), str(tmp_path / "talk.parquet"), str(folders / "scores"), str(folders / "pairs"),
        held_out=2, draws=3, tokens=4,
    )  # fmt: skip
    assert len(found.rows) == 4
    assert found.rows[0]["prompt"] == turns[:1]
    judge = RewardModel(str(folders / "scores"), batch=2)
    alone = [judge([text], prompts=["name a tree"])[0] for text in ("oak", "a longer answer", "")]
    assert judge(["oak", "a longer answer", ""], prompts=["name a tree"] * 3) == pytest.approx(alone, abs=1e-5)
    reward = DarlingReward(found.quality, found.partitioner, bias=found.shift, group=2)
    settings = {"steps": 1, "batch": 4, "group": 2, "rate": 1e-4, "beta": 0.0}
    look = reinforced(found, reward, settings)[-1].at(1.0)
    assert np.isfinite(look.quality)
    assert 1 <= look.distinct(3) <= 3
    with pytest.raises(InputError, match="2 outputs; a reward model has one"):
        RewardModel(str(folders / "pairs"))


def test_draws_are_counted_where_they_are_known():
    class Said:
        def __init__(self, monkeypatch):
            texts = [["a", "a", "b", "x"], ["c", "x", "x", "x"]]
            monkeypatch.setattr("broadsheet.language.diversity.drawn.answers", lambda *_, **__: texts)

    with pytest.MonkeyPatch.context() as patch:
        Said(patch)
        rows = [{"prompt": "1"}, {"prompt": "2"}]
        drawn = Drawn(
            None, None, rows, lambda texts, **_: [float(text != "x") for text in texts], OraclePartitioner(str), draws=4
        )
        at = drawn.at()
    assert at.quality == at.pass_at(1) == 0.5
    assert at.distinct(4) == 1.5
    assert at.pass_at(2) == pytest.approx((1 + 0.5) / 2)
