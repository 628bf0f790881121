"""What the official reward functions of arXiv 2509.02534 give on 1000 groups of strings, for tests/references/diversity.npz.

    python bench/references_diversity.py FOLDER

FOLDER is `verl/verl` of github.com/facebookresearch/darling (MIT). Needs torch, httpx and transformers. Its functions run
unchanged: the partition and that of correct answers, with the classifier behind HTTP replaced by the overlap of words; the
n-grams; and from the trainer's `fit` the statements that fuse quality with diversity, each setting in turn.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import importlib.util
import io
import os
import random
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

TARGET = Path(__file__).parent.parent / "tests" / "references" / "diversity.npz"
WORDS = [
    "the",
    "cat",
    "dog",
    "sat",
    "on",
    "a",
    "mat",
    "red",
    "Red",
    "blue",
    "big",
    "small",
    "3",
    "+",
    "4",
    "=",
    "7",
    "ÄPFEL",
    "äpfel",
    "the",
    "the",
]
GROUPS = 1000


def groups() -> list[list[str]]:
    """Groups of 2 to 8 answers, short and long, with repetitions, other cases, spaces, and empty ones."""
    rng, found = random.Random(0), []
    for _ in range(GROUPS):
        short = rng.random() < 0.5
        pool = rng.sample(WORDS, rng.randint(3, 8))
        group: list[str] = []
        for _ in range(rng.randint(2, 8)):
            kind = rng.random()
            if group and kind < 0.15:
                group.append(rng.choice(group))
            elif group and kind < 0.25:
                group.append(f" {rng.choice(group).upper()}\n")
            elif kind < 0.28:
                group.append("")
            else:
                group.append(" ".join(rng.choice(pool) for _ in range(rng.randint(1, 5) if short else rng.randint(4, 12))))
        found.append(group)
    return found


def overlap(one: str, other: str) -> float:
    """Distinct words in common over all; the probability that the classifier's place is given."""
    first, second = set(one.split()), set(other.split())
    return len(first & second) / max(1, len(first | second))


def module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


class Fusion:
    """The trainer's own statements: `normalize_rewards_by_uid`, and the branch of `fit` that combines two rewards."""

    def __init__(self, path: Path) -> None:
        import torch

        tree = ast.parse(path.read_text())
        functions = [
            node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "normalize_rewards_by_uid"
        ]
        conditions = [node for node in ast.walk(tree) if isinstance(node, ast.If)]
        branch = [node for node in conditions if "lambda_rule_rescale != 0.0" in ast.unparse(node.test)]
        assert len(functions) == len(branch) == 1
        self.names: dict[str, Any] = {"np": np, "torch": torch}
        exec(compile(ast.Module(functions, []), str(path), "exec"), self.names)
        self.code = compile(ast.Module(branch, []), str(path), "exec")

    def __call__(
        self, quality: np.ndarray, div: np.ndarray, uid: np.ndarray, length: int, weights: tuple[float, float], **options: bool
    ) -> np.ndarray:
        """Sum over tokens of the fused reward; both rewards stand at the last of `length` tokens."""
        import torch

        def at_the_end(values: np.ndarray) -> Any:
            made = torch.zeros(len(values), length)
            made[:, -1] = torch.tensor(values, dtype=torch.float32)
            return made

        model = {"reward_manager": "diversity", **options}
        config = SimpleNamespace(reward_model=_Options(model))
        names = self.names | {
            "self": SimpleNamespace(config=config), "lambda_rule_rescale": weights[1], "lambda_rm_rescale": weights[0],
            "reward_tensor_rm": at_the_end(quality), "reward_tensor_rule": at_the_end(div), "metrics": {},
            "batch": SimpleNamespace(non_tensor_batch={"uid": uid}),
        }  # fmt: skip
        exec(self.code, names)
        return np.array(names["reward_tensor"], np.float64).reshape(len(quality), -1).sum(1)


class _Options(dict[str, Any]):
    """A configuration that is read by key and by attribute."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


def main(folder: str) -> None:
    os.environ["VLLM_SERVER_HOSTNAME"] = "none"
    official = module(Path(folder) / "utils" / "reward_score" / "partition_reward_vllm_serve.py")
    wording = module(Path(folder) / "utils" / "reward_score" / "diversity_rewards.py")
    fused = Fusion(Path(folder) / "trainer" / "ppo" / "ray_trainer.py")

    async def judged(one: str, other: str, server: object) -> float:
        await asyncio.sleep(0)
        return overlap(one, other)

    official.remote_similarity_prob = judged
    made = groups()
    texts = [text for group in made for text in group]
    uid = [f"{k}" for k, group in enumerate(made) for _ in group]
    rng = np.random.default_rng(1)
    correct = rng.random(len(texts)) < 0.6
    quality = rng.normal(0.3, 1, len(texts)).astype(np.float32)
    quality[:100] = 0.5  # groups in which all are alike
    given = {"solution_str": texts, "uid": uid, "prompts": [""] * len(texts)}
    div = np.array(official.partition(**given))
    with contextlib.redirect_stdout(io.StringIO()):
        grams = {f"ngram{n}": np.array(wording.ngram(**given, n=n)) for n in (2, 4)}
    ids = np.array(uid)

    def combined(length: int = 1, weights: tuple[float, float] = (1.0, 1.0), **options: bool) -> np.ndarray:
        return fused(quality, div, ids, length, weights, **options)

    np.savez_compressed(
        TARGET,
        texts=np.array(texts), group=np.array([int(k) for k in uid], np.int16), correct=correct, quality=quality,
        partition=div, partition_correct=np.array(official.partition_correct(**given, correctness=correct.tolist())),
        **grams,
        multiply=combined(multiplicative=True), multiply_bias=combined(multiplicative=True, add_bias=True),
        multiply_bias_of_7_tokens=combined(7, multiplicative=True, add_bias=True),
        add=combined(weights=(0.5, 2.0)), zscore_asked_for=combined(normalize_reward_before_combine=True),
        z_quality=fused.names["normalize_rewards_by_uid"](quality, ids), z_div=fused.names["normalize_rewards_by_uid"](div, ids),
    )  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1])
