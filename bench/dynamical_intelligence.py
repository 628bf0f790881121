"""Recall of sequences from a sparse binary memory, beside dense retrieval, modern Hopfield networks, spikes and a trained GRU."""

import numpy as np

from harness import Comparison


def inputs(case):
    """Codes (sequences, items, active) of random items."""
    rng = np.random.default_rng(0)
    shape = (case["sequences"] * case["length"], case["units"])
    codes = np.argpartition(rng.random(shape), case["active"], axis=1)[:, : case["active"]]
    return {"codes": codes.reshape(case["sequences"], case["length"], -1)}


def sized(sequences, units=1000, active=10, length=7):
    return {"sequences": sequences, "units": units, "active": active, "length": length}


comparison = Comparison(
    "Recall of sequences that were seen once",
    {"200 sequences, 1000 units": sized(200), "800 sequences, 1000 units": sized(800),
     "2000 sequences, 4000 units": sized(2000, 4000, 12)},
    inputs,
    text="Each sequence of seven is read from its first item, one item after another. Ours has one bit a synapse, kept in a byte, and reads the "
    "rows of active inputs; dense retrieval is the same memory by products of float32 matrices; a modern Hopfield network keeps "
    "every item and compares the cue with all of them, with as many patterns as fit into as many bytes, a spiking memory is one "
    "of leaky neurons in snnTorch with the same synapses, and the GRU has as many float32 weights as fit into the bits of ours "
    "times 32, and is trained by gradient until 99 % of the items come out right, or for 300 passes. Samples are presentations "
    "of a sequence until then, one for the others; the GRU is given each true item before the next, and is trained in the first case "
    "alone, for in the others that takes minutes to hours.",
    shown={"exact": "sequences without an error", "samples": "presentations", "megabits": "memory (Mbit)"},
    turns=3,
)  # fmt: skip


def exact(found, codes):
    """Share of sequences whose items are all right."""
    right = np.sort(np.asarray(found), axis=-1) == np.sort(codes[:, 1:], axis=-1)
    return float(right.all(axis=(1, 2)).mean())


def bits(codes, units):
    made = np.zeros((*codes.shape[:-1], units), np.float32)
    np.put_along_axis(made, codes, 1.0, axis=-1)
    return made


@comparison.side("broadsheet", packages=("jax",), devices=("cpu", "gpu"))
def ours(case, given):
    import jax.numpy as jnp

    from broadsheet.networks.theta_gamma import ThetaGammaMemory
    from broadsheet.numerics.sparse_codes import SparseCode

    codes = jnp.asarray(given["codes"])
    memory = ThetaGammaMemory(SparseCode(case["units"], case["active"]), SparseCode(40, 8)).encode(codes)

    def use():
        found = memory.read(codes[:, 0], steps=case["length"] - 1)[0]
        return {"exact": exact(found, given["codes"]), "samples": 1, "megabits": 16 * case["units"] ** 2 / 1e6}

    return use


@comparison.side("dense matrices")
def dense(case, given):
    """The same synapses as float32, all sequences at once."""
    codes, units, k = given["codes"], case["units"], case["active"]
    made = bits(codes, units)
    before, after = (made[:, part].reshape(-1, units) for part in (slice(None, -1), slice(1, None)))
    weights = np.minimum(before.T @ after, 1.0)

    def use():
        state, found = made[:, 0], []
        for _ in range(case["length"] - 1):
            winners = np.argpartition(-(state @ weights), k, axis=1)[:, :k]
            state = bits(winners, units)
            found.append(winners)
        return {"exact": exact(np.stack(found, axis=1), codes), "samples": 1, "megabits": 32 * units**2 / 1e6}

    return use


@comparison.side("modern Hopfield")
def hopfield(case, given):
    """Softmax attention over stored transitions, as many as fit into the bytes of ours at one byte a unit and pattern."""
    codes, units, k = given["codes"], case["units"], case["active"]
    made = bits(codes, units)
    before, after = (made[:, part].reshape(-1, units) for part in (slice(None, -1), slice(1, None)))
    room = min(len(before), 2 * units**2 // (2 * units))
    stored = [part[:room].astype(bool) for part in (before, after)]

    def use():
        before, after = (part.astype(np.float32) for part in stored)
        state, found = made[:, 0], []
        for _ in range(case["length"] - 1):
            similar = 4.0 * state @ before.T
            weight = np.exp(similar - similar.max(axis=1, keepdims=True))
            winners = np.argpartition(-(weight @ after), k, axis=1)[:, :k]
            state = bits(winners, units)
            found.append(winners)
        return {"exact": exact(np.stack(found, axis=1), codes), "samples": 1, "megabits": 16 * len(stored[0]) * units / 1e6}

    return use


@comparison.side("snntorch", environment="torch", packages=("snntorch", "torch"))
def spiking(case, given):
    """A layer of leaky neurons with the same synapses; of those above threshold the k with the highest potential spike."""
    import snntorch
    import torch

    codes, units, k = given["codes"], case["units"], case["active"]
    made = torch.from_numpy(bits(codes, units))
    before, after = (made[:, part].reshape(-1, units) for part in (slice(None, -1), slice(1, None)))
    weights = (before.T @ after).clamp(max=1.0)
    neuron = snntorch.Leaky(beta=0.0, threshold=0.7 * k)

    @torch.no_grad()
    def use():
        state, found = made[:, 0], []
        for _ in range(case["length"] - 1):
            spikes, _ = neuron(state @ weights, neuron.init_leaky())
            winners = (spikes * (state @ weights)).topk(k, dim=1).indices
            state = torch.zeros_like(state).scatter_(1, winners, 1.0)
            found.append(winners.numpy())
        return {"exact": exact(np.stack(found, axis=1), codes), "samples": 1, "megabits": 32 * units**2 / 1e6}

    return use


@comparison.side("GRU, trained", packages=("jax", "optax"), limit=1200.0)
def gru(case, given):
    """A GRU with a read-out of k units, trained on the sequences; the training is the set-up, a run is recall."""
    if case["sequences"] > 200:
        raise RuntimeError("minutes to hours of training")
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import optax

    codes, units, k = given["codes"], case["units"], case["active"]
    made = jnp.asarray(bits(codes, units))
    hidden = int(np.roots([3, 4 * units + 6, units - 2 * units**2]).max())  # weights as many as both of our projections
    one, other = jax.random.split(jax.random.key(0))
    model = (eqx.nn.GRUCell(units, hidden, key=one), eqx.nn.Linear(hidden, units, key=other))
    optimiser = optax.adam(3e-3)
    memory = optimiser.init(eqx.filter(model, eqx.is_inexact_array))

    def run(model, sequence):
        def step(state, item):
            state = model[0](item, state)
            return state, model[1](state)

        return jax.lax.scan(step, jnp.zeros(hidden), sequence[:-1])[1]

    def loss(model, batch):
        logits = jax.vmap(lambda sequence: run(model, sequence))(batch)
        return optax.sigmoid_binary_cross_entropy(logits, batch[:, 1:]).mean()

    @eqx.filter_jit
    def train(model, memory, batch):
        updates, memory = optimiser.update(eqx.filter_grad(loss)(model, batch), memory)
        return eqx.apply_updates(model, updates), memory

    @eqx.filter_jit
    def recall(model, batch):
        return jax.lax.top_k(jax.vmap(lambda sequence: run(model, sequence))(batch), k)[1]

    def items_right():
        found = np.sort(np.asarray(recall(model, made)), axis=-1)
        return (found == np.sort(codes[:, 1:], axis=-1)).all(axis=-1).mean()

    passes, rng = 0, np.random.default_rng(0)
    while passes < 300 and items_right() < 0.99:
        order = rng.permutation(len(made))
        for start in range(0, len(made), 50):
            model, memory = train(model, memory, made[order[start : start + 50]])
        passes += 1
    size = sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array)))

    def use():
        return {"exact": exact(recall(model, made), codes), "samples": passes, "megabits": 32 * size / 1e6}

    return use
