"""Recall beyond the window at equal parameters: small models that are trained alike, then timed."""

import numpy as np

from harness import Comparison

STEPS, BATCH, RATE, WINDOW, SEED = 150, 32, 5e-3, 8, 0

comparison = Comparison(
    "Recall of four pairs over 24 fillers, about 41 000 parameters",
    {"a pass over 64 texts": {"rows": 64, "distance": 24}},
    text="Each model was trained for 150 steps of 32 texts, in the set-up, on one thread; what is timed is a pass. A window of "
    "attention sees 8 tokens where it is not longer. Mamba is Transformers' without its CUDA kernels.",
    shown={"recall": "recalled", "parameters": "parameters", "state": "state (numbers)"},
)


def _trained(case, make, window=WINDOW, state=None):
    import torch

    from broadsheet.language.architectures import Sizes
    from broadsheet.language.memory_models import parameters, state_numbers, train
    from broadsheet.language.memory_tasks import RecallTask, recall_accuracy

    torch.set_num_threads(1)
    task = RecallTask()
    model = make(Sizes(words=task.words, width=32, blocks=2, heads=2))
    rng = np.random.default_rng(SEED)
    train(model, (task.draw(rng, BATCH, case["distance"]) for _ in range(STEPS)), rate=RATE)
    found = {
        "recall": recall_accuracy(model, *task.draw(np.random.default_rng(SEED + 1), 512, case["distance"])),
        "parameters": parameters(model),
        "state": state_numbers(model, window) if state is None else state,
    }
    ids, _ = task.draw(np.random.default_rng(SEED + 2), case["rows"], case["distance"])

    def run():
        with torch.no_grad():
            model(input_ids=ids)
        return found

    return run


def _kind(case, kind, window=WINDOW):
    from broadsheet.language.memory_models import memory_model

    return _trained(case, lambda sizes: memory_model(kind, sizes, WINDOW, seed=SEED), window)


@comparison.side("broadsheet", packages=("torch", "transformers"))
def resonance(case, given):
    return _kind(case, "resonance")


@comparison.side("without resonance", packages=("torch",))
def plain(case, given):
    return _kind(case, "kappa-0")


@comparison.side("delta rule", packages=("torch",))
def delta(case, given):
    return _kind(case, "delta-rule")


@comparison.side("linear attention", packages=("torch",))
def linear(case, given):
    return _kind(case, "linear-attention")


@comparison.side("window of 16", packages=("transformers",))
def longer(case, given):
    return _kind(case, "longer-window", 16)


@comparison.side("window over all", packages=("transformers",))
def whole(case, given):
    from broadsheet.language.memory_models import memory_model

    tokens = case["distance"] + 10
    return _trained(case, lambda sizes: memory_model("no-memory", sizes, tokens, seed=SEED), tokens)


@comparison.side("LSTM", packages=("torch",))
def lstm(case, given):
    return _kind(case, "lstm")


@comparison.side("Mamba", packages=("transformers",))
def mamba(case, given):
    from broadsheet.language.architectures import new_model

    width, blocks, inner, kept, taps = 32, 2, 128, 16, 4
    return _trained(
        case,
        lambda sizes: new_model(
            "mamba",
            sizes.__class__(words=sizes.words, width=width, blocks=blocks, mlp=inner),
            seed=SEED,
            state_size=kept,
            use_cache=False,
        ),
        state=blocks * inner * (kept + taps),
    )
