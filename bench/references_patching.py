"""Traces of the official code of arXiv 2504.02904 on two stages of the tiny chain, for the tests of patching.

    python bench/references_patching.py FOLDER

FOLDER is `Knowledge+Truthfulness` of github.com/HZD01/post-training-mechanistic-analysis (MIT). Its functions run unchanged, in an
environment with torch 2.13.0, nnsight 0.4.11 and transformers 4.48.3, on the models that the tests ship; what names models
and reads prompts is replaced. Written is tests/references/patching/official.json.
"""

import json
import os
import sys
import tempfile
import types
from argparse import Namespace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))  # of the package only the tiny world is imported, which needs NumPy alone
QUESTION = " this statement is :"
EXAMPLES = (
    ("the city of city_0 is in city_object_{0} .", True), ("the city of city_1 is in city_object_{1} .", True),
    ("the city of city_0 is in city_object_{2} .", False), ("the city of city_1 is in city_object_{3} .", False),
)  # fmt: skip
COLUMNS = 12
PAIRS = ((5, 9), (17, 2), (11, 20))


def prompts(asked: bool) -> tuple[list, list]:
    """(false, true) prompts, the examples in another order in each pair."""
    from broadsheet.language import tiny_world

    of = tiny_world.World(0).objects["city"]
    rng = np.random.default_rng(3)
    labelled = [text.format(of[0], of[1], (of[0] + 1) % 6, (of[1] + 2) % 6) for text, _ in EXAMPLES]
    false, true = [], []
    for a, b in PAIRS:
        order = [k for k in rng.permutation(4) if asked or EXAMPLES[k][1]]
        start = "<bos> " + "".join(
            f"{labelled[k]}{f'{QUESTION} TRUE' if EXAMPLES[k][1] else f'{QUESTION} FALSE'} " if asked else f"{labelled[k]} "
            for k in order
        )
        for made, subject in ((true, a), (false, b)):
            end = f" city_object_{of[a]} .{QUESTION}" if asked else ""
            text = f"{start}the city of city_{subject} is in{end}"
            made.append(text if asked else [text, ""])
    return false, true


def model(stage: str):
    """A stage of the tiny chain, as nnsight takes it."""
    from nnsight import LanguageModel
    from safetensors.torch import load_file
    from transformers import LlamaConfig, LlamaForCausalLM

    from broadsheet.language import tiny_world

    tokenizer = tiny_world.tokenizer()
    config = LlamaConfig(
        vocab_size=len(tiny_world.WORDS), hidden_size=64, intermediate_size=192, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=128, rms_norm_eps=1e-5, attn_implementation="eager",
    )  # fmt: skip
    made = LlamaForCausalLM(config)
    made.load_state_dict(load_file(ROOT / "tests" / "references" / "tiny_chain" / f"{stage}.safetensors"))
    return LanguageModel(made.eval(), tokenizer=tokenizer)


def main() -> None:
    folder = Path(sys.argv[1]).absolute()
    sys.path.insert(0, str(folder))
    for name in ("plotly", "plotly.express", "plotly.io"):  # its figures are not drawn
        sys.modules[name] = types.ModuleType(name)
    sys.modules["plotly.io"].kaleido = Namespace(scope=Namespace(mathjax=None))
    os.chdir(tempfile.mkdtemp())
    os.mkdir("experimental_outputs")
    import patching_visualize

    import patching

    patching.args = Namespace(dataset="cities")
    patching.load_model = lambda name, device: model(name)
    patching.load_data = lambda name, dataset, classes, asked: prompts(asked)
    patching.find_dataset_tokens = lambda name, dataset, classes, asked: range(COLUMNS if asked else 6)
    found = {}
    for asked in (True, False):
        patching.patching_one_model("base", "cities", "cpu", "true_false", asked)
        patching.patching_two_models(["base", "sft"], "cities", "cpu", "true_false", asked)
        file = "experimental_outputs/patching_results" + ("" if asked else "_no_question") + ".json"
        for key, rows in json.loads(Path(file).read_text()).items():
            name = ("within" if key.startswith("base_cities") else "across") + ("" if asked else "_no_question")
            maps = [np.array(row["logit_diffs"])[::-1].T.tolist() for row in rows]  # (layers, tokens), the first token first
            found[name] = {
                "true": [row["true_prompt"] for row in rows], "false": [row["false_prompt"] for row in rows], "maps": maps,
                "normalised": patching_visualize.normalize(np.mean(maps, 0), "true_false").tolist(),
            }  # fmt: skip
    out = ROOT / "tests" / "references" / "patching" / "official.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
