"""A Transformer over atoms, with the same weights in PyTorch's own encoder."""

import numpy as np

from harness import Comparison

HEADS = 8


def inputs(case):
    """Copies of three molecules, rattled, and the weights of a network."""
    import jax
    from ase.build import molecule

    from broadsheet.atoms.potentials.transip import AtomTransformer, TransformerConfig

    rng = np.random.default_rng(0)
    made = [molecule(name) for name in ("C6H6", "CH3CH2OH", "C3H8")] * (case["molecules"] // 3)
    slots = max(len(each) for each in made)
    numbers, positions = np.zeros((len(made), slots), int), np.zeros((len(made), slots, 3), np.float32)
    for k, each in enumerate(made):
        x = each.positions + 0.05 * rng.standard_normal(each.positions.shape)
        numbers[k, : len(each)], positions[k, : len(each)] = each.numbers, x - x.mean(axis=0)
    net = AtomTransformer(TransformerConfig(case["width"], case["blocks"], HEADS), 0)
    found, _ = jax.tree_util.tree_flatten_with_path(net)
    weights = {jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf) for path, leaf in found}
    return {"numbers": numbers, "positions": positions} | {f"weights.{name}": leaf for name, leaf in weights.items()}


comparison = Comparison(
    "A Transformer over atoms",
    {
        "64 wide, 2 blocks": {"width": 64, "blocks": 2, "molecules": 48},
        "384 wide, 8 blocks": {"width": 384, "blocks": 8, "molecules": 48},
    },
    inputs,
    text="Energies and direct forces of 48 molecules in one batch, against PyTorch's TransformerEncoder with the same weights, its fast path on.",
    agree={"energy": 1e-3, "force": 1e-3},
)


@comparison.side("broadsheet", packages=("jax",), devices=("cpu", "gpu"))
def ours(case, given):
    import equinox as eqx
    import jax
    from ase import Atoms

    from broadsheet.atoms.potential import compiled_predict
    from broadsheet.atoms.potentials.transip import AtomTransformer, TransformerConfig
    from broadsheet.atoms.structures import batch_atoms

    net = AtomTransformer(TransformerConfig(case["width"], case["blocks"], HEADS), 0)
    paths, tree = jax.tree_util.tree_flatten_with_path(net)
    net = jax.tree.unflatten(
        tree,
        [jax.numpy.asarray(given["weights." + jax.tree_util.keystr(path, simple=True, separator=".")]) for path, _ in paths],
    )
    made = [Atoms(n[n > 0], x[n > 0]) for n, x in zip(given["numbers"], given["positions"], strict=True)]
    batch = batch_atoms(made)
    near, mask = net.neighbours(batch), np.asarray(batch.node_mask)
    batch, near = jax.tree.map(jax.numpy.asarray, eqx.filter((batch, near), eqx.is_array_like))

    def run():
        found = compiled_predict(net, batch, near, False, True)
        energy, forces = np.asarray(found.energy)[: len(made)], np.asarray(found.forces)[mask]
        return {"energy": float(np.abs(energy).mean()), "force": float(np.abs(forces).mean())}

    return run


@comparison.side("PyTorch", environment="torch", packages=("torch",))
def torch_encoder(case, given):
    import torch
    from torch import nn

    weights = {name.removeprefix("weights."): torch.tensor(leaf) for name, leaf in given.items() if name.startswith("weights.")}
    layer = nn.TransformerEncoderLayer(
        case["width"], HEADS, 4 * case["width"], dropout=0, activation="gelu", batch_first=True, norm_first=True
    )
    encoder = nn.TransformerEncoder(layer, case["blocks"], norm=nn.LayerNorm(case["width"]), enable_nested_tensor=False)
    names = {
        "self_attn.in_proj_": "joint.", "self_attn.out_proj.": "out.", "linear1.": "feed_forward.up.",
        "linear2.": "feed_forward.down.", "norm1.": "norms.0.", "norm2.": "norms.1.",
    }  # fmt: skip
    state = {f"norm.{part}": weights[f"norm.{part}"] for part in ("weight", "bias")}
    for k in range(case["blocks"]):
        for theirs, mine in names.items():
            for part in ("weight", "bias"):
                state[f"layers.{k}.{theirs}{part}"] = weights[f"blocks.{mine}{part}"][k]
    encoder.load_state_dict(state)
    encoder.eval()
    numbers, x = torch.tensor(given["numbers"]), torch.tensor(given["positions"])
    mask = numbers > 0

    def dense(name, h):
        return nn.functional.linear(h, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def two(name, h):
        return dense(f"{name}.second", nn.functional.gelu(dense(f"{name}.first", h)))

    def run():
        with torch.inference_mode():
            waves = [2 * torch.pi * 2**k / 16.0 * x for k in range(6)]
            seen = torch.cat([x, *(part for wave in waves for part in (wave.sin(), wave.cos()))], -1)
            tokens = weights["atom_embedding"][numbers] + two("place", seen)
            h = encoder(tokens + weights["charge_embedding"][8] + weights["spin_embedding"][1], src_key_padding_mask=~mask)
            energy = torch.where(mask, two("head", h)[..., 0], 0).sum(1)
            forces = two("force_head", h)
            net = torch.where(mask[..., None], forces, 0).sum(1, keepdim=True) / mask.sum(1)[:, None, None]
            forces = (forces - net)[mask]
            return {"energy": energy.abs().mean().item(), "force": forces.abs().mean().item()}

    return run
