"""Three stages of post-training: our pipeline and a plain script of TRL, by the same settings."""

import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from harness import Comparison, peak_mb


def inputs(case):
    """Sums of two digits: pairs of them in an order that both sides take."""
    return {"sums": np.random.default_rng(0).permutation([(a, b) for a in range(10) for b in range(10)])}


comparison = Comparison(
    "Post-training in three stages against a plain script of TRL",
    {
        "SFT, DPO, GRPO": {"sft": 120, "dpo": 40, "grpo": 40},
    },
    inputs,
    text="A Llama of 87 616 parameters: SFT of 32 chats a step, DPO (sigmoid_norm) of 16 pairs, GRPO of 8 prompts with 8 answers each, a checkpoint every "
    "100 steps, each stage saved and begun from its folder on both sides. Time is processor time of the process (the machine was not idle), imports "
    "apart. Ours adds the identity of data and model, the check of prompts' lengths, records, and folders that appear whole. Beyond the last digits "
    "(weights that are read from a file are not aligned in the plain script) the models are the same.",
    shown={"accuracy": "greedy accuracy", "sum": "sum of the weights' sizes"},
    turns=3,
)
COMMON = {"weight_decay": 0.0, "max_grad_norm": 1.0, "save_steps": 100, "save_total_limit": 1, "logging_steps": 10,
          "report_to": "none", "disable_tqdm": True, "use_cpu": True, "seed": 0, "max_length": 128}  # fmt: skip


def data(arrays):
    """Chats, some of them wrong, pairs and prompts."""
    ask = [[{"role": "user", "content": f"{a}+{b}=?"}] for a, b in arrays["sums"]]
    said = [[{"role": "assistant", "content": str(value)}] for value in arrays["sums"].sum(1)]
    wrong = said[1:] + said[:1]
    chats = [{"messages": q + (r if k % 3 else w)} for k, (q, r, w) in enumerate(zip(ask, said, wrong, strict=True))]
    pairs = [{"prompt": q, "chosen": r, "rejected": w} for q, r, w in zip(ask, said, wrong, strict=True)]
    prompts = [{"prompt": q, "label": r[0]["content"]} for q, r in zip(ask, said, strict=True)]
    return chats, pairs, prompts


def start(folder):
    """The model and its tokenizer in a folder."""
    import torch

    from broadsheet.language.characters import character_model, character_tokenizer

    torch.set_num_threads(1)
    character_model(0).save_pretrained(folder)
    character_tokenizer().save_pretrained(folder)


def judged(folder, prompts, seconds):
    """What is compared, of the model in a folder."""
    from broadsheet.language.models import load
    from broadsheet.language.post_training.sampling import answers
    from broadsheet.language.verifiers import verify

    model, words = load(str(folder))
    said = answers(model, words, [row["prompt"] for row in prompts], tokens=4)
    right = [verify("gsm8k", text, row["label"]) for [text], row in zip(said, prompts, strict=True)]
    size = sum(float(weights.detach().abs().sum()) for weights in model.parameters())
    return {"seconds": seconds, "accuracy": float(np.mean(right)), "sum": size, "peak_mb": peak_mb()}


@comparison.side("broadsheet", packages=("trl", "transformers", "torch"))
def ours(case, arrays):
    from broadsheet.language.post_training.pipeline import PostTrain
    from broadsheet.language.post_training.settings import DPOSettings, RLSettings, SFTSettings

    chats, pairs, prompts = data(arrays)
    sft = SFTSettings(steps=case["sft"], batch=32, rate=3e-3, warm_up=0.03)
    dpo = DPOSettings(steps=case["dpo"], batch=16, rate=3e-4)
    grpo = RLSettings(steps=case["grpo"], batch=64, group=8, answer_tokens=4, rate=3e-4)

    def run():
        folder = Path(tempfile.mkdtemp())
        start(folder / "model")
        begun = time.process_time()
        trained = PostTrain(str(folder / "model"), folder=folder / "out")
        trained.sft(chats, sft).dpo(pairs, dpo).rlvr(prompts, "gsm8k", grpo, worth=1.0)
        seconds = time.process_time() - begun
        found = judged(trained.stages[-1].folder, prompts, seconds)
        shutil.rmtree(folder)
        return found

    return run


@comparison.side("TRL, a plain script", packages=("trl", "transformers", "torch"))
def plain(case, arrays):
    import logging
    import re

    import datasets
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    logging.disable(logging.WARNING)
    chats, pairs, prompts = data(arrays)

    def right(completions, label, **_):
        numbers = [re.findall(r"\d+", answer[-1]["content"])[-1:] for answer in completions]
        return [float(found == [wanted]) for found, wanted in zip(numbers, label, strict=True)]

    def stage(kind, config, model, out, rows, **more):
        words = AutoTokenizer.from_pretrained(model)
        trainer = kind(
            model=AutoModelForCausalLM.from_pretrained(model, dtype="float32"), args=config, processing_class=words,
            train_dataset=datasets.Dataset.from_list(rows), **more,
        )  # fmt: skip
        trainer.train()
        trainer.save_model(str(out))
        words.save_pretrained(out)

    def run():
        folder = Path(tempfile.mkdtemp())
        start(folder / "model")
        place = {name: folder / name for name in ("model", "sft", "dpo", "grpo")}
        begun = time.process_time()
        common = COMMON | {"output_dir": str(folder / "runs1")}
        config = SFTConfig(max_steps=case["sft"], per_device_train_batch_size=32, learning_rate=3e-3, warmup_steps=0.03,
                           assistant_only_loss=True, bf16=False, gradient_checkpointing=False, **common)  # fmt: skip
        stage(SFTTrainer, config, place["model"], place["sft"], chats)
        common["output_dir"] = str(folder / "runs2")
        config = DPOConfig(max_steps=case["dpo"], per_device_train_batch_size=16, learning_rate=3e-4, warmup_steps=0.1, beta=5.0,
                           loss_type="sigmoid_norm", bf16=False, gradient_checkpointing=False, **common)  # fmt: skip
        stage(DPOTrainer, config, place["sft"], place["dpo"], pairs)
        common["output_dir"] = str(folder / "runs3")
        del common["max_length"]
        config = GRPOConfig(max_steps=case["grpo"], per_device_train_batch_size=64, learning_rate=3e-4, lr_scheduler_type="constant",
                            num_generations=8, max_completion_length=4, beta=0.05, bf16=False, gradient_checkpointing=False, **common)  # fmt: skip
        stage(GRPOTrainer, config, place["dpo"], place["grpo"], prompts, reward_funcs=right)
        seconds = time.process_time() - begun
        found = judged(place["grpo"], prompts, seconds)
        shutil.rmtree(folder)
        return found

    return run
