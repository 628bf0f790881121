"""The tangent kernel of a recurrent network by its recurrent weights, without Jacobians and with them."""

import numpy as np

from harness import Comparison


def inputs(case):
    """Weights of a ReLU network as PyTorch draws them, recurrent ones Gaussian of gain 1.25, and trials of Gaussian noise."""
    rng = np.random.default_rng(0)
    units, channels, outputs = case["units"], case["inputs"], case["outputs"]
    return {
        "w_in": rng.uniform(-(channels**-0.5), channels**-0.5, (units, channels)).astype(np.float32),
        "w_rec": (1.25 * rng.standard_normal((units, units)) / units**0.5).astype(np.float32),
        "w_out": rng.uniform(-(units**-0.5), units**-0.5, (outputs, units)).astype(np.float32),
        "x": rng.standard_normal((case["batch"], case["steps"], channels)).astype(np.float32) / 2,
    }


TRIALS = {"batch": 32, "steps": 8, "inputs": 3, "outputs": 3, "last": False}
comparison = Comparison(
    "Tangent kernel of a rate network by its recurrent weights",
    {
        "trials, 100 units": TRIALS | {"units": 100},
        "trials, 300 units": TRIALS | {"units": 300},
        "trials, 1000 units": TRIALS | {"units": 1000},
        "rows of images, 300 units": {"batch": 50, "steps": 28, "inputs": 28, "outputs": 10, "last": True, "units": 300},
        "100 steps, all outputs, 100 units": TRIALS | {"batch": 8, "steps": 100, "units": 100},
    },
    inputs,
    text="ReLU units, float32. Trials: 32 of 8 steps, 3 outputs at each, 768 rows; rows of images: 50 of 28 steps, 10 outputs at "
    "the last, 500 rows; the last case is long: the cost without Jacobians goes as the square of the number of steps. One backward "
    "pass an output is what the paper's program does, which joins each gradient to those before, so that they are copied again and "
    "again, and is shown for the trials alone; the same passes are shown with one matrix made beforehand as well. With 1000 units "
    "Jacobians take 3 GB.",
    agree={"trace": 1e-5, "norm": 1e-5, "form": 1e-5},
    turns=3,
)


def values(kernel):
    """Trace, norm and a quadratic form of a kernel, rows over trials first, then steps, then outputs."""
    kernel = np.asarray(kernel, float)
    probe = np.random.default_rng(1).random(len(kernel))
    return {"trace": np.trace(kernel), "norm": np.linalg.norm(kernel), "form": probe @ kernel @ probe}


def network(case, arrays):
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    from broadsheet.networks import RateRNN

    net = RateRNN(case["inputs"], case["units"], case["outputs"], key=jax.random.key(0))
    parts = tuple(jnp.asarray(arrays[name]) for name in ("w_in", "w_rec", "w_out"))
    return eqx.tree_at(lambda net: (net.w_in, net.w_rec, net.w_out), net, parts), jnp.asarray(arrays["x"])


@comparison.side("broadsheet", packages=("jax", "broadsheet"))
def broadsheet(case, arrays):
    from broadsheet.networks import network_kernel

    net, x = network(case, arrays)
    return lambda: values(network_kernel(net, x, steps=(-1,) if case["last"] else None))


@comparison.side("broadsheet, by Jacobians", packages=("jax", "broadsheet"))
def jacobians(case, arrays):
    refuse_large(case)
    from broadsheet.learn.tangent_kernels import tangent_kernel

    net, x = network(case, arrays)
    call = (lambda net, one: net(one)[-1]) if case["last"] else None
    return lambda: values(tangent_kernel(net, x, where=lambda net: net.w_rec, function=call))


def refuse_large(case):
    if case["units"] > 300:
        raise RuntimeError("minutes in this case")


def torch_parts(arrays):
    import torch

    return [torch.from_numpy(arrays[name]) for name in ("w_in", "w_rec", "w_out", "x")]


def torch_run(w_in, w_rec, w_out, x):
    """Outputs (time, outputs) of one trial (time, inputs), or (time, batch, outputs) of (time, batch, inputs)."""
    import torch

    hidden = torch.zeros(*x.shape[1:-1], w_rec.shape[0])
    outputs = []
    for step in x:
        hidden = torch.relu(step @ w_in.T + hidden @ w_rec.T)
        outputs.append(hidden @ w_out.T)
    return torch.stack(outputs)


def gradients(case, arrays):
    """A function that gives the gradient of one output after another by the recurrent weights, each by a pass of its own."""
    import torch

    w_in, w_rec, w_out, x = torch_parts(arrays)
    w_rec.requires_grad_()

    def each():
        outputs = torch_run(w_in, w_rec, w_out, x.transpose(0, 1)).transpose(0, 1)
        for scalar in (outputs[:, -1] if case["last"] else outputs).reshape(-1):
            yield torch.autograd.grad(scalar, w_rec, retain_graph=True)[0].reshape(1, -1)

    return each


@comparison.side("the paper's loop (PyTorch)", environment="torch", packages=("torch",))
def joined(case, arrays):
    import torch

    if case["units"] > 300 or case["steps"] > 8:
        raise RuntimeError("minutes in this case")
    each = gradients(case, arrays)

    def run():
        rows = None
        for gradient in each():
            rows = gradient if rows is None else torch.cat([rows, gradient])
        return values(rows @ rows.T)

    return run


@comparison.side("one backward pass an output (PyTorch)", environment="torch", packages=("torch",))
def one_by_one(case, arrays):
    import torch

    each = gradients(case, arrays)
    count = case["batch"] * (1 if case["last"] else case["steps"]) * case["outputs"]

    def run():
        rows = torch.empty(count, case["units"] ** 2)
        for k, gradient in enumerate(each()):
            rows[k] = gradient[0]
        return values(rows @ rows.T)

    return run


@comparison.side("torch.func Jacobian of each trial", environment="torch", packages=("torch",))
def per_sample(case, arrays):
    import torch

    refuse_large(case)
    w_in, w_rec, w_out, x = torch_parts(arrays)

    def outputs(weights, one):
        made = torch_run(w_in, weights, w_out, one)
        return made[-1] if case["last"] else made

    jacobian = torch.func.vmap(torch.func.jacrev(outputs), in_dims=(None, 0))

    def run():
        rows = jacobian(w_rec, x).reshape(-1, w_rec.numel())
        return values(rows @ rows.T)

    return run


def tangents(implementation):
    """neural-tangents' empirical kernel of the same function, differentiated by the recurrent weights alone."""

    def setup(case, arrays):
        import jax
        import jax.numpy as jnp
        import neural_tangents as nt

        refuse_large(case)

        def apply(weights, x):
            def step(hidden, drive):
                hidden = jax.nn.relu(drive + hidden @ weights.T)
                return hidden, hidden

            drive = jnp.moveaxis(x @ arrays["w_in"].T, 1, 0)
            states = jax.lax.scan(step, jnp.zeros((len(x), case["units"])), drive)[1]
            outputs = jnp.moveaxis(states, 0, 1) @ arrays["w_out"].T
            return outputs[:, -1] if case["last"] else outputs.reshape(len(x), -1)

        kernel = nt.empirical_ntk_fn(apply, trace_axes=(), vmap_axes=0, implementation=implementation)
        made = jax.jit(lambda weights, x: kernel(x, None, weights))
        weights, x = jnp.asarray(arrays["w_rec"]), jnp.asarray(arrays["x"])

        def run():
            found = np.asarray(made(weights, x))
            return values(found.transpose(0, 2, 1, 3).reshape(found.shape[0] * found.shape[2], -1))

        return run

    return setup


for number, name in enumerate(("jacobian contraction", "products with vectors"), 1):
    comparison.side(f"neural-tangents, {name}", environment="tangents", packages=("neural-tangents", "jax"))(tangents(number))
