"""What the language verbs have in common: the options for models and texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from broadsheet.errors import InputError
from broadsheet.files import MIB, read_text

Texts = Annotated[
    Path, typer.Option("--texts", metavar="FILE", help="Probe texts, one a line, UTF-8; the same for every model.")
]
Pool = Annotated[str, typer.Option(help="last (token) or mean (over tokens, for sentence encoders).")]
Layer = Annotated[int, typer.Option(help="Hidden state: -1 the last, 0 the embedding.")]
MaxLength = Annotated[int, typer.Option(min=2, help="Tokens of a text that are read, or as many positions as the model has.")]
ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="A folder, or a name on the Hugging Face Hub.")]
Device = Annotated[str, typer.Option(metavar="DEVICE", help="cpu, cuda, or another that PyTorch has.")]
Precision = Annotated[str, typer.Option("--dtype", help="float32, bfloat16 or float16.")]


def read_texts(path: Path, least: int, why: str = "") -> list[str]:
    """Texts of a file, one a line, empty ones left out and said so.

    **Raises:** `InputError` for fewer than `least`; `why` ends its sentence.
    """
    lines = read_text(path, 1024 * MIB).rstrip().split("\n")
    texts = [line for line in lines if line.strip()]
    if len(texts) < len(lines):
        typer.echo(f"{path}: {len(lines) - len(texts)} empty lines are left out.", err=True)
    if len(texts) < least:
        said = "1 text" if len(texts) == 1 else f"{len(texts)} texts"
        raise InputError(f"{path} has {said}, one a line; at least {least} are wanted{why}.")
    return texts
