"""Made-up records of papers, for crowds in which a real one has to be found and for load: fields, methods and findings combined."""

from __future__ import annotations

import random
from datetime import date, timedelta

from broadsheet.page.facts import Facts

FIELDS = {
    "spiking networks": "surrogate gradients, membrane noise, event sensors, homeostasis, temporal coding, neuromorphic chips",
    "reservoir computing": "echo states, photonic reservoirs, spectral radius, chaotic forecasting, readout training, memory capacity",
    "interatomic potentials": "message passing, active learning, charge transfer, phase diagrams, water, amorphous silicon",
    "electronic structure": "coupled cluster, band gaps, pseudopotentials, basis sets, excited states, stochastic orbitals",
    "language models": "tokenisation, long context, mixture of experts, hallucination, prompt tuning, multilingual transfer",
    "reinforcement learning": "exploration bonuses, offline data, world models, safe policies, hierarchical skills, credit assignment",
    "model compression": "distillation, low-rank adapters, structured sparsity, mixed precision, hashing, hardware search",
    "diffusion models": "fast samplers, guidance, video generation, inverse problems, discrete data, consistency training",
    "computer vision": "segmentation, depth estimation, pose, open vocabulary detection, point clouds, tracking",
    "brain imaging": "functional MRI, diffusion tractography, resting state, motion artefacts, parcellation, cross-site harmony",
    "electrophysiology": "spike sorting, local field potentials, sleep spindles, probes, seizure forecasts, laminar recordings",
    "calcium imaging": "deconvolution, registration, two-photon mesoscopes, zebrafish larvae, dendritic signals, denoising",
    "memory and navigation": "grid cells, replay, remapping, time cells, path integration, schema learning",
    "synaptic plasticity": "calcium-based rules, metaplasticity, consolidation, inhibitory plasticity, neuromodulation, heterosynaptic change",
    "soft matter": "active nematics, granular flow, gels, wetting, self-assembly, polymer brushes",
    "cell biology": "actin waves, migration, nuclear mechanics, organoids, mitosis, membrane tension",
    "hadron physics": "lattice QCD, parton distributions, exotic mesons, form factors, heavy ions, spin structure",
    "superconducting devices": "qubit readout, kinetic inductance, flux noise, parametric amplifiers, cryogenic memory, thin films",
    "optimal transport": "entropic regularisation, barycentres, gradient flows, domain shift, Gromov distances, sliced metrics",
    "robotics": "grasping, legged locomotion, visual servoing, simulators, tactile skin, motion planning",
    "astronomy": "galaxy surveys, exoplanets, gravitational waves, stellar spectra, cosmic dawn, photometric redshifts",
    "climate": "downscaling, extreme rain, sea ice, aerosols, emulators, ocean heat",
    "genomics": "variant calling, single-cell atlases, enhancers, protein language models, CRISPR screens, phylogenies",
    "medicine": "radiology reports, survival models, wearable sensors, drug response, trial design, pathology slides",
    "graph learning": "oversmoothing, link prediction, hypergraphs, spectral filters, molecules, temporal graphs",
    "statistics": "conformal prediction, causal inference, missing data, Gaussian processes, robust regression, multiple testing",
    "speech and audio": "speaker separation, music generation, keyword spotting, codecs, accents, sound events",
    "security": "backdoors, membership inference, watermarks, federated attacks, malware, secure enclaves",
}
METHODS = (
    "a variational bound", "contrastive pretraining", "a Bayesian treatment", "a closed-form solution", "large-scale simulation",
    "a new benchmark", "spectral analysis", "a simple linear baseline", "an ablation of every part", "mean-field theory",
    "self-supervised labels", "a physics-informed loss", "meta-learning", "a graph of constraints", "convex relaxation",
    "evolutionary search", "careful measurement", "kernel methods", "symbolic regression", "a mixture of local models",
)  # fmt: skip
FINDINGS = (
    "errors fall by a third at equal cost", "the gain vanishes out of distribution", "two published results do not replicate",
    "one parameter explains most of the variance", "data quality matters more than size", "the effect survives all controls",
    "convergence is provably linear", "human experts agree with the ranking", "training is ten times cheaper",
    "a phase transition separates both regimes", "noise helps up to a point", "the structure transfers across species and devices",
)  # fmt: skip
FRAMES = (
    "{Topic} with {method}", "Rethinking {topic} in {field}", "{Topic} at scale: {method}", "On the limits of {topic}",
    "Towards reliable {topic} through {method}", "What {topic} can tell about {other}", "{Topic} meets {other}: {method}",
)  # fmt: skip


def records(count: int, seed: int = 0, last: date = date(2025, 12, 10), length: int = 2) -> list[Facts]:
    """`count` papers with distinct titles and arXiv ids, 40 a day up to `last`; `length`: sentences of an abstract."""
    draw = random.Random(seed)
    found: list[Facts] = []
    seen: set[str] = set()
    while len(found) < count:
        field = draw.choice(list(FIELDS))
        topics = FIELDS[field].split(", ")
        topic, other = draw.sample(topics, 2)
        method, k = draw.choice(METHODS), len(found)
        title = draw.choice(FRAMES).format(
            Topic=topic[0].upper() + topic[1:], topic=topic, other=other, field=field, method=method
        )  # fmt: skip
        if title in seen:
            title = f"{title}, part {k}"
        seen.add(title)
        sentences = [
            f"We study {topic} in {field} with {method} and find that {draw.choice(FINDINGS)}.",
            f"On {other}, {draw.choice(FINDINGS)}, and {draw.choice(METHODS)} confirms it.",
            f"Compared with {draw.choice(topics)}, the approach needs {draw.randint(2, 90)} times fewer samples.",
            f"We release code, and discuss where {draw.choice(METHODS)} would be the better choice for {field}.",
        ]
        day = last - timedelta(days=k // 40)
        found.append(
            Facts(
                title=title,
                arxiv=f"{day:%y%m}.{60000 + k % 39999:05d}",
                abstract=" ".join(sentences[j % 4] for j in range(length)),
                names=tuple(f"{draw.choice('ABCDEFGHJKLM')}. Author{draw.randint(1, 4000)}" for _ in range(draw.randint(1, 8))),
                authors=None,
                published=day.isoformat(),
                upvotes=int(draw.paretovariate(1.2)),
                comments=draw.choice((0, 0, 0, 1, 2, 5)),
            )
        )
    return found
