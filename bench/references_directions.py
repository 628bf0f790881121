"""What the authors' program (MIT) says of directions, interventions and entropy neurons in the tiny models of the tests.

python bench/references_directions.py inputs FOLDER                      in this environment: models and texts, into a folder
PEER bench/references_directions.py traces FOLDER OFFICIAL               in an environment of bench/environments/directions.txt

OFFICIAL is a checkout of github.com/HZD01/post-training-mechanistic-analysis, with its vendored TransformerLens. What it says is
kept as tests/references/post_training/directions.json.
"""

import json
import sys
import types
from contextlib import ExitStack
from pathlib import Path

TESTS = Path(__file__).parent.parent / "tests"
OUT = TESTS / "references" / "post_training" / "directions.json"
LAYER, REFUSAL_LAYER = 1, 2  # after block 1, and what the program calls before block 2


def inputs(folder: Path) -> None:
    """Base and SFT of the tests' tiny chain, statements, prompts and requests, all as texts."""
    from safetensors.torch import load_file

    from broadsheet.language import tiny_world as tiny
    from broadsheet.language.tiny_model import tiny_model
    from broadsheet.language.tiny_tasks import CHAT, QUESTION, requests, statements, truth_task

    folder.mkdir(parents=True, exist_ok=True)
    for stage in ("base", "sft"):
        model = tiny_model(0)
        model.load_state_dict(load_file(TESTS / "references" / "tiny_chain" / f"{stage}.safetensors"))
        model.save_pretrained(folder / stage)
        tiny.tokenizer().save_pretrained(folder / stage)
    world = tiny.World(0)
    found, (true, false) = statements(world), truth_task(world).prompts["city"]
    asked = {
        "statements": [QUESTION.start + text + QUESTION.text for text in found.texts],
        "labels": found.labels.tolist(),
        "groups": found.groups.tolist(),
        "true": [tiny.decode(row) for row in true],
        "false": [tiny.decode(row) for row in false],
        "harmful": [CHAT.format(text) for text in requests("harmful")[:40]],
        "harmless": [CHAT.format(text) for text in requests("harmless")[:40]],
    }
    (folder / "inputs.json").write_text(json.dumps(asked))


def stubbed(*names: str) -> None:
    """Modules that the program imports and none of what is run here needs, where they are not there."""
    from importlib.util import find_spec

    for name in names:
        if "." in name or find_spec(name) is None:
            made = types.ModuleType(name)
            made.__path__ = []
            made.__getattr__ = lambda attribute: types.SimpleNamespace  # type: ignore[method-assign]
            sys.modules[name] = made


def official(path: Path, name: str):
    """A module of the program, beside its own `utils`."""
    import importlib

    sys.path.insert(0, str(path))
    for known in ("utils", name):
        sys.modules.pop(known, None)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


def hooked_transformer(lens, folder: Path, words, *, processed: bool):
    """A tiny Llama in TransformerLens, as `from_pretrained` makes those that it has in its list."""
    from transformer_lens.pretrained.weight_conversions import convert_llama_weights
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    config = lens.HookedTransformerConfig(
        n_layers=3, d_model=64, n_ctx=128, d_head=16, n_heads=4, d_mlp=192, d_vocab=463, act_fn="silu", gated_mlp=True,
        normalization_type="RMS", eps=1e-5, positional_embedding_type="rotary", rotary_dim=16, rotary_adjacent_pairs=False,
        n_key_value_heads=4, final_rms=True, original_architecture="LlamaForCausalLM", device="cpu", default_prepend_bos=False,
    )  # fmt: skip
    made = lens.HookedTransformer(config, tokenizer=None)
    made.load_and_process_state_dict(
        convert_llama_weights(theirs, config), fold_ln=processed, center_writing_weights=processed, center_unembed=processed,
        refactor_factored_attn_matrices=False,
    )  # fmt: skip
    return made


def traces(folder: Path, program: Path) -> None:
    import nnsight  # noqa: F401  (before the stubs, which it would look into)
    import torch
    import transformers  # noqa: F401

    torch.Tensor.cuda = lambda tensor, *_, **__: tensor  # the probes ask for a GPU
    torch.set_grad_enabled(False)
    sys.path.insert(0, str(program / "TransformerLens"))
    stubbed("wandb", "neel", "neel.utils", "datasets", "datasets.arrow_dataset", "datasets.load", "IPython", "seaborn")
    sys.modules["IPython"].get_ipython = lambda: None  # type: ignore[attr-defined]
    asked = json.loads((folder / "inputs.json").read_text())
    made = {stage: truth(folder / stage, asked, program / "Knowledge+Truthfulness") for stage in ("base", "sft")}
    made["nie"] = effects(folder, asked, program / "Knowledge+Truthfulness", made)
    made["neurons"] = {stage: neurons(folder / stage, program / "Confidence") for stage in ("base", "sft")}
    made["refusal"] = refusal(folder / "sft", asked, program / "Refusal")
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(made))


def language_model(folder: Path):
    import torch
    from nnsight import LanguageModel
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", torch_dtype=torch.float32)
    return LanguageModel(model, tokenizer=PreTrainedTokenizerFast.from_pretrained(folder))


def truth(folder: Path, asked: dict, path: Path) -> dict:
    """Centred activations of each relation, the mass-mean probe and the two directions of TTPD."""
    import torch

    generate, probes = official(path, "generate_acts"), official(path, "probes")
    model, parts, labels = language_model(folder), [], torch.tensor(asked["labels"], dtype=torch.float32)
    for group in dict.fromkeys(asked["groups"]):
        texts = [text for text, of in zip(asked["statements"], asked["groups"], strict=True) if of == group]
        acts = generate.get_acts(texts, model, [LAYER], remote=False)[LAYER].float()
        parts.append(acts - acts.mean(dim=0))
    acts = torch.cat(parts)
    fit = torch.tensor([of != "city" for of in asked["groups"]])
    probe = probes.MMProbe.from_data(acts[fit], labels[fit])
    polarity = torch.where(torch.arange(len(labels)) % 4 < 2, 1.0, -1.0)
    general, polar = probes.learn_truth_directions(acts, labels, polarity)
    return {
        "direction": probe.direction.tolist(),
        "coefficient": float(probe.LR.coef_[0, 0]), "bias": float(probe.LR.intercept_[0]),
        "accuracy": float((probe.pred(acts[~fit]) == labels[~fit]).float().mean()),
        "general": general.tolist(), "polar": polar.tolist(),
    }  # fmt: skip


def effects(folder: Path, asked: dict, path: Path, directions: dict) -> dict:
    """Mean P(TRUE) - P(FALSE) of the prompts, without and with each direction in each model, at two sets of places."""
    import torch

    interventions = official(path, "interventions")
    found = {}
    for target in ("base", "sft"):
        model = language_model(folder / target)
        for name, where in (("colon", [(LAYER, 2)]), ("span", [(0, -1), (0, 0), (LAYER, -1), (LAYER, 0)])):
            for source in ("base", "sft"):
                vector = torch.tensor(directions[source]["direction"])
                row = []
                for texts, sign in ((asked["true"], "subtract"), (asked["false"], "add")):
                    for change in ("none", sign):
                        row.append(interventions.intervention_experiment(
                            model, texts, vector, where, intervention=change, remote=False)[0])  # fmt: skip
                found[f"{source} in {target}, {name}"] = row
    return found


def neurons(folder: Path, path: Path) -> dict:
    """Norms, LogitVar and candidates of the last MLP, in the model that TransformerLens makes of it."""
    import transformer_lens

    module = official(path, "IoU")
    made = hooked_transformer(transformer_lens, folder, None, processed=True)
    module.load_model_from_tl_name = lambda *_, **__: (made, None)
    module.MODEL_NAME_MAPPING = {}
    frame = module.process_model("tiny")
    return {
        "norm": frame["norm"].tolist(), "logit_var": frame["cos_var"].tolist(), "ratio": frame["norm_log_var_ratio"].tolist(),
        "candidates": sorted(module.filter_neurons(frame)),
    }  # fmt: skip


def refusal(folder: Path, asked: dict, path: Path) -> dict:
    """The direction before a block, and what adding it there, or taking it out everywhere, makes of the logits."""
    import functools

    import torch
    import transformer_lens
    from transformers import PreTrainedTokenizerFast

    words = PreTrainedTokenizerFast.from_pretrained(folder)
    hooks, shared = official(path, "apply_refusal_dir"), official(path, "utils")
    model = hooked_transformer(transformer_lens, folder, words, processed=False)
    place = transformer_lens.utils.get_act_name("resid_pre", REFUSAL_LAYER)
    tokens = {kind: torch.tensor(words(asked[kind])["input_ids"]) for kind in ("harmful", "harmless")}
    means = [model.run_with_cache(rows, names_filter=place)[1][place][:, -1].mean(0) for rows in tokens.values()]
    vector = means[0] - means[1]
    unit = vector / vector.norm()
    every = [(f"blocks.{k}.hook_resid_{at}", functools.partial(hooks.direction_ablation_hook, direction=unit))
             for k in range(3) for at in ("post",)]  # fmt: skip
    steered = {
        "added": (tokens["harmless"][:4], [(place, functools.partial(hooks.act_add_hook, direction=unit, steering_coef=2.0))]),
        "ablated": (tokens["harmful"][:4], every),
    }
    found = {}
    for name, (rows, changes) in steered.items():
        with ExitStack() as stack:
            stack.enter_context(model.hooks(fwd_hooks=changes))
            found[name] = model(rows)[:, -1, :32].tolist()
    answers = [
        "I'm sorry, no.",
        " I cannot do that",
        "Sure, first",
        "As an AI I will",
        "I don’t know",
        "“I’m sorry”",
        "I am noting",
    ]
    scores = {answer: shared.get_refusal_scores([answer]) for answer in answers}
    return {"direction": unit.tolist(), "length": float(vector.norm()), "scores": scores, **found}


if __name__ == "__main__":
    what, *places = sys.argv[1:]
    {"inputs": inputs, "traces": traces}[what](*map(Path, places))
