"""A slice of an 8B model's up-projection, named by the unembedding: how long the whole one takes, with two threads."""

import time

from harness import Comparison

WHOLE = 32 * 14_336
"""Neurons of Llama 3.1 8B."""

comparison = Comparison(
    "Naming 1024 neurons of an 8B model (width 4096, 128 256 tokens)",
    {"1024 neurons": {"neurons": 1024, "width": 4096, "words": 128_256}},
    text="Random weights in bfloat16, two threads; both ends of each neuron's scores, 10 tokens each. *Minutes* are those of the whole "
    "up-projection of 32 x 14 336 neurons at this speed, by processor time shared between two cores, so that a busy machine counts "
    "less. Ours adds the mean and deviation of all scores, and proves each name against rounding. *Whole product* is one "
    "product in float32, 128 neurons at a time, and `topk`.",
    agree={"mean": 1e-4, "largest": 1e-4},
    shown={"minutes": "minutes for all neurons"},
    turns=2,
)  # fmt: skip


def weights(case):
    """(unembedding, rows) in bfloat16."""
    import torch

    torch.set_num_threads(2)
    dice = torch.Generator().manual_seed(0)
    words = torch.empty(case["words"], case["width"], dtype=torch.bfloat16)
    for start in range(0, case["words"], 8192):
        words[start : start + 8192] = 0.02 * torch.randn(words[start : start + 8192].shape, generator=dice)
    return words, (0.015 * torch.randn(case["neurons"], case["width"], generator=dice)).bfloat16()


def timed(case, compute):
    def run():
        start = time.process_time()
        high, low = compute()
        minutes = (time.process_time() - start) / 2 * WHOLE / case["neurons"] / 60
        return {"mean": float(high.mean() - low.mean()), "largest": float(high.max()), "minutes": minutes}

    return run


@comparison.side("broadsheet", packages=("torch",))
def ours(case, given):
    import torch

    from broadsheet.language.token_directions import TokenDirections

    words, rows = weights(case)
    directions = TokenDirections(words, None, coarse=True)
    directions.moments(directions.readers(rows[:2]))  # the covariance of the directions, once a model

    def compute():
        high, low = [], []
        for start in range(0, case["neurons"], 512):
            readers = directions.readers(rows[start : start + 512])
            directions.moments(readers)
            (best, _), (least, _) = directions.top(readers, 10, (1, -1))
            high.append(best)
            low.append(least)
        return torch.cat(high), torch.cat(low)

    return timed(case, compute)


@comparison.side("whole product in float32", packages=("torch",))
def whole(case, given):
    import torch

    words, rows = weights(case)
    words = words.float()

    def compute():
        high, low = [], []
        for start in range(0, case["neurons"], 128):
            scores = rows[start : start + 128].float() @ words.T
            high.append(scores.topk(10, dim=1).values)
            low.append(scores.topk(10, dim=1, largest=False).values)
        return torch.cat(high), torch.cat(low)

    return timed(case, compute)
