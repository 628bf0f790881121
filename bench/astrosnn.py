"""Recall after a delay by spiking units with an astrocyte and by stacks of LIF neurons elsewhere; and what a token costs."""

import time

import numpy as np

from harness import Comparison

VOCAB, SYMBOLS, DISTRACTORS, DELAY, BATCH, WIDTH, LAYERS, RATE, TEST = 13, 8, 4, 40, 32, 32, 2, 5e-3, 400
TURN = 64
"""Tokens of one measurement of a step."""


def inputs(case):
    """A batch for each step and one to test on: a symbol, distractors, the query."""
    if "steps" not in case:
        return {}
    rng = np.random.default_rng(0)
    count = case["steps"] * BATCH + TEST
    tokens = rng.integers(SYMBOLS, SYMBOLS + DISTRACTORS, (count, DELAY + 2))
    tokens[:, 0], tokens[:, -1] = rng.integers(0, SYMBOLS, count), VOCAB - 1
    return {"tokens": tokens.astype(np.int32)}


comparison = Comparison(
    "Spiking units with an astrocyte beside stacks of LIF neurons, an LSTM and a Transformer",
    {
        "recall after 40 tokens": {"steps": 300},
        "a token behind 64": {"context": 64},
        "a token behind 512": {"context": 512},
        "a token behind 4096": {"context": 4096},
    },
    inputs,
    text="Recall: 300 steps of AdamW from 0.005 on batches of 32, about 20 000 weights on each side; two layers of LIF neurons with "
    "a leak of 0.8 and a surrogate derivative of arctangent's in snnTorch and spikingjelly, with residual connections, on the same "
    "batches. They have no memory beyond the membrane, and stay at chance (0.125). A token: one example, 64 wide, 256 tokens, "
    "64 tokens a measurement; the Transformer keeps keys and values.",
    shown={"accuracy": "accuracy", "ms": "ms a step or token", "kib": "KiB of state"},
    turns=3,
)


def jax_side(make):
    """The training of one of our models, or its steps."""

    def setup(case, arrays):
        import equinox as eqx
        import jax
        import jax.numpy as jnp
        import optax

        from broadsheet.dynamics import trainable
        from broadsheet.learn import fit
        from broadsheet.networks.astrocyte_language import state_bytes
        from broadsheet.networks.delayed_recall import Answers, accuracies

        if "context" in case:
            model = make(256, 64, case["context"] + TURN)
            tokens = jnp.arange(case["context"]) % 256

            @eqx.filter_jit
            def read(model, state, tokens):
                return jax.lax.scan(lambda state, token: model.step(state, token), state, tokens)

            state = jax.block_until_ready(read(model, model.init(jax.random.key(0)), tokens)[0])

            def run():
                start = time.perf_counter()
                jax.block_until_ready(read(model, state, tokens[:TURN]))
                seconds = time.perf_counter() - start
                return {"ms": 1000 * seconds / TURN, "kib": state_bytes(model) / 1024, "seconds": seconds}

            return run

        tokens, model = arrays["tokens"], make(VOCAB, WIDTH, DELAY + 2)
        batches = tokens[:-TEST].reshape(-1, BATCH, DELAY + 2)
        data = [(batch, batch[:, 0]) for batch in batches]
        optimiser = optax.flatten(optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(RATE, weight_decay=0.01)))
        loss, key = Answers(), jax.random.key(1)

        def run():
            start = time.perf_counter()
            found = fit(model, loss, data, optimiser=optimiser, steps=len(data), key=key, parameters=trainable(model))
            seconds = time.perf_counter() - start
            accuracy = accuracies(found.model, [(tokens[-TEST:], tokens[-TEST:, 0])])[0]
            return {"accuracy": accuracy, "ms": 1000 * seconds / len(data), "seconds": seconds}

        return run

    return setup


def astrosnn(vocab, width, context, **options):
    import jax

    from broadsheet.networks import AstroSNN

    return AstroSNN(vocab, width, LAYERS, key=jax.random.key(0), **options)


@comparison.side("broadsheet")
def ours(case, arrays):
    return jax_side(astrosnn)(case, arrays)


@comparison.side("broadsheet, no astrocyte")
def plain(case, arrays):
    return jax_side(lambda *sizes: astrosnn(*sizes, alpha=0.0))(case, arrays)


@comparison.side("LSTM (Equinox)")
def lstm(case, arrays):
    import jax

    from broadsheet.networks.token_models import TokenLSTM

    widths = {32: 34, 64: 64}
    return jax_side(lambda vocab, width, context: TokenLSTM(vocab, widths[width], LAYERS, key=jax.random.key(0)))(case, arrays)


@comparison.side("Transformer (Equinox)")
def transformer(case, arrays):
    import jax

    from broadsheet.networks.token_models import TokenTransformer

    return jax_side(
        lambda vocab, width, context: TokenTransformer(vocab, width, LAYERS, context=context, key=jax.random.key(0))
    )(case, arrays)


def torch_side(case, arrays, layers_of):
    """The training of a stack of LIF neurons in a torch loop; `layers_of(torch, width)` gives a layer (time, batch, width)."""
    import torch
    from torch import nn

    if "steps" not in case:
        raise RuntimeError("only the training is compared")
    torch.manual_seed(0)
    torch.set_num_threads(2)
    hidden = 96

    class Stack(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(VOCAB, hidden)
            self.maps = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(LAYERS))
            self.norms = nn.ModuleList(nn.RMSNorm(hidden) for _ in range(LAYERS))
            self.neurons = nn.ModuleList(layers_of() for _ in range(LAYERS))
            self.head = nn.Linear(hidden, VOCAB)

        def forward(self, tokens):
            x = self.embedding(tokens.T)
            for weights, norm, neurons in zip(self.maps, self.norms, self.neurons, strict=True):
                x = x + neurons(2 * weights(norm(x)))
            return self.head(x[-1])

    tokens = torch.from_numpy(arrays["tokens"].astype(np.int64))
    batches = tokens[:-TEST].reshape(-1, BATCH, DELAY + 2)

    def run():
        model = Stack()
        optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
        start = time.perf_counter()
        for batch in batches:
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(batch), batch[:, 0]).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
        seconds = time.perf_counter() - start
        with torch.no_grad():
            right = (model(tokens[-TEST:]).argmax(1) == tokens[-TEST:, 0]).float().mean()
        return {"accuracy": float(right), "ms": 1000 * seconds / len(batches), "seconds": seconds}

    return run


@comparison.side("snnTorch", environment="torch", packages=("snntorch", "torch"))
def snntorch(case, arrays):
    import snntorch as snn
    import torch
    from snntorch import surrogate

    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = snn.Leaky(beta=0.8, spike_grad=surrogate.atan(alpha=2.0), reset_mechanism="subtract")

        def forward(self, currents):
            membrane, spikes = self.cell.init_leaky(), []
            for current in currents:
                spike, membrane = self.cell(current, membrane)
                spikes.append(spike)
            return torch.stack(spikes)

    return torch_side(case, arrays, Layer)


@comparison.side("spikingjelly", environment="spikingjelly", packages=("spikingjelly", "torch"))
def spikingjelly(case, arrays):
    import torch
    from spikingjelly.activation_based import functional, neuron, surrogate

    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = neuron.LIFNode(
                tau=5.0, decay_input=False, v_threshold=1.0, v_reset=None, surrogate_function=surrogate.ATan(), step_mode="m"
            )

        def forward(self, currents):
            functional.reset_net(self.cell)
            return self.cell(currents)

    return torch_side(case, arrays, Layer)
