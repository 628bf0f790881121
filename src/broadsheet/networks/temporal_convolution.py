"""A temporal convolutional network: layers of causal, dilated convolutions, after Bai, Kolter and Koltun (arXiv 1803.01271)."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


class TemporalConvolution(eqx.Module):
    """(time, inputs) to (time, outputs); an output depends on the present and the last `reach - 1` steps.

    A linear map to `width` channels, `layers` residual convolutions `x + relu(conv x)` with dilations 1, 2, 4, …, a read-out.
    Weights are drawn uniformly within 1 / sqrt(inputs of a unit), biases are 0.
    """

    encoder: Float[Array, "width inputs"]
    kernels: Float[Array, "layers kernel width width"]
    biases: Float[Array, "layers width"]
    head: Float[Array, "outputs width"]
    offset: Float[Array, " outputs"]

    def __init__(self, inputs: int, width: int, outputs: int, *, layers: int = 6, kernel: int = 3, key: PRNGKeyArray) -> None:
        first, middle, last = jax.random.split(key, 3)

        def draw(key: PRNGKeyArray, shape: tuple[int, ...], count: int) -> Array:
            return jax.random.uniform(key, shape, minval=-(count**-0.5), maxval=count**-0.5)

        self.encoder = draw(first, (width, inputs), inputs)
        self.kernels = draw(middle, (layers, kernel, width, width), kernel * width)
        self.biases = jnp.zeros((layers, width))
        self.head, self.offset = draw(last, (outputs, width), width), jnp.zeros(outputs)

    @property
    def reach(self) -> int:
        """Steps that an output looks at, the present one included."""
        layers, kernel = self.kernels.shape[:2]
        return 1 + (kernel - 1) * (2**layers - 1)

    def __call__(self, xs: Float[Array, "time inputs"]) -> Float[Array, "time outputs"]:
        x, time = xs @ self.encoder.T, len(xs)
        for n, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True)):
            before = jnp.pad(x, (((len(kernel) - 1) * 2**n, 0), (0, 0)))
            found = sum(before[k * 2**n : k * 2**n + time] @ weight.T for k, weight in enumerate(kernel))
            x = x + jax.nn.relu(found + bias)
        return x @ self.head.T + self.offset
