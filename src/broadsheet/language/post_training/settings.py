"""What a training of each kind can be told; plain values, without PyTorch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from broadsheet.errors import InputError


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """What all trainings share.

    **Arguments:** `steps`: updates, or None for `epochs` passes over the data; `batch`: examples of an update (of reinforcement
    learning: answers); `device_batch`: examples that go through the model at once (all of a batch); `rate`, `schedule`
    (`linear`, `constant`, `cosine`), `warm_up` (share of the steps), `weight_decay`, `largest_gradient` (norm): of AdamW;
    `max_tokens`: longest text; `adapter`: rank of a LoRA adapter that is trained in place of the weights, 0 for none, and
    merged into them at the end; `precision`: `float32` or `bfloat16`; `save_every`: steps between checkpoints inside a stage;
    `log_every`: steps between records; `seed`.
    """

    steps: int | None = None
    epochs: float = 1.0
    batch: int = 128
    device_batch: int | None = None
    rate: float = 5e-6
    schedule: str = "linear"
    warm_up: float = 0.0
    weight_decay: float = 0.0
    largest_gradient: float = 1.0
    max_tokens: int = 2048
    adapter: int = 0
    precision: str = "float32"
    save_every: int = 100
    log_every: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "epochs", "batch", "device_batch", "rate", "max_tokens", "save_every", "log_every"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{type(self).__name__}: {name} is {value}; more than 0 is wanted.")
        if not 0 <= self.warm_up < 1:
            raise InputError(f"{type(self).__name__}: warm_up is {self.warm_up}; a share of the steps, below 1, is wanted.")
        if self.adapter < 0:
            raise InputError(f"{type(self).__name__}: adapter is {self.adapter}; a rank of 0 (none) or more is wanted.")
        if self.batch % self.at_once:
            raise InputError(f"{type(self).__name__}: batch {self.batch} is no multiple of device_batch {self.at_once}.")
        self._among("schedule", ("linear", "constant", "cosine"))
        self._among("precision", ("float32", "bfloat16"))

    @property
    def at_once(self) -> int:
        """Examples that go through the model at once."""
        return self.device_batch or self.batch

    def _among(self, name: str, known: tuple[str, ...]) -> None:
        if getattr(self, name) not in known:
            raise InputError(f"{type(self).__name__}: {name} is {getattr(self, name)!r}; one of {', '.join(known)} is wanted.")

    @classmethod
    def read(cls, given: dict[str, Any], where: str) -> Any:
        """Settings from a table of values.

        **Raises:** `InputError` for a key that there is not and a value of another kind, naming the table.
        """
        known = {field.name: field for field in fields(cls)}
        if unknown := sorted(set(given) - set(known)):
            raise InputError(f"{where} has no setting {unknown[0]!r}; it has {', '.join(known)}.")
        for name, value in given.items():
            kind = str(known[name].type)
            like: Any = {"int": int, "float": (float, int), "str": str, "bool": bool}[kind.split(" ")[0]]
            if not isinstance(value, like) or isinstance(value, bool) != kind.startswith("bool"):
                raise InputError(f"{where}: {name} is {value!r}; {kind.split(' ')[0]} is wanted.")
        return cls(**given)


@dataclass(frozen=True, kw_only=True)
class SFTSettings(TrainingSettings):
    """Supervised fine-tuning on what the assistant says: the loss of all its tokens in a batch over their number. Defaults are
    those of Tülu 3 8B."""

    epochs: float = 2.0
    warm_up: float = 0.03
    max_tokens: int = 4096


@dataclass(frozen=True, kw_only=True)
class DPOSettings(TrainingSettings):
    """Direct preference optimisation. Defaults are those of Tülu 3 8B.

    **Arguments:** `loss`: `sigmoid_norm`, of mean log-probabilities a token (length-normalised), `sigmoid`, of sums, or
    `simpo`, of means without a reference; `beta`: 5 belongs to means, 0.1 to sums; `margin`: SimPO's lead of the chosen answer.
    """

    rate: float = 5e-7
    warm_up: float = 0.1
    loss: str = "sigmoid_norm"
    beta: float = 5.0
    margin: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._among("loss", ("sigmoid_norm", "sigmoid", "simpo"))


@dataclass(frozen=True, kw_only=True)
class RLSettings(TrainingSettings):
    """Reinforcement learning with a reward function. Defaults are those of Tülu 3 8B, with GRPO.

    **Arguments:** `algorithm`: `grpo`, `rloo` (TRL's) or `ppo` (with a value head, `post_training.ppo`); `group`: answers to a
    prompt, so that a step has batch / group prompts; `answer_tokens`: longest answer; `temperature`: of sampling; `beta`:
    weight of the KL divergence to the model before training; `scale`: what advantages are divided by, the standard deviation
    of the `group`, of the `batch`, or `none`; `clip`: of the probability ratio; `updates`: passes over each batch of answers;
    `entropy`: weight of a bonus for entropy. Of PPO alone: `no_end`: reward of an answer that does not end, None for its own;
    `discount` and `trace`: gamma and lambda of its advantages; `value_weight` and `value_clip`: of the value head's loss.
    """

    rate: float = 3e-7
    schedule: str = "constant"
    batch: int = 256
    algorithm: str = "grpo"
    group: int = 16
    answer_tokens: int = 2048
    temperature: float = 1.0
    beta: float = 0.05
    scale: str = "group"
    clip: float = 0.2
    updates: int = 1
    entropy: float = 0.0
    no_end: float | None = None
    discount: float = 1.0
    trace: float = 0.95
    value_weight: float = 0.1
    value_clip: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        self._among("algorithm", ("grpo", "rloo", "ppo"))
        self._among("scale", ("group", "batch", "none"))
        if self.group < 2 and self.algorithm != "ppo":
            raise InputError(f"{self.algorithm} compares the answers to a prompt: group is {self.group}; 2 or more is wanted.")
        if self.batch % self.group:
            raise InputError(f"RLSettings: batch {self.batch} is no multiple of group {self.group}.")
        if self.temperature <= 0:
            raise InputError(f"RLSettings: temperature is {self.temperature}; more than 0 is wanted.")
