"""What the official code of Visual Jigsaw gives, for tests/references/jigsaw/.

    python bench/references_jigsaw.py FOLDER_OF_THE_OFFICIAL_CODE

Needs math-verify, mathruler and Pillow. The reward is called as it is, on 1000 generated texts; the data set is called as it is as
well, with its tokenizer and the packages that it imports replaced by empty ones, since pictures and answers need none of them.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
import tempfile
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
from PIL import Image

TARGET = Path(__file__).parent.parent / "tests" / "references" / "jigsaw"
EMPTY = (
    "datasets", "decord", "omegaconf", "qwen_vl_utils", "qwen_vl_utils.vision_process", "torch", "torch.utils", "torch.utils.data",
    "torchvision", "torchvision.transforms", "transformers", "verl.utils.torch_functional", "verl.utils.model",
)  # fmt: skip
LONG = "the tile with the tree is the first one here"
SCRAPS = (
    "<think>", "</think>", "<answer>", "</answer>", "\\boxed{", "\\boxed", "{", "}", ",", ", ", " ", "\n", "\t", "1", "2", "3", "-1", "+2",
    "1_0", "٣", "３", "，", "²", "0", "007", "9" * 30, "1.0", "one", "\x00", "\u200b", "\xa0", "None", "True", "<THINK>", LONG + "\n", "(", "[1, 2]",
)  # fmt: skip


def texts(rng: random.Random) -> list[tuple[str, list[int]]]:
    """Texts and targets: four in five nearly in the right form, with an answer that is right, a permutation, or broken in one of
    many ways; the others made of scraps."""
    made = []
    for _ in range(1000):
        pieces = rng.choice([2, 3, 4, 5, 6, 9])
        target = rng.sample(range(1, pieces + 1), pieces)
        if rng.random() < 0.2:
            made.append(("".join(rng.choice(SCRAPS) for _ in range(rng.randint(0, 25))), target))
            continue
        answer = list(target) if rng.random() < 0.3 else rng.sample(range(1, pieces + 1), pieces)
        broken = rng.random()
        if broken < 0.1:
            answer[rng.randrange(pieces)] = rng.choice([0, -1, 100, answer[0]])
        elif broken < 0.2:
            answer += [answer[rng.randrange(pieces)] for _ in range(rng.randint(1, 3))]
        elif broken < 0.25:
            answer.pop()
        said = rng.choice([",", ", ", " , ", ",\n", ",,", "，", ";", "\xa0,"] + [", "] * 16).join(map(str, answer))
        if rng.random() < 0.2:
            at = rng.randrange(len(said) + 1)
            said = said[:at] + rng.choice(SCRAPS) + said[at:]
        thought = rng.choice(["", "hm", "</think>", "\\boxed{1, 2}", "<think>", "\n".join([LONG] * rng.randint(1, 6))])
        before, after = (rng.choice([""] * 15 + ["\n", " ", rng.choice(SCRAPS)]) for _ in range(2))
        box = (
            rng.choice(["\\boxed{%s}"] * 12 + ["\\boxed{%s", "\\boxed{{%s}}", "<answer>%s</answer>", "\\boxed{1}\\boxed{%s}"])
            % said
        )
        made.append((f"{before}<think>{thought}</think>{rng.choice(['', ' ', '<answer>'])}{box}{after}", target))
    return made


def rewards(module: object) -> list[dict[str, object]]:
    found = []
    for text, target in texts(random.Random(0)):
        score = module.compute_score(text, target)
        found.append({"text": text, "target": target, "total": score["score"], "accuracy": score["acc_reward"],
                      "format": score["format_reward"], "exact": score["acc"]})  # fmt: skip
    return found


def picture(width: int, height: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def entry(module: object, folder: Path, source: str, info: dict[str, object], seed: int) -> dict[str, object]:
    """What the official data set makes of one picture."""
    data = object.__new__(module.RLHFDataset)
    data.__dict__.update(prompt_key="prompt", image_key="images", video_key="videos", multimodal_folder=folder, processor=None)
    data.__dict__.update(tokenizer=MagicMock(), max_prompt_length=10, truncation="error", return_raw_chat=False)
    data.__dict__.update(return_full_prompt=False, need_tools_kwargs=False)
    data.tokenizer.encode.return_value = []
    data.dataframe = [{"data_source": source, "prompt": [], "images": [info], "reward_model": {}}]
    random.seed(seed)
    return data[0]


def puzzles(module: object, folder: Path) -> list[dict[str, object]]:
    """Tiles (as checksums) and answers of the official data set."""
    found = []
    for seed, (width, height, grid) in enumerate(
        [(99, 90, (3, 3)), (100, 92, (3, 3)), (101, 85, (2, 4)), (84, 28, (1, 3)), (97, 97, (2, 2))]
    ):
        Image.fromarray(picture(width, height, seed)).save(folder / "picture.png")
        info = {"path": "picture.png", "jigsaw_config": list(grid)}
        made = entry(module, folder, "image_jigsaw", info, seed)
        sums = [hashlib.sha256(np.asarray(tile).tobytes()).hexdigest()[:16] for tile in made["images"]]
        found.append({"width": width, "height": height, "seed": seed, "grid": grid, "tiles": sums,
                      "target": made["reward_model"]["ground_truth"]})  # fmt: skip
    return found


def depth_picture(module: object, folder: Path) -> dict[str, object]:
    """The answer for five points from the nearest to the farthest, and the picture with discs that the official code draws."""
    Image.fromarray(np.full((120, 160, 3), 100, np.uint8)).save(folder / "grey.png")
    points = [[30, 40], [60, 100], [90, 30], [95, 130], [20, 120]]  # row, column
    made = entry(module, folder, "depth_jigsaw", {"path": "grey.png", "points": points}, 1)
    return {
        "points": np.array(points),
        "target": np.array(made["reward_model"]["ground_truth"]),
        "image": np.asarray(made["images"][0]),
    }


def ranges(module: object) -> list[dict[str, object]]:
    """First and last frames of clips, or that the official code refuses."""
    rng, found = random.Random(0), []
    for _ in range(200):
        frames, clips, trim = rng.randint(2, 2000), rng.choice([1, 2, 4, 6, 8]), rng.choice([0.0, 0.05, 0.1, 0.2, 0.49])
        try:
            made = module.split_and_trim_uniform_indices(frames, clips, trim)
        except ValueError:
            made = None
        found.append({"frames": frames, "clips": clips, "trim": trim, "ranges": made})
    return found


def main(official: str) -> None:
    code = Path(official)
    sys.path[:0] = [str(code), str(code / "verl" / "utils" / "reward_score")]
    for name in EMPTY:
        sys.modules[name] = MagicMock()
    sys.modules["torch"].Tensor = sys.modules["torch.utils.data"].Dataset = type("Empty", (), {})
    sys.modules["verl.utils.torch_functional"].postprocess_data.return_value = MagicMock(), MagicMock()
    for name in ("verl", "verl.utils", "verl.utils.dataset"):
        package = sys.modules[name] = type(sys)(name)
        package.__path__ = [str(code / name.replace(".", "/"))]
    import visual_jigsaw
    from verl.utils.dataset import jigsaw_utils, rl_dataset

    TARGET.mkdir(parents=True, exist_ok=True)
    (TARGET / "rewards.json").write_text("[\n" + ",\n".join(map(json.dumps, rewards(visual_jigsaw))) + "\n]\n")
    with tempfile.TemporaryDirectory() as folder:
        np.savez_compressed(TARGET / "depth.npz", **depth_picture(rl_dataset, Path(folder)))
        made = {"puzzles": puzzles(rl_dataset, Path(folder)), "ranges": ranges(jigsaw_utils)}
    (TARGET / "puzzles.json").write_text(json.dumps(made) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
