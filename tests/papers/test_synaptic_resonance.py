import jax
import pytest

from broadsheet.errors import MissingDataError
from broadsheet.language.architectures import Sizes, new_model
from broadsheet.language.prose import learn_tokenizer
from broadsheet.papers.synaptic_resonance import Prose, paper
from quiet import Quiet


def test_a_model_of_the_hub_and_wikitext_go_the_same_way(tmp_path):
    """A folder as `from_pretrained` has it and WikiText as its archive has it, in place of Pythia and WikiText-103."""
    text = " = A page = \n" + "".join(
        f" The {word} of the town was built in 19{k:02d} . \n" for k, word in enumerate(["hall", "mill"] * 40)
    )
    for part in ("train", "test"):
        (tmp_path / f"wiki.{part}.raw").write_text(text)
    words = learn_tokenizer(text.splitlines(), 300)
    new_model("gpt_neox", Sizes(words=300, width=16, blocks=2, heads=2, positions=32)).save_pretrained(tmp_path / "model")
    words.save_pretrained(tmp_path / "model")
    config = Prose(str(tmp_path / "model"), str(tmp_path), characters=5000, length=32, window=8, steps=2, batch=2)
    report = paper.experiments["perplexity"].function(config, jax.random.key(0), Quiet())
    arms = report.scalars()
    assert set(arms) == {
        "system", "kappa-0", "shuffled", "no-memory", "linear-attention", "delta-rule", "longer-window",
    }  # fmt: skip
    assert arms["system"]["parameters"] > arms["no-memory"]["parameters"] == arms["longer-window"]["parameters"]
    assert report.arrays["rho"].shape == (1, 2, 32)


def test_the_papers_size_says_what_it_needs():
    experiment = paper.experiments["perplexity"]
    with pytest.raises(MissingDataError, match="WikiText-103"):
        experiment.function(experiment.configure("paper"), jax.random.key(0), Quiet())
