"""The paper's size on a folder in the real format, what is asked for where a model is missing, and the frequent tokens."""

import jax
import pytest

from broadsheet.errors import MissingDataError
from broadsheet.language.architectures import Sizes, new_model
from broadsheet.language.tiny_world import WORDS, tokenizer
from broadsheet.papers.feature_neurons import paper
from quiet import Quiet


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A base model and another with a chat template, as the Hub has them."""
    made = []
    for k, name in enumerate(("base", "instruct")):
        folder = tmp_path_factory.mktemp(name)
        new_model("llama", Sizes(words=len(WORDS), width=16, blocks=2, mlp=24), seed=k).bfloat16().save_pretrained(folder)
        words = tokenizer()
        words.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %} assistant :"
        words.save_pretrained(folder)
        made.append(str(folder))
    return made


SETTINGS = {
    "clamping": {"prompt": "the city of city_3 is in", "concept": "city_object_2", "controls": 2},
    "concept_search": {"words": ("city_object_2", "animal_object_1"), "texts": ("the city of city_3 is in",), "draws": 2},
    "steered_generation": {
        "question": "tell me about city_1 ?",
        "concept": "city_object_2",
        "tokens": 3,
        "samples": 2,
        "draws": 1,
    },
    "neuron_map": {},
    "base_vs_instruct": {},
}


@pytest.mark.parametrize("name", list(SETTINGS))
def test_the_papers_size_runs_on_a_folder_in_the_real_format(name, folders):
    experiment = paper.experiments[name]
    given = SETTINGS[name] | {"model": folders[1]} | ({"base": folders[0]} if name == "base_vs_instruct" else {})
    report = experiment.function(experiment.configure("paper", overrides=given), jax.random.key(0), Quiet())
    judged = [claim for claim in experiment.claims if claim.judged_at("paper")]
    for claim in judged:
        for arm, metrics in claim.needs().items():
            assert metrics <= set(report.arms[arm])
    assert {"base_vs_instruct": ["N8"], "steered_generation": ["N8b"]}.get(name, []) == [claim.id for claim in judged]


def test_a_model_that_is_not_there_is_asked_for_by_name(tmp_path):
    experiment = paper.experiments["steered_generation"]
    config = experiment.configure("paper", overrides={"model": str(tmp_path / "none")})
    with pytest.raises(MissingDataError, match=r"none: there is no such folder.*gated; others: --set model=HuggingFaceTB"):
        experiment.function(config, jax.random.key(0), Quiet())
    assert experiment.configure("paper").model == "meta-llama/Llama-3.1-8B-Instruct"
