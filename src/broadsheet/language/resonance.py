"""A memory of synapses that resonate: fast weights that are written more strongly where they already predict what is written.

After the idea of arXiv 2502.10699, whose equations are not public; the definition is ours. For each head

    read       m_t = S_{t-1}^T q_t                                  strictly before the write
    resonance  rho_t = max(0, cos(S_{t-1}^T k_t, v_t))              0 where |S_{t-1}^T k_t| < 1e-6
    write      S_t = lam S_{t-1} + eta r_t (1 + kappa rho_t) k_t v_t^T

With `kappa = 0` and r = 1 it is linear attention with decay. The delta rule writes v_t - S_{t-1}^T k_t in place of v_t.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from broadsheet.errors import InputError

FAINT = 1e-6
"""A prediction shorter than this resonates with nothing."""
RULES = ("hebb", "delta")
FORMS = ("loop", "chunk", "parallel")


class Scan(NamedTuple):
    """What a scan gives.

    **Fields:** `m`: what is read (batch, heads, time, value width); `S`: the memory after the last step (batch, heads, key
    width, value width); `rho`: the resonance of each write (batch, heads, time), in [0, 1].
    """

    m: torch.Tensor
    S: torch.Tensor
    rho: torch.Tensor


def unit(a: torch.Tensor) -> torch.Tensor:
    """`a / (|a| + 1e-6)` along the last axis."""
    return a / (a.norm(dim=-1, keepdim=True) + 1e-6)


def resonance(predicted: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """`max(0, cos)` of what the memory predicts and what is to be written, (…, width) each: (…), in [0, 1]."""
    return _alike(predicted, v / v.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(v.dtype).tiny))


def _alike(predicted: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """The same, for the direction of what is to be written, of length 1."""
    length = torch.linalg.vector_norm(predicted, dim=-1)
    cosine = (predicted * direction).sum(-1) / length.clamp_min(FAINT)
    return cosine.clamp(0.0, 1.0) * (length >= FAINT)


def resonance_scan(
    k: torch.Tensor,
    q: torch.Tensor,
    v: torch.Tensor,
    r: torch.Tensor,
    lam: float | torch.Tensor = 0.98,
    eta: float = 1.0,
    kappa: float = 0.5,
    S0: torch.Tensor | None = None,
    *,
    rule: str = "hebb",
    form: str = "loop",
    chunk: int = 16,
    refine: int | None = None,
    bptt: int | None = None,
    stop_gradient: bool = True,
) -> Scan:
    """The memory over a sequence; `S0` is 0 unless given.

    **Arguments:** `k`, `q`: (batch, heads, time, key width); `v`: (batch, heads, time, value width); `r`: relevance (batch,
    heads, time), 0 writes nothing; `lam`: share that a step keeps, in (0, 1], a number or one a head (heads,); `eta`: strength
    of a write; `kappa`: how much stronger full resonance makes it; `rule`: `"hebb"` or `"delta"`.

    `form`: `"loop"`, step by step; `"chunk"`, matrix products over `chunk` steps at a time; `"parallel"`, over all at once,
    for `kappa = 0`. Resonance is sequential, since it depends on the memory that it changes. In chunks it is first taken from
    the memory at the chunk's start, then again from what these writes make of it, `refine` times. Each time one more step of
    the chunk is exact, so that None, until nothing changes, is the loop up to rounding; `refine=0` is an approximation.

    `bptt`: steps after which the gradient is cut, at the next start of a chunk; `stop_gradient`: none flows through rho.

    **Raises:** `InputError` where shapes do not fit or a value is out of range.
    """
    _check(k, q, v, r, lam, eta, kappa, rule, form, chunk, refine)
    batch, heads, time, width = k.shape
    S: Any = k.new_zeros(batch, heads, width, v.shape[-1]) if S0 is None and (form == "loop" or time == 0) else S0
    size = 1 if form == "loop" else time if form == "parallel" else chunk
    settings: dict[str, Any] = {"eta": eta, "kappa": kappa, "rule": rule, "stop_gradient": stop_gradient}
    keep = torch.as_tensor(lam, dtype=k.dtype, device=k.device).reshape(-1, 1, 1)
    decays: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    since, read, rhos = 0, [], []
    for start in range(0, time, max(size, 1)):
        if bptt is not None and since >= bptt and S is not None:
            S, since = S.detach(), 0
        now = slice(start, start + size)
        part = k[:, :, now], q[:, :, now], v[:, :, now], r[:, :, now]
        if form == "loop":
            m, S, rho = _one(S, *part, keep, **settings)
        else:
            steps = min(size, time - start)
            if steps not in decays:
                decays[steps] = _decays(keep, steps)
            m, S, rho = _chunk(S, *part, keep, decays[steps], refine=refine, **settings)
        read.append(m)
        rhos.append(rho)
        since += size
    return Scan(torch.cat(read, 2), S, torch.cat(rhos, 2)) if read else Scan(torch.zeros_like(v), S, torch.zeros_like(r))


def _one(S, k, q, v, r, keep, *, eta, kappa, rule, stop_gradient):
    """One step: (m, S, rho), with a time axis of 1."""
    m, predicted = q @ S, k @ S
    with torch.set_grad_enabled(torch.is_grad_enabled() and not stop_gradient):
        rho = resonance(predicted, v)
    strength = eta * r * (1 + kappa * rho)
    content = v - predicted if rule == "delta" else v
    return m, keep * S + k.mT @ (strength[..., None] * content), rho


def _decays(keep: torch.Tensor, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What is left of the memory at a chunk's start, lam^i (heads or 1, steps, 1), and of a write before a step,
    lam^(i-1-j) where j < i, else 0 (heads or 1, steps, steps)."""
    at = torch.arange(steps, device=keep.device, dtype=keep.dtype)
    return keep ** at[:, None], torch.tril(keep ** (at[:, None] - 1 - at).clamp_min(0), -1)


def _chunk(S, k, q, v, r, keep, decays, *, eta, kappa, rule, refine, stop_gradient):
    """All steps of a chunk at once: (m, S, rho). Where nothing was written before it, S is None.

    With w the strengths of the writes and K[i, j] = lam^(i-1-j) k_i.k_j for j < i, the memory predicts
    p_i = lam^i S^T k_i + sum_j K[i, j] w_j u_j, where u is v, or v - p under the delta rule.
    """
    fade, between = decays
    from_start = None if S is None else (k @ S) * fade
    keys, queries = (k @ k.mT) * between, (q @ k.mT) * between

    def written(w: torch.Tensor) -> torch.Tensor:
        """w u: what is written under the strengths w."""
        if rule == "hebb":
            return w[..., None] * v
        system = keys * w[..., None, :] + torch.eye(k.shape[2], dtype=k.dtype, device=k.device)
        wanted = v if from_start is None else v - from_start
        return w[..., None] * torch.linalg.solve_triangular(system, wanted, upper=False, unitriangular=True)

    def predicted(writes: torch.Tensor) -> torch.Tensor:
        return keys @ writes if from_start is None else from_start + keys @ writes

    w = eta * r
    with torch.set_grad_enabled(torch.is_grad_enabled() and not stop_gradient):
        direction = v / v.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(v.dtype).tiny)
        if kappa != 0:
            first = torch.zeros_like(r) if from_start is None else _alike(from_start, direction)
            more = kappa * w
            rho = _settled(first, lambda rho: _alike(predicted(written(torch.addcmul(w, more, rho))), direction), refine)
    writes = written(torch.addcmul(w, kappa * w, rho) if kappa != 0 else w)
    if kappa == 0:  # strengths do not depend on it
        with torch.set_grad_enabled(torch.is_grad_enabled() and not stop_gradient):
            rho = _alike(predicted(writes), direction)
    m, added = queries @ writes, (k * fade.flip(-2)).mT @ writes
    if S is None:
        return m, added, rho
    return (q @ S) * fade + m, keep ** k.shape[2] * S + added, rho


def _settled(rho, again, refine):
    """The resonance of a chunk, from that with the memory at its start."""
    for _ in range(rho.shape[-1] - 1 if refine is None else refine):
        before, rho = rho, again(rho)
        if refine is None and torch.equal(rho, before):  # a tolerance would let later tokens say when earlier ones are settled
            break
    return rho


def _check(k, q, v, r, lam, eta, kappa, rule, form, chunk, refine) -> None:
    if k.ndim != 4 or k.shape != q.shape or v.ndim != 4 or v.shape[:3] != k.shape[:3] or r.shape != k.shape[:3]:
        shapes = ", ".join(f"{name} {tuple(x.shape)}" for name, x in (("k", k), ("q", q), ("v", v), ("r", r)))
        raise InputError(f"k, q and v are (batch, heads, time, width) and r (batch, heads, time); got {shapes}.")
    if isinstance(lam, float | int) and not 0 < lam <= 1:
        raise InputError(f"lam is {lam}; the share that a step keeps is in (0, 1].")
    if eta < 0 or kappa < 0:
        raise InputError(f"eta and kappa are {eta} and {kappa}; neither is negative.")
    if rule not in RULES or form not in FORMS:
        raise InputError(f"rule is {rule!r} and form {form!r}; {', '.join(RULES)} and {', '.join(FORMS)} are there.")
    if form == "parallel" and kappa != 0:
        raise InputError(f"All steps at once need kappa = 0, not {kappa}: resonance depends on what was written before.")
    if chunk < 1 or (refine is not None and refine < 0):
        raise InputError(f"chunk is {chunk} and refine {refine}; at least 1 and 0 are wanted.")
