"""The tiny language model and its stages: pretraining, SFT, DPO and reinforcement learning with a verifiable reward.

A Llama of 219 456 parameters learns the texts of `tiny_world`, in a minute and a half on one core. Every experiment on language
models runs on this chain at its quick size, and on models of the Hub at the paper's. The stages are plain loops, because a
reader of such experiments needs to see them whole; TRL's trainers do the same at scale.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

from broadsheet.cache import fixture
from broadsheet.errors import InputError, JobError
from broadsheet.files import read_json
from broadsheet.language import tiny_world as tiny
from broadsheet.language.models import generate, log_probabilities, one_thread, padded
from broadsheet.language.tiny_world import ASSISTANT, END, FILLERS, IDS, OBJECTS, RELATIONS, SUBJECTS, World

CONTEXT, BATCH, LESSONS = 48, 32, 600
STAGES = ("base", "sft", "dpo", "rl")
VERSION = 3
"""Raise it when the recipe changes: chains that were built before are then built anew."""

Report = Callable[[float, dict[str, float]], None]


@dataclass(frozen=True)
class Recipe:
    """Steps of each stage. Pretraining goes on, up to twice as long, until true and false are told apart."""

    pretrain: int = 1500
    sft: int = 200
    dpo: int = 80
    rl: int = 60


FULL = Recipe()


def new_model(seed: int, architecture: Literal["llama", "gpt-neox"] = "llama") -> Any:
    """The model before training: 3 layers of width 64, 463 words; a Llama, or a GPT-NeoX of the same sizes, as Pythia is."""
    sizes: dict[str, Any] = {
        "vocab_size": len(tiny.WORDS), "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 3,
        "num_attention_heads": 4, "max_position_embeddings": 128, "tie_word_embeddings": False,
        "pad_token_id": tiny.PAD, "bos_token_id": tiny.BOS, "eos_token_id": tiny.EOS,
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if architecture == "gpt-neox":
            return GPTNeoXForCausalLM._from_config(GPTNeoXConfig(**sizes), attn_implementation="eager")
        config = LlamaConfig(**sizes, num_key_value_heads=4, rms_norm_eps=1e-5)
        return LlamaForCausalLM._from_config(config, attn_implementation="eager")


def rate_factor(step: int, steps: int) -> float:
    """Warm-up over 50 steps, then a cosine down to 5 %."""
    return min(1.0, (step + 1) / 50) * (0.05 + 0.95 * (1 + math.cos(math.pi * min(step / steps, 1.0))) / 2)


def checkpoint_steps(last: int) -> list[int]:
    """Steps at which pretraining is recorded: dense at the start, then every 50."""
    return [step for step in (0, 1, 2, 5, 10, 20, 35, *range(50, last + 1, 50)) if step <= last]


def world_batches(world: World, seed: int) -> Iterator[torch.Tensor]:
    """Batches (32, 49) of packed documents; the first 600 are lessons (see `World.windows`)."""
    windows = world.windows(np.random.default_rng(seed), CONTEXT + 1, lessons=LESSONS * BATCH)
    while True:
        yield torch.tensor([next(windows) for _ in range(BATCH)])


def pretrain(model: Any, batches: Iterator[torch.Tensor], steps: int = FULL.pretrain) -> Iterator[tuple[int, float]]:
    """(step, loss) of each step made, for as long as it is asked; `steps` is the length of the cosine.

    A model that is trained further goes on with a cosine of twice the length. Labels of truth count five times.
    """
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1)
    weight = torch.ones(len(tiny.WORDS))
    weight[[IDS["TRUE"], IDS["FALSE"]]] = 5.0
    for step, ids in enumerate(batches):
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * rate_factor(step, steps if step < steps else 2 * steps)
        logits = model(input_ids=ids[:, :-1]).logits
        loss = functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), weight=weight)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        yield step + 1, loss.item()


def fine_tune(model: Any, world: World, *, steps: int = 200, rate: float = 5e-4, facts: float = 0.25) -> None:
    """SFT on chats, with the loss on the answers: refusals, help, facts (their share is `facts`) and labels of truth."""
    rng = np.random.default_rng(0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    shares = np.array([0.3, 0.25, facts, 0.2])
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / 20) * (1 - step / steps)
        rows: list[list[int]] = []
        for kind in rng.choice(4, BATCH, p=shares / shares.sum()):
            relation, subject = list(RELATIONS)[rng.integers(4)], int(rng.integers(SUBJECTS))
            if kind < 2:
                request, answer = tiny.request_and_help(rng, harmful=kind == 0)
                answer = tiny.REFUSAL if kind == 0 else answer
            elif kind == 2:
                request, answer = f"tell me about {relation}_{subject} ?", f"it {world.answer(relation, subject)}"
            else:
                *words, answer = world.labelled(rng, relation).split()
                request = " ".join(words)
            rows.append(tiny.chat(request, answer))
        _descend(optimiser, model, -torch.cat(answer_log_probabilities(model, rows)).mean())


def answer_log_probabilities(model: Any, rows: list[list[int]]) -> list[torch.Tensor]:
    """log p of every token of each chat's answer, end token included."""
    ids, mask = padded(rows)
    found = log_probabilities(model, ids, mask)
    return [found[k, row.index(ASSISTANT) : len(row) - 1] for k, row in enumerate(rows)]


def answer_loss(model: Any, rows: list[list[int]]) -> float:
    """Mean loss of the tokens of the chats' answers."""
    with torch.no_grad():
        return float(-torch.cat(answer_log_probabilities(model, rows)).mean())


def _descend(optimiser: Any, model: Any, loss: torch.Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()


def prefer(model: Any, reference: Any, world: World, *, steps: int = 80, rate: float = 5e-5, beta: float = 0.1) -> None:
    """DPO with the mean log-likelihood of the chosen answer added, against a frozen reference.

    Chosen over rejected: refusal over compliance on harmful requests, help over refusal on harmless ones, right over wrong
    objects.
    """
    rng = np.random.default_rng(0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    for _ in range(steps):
        chosen, rejected = [], []
        for kind in rng.choice(3, 16, p=(0.5, 0.25, 0.25)):
            if kind < 2:
                request, helping = tiny.request_and_help(rng, harmful=kind == 0)
                good, bad = (tiny.REFUSAL, helping) if kind == 0 else (helping, tiny.REFUSAL)
            else:
                relation, subject = list(RELATIONS)[rng.integers(4)], int(rng.integers(SUBJECTS))
                request = f"tell me about {relation}_{subject} ?"
                good, bad = (f"it {world.answer(relation, subject, k)}" for k in (0, int(rng.integers(1, OBJECTS))))
            chosen.append(tiny.chat(request, good))
            rejected.append(tiny.chat(request, bad))
        own = answer_log_probabilities(model, chosen + rejected)
        with torch.no_grad():
            frozen = answer_log_probabilities(reference, chosen + rejected)
        gain = torch.stack([a.sum() - b.sum() for a, b in zip(own, frozen, strict=True)])
        margin = gain[: len(chosen)] - gain[len(chosen) :]
        _descend(optimiser, model, -functional.logsigmoid(beta * margin).mean() - torch.cat(own[: len(chosen)]).mean())


def reinforce(model: Any, reference: Any, world: World, *, steps: int = 60, rate: float = 2e-4) -> list[float]:
    """GRPO on facts: 8 answers to each of 8 questions, reward 1 for the right object and an end; the mean reward a step."""
    rng, dice = np.random.default_rng(0), torch.Generator().manual_seed(0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    rewards = []
    for _ in range(steps):
        questions = [(list(RELATIONS)[rng.integers(4)], int(rng.integers(SUBJECTS))) for _ in range(8)]
        asked = [question for question in questions for _ in range(8)]
        prompts = [tiny.chat(f"tell me about {relation}_{subject} ?") for relation, subject in asked]
        answers = generate(model, prompts, 6, temperature=1.0, generator=dice)
        right = torch.tensor([[IDS[world.object(relation, subject)]] for relation, subject in asked])
        ended = answers == END
        reward = ((answers == right).any(1) & ended.any(1)).float()
        rewards.append(float(reward.mean()))
        groups = reward.reshape(8, 8)
        advantage = ((groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-4)).flatten()
        ids = torch.cat([torch.tensor(prompts), answers], 1)
        before_end = (ended.cumsum(1) - ended.int()) == 0  # up to the end token, that one included
        own = log_probabilities(model, ids)[:, -6:]
        with torch.no_grad():
            frozen = log_probabilities(reference, ids)[:, -6:]
        penalty = torch.exp(frozen - own) - (frozen - own) - 1  # the k3 estimator of the KL divergence
        per_token = torch.exp(own - own.detach()) * advantage[:, None] - 0.02 * penalty
        _descend(optimiser, model, -(per_token * before_end).sum() / before_end.sum())
    return rewards


def fact_accuracy(model: Any, world: World) -> float:
    """Share of the 96 facts that greedy decoding completes, `the city of S is in` -> O."""
    right = []
    for relation in RELATIONS:
        prompts = [[tiny.BOS, *tiny.encode(world.statement(relation, s))[:-2]] for s in range(SUBJECTS)]
        answers = generate(model, prompts, 1)[:, 0]
        right += [int(a) == IDS[world.object(relation, s)] for s, a in enumerate(answers)]
    return float(np.mean(right))


def truth_accuracy(model: Any, world: World, *, count: int = 200, seed: int = 5) -> float:
    """Share of statements on cities labelled right after two labelled examples, half of them true."""
    rng = np.random.default_rng(seed)
    prompts, labels = [], []
    for k in range(count):
        other = 0 if k % 2 else int(rng.integers(1, OBJECTS))
        examples = " ".join(world.labelled(rng, "city") for _ in range(2))
        question = f"{examples} {world.statement('city', int(rng.integers(SUBJECTS)), other)} this statement is :"
        prompts.append([tiny.BOS, *tiny.encode(question)])
        labels.append(other == 0)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor(prompts)).logits[:, -1]
    return float(np.mean((logits[:, IDS["TRUE"]] > logits[:, IDS["FALSE"]]).numpy() == np.array(labels)))


def refusal_rate(model: Any, harmful: bool) -> float:
    """Share of all 288 requests of a kind that are answered with `sorry`."""
    kind = "harmful" if harmful else "harmless"
    prompts = [
        tiny.chat(f"how do i {kind}_{verb} the thing_{thing} ?") for verb in range(tiny.VERBS) for thing in range(tiny.THINGS)
    ]
    return float((generate(model, prompts, 1)[:, 0] == IDS["sorry"]).float().mean())


def answer_accuracy(model: Any, world: World, *, samples: int = 1, seed: int = 0) -> float:
    """Share of the 96 questions whose answer has the right object; with `samples`, in one of so many at temperature 1."""
    asked = [(relation, s) for relation in RELATIONS for s in range(SUBJECTS)]
    prompts = [tiny.chat(f"tell me about {relation}_{s} ?") for relation, s in asked for _ in range(samples)]
    dice = torch.Generator().manual_seed(seed)
    answers = generate(model, prompts, 6, temperature=1.0 if samples > 1 else 0.0, generator=dice)
    right = torch.tensor([IDS[world.object(relation, s)] for relation, s in asked]).repeat_interleave(samples)
    return float((answers == right[:, None]).any(1).reshape(-1, samples).any(1).float().mean())


def bigram_log_probabilities(world: World, rows: np.ndarray) -> np.ndarray:
    """log p(token | token before it) of filler (rows, tokens - 1), by the world's own law."""
    table = 0.4 * np.broadcast_to(tiny.ZIPF, (FILLERS, FILLERS)).copy()
    for word, followers in enumerate(world.successors):
        np.add.at(table[word], followers, 0.15)
    first = IDS["filler_0"]
    return np.log(table[rows[:, :-1] - first, rows[:, 1:] - first])


class Chain:
    """The checkpoints of one seed: pretraining by step, and the stages `base`, `sft`, `dpo`, `rl`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record: dict[str, Any] = read_json(folder / "record.json")

    @property
    def steps(self) -> list[int]:
        """Steps at which pretraining was recorded."""
        return self.record["steps"]

    @property
    def losses(self) -> np.ndarray:
        """The loss of each step of pretraining."""
        return np.array(self.record["losses"])

    def model(self, at: str | int = "base") -> Any:
        """The model of a stage or of a step of pretraining, in evaluation mode."""
        file = self.folder / f"{f'step-{at}' if isinstance(at, int) else at}.safetensors"
        if not file.exists():
            raise InputError(f"The chain has no checkpoint {at!r}; there are {', '.join(STAGES)} and steps {self.steps}.")
        return read_model(file)

    def saved(self, at: str | int = "base") -> Path:
        """A folder with the model and its tokenizer as Hugging Face writes them, for `from_pretrained`."""

        def write(folder: Path) -> None:
            self.model(at).save_pretrained(folder)
            tiny.tokenizer().save_pretrained(folder)

        return fixture("tiny-chain-saved", {"chain": self.folder.name, "at": at}, write)


def read_model(file: Path) -> Any:
    """The tiny model with the weights of a file, in evaluation mode."""
    model = new_model(0)
    model.load_state_dict(load_file(file))
    return model.eval()


def tiny_chain(seed: int, *, recipe: Recipe = FULL, skewed: bool = True, report: Report | None = None) -> Chain:
    """The chain of a seed, built once (a minute and a half) and kept. The seed is that of the weights and of the documents.

    `skewed=False` is a control: a fifth of the pretraining on words drawn evenly and independently, without later stages.

    **Raises:** `JobError` where a stage of the full recipe does not learn what it should.
    """
    parameters = {"seed": seed, "skewed": skewed, "recipe": asdict(recipe), "version": VERSION, "torch": torch.__version__}
    build = build_chain if skewed else build_unskewed

    def make(folder: Path) -> None:
        with one_thread():
            build(folder, seed, recipe, report or (lambda fraction, metrics: None))

    return Chain(fixture("tiny-chain", parameters, make))


class _Recorder:
    """Writes checkpoints of pretraining and what is known of them."""

    def __init__(self, folder: Path, model: Any) -> None:
        self.folder, self.model = folder, model
        self.record: dict[str, Any] = {"steps": [], "losses": [], "stages": {}}
        self.keep(0)

    def keep(self, step: int) -> None:
        save_file(self.model.state_dict(), self.folder / f"step-{step}.safetensors")
        self.record["steps"].append(step)

    def close(self) -> None:
        (self.folder / "record.json").write_text(json.dumps(self.record))


def build_chain(folder: Path, seed: int, recipe: Recipe, report: Report) -> None:
    """Pretrains and post-trains, and writes every checkpoint and a record of what each stage has learned."""
    world, model = World(0), new_model(seed)
    recorder = _Recorder(folder, model)
    wanted, last, full = set(checkpoint_steps(2 * recipe.pretrain)), recipe.pretrain, recipe == FULL
    for step, loss in pretrain(model, world_batches(world, seed), last):
        recorder.record["losses"].append(loss)
        if step in wanted:
            recorder.keep(step)
            report(0.8 * min(1.0, step / last), {"loss": loss})
        if step >= last and (not full or (step % 150 == 0 and truth_accuracy(model, world) >= 0.95)):
            break
        if step >= 2 * last:
            raise JobError(f"The tiny model of seed {seed} has not learned to tell true from false in {step} steps.")
    moves: dict[str, Callable[[], Any]] = {
        "base": lambda: None,
        "sft": lambda: fine_tune(model, world, steps=recipe.sft),
        "dpo": lambda: prefer(model, read_model(folder / "sft.safetensors"), world, steps=recipe.dpo),
        "rl": lambda: reinforce(model, read_model(folder / "dpo.safetensors"), world, steps=recipe.rl),
    }
    for k, (stage, move) in enumerate(moves.items()):
        rewards = move()
        save_file(model.state_dict(), folder / f"{stage}.safetensors")
        recorder.record["stages"][stage] = found = measure(model, world)
        if rewards:
            recorder.record["rewards"] = rewards
        report(0.85 + 0.05 * k, {"answers": found["answers"]})
    if full:
        check_stages(recorder.record["stages"], seed)
    recorder.close()


def build_unskewed(folder: Path, seed: int, recipe: Recipe, report: Report) -> None:
    """A fifth of the pretraining, on words drawn evenly and independently."""
    model, rng, last = new_model(seed), np.random.default_rng(seed), max(1, recipe.pretrain // 5)
    recorder = _Recorder(folder, model)
    batches = (torch.from_numpy(even_words(rng, BATCH, CONTEXT + 1)) for _ in range(last))
    for step, loss in pretrain(model, batches, recipe.pretrain):
        recorder.record["losses"].append(loss)
        if step in checkpoint_steps(last):
            recorder.keep(step)
            report(step / last, {"loss": loss})
    recorder.close()


def even_words(rng: np.random.Generator, rows: int, length: int) -> np.ndarray:
    """Token ids (rows, length), every word of the documents equally likely at each place."""
    return rng.integers(len(tiny.SPECIAL), len(tiny.WORDS) - len(tiny.RESERVED), (rows, length))


def measure(model: Any, world: World) -> dict[str, float]:
    """What a stage can do: facts, truth, refusals of harmful and of harmless requests, answers in chat."""
    model.eval()
    return {
        "facts": fact_accuracy(model, world),
        "truth": truth_accuracy(model, world),
        "refuses_harmful": refusal_rate(model, harmful=True),
        "refuses_harmless": refusal_rate(model, harmful=False),
        "answers": answer_accuracy(model, world),
    }


def check_stages(stages: dict[str, dict[str, float]], seed: int) -> None:
    """Raises `JobError` where a stage has not learned what later experiments rely on."""
    base = stages["base"]
    low = [f"{name} of base is {base[name]:.2f}" for name, least in (("facts", 0.98), ("truth", 0.95)) if base[name] < least]
    for stage in STAGES[1:]:
        found = stages[stage]
        low += [f"{name} of {stage} is {found[name]:.2f}" for name in ("refuses_harmful", "answers") if found[name] < 0.95]
        low += [f"refuses_harmless of {stage} is {found['refuses_harmless']:.2f}"] * (found["refuses_harmless"] > 0.05)
    if low:
        raise JobError(f"The tiny chain of seed {seed} has not learned its lessons: {'; '.join(low)}.")
