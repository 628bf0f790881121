"""The partition of a step's answers by a classifier of pairs: all at once, pair by pair, and beside their generation."""

import numpy as np

from harness import Comparison

PROMPTS = ANSWERS = 8
SIDE = 128
"""Tokens of an answer that the classifier reads, as the authors' first one does."""


def inputs(case):
    """Answers of a step: letters at random, of which the share `twice` repeats another answer to the same prompt."""
    rng, letters = np.random.default_rng(0), list("abcdefghij klmno pqrst uvwxyz")
    texts = []
    for _ in range(PROMPTS):
        group = ["".join(rng.choice(letters, case["tokens"])) for _ in range(ANSWERS)]
        for k in range(round(case["twice"] * ANSWERS)):
            group[ANSWERS - 1 - k] = group[0]
        texts.append(group)
    return {"texts": np.array(texts)}


def step(tokens, classifier, twice=0.0):
    """A generator of width 256 with 6 blocks, a classifier of (width, blocks)."""
    return {"tokens": tokens, "width": classifier[0], "blocks": classifier[1], "twice": twice}


comparison = Comparison(
    "A step's answers put into classes: 8 prompts with 8 answers each",
    {
        "128 tokens, a classifier of 1/20": step(128, (96, 2)),
        "128 tokens, a classifier of 1/20, half the answers alike": step(128, (96, 2), 0.5),
        "128 tokens, a classifier as large as the generator": step(128, (256, 6)),
    },
    inputs,
    text="The generation is the work of the model that is trained: 64 answers by Transformers' `generate`, a Llama of width 256 with "
    "6 blocks. The classifier is a BERT that reads 128 tokens of each answer and calls no two texts the same, so that all pairs "
    "have to be judged; where it does, fewer are. *Pair by pair* asks it of one pair a call, every pair, as the official code asks "
    "its servers. One thread, random weights. A classifier reads 28 pairs of answers, 7 times the tokens that the generator writes "
    "for 8: one of the generator's own size costs more than the generation.",
    agree={"classes": 1e-12},
    turns=3,
)  # fmt: skip


def classifier(case):
    import torch

    from broadsheet.language.diversity.classifier import ClassifierPartitioner, pair_classifier, pair_tokenizer

    torch.set_num_threads(1)
    words = pair_tokenizer()
    model = pair_classifier(words, 0, width=case["width"], blocks=case["blocks"], positions=2 * SIDE + 8)
    return ClassifierPartitioner(model, words, 1.0, side=SIDE)


@comparison.side("broadsheet", packages=("torch", "transformers"))
def ours(case, arrays):
    partitioner, groups = classifier(case), arrays["texts"].tolist()
    return lambda: {"classes": np.mean([len(set(ids)) for ids in partitioner.partition_groups(groups)])}


@comparison.side("pair by pair", packages=("torch", "transformers"))
def one_by_one(case, arrays):
    from itertools import combinations

    from broadsheet.language.diversity.partitions import closed

    partitioner, groups = classifier(case), arrays["texts"].tolist()

    def run():
        counts = []
        for group in groups:
            pairs = combinations(range(ANSWERS), 2)
            same = [(i, j) for i, j in pairs if group[i] == group[j] or partitioner.same([(group[i], group[j])])[0]]
            counts.append(len(set(closed(ANSWERS, same))))
        return {"classes": np.mean(counts)}

    return run


@comparison.side("the generation that is judged", packages=("torch", "transformers"))
def generation(case, arrays):
    import torch

    from broadsheet.language.characters import character_model, character_tokenizer
    from broadsheet.language.post_training.sampling import answers

    torch.set_num_threads(1)
    words, model = character_tokenizer(), character_model(0, width=256, blocks=6, positions=512).eval()
    model.generation_config.eos_token_id = None
    words.add_special_tokens({"eos_token": "<|system|>"})  # an end that is not drawn soon
    torch.nn.init.constant_(model.lm_head.weight[words.eos_token_id], 0.0)

    def run():
        made = answers(
            model, words, [f"prompt {k}" for k in range(PROMPTS)], samples=ANSWERS, temperature=1.0, tokens=case["tokens"]
        )
        return {"letters": sum(len(text) for group in made for text in group)}

    return run
