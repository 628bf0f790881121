"""Models that see: loading them, drawing answers from them, and a tiny Qwen2.5-VL of 160 thousand parameters.

The words of the tiny model are whole: digits, the tags of an answer and a few more, with blanks between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from broadsheet.errors import InputError, MissingDataError, MissingExtraError
from broadsheet.files import MIB, read_json

try:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        AutoModelForImageTextToText,
        AutoProcessor,
        PreTrainedTokenizerFast,
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
    )
    from transformers.image_utils import make_flat_list_of_images
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
    from transformers.processing_utils import ProcessorMixin
    from transformers.utils import is_torchvision_available, logging
except ImportError:
    raise MissingExtraError("Models that see", "language") from None

from broadsheet.language.models import load_tokenizer, model_folder

PAD, END, IMAGE = "<|endoftext|>", "<|im_end|>", "<|image_pad|>"
VISION = ("<|vision_start|>", "<|vision_end|>", IMAGE, "<|video_pad|>")
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
WORDS = (PAD, "<|im_start|>", END, *VISION, "<unk>", "user", "assistant", "system", "Tile", "order", "Answer", ":", ",", "\n",
         *TAGS, *"123456789")  # fmt: skip
LIKE_QWEN = ("qwen2_vl", "qwen2_5_vl")
"""Kinds of models that take pictures as `SmallProcessor` gives them."""
TILE = 28
"""Pixels of the smallest picture's side: two by two patches of 14, which make one token."""

TEMPLATE = (
    "{% for message in messages %}<|im_start|> {{ message['role'] }} "
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|> <|image_pad|> <|vision_end|> {% else %}{{ part['text'] }} {% endif %}"
    "{% endfor %}{% endif %} <|im_end|> {% endfor %}"
    "{% if add_generation_prompt %}<|im_start|> assistant {% endif %}"
)
"""Qwen's chat template, with blanks between the words."""


class SmallProcessor(ProcessorMixin):
    """Pictures and words for a model of the Qwen2-VL kind, by Pillow alone: where there is torchvision, `AutoProcessor` gives
    the model's own, which takes videos as well.

    The pictures that came last are remembered, as patches: a training asks for each as often as it draws answers to it, twice.
    """

    return_mm_token_type_ids = True

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None) -> None:
        self.image_token = IMAGE
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self._seen = _Seen()
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    @classmethod
    def from_pretrained(cls, name: str) -> SmallProcessor:
        """The processor of a model, from its folder."""
        words, apart = load_tokenizer(name), Path(name) / "chat_template.json"
        template = words.chat_template or (read_json(apart)["chat_template"] if apart.is_file() else None)
        return cls(Qwen2VLImageProcessorPil.from_pretrained(name), words, chat_template=template)

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **more: Any) -> str:
        """As many image tokens as the picture has patches after merging."""
        tokens = int(image_inputs["image_grid_thw"][image_idx].prod()) // self.image_processor.merge_size**2
        return self.image_token * tokens

    def _process_images(self, images: Any, **more: Any) -> tuple[dict[str, Any], list[str]]:
        more.pop("return_tensors", None)
        flat = [np.asarray(image) for image in make_flat_list_of_images(images)]
        keys = [(image.shape, image.tobytes(), str(more)) for image in flat]
        fresh = {key: image for key, image in zip(keys, flat, strict=True) if key not in self._seen}
        if fresh:
            made = self.image_processor(list(fresh.values()), return_tensors="np", **more)
            ends = np.cumsum(made["image_grid_thw"].prod(1))
            self._seen.update(
                zip(fresh, zip(np.split(made["pixel_values"], ends[:-1]), made["image_grid_thw"], strict=True), strict=True)
            )
        patches, grids = zip(*(self._seen[key] for key in keys), strict=True)
        self._seen.forget()
        found = {"pixel_values": np.concatenate(patches), "image_grid_thw": np.stack(grids)}
        return found, [self.replace_image_token(found, k) for k in range(len(flat))]


class _Seen(dict[Any, tuple[np.ndarray, np.ndarray]]):
    """Patches and grids of pictures; those that came first are forgotten. A copy of a processor starts without any."""

    def forget(self, most: int = 128 * MIB) -> None:
        """Leaves out what came first until so many bytes are kept."""
        held = sum(patches.nbytes for patches, _ in self.values())
        for key in list(self):
            if held <= most:
                return
            held -= self.pop(key)[0].nbytes

    def __deepcopy__(self, memo: Any) -> _Seen:
        return _Seen()


def vision_words() -> Any:
    """The tiny model's tokenizer, of 30 whole words with blanks between them."""
    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token=PAD,
        eos_token=END,
        unk_token="<unk>",
        additional_special_tokens=["<|im_start|>", *VISION],
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def vision_processor(largest: int = 16) -> SmallProcessor:
    """The tiny model's processor: pictures of 28 x 28 pixels (one token) to `largest` times as many."""
    pictures = Qwen2VLImageProcessorPil(size={"shortest_edge": TILE * TILE, "longest_edge": largest * TILE * TILE})
    return SmallProcessor(pictures, vision_words(), chat_template=TEMPLATE)


def vision_model(seed: int = 0, *, blocks: int = 2, tower_blocks: int = 2) -> Any:
    """A Qwen2.5-VL with random weights for `vision_processor`: width 64, four heads on two of keys, tied embeddings, a tower of
    width 32 with windows of 56 pixels, whose last block sees the whole picture."""
    number = {word: k for k, word in enumerate(WORDS)}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(WORDS), "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": blocks,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
            "bos_token_id": None, "eos_token_id": number[END], "pad_token_id": number[PAD],
        },
        vision_config={
            "depth": tower_blocks, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2,
            "out_hidden_size": 64, "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2,
            "window_size": 2 * TILE, "fullatt_block_indexes": [tower_blocks - 1],
        },
        vision_start_token_id=number["<|vision_start|>"], vision_end_token_id=number["<|vision_end|>"],
        image_token_id=number[IMAGE], video_token_id=number["<|video_pad|>"],
        eos_token_id=number[END], pad_token_id=number[PAD], tie_word_embeddings=True,
    )  # fmt: skip
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    try:
        return Qwen2_5_VLForConditionalGeneration(config).eval()
    finally:
        torch.random.set_rng_state(state)


def written(labels: Sequence[int]) -> str:
    """An answer in the words of the tiny model: without a thought, and with blanks."""
    return f"<think> </think> <answer> {' , '.join(map(str, labels))} </answer>"


def load_vision(name: str, *, precision: str = "float32", device: str = "cpu") -> tuple[Any, Any]:
    """(model, processor) of a model that sees, from a folder or the Hub, in evaluation mode.

    The processor is the model's own where torchvision is there, else a `SmallProcessor`, which models of the Qwen2-VL kind can
    take. As everywhere, code that comes with a model is never run.

    **Raises:** `MissingDataError` where the model is neither there nor can be fetched, `InputError` where it takes no pictures,
    or pictures in another way than Qwen2-VL and torchvision is not there, and for a device that is not there.
    """
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise InputError(f"PyTorch has no device {device!r} on this machine.") from None
    folder = str(model_folder(name))
    logging.disable_progress_bar()
    try:
        model = AutoModelForImageTextToText.from_pretrained(folder, dtype=getattr(torch, precision))
    except OSError as error:
        raise MissingDataError(f"{name} cannot be loaded: {str(error).strip().splitlines()[0]}") from None
    except ValueError as error:
        raise InputError(f"{name} is no model that sees ({str(error).strip().splitlines()[0][:120]}).") from None
    if is_torchvision_available():
        words = AutoProcessor.from_pretrained(folder)
    elif model.config.model_type in LIKE_QWEN:
        words = SmallProcessor.from_pretrained(folder)
    else:
        raise InputError(f"The processor of {name}, a {model.config.model_type}, needs torchvision, which is not there.")
    return model.to(device).eval(), words


def vision_tokens(model: Any) -> list[int]:
    """Tokens that stand for pictures and videos: a model that draws one as its answer cannot go on, since there is no picture
    for it. They are left out wherever answers are drawn."""
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    return sorted({number for name in names if (number := getattr(model.config, name, None)) is not None})


def inputs(
    processor: Any, prompts: Sequence[Any], images: Sequence[Sequence[Any]], answers: Sequence[str] | None = None
) -> Any:
    """What a model takes, as tensors: prompts in the chat's form, padded on the left, with the answers behind them."""
    texts = [processor.apply_chat_template(prompt, add_generation_prompt=True) for prompt in prompts]
    if answers is not None:
        texts = [text + answer for text, answer in zip(texts, answers, strict=True)]
    return processor(images=[list(shown) for shown in images], text=texts, padding=True, return_tensors="pt")


def answers(
    model: Any, processor: Any, prompts: Sequence[Any], images: Sequence[Sequence[Any]], *, tokens: int,
    temperature: float = 1.0, seed: int = 0, batch: int = 128,
) -> list[str]:  # fmt: skip
    """One answer to each prompt, drawn at a temperature, or the likeliest token at a time where it is 0."""
    drawn = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {"do_sample": False}
    words, device, found = processor.tokenizer, next(model.parameters()).device, []
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    try:
        for start in range(0, len(prompts), batch):
            given = inputs(processor, prompts[start : start + batch], images[start : start + batch]).to(device)
            with torch.no_grad():
                ids = model.generate(
                    **given, max_new_tokens=tokens, suppress_tokens=vision_tokens(model), pad_token_id=words.pad_token_id,
                    eos_token_id=words.eos_token_id, **drawn,
                )  # fmt: skip
            found += words.batch_decode(ids[:, given["input_ids"].shape[1] :], skip_special_tokens=True)
    finally:
        torch.random.set_rng_state(state)
    return found
