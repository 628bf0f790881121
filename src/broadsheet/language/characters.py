"""A language of single characters: its tokenizer, Tülu's chat template, and a Llama of 88 thousand parameters.

Sums and templates of a few characters are enough to watch post-training work: an answer has two to five tokens, what is right
is known exactly, and a training takes half a minute on one core.
"""

from __future__ import annotations

import string
from typing import Any

from broadsheet.errors import MissingExtraError

try:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
except ImportError:
    raise MissingExtraError("Making language models", "language") from None

from broadsheet.language.architectures import Sizes, new_model

PAD, END, UNKNOWN = "<pad>", "<eos>", "<unk>"
ROLES = ("<|user|>", "<|assistant|>", "<|system|>")
CHARACTERS = "\n " + string.digits + string.ascii_letters + "+-*/=?!.,:;'()"

TULU_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "{{ '<|assistant|>\n' }}{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{{ '' if loop.last else '\n' }}"
    "{% else %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '\n' }}{% endif %}"
    "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
    "{% endfor %}"
)
"""Tülu 3's chat template, with the marks by which trainers find what the assistant says (arXiv 2411.15124)."""


def character_tokenizer() -> Any:
    """A fast tokenizer with a token for each of 78 characters, an end, padding, unknown and three roles; Tülu's template."""
    tokens = [PAD, END, UNKNOWN, *ROLES, *CHARACTERS]
    made = Tokenizer(models.WordLevel({token: number for number, token in enumerate(tokens)}, unk_token=UNKNOWN))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    made.decoder = decoders.Fuse()
    words = PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        additional_special_tokens=list(ROLES),
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
    words.chat_template = TULU_TEMPLATE
    return words


def character_model(seed: int = 0, *, width: int = 64, blocks: int = 2, positions: int = 128) -> Any:
    """A Llama with random weights for `character_tokenizer`: tied embeddings, four heads, an MLP of twice the width."""
    words = character_tokenizer()
    return new_model(
        "llama",
        Sizes(words=len(words), width=width, mlp=2 * width, blocks=blocks, positions=positions),
        seed=seed,
        tie_word_embeddings=True,
        pad_token_id=words.pad_token_id,
        eos_token_id=words.eos_token_id,
    )
