"""Made-up papers that are hard to tell from the shipped ones: titles and abstracts of neighbouring fields in the same jargon.

Six of seven are of fields that a shipped paper belongs to or borders on; the rest is what else a page of papers lists. Abstracts
have six to nine sentences: background, gap, what was done, details, findings and an outlook, each from many patterns. No field has what is a shipped paper's own subject:
a day's papers are not two hundred about the same.
"""

from __future__ import annotations

import random

from broadsheet.page.facts import Facts

NEURO = {
    "spiking networks": (
        "surrogate gradients; membrane time constants; leaky integrate-and-fire layers; spike timing; "
        "event-driven inference; converted networks; firing thresholds; temporal coding; spike regularisation; "
        "adaptive neurons; spiking transformers; energy per spike"
    ),
    "single neurons": (
        "pyramidal cells; apical dendrites; AMPA receptors; dendritic plateaus; compartmental models; "
        "backpropagating action potentials; synaptic integration; spine necks; ion channel noise; axon initial segments; "
        "burst firing; two-layer models of neurons"
    ),
    "synaptic plasticity": (
        "spike-timing-dependent plasticity; dopamine transients; eligibility traces; metaplasticity; homeostatic scaling; "
        "inhibitory plasticity; neuromodulators; synaptic tagging; spine turnover; calcium-based rules; "
        "heterosynaptic depression; consolidation"
    ),
    "memory": (
        "attractor networks; the dentate gyrus; pattern completion; pattern separation; replay; place cells; time cells; "
        "engrams; working memory; fear conditioning; semantic memory; forgetting curves"
    ),
    "associative memories": (
        "Hopfield models; sparse couplings; replica symmetry breaking; storage capacity; retrieval phases; "
        "Boltzmann machines; correlated patterns; diluted graphs; mean-field equations; temporal sequences; "
        "modern Hopfield layers; basins of attraction"
    ),
    "recurrent dynamics": (
        "excitation-inhibition balance; chaotic rate networks; fixed points; slow manifolds; gain modulation; "
        "neural tangent kernels; input-driven transitions; echo states; reservoir computing; balanced networks; "
        "metastable states; oscillations"
    ),
    "neural data": (
        "calcium imaging; spike sorting; latent dynamics; switching linear models; state-space smoothing; "
        "generalised linear models; functional connectivity; dimensionality reduction; behavioural videos; "
        "Neuropixels recordings; brain-machine interfaces; spike-field coherence"
    ),
    "whole-brain worms and flies": (
        "leech ganglia; neuron identification; neuropeptide signalling; olfactory responses; locomotion states; "
        "GCaMP recordings; fly central complex; wiring diagrams; zebrafish larvae; sensory neurons; "
        "courtship song; whole-brain activity"
    ),
    "sensory coding": (
        "efficient coding; surround suppression; orientation tuning; binocular rivalry; V1 populations; predictive coding; "
        "natural scenes; retinal ganglion cells; noise correlations; divisive normalisation; stimulus statistics; "
        "tuning curves"
    ),
    "cognition": (
        "numerosity; confidence ratings; frontal cortex; eye movements; timing and expectation; "
        "monkeys and humans; object permanence; decision variables; reward prediction; abstract rules; attention; "
        "temporal order"
    ),
    "astrocytes and glia": (
        "tripartite synapses; calcium waves in astrocytes; gliotransmission; microglia; slow modulation; "
        "potassium buffering; sleep and glia; astrocyte morphology; D-serine; energy supply of synapses"
    ),
    "neuromorphic hardware": (
        "wafer-scale systems; Loihi chips; memristive crossbars; analogue neurons; event cameras; in-memory computing; "
        "ferroelectric transistors; spintronic devices; optical neurons; phase-change synapses; address events; "
        "on-chip learning"
    ),
}
LEARNING = {
    "post-training": (
        "preference optimisation; instruction tuning; reward models; preference noise; supervised fine-tuning; "
        "sycophancy; reward hacking; rejection sampling; alignment tax; chat models; persona drift; "
        "synthetic prompts"
    ),
    "interpretability": (
        "residual streams; MLP neurons; sparse autoencoders; linear probes; steering vectors; induction heads; "
        "attention heads; concept vectors; circuit discovery; activation patching; causal tracing; "
        "feature superposition"
    ),
    "language models": (
        "pretraining corpora; hidden states; token frequencies; positional encodings; long contexts; memory modules; "
        "tokenisers; scaling laws; in-context learning; loss spikes; mixture of experts; test-time updates"
    ),
    "reasoning by reinforcement": (
        "policy gradients; group-relative advantages; chain of thought; test-time compute; tool use; entropy collapse; "
        "mathematical competitions; curricula of problems; process rewards; self-play; verifier noise; long rollouts"
    ),
    "compression": (
        "post-training quantisation; vector codebooks; weight pruning; lottery tickets; dynamic sparsity; "
        "calibration samples; low-bit weights; knowledge distillation; structured sparsity; activation outliers; "
        "layer dropping; integer inference"
    ),
    "vision and language": (
        "multimodal models; chart reading; image patches; document parsing; 3D perception; caption data; "
        "spatial reasoning; self-supervised objectives; visual encoders; grounding; depth order; hallucinated objects"
    ),
    "generative diffusion": (
        "score matching; reverse-time equations; video diffusion; discrete diffusion; flow matching; "
        "samplers with few steps; guidance; latent autoencoders; noise schedules; denoising objectives; "
        "likelihood bounds; mirror descent"
    ),
    "transport and trajectories": (
        "unbalanced transport; entropic optimal transport; Wasserstein gradient flows; single-cell snapshots; "
        "RNA velocity; multi-marginal problems; population dynamics; Sinkhorn iterations; stochastic interpolants; "
        "branching processes; lineage data; velocity fields"
    ),
    "continual learning": (
        "catastrophic forgetting; prompt pools; replay buffers; task subspaces; class-incremental protocols; "
        "plasticity loss; gradient interference; weight consolidation; modular growth; permuted tasks; "
        "rehearsal-free protocols; stability and plasticity"
    ),
    "theory of learning": (
        "category theory; string diagrams; sheaves on graphs; kernel regimes; implicit bias; generalisation bounds; "
        "compositional models; symmetry groups; infinite width; loss landscapes; monoidal structures; information bottlenecks"
    ),
    "place recognition and robots": (
        "visual localisation; loop closures; lidar maps; SLAM back ends; appearance change; night drives; "
        "image descriptors; legged robots; motion estimation; optical flow from events; route memory; visual odometry"
    ),
    "early exit and uncertainty": (
        "calibrated confidence; early exits; anytime prediction; ensembles; conformal sets; latency budgets; "
        "selective prediction; adaptive computation; Bayesian last layers; out-of-distribution inputs; "
        "temperature scaling; cascades"
    ),
}
ATOMS = {
    "interatomic potentials": (
        "machine-learned force fields; equivariant message passing; spherical harmonics; energy and forces; "
        "foundation potentials; active learning; long-range electrostatics; conservative forces; "
        "molecular dynamics at scale; angular features; data-efficient potentials; multipole moments"
    ),
    "molecular data sets": (
        "reaction barriers; conformer ensembles; DFT labels; organic molecules; geometry optimisation; "
        "off-equilibrium structures; solvated clusters; farthest-point selection; atomic environments; "
        "benchmark splits; transition states; label noise"
    ),
    "uncertain potentials": (
        "bootstrap ensembles; Langevin sampling; committee variance; Gaussian mixtures; "
        "evidential heads; error bars on forces; calibration of energies; Gaussian approximation potentials; "
        "extrapolation grades; posterior weights"
    ),
    "electronic structure": (
        "exchange-correlation functionals; Kohn-Sham equations; self-consistent cycles; automatic differentiation; "
        "double hybrids; density matrices; dissociation curves; spin gaps; basis sets; "
        "hybrid functionals; coupled cluster references; band gaps"
    ),
    "materials": (
        "phase diagrams; battery electrolytes; amorphous silicon; defects; grain boundaries; perovskites; "
        "catalysis on surfaces; high-entropy alloys; thermal conductivity; crystal structure prediction; "
        "metal-organic frameworks; phonons"
    ),
}
PHYSICS = {
    "soft matter": (
        "colloidal particles; optical tweezers; shear thickening; active matter; granular beds; self-propulsion; "
        "microswimmers; crystallisation; Brownian motion; hydrodynamic interactions; gel networks; trapped beads"
    ),
    "cell mechanics": (
        "traction forces; focal adhesions; vinculin; stress fibres; fluorescence images; substrate stiffness; "
        "migrating fibroblasts; actomyosin; continuum models; epithelial monolayers; force inference; "
        "nuclear deformation"
    ),
    "hadrons": (
        "deuteron breakup; jet quenching; charmonium; quark potentials; Regge trajectories; "
        "proton mass; lattice QCD; pentaquarks; vector mesons; gluonic form factors; electron-ion collisions; "
        "parton distributions"
    ),
    "superconductors": (
        "Andreev states; Josephson arrays; kinetic inductance; qubit readout; nanowires; quasiparticle traps; "
        "vortex dynamics; critical currents; cryogenic memory; microwave resonators; thin films; parametric amplifiers"
    ),
}
OTHERS = {
    "astronomy": (
        "galaxy surveys; exoplanet atmospheres; gravitational waves; stellar spectra; dark matter haloes; "
        "radio transients; cosmic dawn; supernova rates; photometric redshifts; accretion discs"
    ),
    "mathematics": (
        "elliptic equations; moduli spaces; random graphs; ergodic averages; free boundaries; harmonic maps; "
        "zeta functions; Ricci flow; conservation laws; convex bodies"
    ),
    "climate and earth": (
        "extreme rainfall; sea ice; aerosols; ocean heat; downscaling; drought indices; glacier flow; "
        "earthquake catalogues; carbon fluxes; river discharge"
    ),
    "genomics and health": (
        "single-cell atlases; variant calling; enhancers; protein language models; radiology reports; sepsis alerts; "
        "drug response; microbiomes; pathology slides; electronic records"
    ),
    "security and systems": (
        "backdoor attacks; membership inference; federated training; smart contracts; cache side channels; "
        "serverless platforms; code review; compiler fuzzing; access logs; watermarking"
    ),
    "society and language": (
        "news recommendation; low-resource translation; speech codecs; legal documents; political surveys; accent bias; "
        "dialogue games; labour markets; traffic forecasts; classroom tutors"
    ),
    "signals and graphs": (
        "oversmoothing; link prediction; beamforming; sparse recovery; point processes; causal discovery; missing data; "
        "robust regression; time-series foundation models; hypergraphs"
    ),
    "quantum information": (
        "error correction; variational circuits; entanglement witnesses; quantum channels; trapped ions; "
        "tensor networks; measurement-induced transitions; random circuits; quantum annealing; photonic gates"
    ),
}
GROUPS = ((NEURO, 34), (LEARNING, 32), (ATOMS, 12), (PHYSICS, 8), (OTHERS, 14))
"""(fields, their share of the papers in percent)."""

METHODS = (
    "a variational bound", "a contrastive objective", "an exactly solvable model", "large-scale simulation", "a simple linear baseline",
    "mean-field theory", "a Bayesian treatment", "a closed-form update", "spectral analysis of the weights", "a recurrent network",
    "a graph neural network", "a transformer with few parameters", "gradient-based optimisation", "evolutionary search", "a local learning rule",
    "low-rank approximations", "a stochastic differential equation", "automatic differentiation", "a convex relaxation", "a mixture of experts",
    "Monte Carlo sampling", "kernel regression", "an information-theoretic criterion", "careful ablations", "a data-driven surrogate",
    "reinforcement learning", "self-supervision", "a hidden Markov model", "tensor factorisation", "a deep ensemble",
)  # fmt: skip
MEASURES = (
    "accuracy", "sample efficiency", "energy consumption", "inference latency", "memory footprint", "robustness to noise", "calibration",
    "biological plausibility", "generalisation across data sets", "numerical stability", "interpretability", "throughput", "training time",
    "the error of forces", "long-horizon performance", "transfer to unseen tasks", "agreement with recordings", "physical consistency",
)  # fmt: skip
SETTINGS = (
    "on three public benchmarks", "in silico and in vivo", "across five model families", "on simulated and measured data", "under distribution shift",
    "at the scale of a single GPU", "with a tenth of the labels", "in a closed loop", "for networks of up to a million units", "over several orders of magnitude",
    "in the presence of strong noise", "without access to gradients", "with frozen weights", "in the thermodynamic limit", "near the critical point",
    "on neuromorphic and conventional hardware", "from partial observations", "for long sequences", "at room temperature", "on held-out sessions",
)  # fmt: skip
TITLES = (
    "{A} with {m}", "{A} and {b} in {f}", "Rethinking {a} for {f}", "How {a} shape {b}", "{A} beyond {b}", "Learning {a} from {b}",
    "Towards {q} of {a} through {m}", "{A} meet {b}: {m} for {f}", "On the role of {a} in {b}", "What do {a} tell about {b}?",
    "Scaling {a} to {b}", "A unified view of {a} and {b}", "{A}: {m} improves {q}", "The limits of {a} {s}", "Fast and accurate {a} via {m}",
    "Emergence of {a} under {b}", "Revisiting {a}: the case of {b}", "Benchmarking {a} {s}", "{B} reveal the structure of {a}", "Do {a} need {b}?",
)  # fmt: skip
BACKGROUND = (
    "{A} are central to {f}, yet their relation to {b} remains poorly understood.", "Recent progress in {f} has been driven by {a}.",
    "Understanding how {a} interact with {b} is a long-standing problem.", "{A} play a crucial role in {f}, in particular for {q}.",
    "The success of {a} in {f} raises the question of whether {b} are needed at all.", "Despite their importance, {a} are rarely studied {s}.",
    "Models of {f} commonly treat {a} and {b} separately.", "It is widely believed that {a} determine {q}.",
    "Accurate {a} are a prerequisite for {b}.", "Experiments on {a} have revealed an unexpected diversity of {c}.",
)  # fmt: skip
GAPS = (
    "However, existing approaches rely on {m} and scale poorly with {c}.", "Most prior work neglects {c}, which limits {q}.",
    "A systematic comparison of {a} with {b} {s} is still missing.", "Current methods need strong assumptions about {c}.",
    "Yet it is unclear whether {q} can be improved without giving up {b}.", "Existing theories omit {c} and fail to explain {b}.",
    "This comes at the price of {q}, since {c} have to be estimated anew.", "Previous studies considered either {a} or {c}, but not both.",
)  # fmt: skip
DONE = (
    "Here we introduce a framework that combines {a} with {m}.", "In this paper, we study {a} by means of {m} and relate them to {b}.",
    "We present a model of {a} in which {b} emerge from {c}.", "We propose {m} for {a} that accounts for {c} explicitly.",
    "We derive a number of scaling laws for {a} and test them {s}.", "To close this gap, we train on {b} and evaluate {a} {s}.",
    "We introduce a data set of {b} together with {m} for {a}.", "Building on {m}, we formalise {a} as a problem of {b}.",
)  # fmt: skip
DETAILS = (
    "The approach replaces {b} by {m}, so that {c} can be computed {s}.", "A key ingredient is {m}, which couples {a} to {c}.",
    "We compare against {n} other methods, among them {m} and variants without {c}.", "Our analysis covers {n} settings of {c} and {b}.",
    "The model has only {n} free parameters, all of which are fitted to {c}.", "By separating {a} from {c}, we obtain {q} for free.",
    "We implement {a} {s} and vary {c} over {n} values.", "Training alternates between {m} and updates of {c}.",
    "Guided by theory, we also test {c} numerically {s}.", "An ablation of {c} shows that {b} carry most of the effect.",
)  # fmt: skip
FINDINGS = (
    "We find that {a} improve {q} by {n} % over {b}.", "Our results show that {c} rather than {b} explain {q}.",
    "Surprisingly, {a} without {c} reach the same {q} {s}.", "We observe a sharp transition in {c} as {b} grow.",
    "The method achieves state-of-the-art {q} {s}, at {n} times lower cost.", "Across {n} experiments, {a} predict {c} better than {m} does.",
    "These results challenge the view that {a} require {b}.", "Notably, {q} degrades gracefully when {c} are removed.",
    "Both {a} and {c} converge to the same solution, which {m} does not find.", "The gain in {q} is largest for {c} and vanishes for {b}.",
)  # fmt: skip
OUTLOOK = (
    "Our work suggests new uses of {a} in {f}.", "This opens a way to {q} for {b}.", "Code and data are available for {a}.",
    "We discuss implications for {c} and future studies of {b}.", "Taken together, {a} offer a parsimonious account of {c}.",
    "The approach should benefit other problems of {f}, such as {c}.", "Our findings provide insight into {a} and their limits {s}.",
)  # fmt: skip
FIRST = [
    "Anna",
    "Wei",
    "Luca",
    "Priya",
    "Tomás",
    "Ingrid",
    "Yusuf",
    "Mei",
    "Jonas",
    "Elif",
    "Rahul",
    "Sofía",
    "Kenji",
    "Clara",
    "Omar",
    "Nadia",
    "Piotr",
    "Hana",
    "Felix",
    "Zoë",
]
LAST = [
    "Novák",
    "Chen",
    "García",
    "Okafor",
    "Lindqvist",
    "Rossi",
    "Tanaka",
    "Müller",
    "Singh",
    "Kowalski",
    "Haddad",
    "Øvergård",
    "Nguyen",
    "Petrov",
    "Ferreira",
    "Kaya",
    "Moreau",
    "Iyer",
    "Santos",
    "Bauer",
    "Zhang",
    "Jansen",
    "Costa",
    "Demir",
    "Eriksen",
    "Fontaine",
    "Gupta",
    "Horvat",
    "Ito",
    "Jensen",
]


def crowd(count: int, seed: int = 0) -> list[Facts]:
    """`count` papers with distinct titles; the same for the same seed, and the first ones do not depend on `count`."""
    draw = random.Random(seed)
    fields = [(name, terms.split("; "), share / len(group)) for group, share in GROUPS for name, terms in group.items()]
    shares = [share for _, _, share in fields]
    found: dict[str, Facts] = {}
    while len(found) < count:
        (field, terms, _), (_, others, _) = draw.choices(fields, shares, k=2)
        a, b, c = draw.sample(terms, 3)
        if draw.random() < 0.25:  # two fields meet
            b = draw.choice(others)

        def say(patterns: tuple[str, ...], used: set[str], a: str = a, b: str = b, c: str = c, field: str = field) -> str:
            pattern = draw.choice([pattern for pattern in patterns if pattern not in used])
            used.add(pattern)
            a, b, c = draw.choice(((a, b, c), (a, c, b), (b, a, c)))
            words = {"a": a, "b": b, "c": c, "f": field, "m": draw.choice(METHODS), "q": draw.choice(MEASURES)}
            text = pattern.format(**words, A=_capital(a), B=_capital(b), s=draw.choice(SETTINGS), n=draw.randint(2, 60))
            return _capital(text)

        title = say(TITLES, set())
        if title in found:
            continue
        used: set[str] = set()
        parts = [BACKGROUND, GAPS, DONE, *[DETAILS] * draw.randint(1, 3), *[FINDINGS] * draw.randint(1, 2), OUTLOOK]
        number = len(found)
        found[title] = Facts(
            title=title,
            arxiv=f"{14 + number // 20_000 % 10}{1 + number // 1667 % 12:02d}.{70_000 + number % 1667:05d}",
            abstract=" ".join(say(part, used) for part in parts),
            names=tuple(f"{draw.choice(FIRST)} {draw.choice(LAST)}" for _ in range(draw.randint(1, 6))),
            published=f"20{14 + number // 20_000 % 10}-{1 + number // 1667 % 12:02d}-{1 + number % 28:02d}",
        )
    return list(found.values())


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
