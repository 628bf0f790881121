"""What the authors' programs say of small structures, kept under tests/references/atoms for the tests.

bench/.environments/fairchem/bin/python bench/references_atoms.py escaip    fairchem: weights, and outputs of each block
bench/.environments/quests/bin/python bench/references_atoms.py quests      quests: descriptors, entropies and choices
"""

import sys
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent.parent / "tests" / "references" / "atoms"


def molecules():
    """Two rattled molecules."""
    from ase.build import molecule

    made = [molecule("CH3CH2OH"), molecule("CH3COOH")]
    for each in made:
        each.rattle(0.05, seed=2)
    return made


def cells():
    """Rattled copper, a few cells with a misplaced atom, and small molecules: no two distances are equal."""
    from ase.build import bulk, molecule

    rng, made = np.random.default_rng(3), []
    for k in range(14):
        made.append(bulk("Cu", cubic=True, a=3.6 * (1 + rng.uniform(-0.02, 0.02))).repeat((2, 2, 1)))
        made[-1].pbc = True
        if k % 7 == 0:
            made[-1].positions[3] += 0.3 * rng.standard_normal(3)
    made += [molecule(name) for name in ("C6H6", "CH3CH2OH", "H2O", "CO2")]
    for each in made:
        each.positions += 0.02 * rng.standard_normal(each.positions.shape)
    return made


def escaip():
    import torch
    from fairchem.core.models.escaip.EScAIP import EScAIPBackbone, EScAIPDirectForceHead, EScAIPEnergyHead

    class Data(dict):
        __getattr__ = dict.__getitem__
        __setattr__ = dict.__setitem__

    torch.manual_seed(0)
    backbone = EScAIPBackbone(
        regress_forces=True, direct_forces=True, hidden_size=16, num_layers=2, use_compile=False, use_padding=False, use_pbc=False,
        max_num_elements=10, max_atoms=64, max_batch_size=4, max_radius=6.0, knn_k=8, knn_soft=True, knn_sigmoid_scale=0.2,
        knn_lse_scale=0.1, knn_use_low_mem=False, knn_pad_size=20, atten_name="math", atten_num_heads=2, atom_embedding_size=4,
        node_direction_embedding_size=4, edge_distance_expansion_size=16, edge_distance_embedding_size=8, freequency_list=[3, 2, 1, 1, 1],
    )  # fmt: skip
    energy, forces = EScAIPEnergyHead(backbone), EScAIPDirectForceHead(backbone)
    for module in (backbone, energy, forces):
        for parameter in module.parameters():
            parameter.data = parameter.data + 0.1 * torch.randn_like(parameter)
    arrays = {}
    for prefix, module in (("backbone", backbone), ("energy", energy), ("forces", forces)):
        arrays |= {f"{prefix}.{name}": value.detach().numpy() for name, value in module.state_dict().items()}

    def keep(name):
        def hook(module, inputs, outputs):
            arrays[f"out.{name}"] = outputs[0].detach().numpy()

        return hook

    backbone.input_block.register_forward_hook(keep("0"))
    for k, block in enumerate(backbone.transformer_blocks):
        block.register_forward_hook(keep(str(k + 1)))
    made = molecules()
    sizes = [len(each) for each in made]
    positions = torch.tensor(np.concatenate([each.positions for each in made]), dtype=torch.float32)
    data = Data(
        pos=positions, pos_original=positions, atomic_numbers=torch.tensor(np.concatenate([each.numbers for each in made])),
        batch=torch.tensor(np.repeat([0, 1], sizes)), cell=torch.zeros(2, 3, 3), natoms=torch.tensor(sizes), num_graphs=2,
    )  # fmt: skip
    found = backbone(data)
    arrays["out.order"] = found["data"].node_direction_expansion.detach().numpy()
    arrays["out.energy"] = energy(data, found)["energy"].detach().numpy()
    arrays["out.forces"] = forces(data, found)["forces"].detach().numpy()
    np.savez_compressed(FOLDER / "escaip.npz", **arrays)


def quests():
    import quests.compression.fps as choices
    from quests.compression.fps import msc
    from quests.descriptor import get_descriptors
    from quests.entropy import delta_entropy, diversity, entropy

    made = cells()
    parts = [get_descriptors([each], k=32, cutoff=5.0) for each in made]
    X = np.concatenate(parts)
    own = np.array([entropy(part, h=0.015, batch_size=1000) for part in parts])
    del choices
    picks = msc(parts, own, 8, h=0.015)
    np.savez_compressed(
        FOLDER / "quests.npz", X=X, entropy=entropy(X, h=0.015, batch_size=1000), diversity=diversity(X, h=0.015, batch_size=1000),
        novelty=delta_entropy(X[:50], X[100:], h=0.015, batch_size=1000), own=own, picks=np.asarray(picks),
    )  # fmt: skip


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    {"escaip": escaip, "quests": quests}[sys.argv[1]]()
