"""Tasks of memory beyond the window: their texts, and readings on models whose answers are known."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from broadsheet.errors import DataError, InputError, MissingDataError
from broadsheet.language.architectures import Sizes, new_model
from broadsheet.language.memory_models import KINDS, longer_window, memory_model, parameters, state_numbers, train
from broadsheet.language.memory_tasks import (
    RecallTask,
    TopicGrammar,
    coherence,
    loss_by_position,
    noise_curve,
    noise_readings,
    recall_accuracy,
    replaced,
    retention_curve,
    segment_similarity,
    words_in_slots,
)
from broadsheet.language.prose import docstrings, learn_tokenizer, rows_of_tokens, wikitext
from broadsheet.language.windows import attending_within


class Lookup:
    """Recalls perfectly: looks the key up in the pairs of its text."""

    def __call__(self, input_ids):
        logits = torch.zeros(*input_ids.shape, RecallTask().words)
        for row, ids in enumerate(input_ids.tolist()):
            logits[row, -1, ids[ids.index(ids[-1]) + 1]] = 5.0
        return SimpleNamespace(logits=logits)


class Even:
    def __init__(self, words):
        self.words = words

    def __call__(self, input_ids):
        return SimpleNamespace(logits=torch.zeros(*input_ids.shape, self.words))


def test_recall_asks_for_a_value_that_was_told():
    task = RecallTask()
    ids, answers = task.draw(np.random.default_rng(0), 200, 24)
    assert ids.shape == (200, 4 * 2 + 24 + 2)
    assert all(len(set(row[:8:2])) == 4 for row in ids.tolist())
    assert ((ids[:, 8:-2] == 0).all(), (ids[:, -2] == 1).all()) == (True, True)
    assert recall_accuracy(Lookup(), ids, answers) == 1.0
    assert set(answers.tolist()) == set(range(18, 34))
    assert_allclose(retention_curve(Lookup(), [0, 8, 100], rows=20), 1.0)
    assert retention_curve(Even(34), [8], rows=400)[0] < 0.02  # the filler is said, which is never the answer
    with pytest.raises(InputError, match="17 pairs"):
        RecallTask(pairs=17)


def test_noise_hits_the_share_that_was_asked_for_and_spares_the_question():
    task = RecallTask()
    ids, answers = task.draw(np.random.default_rng(0), 400, 24)
    noisy = replaced(ids, 0.2, task.words, np.random.default_rng(1), last=2)
    assert torch.equal(noisy[:, -2:], ids[:, -2:])
    assert_allclose((noisy != ids)[:, :-2].float().mean(), 0.2 * 33 / 34, atol=0.01)
    whole = (noisy == ids)[:, :8].reshape(-1, 4, 2).all(2).float().mean()
    assert abs(recall_accuracy(Lookup(), replaced(ids, 0.0, 34, np.random.default_rng(1)), answers) - 1.0) == 0
    assert_allclose(whole, (1 - 0.2 * 33 / 34) ** 2, atol=0.02)
    assert_allclose(noise_curve(Even(34), ids, (0.0, 0.3), words=34), 34.0, rtol=1e-5)
    assert_allclose(noise_curve(Even(34), ids, (0.0, 0.3), words=34, answers=answers, last=2), 34.0, rtol=1e-5)
    perplexity, right = noise_readings(Lookup(), ids[:100], (0.0, 0.0), words=34, answers=answers[:100], last=2)
    assert_allclose(perplexity, 1 + 33 * np.exp(-5.0), rtol=1e-5)
    assert right.tolist() == [1.0, 1.0]
    right = noise_readings(Even(34), ids, (0.0, 0.3), words=34)[1]
    assert_allclose(right, (ids[:, 1:] == 0).float().mean(), rtol=1e-6)  # it says the filler
    with pytest.raises(InputError, match="fraction is"):
        replaced(ids, 1.2, 34, np.random.default_rng(1))


def test_topics_are_kept_by_documents_and_told_from_what_is_generated():
    grammar = TopicGrammar(gap=3)
    ids, topics = grammar.draw(np.random.default_rng(0), 50, 4)
    assert ids.shape == (50, 1 + 4 * 5)
    assert coherence(ids, topics, grammar) == 1.0
    assert coherence(ids, (topics + 1) % 8, grammar) == 0.0
    assert np.isnan(coherence(torch.ones(2, 3, dtype=torch.long), topics[:2], grammar))
    assert (grammar.topic_of(ids)[:, grammar.slots(4)] == topics[:, None]).all()
    assert (grammar.topic_of(ids) >= 0).sum() == 50 * 4
    answers = grammar.answers(ids)
    assert (answers != -100).sum() == 50 * 3
    assert torch.equal(answers[answers != -100], ids[:, 1:][answers != -100])

    def follows(input_ids):  # says the first word of the topic again
        logits = torch.full((*input_ids.shape, grammar.words), -50.0)
        logits[:, -1].scatter_(1, input_ids[:, 2:3], 50.0)
        return SimpleNamespace(logits=logits)

    assert torch.equal(words_in_slots(follows, grammar, ids), ids[:, 2:3].expand(-1, 3))


def test_segments_that_repeat_are_alike():
    model = new_model("llama", Sizes(words=20, width=16, blocks=1, heads=2)).eval()
    one = torch.randint(0, 20, (3, 1), generator=torch.Generator().manual_seed(0)).expand(-1, 24)
    mixed = torch.randint(0, 20, (3, 24), generator=torch.Generator().manual_seed(0))
    assert segment_similarity(model, one, 8) > 0.999 > segment_similarity(model, mixed, 8)
    with pytest.raises(InputError, match="no two segments"):
        segment_similarity(model, mixed, 13)
    with torch.no_grad():
        loss = model(input_ids=mixed, labels=mixed).loss
    assert_allclose(loss_by_position(model, mixed).mean(), loss, rtol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "gpt_neox", "gpt2", "qwen3"])
def test_a_window_is_that_of_mistral(kind):
    ids = torch.randint(0, 50, (2, 30), generator=torch.Generator().manual_seed(0))
    sizes = Sizes(words=50, width=32, blocks=1)
    model = new_model(kind, sizes).eval()
    other = ids.clone()
    other[:, :10] = (ids[:, :10] + 1) % 50
    with torch.no_grad(), attending_within(model, 4):
        found, moved = (model(input_ids=x).logits for x in (ids, other))
        assert torch.equal(found[:, 13:], moved[:, 13:])
        assert not torch.equal(found[:, 12], moved[:, 12])
        with pytest.raises(InputError, match="without padding"):
            model(input_ids=ids, attention_mask=torch.zeros_like(ids))
    if kind == "llama":
        mistral = new_model("mistral", sizes, sliding_window=4).eval()
        mistral.load_state_dict(model.state_dict())
        with torch.no_grad():
            assert torch.equal(mistral(input_ids=ids).logits, found)
    with torch.no_grad():
        assert not torch.equal(model(input_ids=ids).logits, found)
    with pytest.raises(InputError, match="window is 0"), attending_within(model, 0):
        pass


def test_rivals_have_as_many_parameters_and_the_longer_window_as_much_state():
    sizes = Sizes(words=34, width=32, blocks=2, heads=2)
    made = {kind: memory_model(kind, sizes, 8) for kind in KINDS}
    counts = {kind: parameters(model) for kind, model in made.items()}
    assert max(counts.values()) < 1.02 * min(counts.values())
    window = longer_window(8, 32, 2)
    assert window == made["longer-window"].config.sliding_window == 16
    assert abs(state_numbers(made["longer-window"], window) / state_numbers(made["resonance"], 8) - 1) < 0.05
    with pytest.raises(InputError, match="no model 'rnn'"):
        memory_model("rnn", sizes, 8)


def test_training_learns_to_recall_within_the_window():
    task = RecallTask(pairs=1, keys=2, values=2)
    model, rng = memory_model("kappa-0", Sizes(words=task.words, width=16, blocks=1, heads=1), 3), np.random.default_rng(0)
    losses = train(model, (task.draw(rng, 32, 4) for _ in range(40)), rate=2e-2)
    assert np.mean(losses[-5:]) < 0.3 < losses[0]
    assert recall_accuracy(model, *task.draw(rng, 100, 4)) > 0.9


def test_docstrings_are_read_without_an_import_and_always_the_same():
    found = docstrings(("numpy",), characters=20_000)
    assert found == docstrings(("numpy",), characters=20_000)
    assert 20_000 <= sum(map(len, found)) < 60_000
    assert len(set(found)) == len(found)
    words = learn_tokenizer(found, 400)
    rows = rows_of_tokens(words, found, 32)
    assert rows.shape[1] == 32
    assert rows.max() < len(words) <= 400
    assert words.decode(rows[0]) in "<|endoftext|>".join(found)
    with pytest.raises(MissingDataError, match="no_such_package"):
        docstrings(("no_such_package",))
    with pytest.raises(InputError, match="fewer than a row"):
        rows_of_tokens(words, ["short"], 32)


def test_wikitext_is_read_as_its_archive_has_it(tmp_path):
    (tmp_path / "wiki.train.raw").write_text(
        " \n = Valkyria = \n \n Senjō no Valkyria 3 : is a game . \n = = Plot = = \n It ends . \n"
    )
    assert wikitext(tmp_path, "train", characters=1000) == ["Senjō no Valkyria 3 : is a game .", "It ends ."]
    with pytest.raises(MissingDataError, match=r"wiki\.test\.raw"):
        wikitext(tmp_path, "test", characters=1000)
    (tmp_path / "wiki.valid.tokens").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="UTF-8"):
        wikitext(tmp_path, "valid", characters=1000)
    (tmp_path / "wiki.test.tokens").write_text(" = Title = \n")
    with pytest.raises(DataError, match="no paragraph"):
        wikitext(tmp_path, "test", characters=1000)
