"""A scan of fast weights over a sequence: linear attention with decay, and the delta rule."""

import numpy as np

from harness import Comparison

LAM = 0.98


def inputs(case):
    """Keys, queries, values (heads, time, width) and strengths (heads, time)."""
    rng = np.random.default_rng(0)
    k, q, v = (rng.standard_normal((case["heads"], case["time"], case["width"])).astype(np.float32) for _ in range(3))
    k, q = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (k, q))
    return {"k": k, "q": q, "v": v, "r": rng.random(k.shape[:2]).astype(np.float32)}


sizes = {"heads": 8, "time": 1024, "width": 64}
comparison = Comparison(
    "Fast weights over 1024 tokens, 8 heads of width 64, one thread",
    {"linear attention with decay": sizes | {"rule": "hebb"}, "delta rule": sizes | {"rule": "delta"}},
    inputs,
    text="One text, forward, without resonance, which the peers do not have; flash-linear-attention by its own PyTorch code, since "
    "its kernels need a GPU. It reads after each write: our queries come one token later. “With resonance” is ours with "
    "kappa = 0.5, exact and in chunks.",
    agree={"size": 1e-4},
)


def _values(out):
    return {"size": float(out.abs().mean())}


def _ours(case, given, **options):
    import torch

    from broadsheet.language.resonance import resonance_scan

    torch.set_num_threads(1)
    k, q, v, r = (torch.from_numpy(given[name])[None] for name in ("k", "q", "v", "r"))
    late = torch.cat([torch.zeros_like(q[:, :, :1]), q[:, :, :-1]], 2)  # reads the memory after the write before
    lam = 1.0 if case["rule"] == "delta" else LAM
    scale = case["width"] ** -0.5

    def run():
        with torch.no_grad():
            m = resonance_scan(k, late, v, r, lam, rule=case["rule"], **options).m
            return _values(scale * m[:, :, 1:])

    return run


@comparison.side("broadsheet", packages=("torch",))
def chunks(case, given):
    return _ours(case, given, kappa=0.0, form="chunk", chunk=32)


@comparison.side("broadsheet, step by step", packages=("torch",))
def loop(case, given):
    return _ours(case, given, kappa=0.0, form="loop")


@comparison.side("broadsheet, with resonance", packages=("torch",))
def resonating(case, given):
    run = _ours(case, given, kappa=0.5, form="chunk", chunk=32)

    def timed():
        run()
        return {}

    return timed


def _fla(case, given, which):
    import torch
    from fla.ops.delta_rule.naive import delta_rule_chunkwise, delta_rule_recurrence
    from fla.ops.simple_gla.naive import naive_chunk_simple_gla, naive_recurrent_simple_gla

    torch.set_num_threads(1)
    k, q, v, r = (torch.from_numpy(given[name])[None] for name in ("k", "q", "v", "r"))
    gate = torch.full_like(r, float(np.log(LAM)))
    across = [x.transpose(1, 2).contiguous() for x in (q, k, v * r[..., None], gate)]

    def run():
        with torch.no_grad():
            if case["rule"] == "delta":
                out = (delta_rule_recurrence if which == "loop" else delta_rule_chunkwise)(q, k, v, r)
            else:
                out = (naive_recurrent_simple_gla if which == "loop" else naive_chunk_simple_gla)(*across)
            out = out[0] if isinstance(out, tuple) else out
            return _values(out[:, :, :-1] if case["rule"] == "delta" else out[:, :-1])

    return run


@comparison.side("flash-linear-attention, chunks", environment="fla", packages=("fla-core", "torch"))
def fla_chunks(case, given):
    return _fla(case, given, "chunks")


@comparison.side("flash-linear-attention, loop", environment="fla", packages=("fla-core", "torch"))
def fla_loop(case, given):
    return _fla(case, given, "loop")
