"""Partitions by a classifier of pairs: any sequence classifier of Transformers (DARLING, arXiv 2509.02534).

The tiny one and its training are here too; `train_pairs` trains any.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from broadsheet.errors import DataError, InputError, MissingDataError, MissingExtraError
from broadsheet.language.diversity.partitions import Pair, PairPartitioner
from broadsheet.language.models import check_tokens, load_tokenizer, model_folder, padded, positions

try:
    import torch
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification
    from transformers.utils import logging
except ImportError:
    raise MissingExtraError("Classifying pairs of answers", "language") from None

SIDE = 2046
"""Tokens of an answer that are read at most: the authors' 4096 for a pair."""


class ClassifierPartitioner(PairPartitioner):
    """Answers are the same where a classifier of pairs says so, and all that follows from it.

    **Arguments:** `model`, `tokenizer`: a sequence classifier of Transformers with one output, a logit of "same", or two, the
    `same`-th for "same"; `threshold`: of the probability, above which two answers are the same, 0.5 in the authors' code;
    `short_rule`: as of `PairPartitioner`; `tokens`: of a batch, padding included, which bounds the memory; `side`: tokens of
    each answer that are read.

    A pair is given as the tokenizer joins two texts (`[CLS] a [SEP] b [SEP]`); by a tokenizer without a separator, as those of
    decoders are, between the tokens that begin and end a text, as the authors do with theirs.

    **Raises:** `InputError` for a model with other outputs and a tokenizer that has nothing to separate two texts with.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        threshold: float = 0.5,
        *,
        short_rule: bool = True,
        same: int = 1,
        side: int = SIDE,
        tokens: int = 16_384,
    ) -> None:
        super().__init__(short_rule)
        outputs = getattr(model.config, "num_labels", 0)
        if outputs not in (1, 2) or not 0 <= same < 2:
            raise InputError(f"A {type(model).__name__} with {outputs} outputs judges no pairs; one or two are wanted.")
        if not 0 <= threshold <= 1:
            raise InputError(f"The threshold is {threshold:g}; a probability is wanted.")
        if tokenizer.sep_token_id is None and tokenizer.eos_token_id is None:
            raise InputError("The tokenizer has no token that separates two texts.")
        self.model, self.tokenizer, self.threshold, self.label, self.tokens = model.eval(), tokenizer, threshold, same, tokens
        room = positions(model)
        self.side = side if room is None else max(1, min(side, (room - 4) // 2))
        self._typed = getattr(model.config, "type_vocab_size", 0) > 1
        if model.config.pad_token_id is None:  # decoders read their verdict at the last token that is not padding
            model.config.pad_token_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id

    @classmethod
    def load(cls, name: str, *, device: str = "cpu", **options: Any) -> ClassifierPartitioner:
        """From a folder, or a name on the Hugging Face Hub (`yimingzhang/deberta-v3-large-generation-similarity`).

        **Raises:** beside those of the class, `MissingDataError` where it is not there, and `DataError` for a model without a
        trained classifier.
        """
        model, words = load_classifier(name)
        return cls(model.to(device), words, **options)

    def at(self, threshold: float) -> ClassifierPartitioner:
        """The same with another threshold."""
        return ClassifierPartitioner(
            self.model,
            self.tokenizer,
            threshold,
            short_rule=self.short_rule,
            same=self.label,
            side=self.side,
            tokens=self.tokens,
        )

    def same(self, pairs: Sequence[Pair]) -> list[bool]:
        return (self.probabilities(pairs) > self.threshold).tolist()

    def probabilities(self, pairs: Sequence[Pair]) -> np.ndarray:
        """Probability (pairs) that the two texts are the same.

        **Raises:** `InputError` for tokens that the model has no embedding for, and where its numbers are not finite.
        """
        rows, kinds = self.rows(pairs)
        check_tokens(self.model, rows)
        found = np.empty(len(pairs))
        with torch.inference_mode():
            for chosen in _batches([len(row) for row in rows], self.tokens):
                given = self.given([rows[k] for k in chosen], [kinds[k] for k in chosen])
                logits = self.model(**given).logits.float()
                odds = logits[:, 0] if logits.shape[1] == 1 else logits[:, self.label] - logits[:, 1 - self.label]
                found[chosen] = torch.sigmoid(odds).cpu().numpy()
        if not np.isfinite(found).all():
            raise InputError(f"The {type(self.model).__name__} gives NaN or infinity.")
        return found

    def rows(self, pairs: Sequence[Pair]) -> tuple[list[list[int]], list[list[int]]]:
        """Token ids of the pairs, and which of the two texts each token belongs to."""
        words = self.tokenizer
        texts = list(dict.fromkeys(text for pair in pairs for text in pair))
        ids = words(texts, add_special_tokens=False, truncation=True, max_length=self.side)["input_ids"]
        cut = dict(zip(texts, ids, strict=True))
        if words.sep_token_id is not None:
            shorter = {text: words.decode(ids) if len(ids) == self.side else text for text, ids in cut.items()}
            made = words(
                [shorter[one] for one, _ in pairs], [shorter[other] for _, other in pairs],
                truncation="longest_first", max_length=2 * self.side + 4, return_token_type_ids=True,
            )  # fmt: skip
            return made["input_ids"], made["token_type_ids"]
        end = words.eos_token_id
        start = words.cls_token_id if words.cls_token_id is not None else words.bos_token_id
        begin = [end if start is None else start]
        rows = [[*begin, *cut[one], end, *cut[other], end] for one, other in pairs]
        return rows, [[0] * (len(cut[one]) + 2) + [1] * (len(cut[other]) + 1) for one, other in pairs]

    def given(self, rows: list[list[int]], kinds: list[list[int]]) -> dict[str, torch.Tensor]:
        """What the model is called with for these rows, padded."""
        device = next(self.model.parameters()).device
        ids, mask = padded(rows, self.model.config.pad_token_id)
        given = {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
        return given | ({"token_type_ids": padded(kinds)[0].to(device)} if self._typed else {})


def load_classifier(name: str) -> tuple[Any, Any]:
    """(model, tokenizer) of a sequence classifier, in float32 and evaluation mode; no code that comes with it is run.

    **Raises:** `MissingDataError` where it is not there, `DataError` where its classifier's weights are not.
    """
    folder = model_folder(name)
    logging.disable_progress_bar()
    try:
        model, found = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise MissingDataError(f"{name} cannot be loaded: {(str(error).strip().splitlines() or [''])[0]}") from None
    if missing := sorted(found["missing_keys"]):
        raise DataError(f"{name} has no weights {missing[0]!r}: it is no trained classifier of pairs.")
    if bad := [key for key, weights in model.named_parameters() if not torch.isfinite(weights).all()]:
        raise DataError(f"The weights {bad[0]} of {name} hold NaN or infinity.")
    return model.eval(), load_tokenizer(name)


def pair_tokenizer() -> Any:
    """The character tokenizer with a start and a separator, which joins two texts."""
    from broadsheet.language.characters import character_tokenizer

    words = character_tokenizer()
    words.add_special_tokens({"cls_token": "<cls>", "sep_token": "<sep>"})
    words.backend_tokenizer.post_processor = TemplateProcessing(
        single="<cls> $A <sep>",
        pair="<cls> $A <sep> $B:1 <sep>:1",
        special_tokens=[(token, words.convert_tokens_to_ids(token)) for token in ("<cls>", "<sep>")],
    )
    words.padding_side = "right"
    return words


def pair_classifier(words: Any, seed: int = 0, *, width: int = 64, blocks: int = 2, positions: int = 64) -> Any:
    """A BERT with random weights and two outputs."""
    config = BertConfig(
        vocab_size=len(words), hidden_size=width, num_hidden_layers=blocks, num_attention_heads=4, intermediate_size=2 * width,
        max_position_embeddings=positions, num_labels=2, pad_token_id=words.pad_token_id, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, initializer_range=width**-0.5,
    )  # fmt: skip
    with _seeded(seed):
        return BertForSequenceClassification(config)


def train_pairs(
    model: Any, words: Any, pairs: Sequence[Pair], labels: Sequence[int], *, steps: int = 600, batch: int = 64,
    rate: float = 2e-3, seed: int = 0,
) -> Any:  # fmt: skip
    """Trains a classifier of pairs by AdamW on their labels (1: the same), each pair either way round; the model."""
    if len(pairs) != len(labels) or not pairs:
        raise InputError(f"There are {len(pairs)} pairs and {len(labels)} labels; as many, and one at least, are wanted.")
    rng, optimiser = np.random.default_rng(seed), torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    reader = ClassifierPartitioner(model, words)
    rows, kinds = reader.rows([*pairs, *(pair[::-1] for pair in pairs)])
    check_tokens(model, rows)
    model.train()
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / (0.1 * steps)) * (1 - step / steps)
        chosen = rng.integers(0, len(rows), batch)
        wanted = torch.tensor([labels[k % len(labels)] for k in chosen], device=model.device)
        loss = model(**reader.given([rows[k] for k in chosen], [kinds[k] for k in chosen]), labels=wanted).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    return model.eval()


def _batches(lengths: Sequence[int], tokens: int) -> Iterator[np.ndarray]:
    """Rows of like length together, so many that a batch has at most so many tokens, padding included; one row at least."""
    order = np.argsort(lengths, kind="stable")[::-1]
    start = 0
    while start < len(order):
        many = max(1, tokens // max(1, lengths[order[start]]))
        yield order[start : start + many]
        start += many


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
