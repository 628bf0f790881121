"""How post-training reshapes: the loading of real models and statements, and the controls of its claims."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from broadsheet.errors import MissingDataError
from broadsheet.language import tiny_world as tiny
from broadsheet.language.patch_maps import PatchMap
from broadsheet.papers import post_training_reshapes as reshapes
from broadsheet.papers.post_training_reshapes import EXAMPLES, paper
from quiet import Quiet

CITIES = """statement,label,city,country,correct_country
The city of Krasnodar is in Russia.,1,Krasnodar,Russia,Russia
The city of Krasnodar is in India.,0,Krasnodar,India,Russia
The city of Kazan is in Russia.,1,Kazan,Russia,Russia
The city of Pune is in Russia.,0,Pune,Russia,India
The city of Pune is in India.,1,Pune,India,India
The city of Delhi is in India.,1,Delhi,India,India
The city of Lagos is in New Zealand.,0,Lagos,New Zealand,Nigeria
"""


@pytest.fixture
def published(tmp_path):
    """A file as the paper's code has it, and two models in folders whose tokenizer knows its words."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    from broadsheet.language.architectures import Sizes, new_model

    file = tmp_path / "cities.csv"
    file.write_text(CITIES)
    texts = [CITIES, *(text for text, _ in EXAMPLES), "This statement is: TRUE FALSE"]
    split = Whitespace()
    known = sorted({word for text in texts for word, _ in split.pre_tokenize_str(text)})
    table = Tokenizer(WordLevel({word: k for k, word in enumerate(["<pad>", *known])}, unk_token="<pad>"))
    table.pre_tokenizer = split
    words = PreTrainedTokenizerFast(tokenizer_object=table, pad_token="<pad>")
    for name in ("base", "post"):
        new_model("qwen2", Sizes(words=len(known) + 1, width=16, blocks=2), seed=len(name)).save_pretrained(tmp_path / name)
        words.save_pretrained(tmp_path / name)
    return tmp_path, file


def test_published_models_and_statements_are_loaded(published):
    folder, file = published
    config = replace(
        paper.experiments["knowledge_patching"].configure("paper"),
        base=str(folder / "base"), posts=(str(folder / "post"),), data=str(file), device="cpu", precision="float32",
    )  # fmt: skip
    found = reshapes.knowledge_patching.function(config, jax.random.key(0), Quiet())
    assert "other-seed" not in found.arms
    assert -1 <= found.arms["system"]["pearson_post"] <= 1
    assert found.arrays["columns"].tolist() == [
        "The", "city", "of", "[subject]", "is", "in", "[object]", ".", "This", "statement", "is", ":",
    ]  # fmt: skip
    assert found.arrays["base"].shape == (3, 12)
    for draw in paper.experiments["knowledge_patching"].figures.values():
        assert draw({"system": found}).axes


def test_the_papers_size_says_what_it_needs():
    with pytest.raises(MissingDataError, match=r"cities\.csv"):
        reshapes._prompts(paper.experiments["knowledge_patching"].configure("paper"), tiny.tokenizer())


def test_pairs_of_the_tiny_world_are_true_and_false_of_one_object():
    world = tiny.World(0)
    pairs = reshapes._tiny_pairs(world, 50)
    true = {world.statement("city", subject) for subject in range(tiny.SUBJECTS)}
    assert len(set(pairs)) == 50
    for pair in pairs:
        assert pair.true in true
        assert pair.false not in true
        assert pair.true.split()[-2] == pair.false.split()[-2]
        assert pair.true.split()[3] != pair.false.split()[3]


def test_exactness_sees_states_that_are_a_token_late():
    from broadsheet.language.architectures import Sizes, new_model
    from broadsheet.language.statement_pairs import Question, tokenize_pairs

    model = new_model("llama", Sizes(words=len(tiny.WORDS), width=32, blocks=2), seed=1)
    question = Question(" this statement is :", start="<bos> ", between=" ")
    [prompts], _ = tokenize_pairs(tiny.tokenizer(), reshapes._tiny_pairs(tiny.World(0), 5), question=question)
    for right, late in reshapes._exactness(model, prompts).values():
        assert right < 1e-5
        assert late > 1e-3


def test_a_map_without_a_model_knows_the_kinds_of_tokens():
    columns = ("the", "[subject]", "is", "[object]", ":")
    own = PatchMap(np.zeros((1, 4, 5)), np.zeros(1), np.zeros(1), (-1, 0, 1, 2), columns, np.zeros((1, 5), bool))
    expected = [[0, 1, 0, 0, 0], [0, 0, 0, 0.5, 0.5], [0, 0, 0, 0.5, 0.5], [0, 0, 0, 0, 1]]
    assert reshapes._by_token(own).tolist() == expected
