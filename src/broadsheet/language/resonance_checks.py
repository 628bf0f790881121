"""What must hold of a resonating memory by its equations, as errors against closed forms; and the same of wrong ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from broadsheet.language.architectures import Sizes, new_model
from broadsheet.language.resonance import resonance_scan, unit
from broadsheet.language.resonance_adapter import SynapticResonanceConfig, add_synaptic_resonance, memories

LAM, ETA, KAPPA = 0.98, 1.0, 0.5


def _draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _model(seed: int, gamma: float, **settings: Any) -> Any:
    """A small Llama whose memory speaks with a strength of about `gamma`."""
    model = new_model("llama", Sizes(words=64, width=64, blocks=2), seed=seed).eval()
    add_synaptic_resonance(model, SynapticResonanceConfig(**settings), seed=seed)
    with torch.no_grad():
        for memory in memories(model).values():
            memory.gamma.fill_(gamma)
    return model


def _ids(seed: int, rows: int, tokens: int) -> torch.Tensor:
    return torch.randint(0, 64, (rows, tokens), generator=torch.Generator().manual_seed(seed))


def start_error(seed: int, *, gamma: float = 0.0, tokens: int = 40) -> float:
    """Largest difference that a new memory makes to a model's logits; `gamma` is 0 in a right one."""
    ids, model = _ids(seed, 2, tokens), new_model("llama", Sizes(words=64, width=64, blocks=2), seed=seed).eval()
    with torch.no_grad():
        return float((_model(seed, gamma)(input_ids=ids).logits - model(input_ids=ids).logits).abs().max())


def attention_error(seed: int, *, form: str = "chunk", lam: float = LAM, reads_itself: bool = False, tokens: int = 64) -> float:
    """Largest difference of the memory without resonance from linear attention with decay, relative to its largest value:

    m_t = eta sum_{i<t} lam^(t-1-i) (k_i . q_t) v_i. Wrong ones: another `lam`, and reading what was just written.
    """
    k, q, v = (_draw(seed + n, 2, 3, tokens, 16) for n in range(3))
    k, q = unit(k), unit(q)
    m = resonance_scan(k, q, v, torch.ones_like(k[..., 0]), lam, ETA, 0.0, form=form).m
    if reads_itself:
        m = m + ETA * (k * q).sum(-1, keepdim=True) * v
    since = torch.arange(tokens)[:, None] - torch.arange(tokens).double() - 1
    weights = torch.where(since >= 0, LAM ** since.clamp_min(0), 0.0)
    exact = ETA * (weights * (q @ k.mT)) @ v
    return float((m - exact).abs().max() / exact.abs().max())


def law_error(seed: int, *, rule: str = "hebb", writes: int = 60) -> float:
    """Largest difference of a pair's strength from its laws: writing it over and over, and then others orthogonal to it.

    s_n = s - (s - eta) lam^(n-1) with s = eta (1 + kappa) / (1 - lam), and lam a step after that; relative to s.
    """
    axes = torch.linalg.qr(_draw(seed, 8, 8))[0]
    k, v = axes[0].expand(1, 1, writes, 8), _draw(seed + 1, 8).expand(1, 1, writes, 8)
    full = ETA * (1 + KAPPA) / (1 - LAM)
    n = torch.arange(1, writes + 1).double()
    exact = torch.cat([full - (full - ETA) * LAM ** (n - 1), (full - (full - ETA) * LAM ** (writes - 1)) * LAM**n])
    k = torch.cat([k, axes[1 + n.long() % 7][None, None]], 2)
    v = torch.cat([v, _draw(seed + 2, 1, 1, writes, 8)], 2)
    found, S = [], None
    for t in range(2 * writes):
        now = slice(t, t + 1)
        S = resonance_scan(
            k[:, :, now], k[:, :, now], v[:, :, now], torch.ones(1, 1, 1).double(), LAM, ETA, KAPPA, S, rule=rule
        ).S
        found.append(float(v[0, 0, 0] @ S[0, 0].T @ axes[0] / v[0, 0, 0].square().sum()))
    return float((torch.tensor(found, dtype=torch.float64) - exact).abs().max() / full)


def prefill_error(seed: int, *, carried: bool = True, tokens: int = 40) -> float:
    """Largest difference between logits of a whole pass and token by token from a cache; wrong: memories are not `carried`."""
    model, ids = _model(seed, 0.5), _ids(seed, 2, tokens)
    with torch.no_grad():
        whole = model(input_ids=ids).logits
        cache: Any = None
        parts: list[torch.Tensor] = []
        for piece in ids.split([8] + [1] * (tokens - 8), 1):
            out = model(input_ids=piece, use_cache=True, cache=cache)
            cache = out.cache
            parts.append(out.logits)
            for layer in cache.layers if not carried else ():
                layer.resonance.S = torch.zeros_like(layer.resonance.S)
    return float((torch.cat(parts, 1) - whole).abs().max())


def bound_violations(seed: int, *, tokens: int = 300) -> int:
    """How often |S_t| exceeds eta (1 + kappa) max|v| / (1 - lam) on random input that often comes again."""
    rng = np.random.default_rng(seed)
    often = torch.from_numpy(rng.integers(0, 6, tokens))
    k, v = unit(_draw(seed, 2, 2, 6, 8))[:, :, often], _draw(seed + 1, 2, 2, 6, 8)[:, :, often]
    S, count = None, 0
    most = ETA * (1 + KAPPA) * v.norm(dim=-1).amax(-1) / (1 - LAM)
    for t in range(tokens):
        now = slice(t, t + 1)
        S = resonance_scan(k[:, :, now], k[:, :, now], v[:, :, now], torch.ones(2, 2, 1).double(), LAM, ETA, KAPPA, S).S
        count += int((S.flatten(-2).norm(dim=-1) > most).sum())
    return count


def causality_error(seed: int, *, peeks: bool = False, tokens: int = 50) -> float:
    """Largest change of a logit before a token that is changed; wrong: relevance `peeks` two tokens ahead."""
    model, ids = _model(seed, 0.5), _ids(seed, 1, tokens)
    for memory in memories(model).values() if peeks else ():
        memory.relevance.register_forward_hook(lambda module, given, out: out.roll(-2, 1))
    worst = 0.0
    with torch.no_grad():
        before = model(input_ids=ids).logits
        for t in range(1, tokens, 7):
            changed = ids.clone()
            changed[:, t] = (ids[:, t] + 1) % 64
            worst = max(worst, float((model(input_ids=changed).logits - before)[:, :t].abs().max()))
    return worst


def approximation(seed: int, chunks: tuple[int, ...], refine: tuple[int, ...], *, tokens: int = 256) -> np.ndarray:
    """Error of chunked forms (chunks, refine), |m - m of the loop| / |m of the loop|, on pairs that come again and again."""
    often = torch.from_numpy(np.random.default_rng(seed).integers(0, 24, tokens))
    k, v = unit(_draw(seed, 2, 4, 24, 32))[:, :, often], _draw(seed + 1, 2, 4, 24, 32)[:, :, often]
    r = torch.sigmoid(_draw(seed + 2, 2, 4, tokens))
    exact = resonance_scan(k, k, v, r).m
    errors = [
        [float((resonance_scan(k, k, v, r, form="chunk", chunk=c, refine=n).m - exact).norm() / exact.norm()) for n in refine]
        for c in chunks
    ]
    return np.array(errors)


def reinforcement(
    seed: int, kappas: tuple[float, ...], *, draws: int = 200, pairs: int = 32, width: int = 32, times: int = 4
) -> dict[str, np.ndarray]:
    """Cosine of what is read back for one of many random pairs, written several times in random order among the others.

    Returned by how strongly each write is made (kappas,): `resonance`; `shuffled`, the same strengths dealt out to the writes
    of the draw at random; `constant`, their mean; `familiar`, by the key alone, 1 where it came before. Beside them
    `resonance_selectivity` and so on: mean rho of those later writes, less that where the key comes back with other values.
    """
    rng = np.random.default_rng(seed)
    which = np.concatenate([np.arange(pairs), np.zeros(times - 1, int)])
    order = torch.from_numpy(rng.permuted(np.tile(which, (draws, 1)), axis=1))
    k = unit(_draw(seed, draws, pairs, width)).gather(1, order[..., None].expand(-1, -1, width))[:, None]
    v = _draw(seed + 1, draws, pairs, width).gather(1, order[..., None].expand(-1, -1, width))[:, None]
    wanted = _draw(seed + 1, draws, pairs, width)[:, 0]
    asked = unit(_draw(seed, draws, pairs, width))[:, 0]
    again = (order == 0) & ((order == 0).cumsum(1) > 1)
    other = torch.where(again[:, None, :, None], _draw(seed + 2, *v.shape), v)
    deal = torch.from_numpy(rng.permuted(np.tile(np.arange(len(which)), (draws, 1)), axis=1))[:, None]
    one = torch.ones_like(k[..., 0])

    def rho(kind: str, values: torch.Tensor, kappa: float) -> torch.Tensor:
        if kind == "familiar":
            return torch.tril((k @ k.mT).clamp_min(0), -1).amax(-1)
        found = resonance_scan(k, k, values, one, LAM, ETA, kappa).rho
        if kind == "shuffled":
            return found.gather(2, deal)
        return found.mean(2, keepdim=True).expand_as(found) if kind == "constant" else found

    result: dict[str, np.ndarray] = {}
    for kind in ("resonance", "shuffled", "constant", "familiar"):
        rows = []
        for kappa in kappas:
            S = resonance_scan(k, k, v, 1 + kappa * rho(kind, v, kappa), LAM, ETA, 0.0, form="parallel").S[:, 0]
            back = (S.mT @ asked[..., None])[..., 0]
            rows.append(float(torch.nn.functional.cosine_similarity(back, wanted, dim=-1).mean()))
        result[kind] = np.array(rows)
        means = [float(rho(kind, values, kappas[-1])[:, 0][again].mean()) for values in (v, other)]
        result[f"{kind}_selectivity"] = np.array(means[0] - means[1])
    return result


def passes(
    forms: Mapping[str, Mapping[str, Any] | None],
    length: int,
    *,
    width: int = 512,
    heads: int = 8,
    blocks: int = 2,
    seed: int = 0,
) -> dict[str, Callable[[], Any]]:
    """Whole passes of a Llama over one text, by name, to be timed: without a memory where the settings are None."""
    sizes = Sizes(words=1000, width=width, blocks=blocks, heads=heads, positions=length)
    ids = torch.randint(0, 1000, (1, length), generator=torch.Generator().manual_seed(seed))

    def one(settings: Mapping[str, Any] | None) -> Callable[[], Any]:
        model = new_model("llama", sizes, seed=seed).eval()
        if settings is not None:
            add_synaptic_resonance(model, SynapticResonanceConfig(**settings), seed=seed)
        return torch.no_grad()(lambda: model(input_ids=ids, use_cache=False).logits[0, -1].sum())

    return {name: one(settings) for name, settings in forms.items()}
