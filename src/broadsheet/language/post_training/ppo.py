"""Proximal policy optimisation with verifiable rewards: a policy, a value model of its own, and the model they began as.

As Tülu 3 trains (arXiv 2411.15124, section 6): the KL divergence is part of each token's reward, advantages are generalised and
whitened, the losses of policy and value are clipped. TRL has no such trainer any more; this one takes and gives what
`trainers.reinforce` does.
"""

from __future__ import annotations

import contextlib
import copy
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from broadsheet.cache import writing
from broadsheet.errors import InputError, JobError, MissingExtraError
from broadsheet.language.post_training.advantages import generalised_advantages, token_rewards, whitened
from broadsheet.language.post_training.losses import places
from broadsheet.language.post_training.rewards import Reward, reward_function
from broadsheet.language.post_training.settings import RLSettings
from broadsheet.language.post_training.trainers import (
    Run,
    Watching,
    adapter,
    chat_template,
    check_columns,
    check_room,
    dataset,
    last_checkpoint,
    training_arguments,
)

try:
    import torch
    from peft import get_peft_model
    from torch import Tensor
    from transformers import TrainerControl, TrainerState, TrainingArguments, get_scheduler
    from transformers.integrations import get_reporting_integration_callbacks
    from transformers.trainer_callback import CallbackHandler, DefaultFlowCallback
except ImportError:
    raise MissingExtraError("Training language models", "language") from None


class ValueModel(torch.nn.Module):
    """What is still to be won, from the state before each token: a copy of a causal model's body with one linear output, which
    begins as 0."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.body = copy.deepcopy(model.base_model)
        like = next(self.body.parameters())
        self.head = torch.nn.Linear(model.config.get_text_config().hidden_size, 1, device=like.device)
        torch.nn.init.zeros_(self.head.weight)
        torch.nn.init.zeros_(self.head.bias)

    def forward(self, ids: Tensor, attention: Tensor) -> Tensor:
        """(texts, tokens) of token numbers and attention -> values (texts, tokens)."""
        states = self.body(input_ids=ids, attention_mask=attention, position_ids=places(attention)).last_hidden_state
        return self.head(states.float())[..., 0]


@dataclass
class Answers:
    """Answers of one step and what is known of each token; (answers, tokens) but for what says otherwise."""

    ids: Tensor  # prompt, padded on the left, and answer
    attention: Tensor  # of both
    answer: Tensor  # token numbers
    valid: Tensor  # true up to the end
    log_probabilities: Tensor  # of the model that answered
    values: Tensor
    advantages: Tensor
    returns: Tensor

    def part(self, rows: slice) -> Answers:
        return Answers(**{name: getattr(self, name)[rows] for name in (field.name for field in fields(self))})


def reinforce_by_ppo(
    model: Any,
    words: Any,
    prompts: Any,
    reward: Reward,
    settings: RLSettings,
    run: Run | None = None,
    *,
    value_model: ValueModel | None = None,
) -> Any:
    """Reinforcement learning by PPO: the model, trained; its weights are changed in place.

    A step draws `batch` answers, `group` to a prompt, and passes over them `updates` times. With a folder in `run` it leaves
    checkpoints there and goes on from the last one; an interrupted training ends as an uninterrupted one.

    **Arguments:** as of `trainers.reinforce`; a reward of None counts as 0; `value_model`: to begin from (a reward model's
    body), else a copy of the model.

    **Raises:** `InputError` for data without prompts, and for a prompt that leaves no room for an answer; `JobError` where the
    reward fails or a loss is no number.
    """
    run = run or Run()
    rows = dataset(prompts)
    check_columns(rows, ("prompt",), "Reinforcement learning", "prompt")
    chat_template(words)
    check_room(model, words, rows, settings.answer_tokens)
    with training_arguments(run, settings, TrainingArguments, model) as arguments:
        return _PPO(model, words, rows, reward_function(reward), settings, run, arguments, value_model).train()


def policy_loss(now: Tensor, before: Tensor, advantages: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """Loss of each token, the larger of `-A rho` and `-A clip(rho)` with rho the ratio of probabilities now and before; and
    whether the clipped one was the larger."""
    ratio = (now - before).exp()
    free, clipped = -advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip)
    return torch.maximum(free, clipped), clipped > free


def value_loss(now: Tensor, before: Tensor, returns: Tensor, clip: float) -> Tensor:
    """Half the squared error of each value, or of the value that is at most `clip` from the one before, whichever is larger."""
    near = torch.clamp(now, before - clip, before + clip)
    return 0.5 * torch.maximum((now - returns) ** 2, (near - returns) ** 2)


def _ends(model: Any, words: Any) -> list[int]:
    """Tokens that end an answer, the tokenizer's first."""
    named = model.generation_config.eos_token_id
    also = [] if named is None else [named] if isinstance(named, int) else list(named)
    ends = list(dict.fromkeys(token for token in (words.eos_token_id, *also) if token is not None))
    if not ends:
        raise InputError(
            "Neither the tokenizer nor the model has a token that ends an answer; reinforcement learning needs one."
        )
    return ends


class _PPO:
    def __init__(
        self,
        model: Any,
        words: Any,
        rows: Any,
        reward: Reward,
        settings: RLSettings,
        run: Run,
        arguments: TrainingArguments,
        value_model: ValueModel | None,
    ) -> None:
        self.words, self.rows, self.reward, self.settings, self.run, self.arguments = (
            words,
            rows,
            reward,
            settings,
            run,
            arguments,
        )
        self.value = (value_model or ValueModel(model)).eval()
        lora = adapter(settings)
        self.reference = None if lora or not settings.beta else copy.deepcopy(model).eval()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.policy = (get_peft_model(model, lora) if lora else model).eval()  # without dropout: ratios begin at 1
        self.device = next(self.policy.parameters()).device
        self.ends = torch.tensor(_ends(self.policy, words), device=self.device)
        per_step = settings.batch // settings.group
        self.steps = settings.steps or max(1, round(settings.epochs * len(rows) / per_step))
        self.trained = [[p for p in part.parameters() if p.requires_grad] for part in (self.policy, self.value)]
        self.optimizer = torch.optim.AdamW(
            [p for part in self.trained for p in part], lr=settings.rate, weight_decay=settings.weight_decay, eps=1e-5
        )
        self.schedule = get_scheduler(
            settings.schedule,
            self.optimizer,
            num_warmup_steps=round(settings.warm_up * self.steps),
            num_training_steps=self.steps,
        )
        self.state = TrainerState(max_steps=self.steps)

    def train(self) -> Any:
        """Trains, from the last checkpoint where there is one; the model, with an adapter merged into it."""
        settings, run = self.settings, self.run
        listeners = [kind() for kind in get_reporting_integration_callbacks(list(run.trackers))]
        handler = CallbackHandler(
            [DefaultFlowCallback(), *listeners, Watching(run), *run.callbacks],
            self.policy, self.words, self.optimizer, self.schedule,
        )  # fmt: skip
        control = TrainerControl()
        if run.folder and (last := last_checkpoint(run.folder)):
            self._read(last)
        handler.on_train_begin(self.arguments, self.state, control)
        for step in range(self.state.global_step, self.steps):
            with torch.random.fork_rng(enabled=self.device.type == "cpu"):
                torch.manual_seed(int(np.random.SeedSequence([settings.seed, step]).generate_state(1)[0]))
                record = self._step(step)
            self.state.global_step = step + 1
            handler.on_step_end(self.arguments, self.state, control)
            if (step + 1) % settings.log_every == 0 or step + 1 == self.steps:
                self.state.log_history.append(record | {"step": step + 1})
                handler.on_log(self.arguments, self.state, control, record)
            if run.folder and (step + 1) % settings.save_every == 0:
                self._write(run.folder / f"checkpoint-{step + 1}")
            if control.should_training_stop:
                break
        handler.on_train_end(self.arguments, self.state, control)
        run.records[:] = list(self.state.log_history)
        return (self.policy.merge_and_unload() if settings.adapter else self.policy).eval()

    def _step(self, step: int) -> dict[str, float]:
        """Draws answers, and trains on them."""
        answers, record = self._answer(step)
        for _ in range(self.settings.updates):
            record |= self._update(answers)
        self.schedule.step()
        return record

    def _questions(self, step: int) -> list[dict[str, Any]]:
        """The prompts of a step: the data, shuffled anew for each pass, `group` times each."""
        number = self.settings.batch // self.settings.group
        wanted = range(step * number, (step + 1) * number)
        orders = {n // len(self.rows) for n in wanted}
        shuffled = {k: np.random.default_rng([self.settings.seed, k]).permutation(len(self.rows)) for k in orders}
        picked = [int(shuffled[n // len(self.rows)][n % len(self.rows)]) for n in wanted]
        return [self.rows[row] for row in picked for _ in range(self.settings.group)]

    @torch.no_grad()
    def _answer(self, step: int) -> tuple[Answers, dict[str, float]]:
        """Answers of the model to the prompts of a step, with rewards, values and advantages; and what to record."""
        settings, questions = self.settings, self._questions(step)
        given = self._encode([row["prompt"] for row in questions])
        ids = torch.cat([self._generate({name: part[rows] for name, part in given.items()}) for rows in self._parts()])
        start = given["input_ids"].shape[1]
        answer = ids[:, start:]
        ended = torch.isin(answer, self.ends)
        before = ended.long().cumsum(-1) - ended.long()
        valid = before == 0  # up to the first end, itself among them
        attention = torch.cat([given["attention_mask"], valid.long()], dim=1)
        own, reference, values = (
            torch.cat(parts)
            for parts in zip(*((self._look(ids[rows], attention[rows], answer[rows])) for rows in self._parts()), strict=True)
        )
        stopped = ended.any(-1)
        verdict = torch.tensor(self._score(questions, answer, valid), device=self.device)
        score = (
            verdict if settings.no_end is None else verdict.where(stopped, torch.tensor(settings.no_end, device=self.device))
        )
        rewards = token_rewards(score, own - reference, valid, settings.beta)
        advantages, returns = generalised_advantages(rewards, values, valid, settings.discount, settings.trace)
        made = Answers(ids, attention, answer, valid, own, values, whitened(advantages, valid), returns)
        record = {
            "reward": verdict.mean().item(),
            "kl": (own - reference).where(valid, 0.0).sum(-1).mean().item(),
            "length": valid.sum(-1).float().mean().item(),
            "ended": stopped.float().mean().item(),
        }
        return made, record

    def _encode(self, prompts: list[Any]) -> dict[str, Tensor]:
        side, self.words.padding_side = self.words.padding_side, "left"
        try:
            if isinstance(prompts[0], str):
                given = self.words(prompts, return_tensors="pt", padding=True)
            else:
                given = self.words.apply_chat_template(
                    prompts, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt", padding=True
                )
        finally:
            self.words.padding_side = side
        return {name: given[name].to(self.device) for name in ("input_ids", "attention_mask")}

    def _generate(self, given: dict[str, Tensor]) -> Tensor:
        """Prompts and answers, all padded to the longest answer that there may be."""
        pad = self.words.pad_token_id if self.words.pad_token_id is not None else int(self.ends[0])
        with self._precision():
            made = self.policy.generate(
                **given,
                do_sample=True,
                temperature=self.settings.temperature,
                top_k=0,
                top_p=1.0,
                max_new_tokens=self.settings.answer_tokens,
                pad_token_id=pad,
                eos_token_id=self.ends.tolist(),
            )
        missing = given["input_ids"].shape[1] + self.settings.answer_tokens - made.shape[1]
        return torch.nn.functional.pad(made, (0, missing), value=int(self.ends[0]))

    def _look(self, ids: Tensor, attention: Tensor, answer: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities of the answer's tokens from the policy and from the reference, and values; (answers, tokens)."""
        with self._precision():
            own, _ = self._log_probabilities(self.policy, ids, attention, answer)
            if not self.settings.beta:
                reference = own
            elif self.reference is None:
                with self.policy.disable_adapter():
                    reference, _ = self._log_probabilities(self.policy, ids, attention, answer)
            else:
                reference, _ = self._log_probabilities(self.reference, ids, attention, answer)
            values = self.value(ids, attention)[:, -answer.shape[1] - 1 : -1]
        return own, reference, values

    def _log_probabilities(self, model: Any, ids: Tensor, attention: Tensor, answer: Tensor) -> tuple[Tensor, Tensor]:
        """Of each token of the answers, at the temperature at which they are drawn, and the entropy there."""
        logits = model(input_ids=ids, attention_mask=attention, position_ids=places(attention)).logits
        laws = (logits[:, -answer.shape[1] - 1 : -1].float() / self.settings.temperature).log_softmax(-1)
        entropy = -(laws.exp() * laws).sum(-1)
        return laws.gather(-1, answer[..., None])[..., 0], entropy

    def _score(self, questions: list[dict[str, Any]], answer: Tensor, valid: Tensor) -> list[float]:
        """What the reward says of each answer."""
        texts = [self.words.decode(row[held], skip_special_tokens=True) for row, held in zip(answer, valid, strict=True)]
        chats = not isinstance(questions[0]["prompt"], str)
        said = [[{"role": "assistant", "content": text}] for text in texts] if chats else texts
        columns = {name: [row[name] for row in questions] for name in questions[0] if name != "prompt"}
        found = self.reward(prompts=[row["prompt"] for row in questions], completions=said, **columns)
        return [0.0 if value is None else float(value) for value in found]

    def _update(self, answers: Answers) -> dict[str, float]:
        """One pass over the answers, one step of the optimiser."""
        settings = self.settings
        tokens = answers.valid.sum()
        self.optimizer.zero_grad()
        total = dict.fromkeys(("policy_loss", "value_loss", "clipped", "entropy"), 0.0)
        for rows in self._parts():
            held = answers.part(rows)
            with self._precision():
                now, entropy = self._log_probabilities(self.policy, held.ids, held.attention, held.answer)
                values = self.value(held.ids, held.attention)[:, -held.answer.shape[1] - 1 : -1]
            policy, clipped = policy_loss(now, held.log_probabilities, held.advantages, settings.clip)
            value = value_loss(values, held.values, held.returns, settings.value_clip)
            parts = {"policy_loss": policy, "value_loss": value, "clipped": clipped.float(), "entropy": entropy}
            mean = {name: part.where(held.valid, 0.0).sum() / tokens for name, part in parts.items()}
            loss = mean["policy_loss"] + settings.value_weight * mean["value_loss"] - settings.entropy * mean["entropy"]
            loss.backward()
            for name, part in mean.items():
                total[name] += part.item()
        if not np.isfinite([total["policy_loss"], total["value_loss"]]).all():
            raise JobError(f"The loss is no number after {self.state.global_step} steps; try a lower rate.")
        for weights in self.trained:
            torch.nn.utils.clip_grad_norm_(weights, settings.largest_gradient)
        self.optimizer.step()
        return total

    def _parts(self) -> Iterator[slice]:
        at_once = self.settings.at_once
        return (slice(start, start + at_once) for start in range(0, self.settings.batch, at_once))

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bfloat16")

    def _parts_of_state(self) -> dict[str, Any]:
        return {"policy": self.policy, "value": self.value, "optimizer": self.optimizer, "schedule": self.schedule}

    def _write(self, folder: Path) -> None:
        """A checkpoint, its state last; those before it go."""
        folder.mkdir(parents=True, exist_ok=True)
        with writing(folder / "training.pt") as stream:
            torch.save({name: part.state_dict() for name, part in self._parts_of_state().items()}, stream)
        self.state.save_to_json(str(folder / "trainer_state.json"))
        for other in folder.parent.glob("checkpoint-*"):
            if other != folder:
                shutil.rmtree(other)

    def _read(self, folder: Path) -> None:
        saved = torch.load(folder / "training.pt", map_location=self.device, weights_only=True)
        for name, part in self._parts_of_state().items():
            part.load_state_dict(saved[name])
        self.state = TrainerState.load_from_json(str(folder / "trainer_state.json"))
