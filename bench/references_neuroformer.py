"""Logits of the authors' Neuroformer on random weights and tokens, for tests/references/neuroformer.npz.

    python bench/references_neuroformer.py FOLDER_OF_THE_OFFICIAL_CODE

In an environment with torch, einops, omegaconf and SciPy. The program's imports that play no part here (torchvision, torchmetrics,
timm) are replaced by empty modules.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np

WIDTH, HEADS, BLOCK, PAST, NEURONS, OFFSETS = 12, 2, 9, 11, 6, 5
FRAMES, KERNEL, STRIDE = (3, 10, 12), (3, 4, 4), (3, 3, 4)


def official(folder: Path) -> Any:
    """The program's module of the model."""
    for name in ("torchvision", "torchvision.models", "torchvision.models.video", "torchmetrics", "timm"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["torchvision.models.video"].r3d_18 = None
    helpers = types.ModuleType("utils")
    helpers.get_attr = lambda obj, name, default=None: (
        obj.get(name, default) if isinstance(obj, dict) else getattr(obj, name, default)
    )
    helpers.object_to_dict = lambda obj: obj
    helpers.load_config = None
    sys.modules["utils"] = helpers
    sys.path.insert(0, str(folder / "neuroformer"))
    import model_neuroformer

    return model_neuroformer


def settings(learned_time: bool, behaviour: bool) -> Any:
    space = types.SimpleNamespace
    made = space(
        dropout=space(attn=0.0, embd=0.0, pos=0.0, resid=0.0, temp=0.0, b=0.0, id=0.0, im=0.0),
        block_size=space(id=BLOCK, prev_id=PAST), layers=space(state_history=2, state=1, stimulus=1, behavior=0, self_att=0),
        sparse=space(p=None, mask=False, topk=None, topk_frame=None, topk_id=None, topk_prev_id=None),
        frame_encoder=space(conv_layer=True, kernel_size=KERNEL, stride_size=STRIDE, n_embd=WIDTH, n_embd_frames=64),
        contrastive=space(contrastive=False), n_embd=WIDTH, n_head=HEADS, pos_emb=True, temp_emb=True, vit_encoder=True,
        mlp_only=False, gru_only=False, gru2_only=False, class_weights=None, wave_emb=not learned_time,
    )  # fmt: skip
    if behaviour:
        made.modalities = {"behavior": {"n_layers": 1, "variables": {"speed": {"predict": False, "objective": None}}}}
    return made


def main(folder: Path) -> None:
    import torch

    program = official(folder)
    tokenizer = types.SimpleNamespace(
        ID_vocab_size=NEURONS + 3,
        dt_vocab_size=OFFSETS + 3,
        stoi={"ID": dict.fromkeys(range(NEURONS + 3)), "dt": dict.fromkeys(range(OFFSETS + 3))},
    )
    rng = np.random.default_rng(0)
    inputs = {
        "id": rng.integers(0, NEURONS, (2, BLOCK)), "dt": np.sort(rng.integers(0, OFFSETS, (2, BLOCK))), "id_prev": rng.integers(0, NEURONS, (2, PAST)),
        "dt_prev": np.sort(rng.integers(0, OFFSETS, (2, PAST))),
    }  # fmt: skip
    inputs["id"][:, 0], inputs["dt"][:, 0] = NEURONS, 0
    inputs["id"][:, -2:], inputs["dt"][:, -2:] = NEURONS + 2, OFFSETS + 2
    inputs["id_prev"][:, -3:], inputs["dt_prev"][:, -3:] = NEURONS + 2, OFFSETS + 2
    frames = rng.standard_normal((2, 1, *FRAMES)).astype(np.float32)
    found: dict[str, np.ndarray] = {**inputs, "frames": frames[:, 0]}
    for name, learned, behaviour in (("waves", False, False), ("learned", True, False), ("behaviour", False, True)):
        torch.manual_seed(0)
        config = settings(learned, behaviour)
        if learned:
            del config.wave_emb
            program.LearntTemporalEmbedding.__init__.__defaults__ = (0.0,)
        model = program.Neuroformer(config, tokenizer).eval()
        with torch.no_grad():
            for part in model.parameters():
                part.add_(0.3 * torch.randn_like(part))
            given = {key: torch.as_tensor(value) for key, value in inputs.items()} | {
                "frames": torch.as_tensor(frames), "pad": torch.zeros(2, dtype=torch.long),
            }  # fmt: skip
            if behaviour:
                logits = []
                for value in (0.1, 7.0):
                    given["modalities"] = {
                        "behavior": {"speed": {"value": torch.full((2, 1, 1), value), "dt": torch.zeros(2, 1)}}
                    }
                    logits.append(model(given)[0]["id"].numpy())
                found["behaviour_effect"] = np.abs(logits[0] - logits[1]).max()
                continue
            predicted, _, _ = model(given)
        found |= {f"{name}/logits_id": predicted["id"].numpy(), f"{name}/logits_dt": predicted["dt"].numpy()}
        found |= {f"{name}/weights/{key}": value.numpy() for key, value in model.state_dict().items()
                  if not key.endswith(("mask", ".pe", "div_term", "inv_freq"))}  # fmt: skip
    target = Path(__file__).parent.parent / "tests" / "references" / "neuroformer.npz"
    np.savez_compressed(target, **found)
    print(target, target.stat().st_size, "bytes; effect of behaviour:", found["behaviour_effect"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
