"""What the language verbs have in common: the options for models and texts, and where findings go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from broadsheet.cache import write_atomic, writing
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
Findings = Annotated[
    Path | None, typer.Option("--out", metavar="FILE.json", help="Where the findings go; a figure goes beside them (.png).")
]


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


def check_findings(out: Path | None) -> None:
    """Raises `InputError`, before the work begins, where findings could not be written."""
    if out is not None and out.suffix != ".json":
        raise InputError(f"--out {out}: findings are written as .json.")


def write_findings(out: Path | None, found: dict[str, Any], draw: Callable[[], Any]) -> dict[str, Any]:
    """Findings as JSON with a figure beside them, where a file is named; the findings, with where they went."""
    import json

    from broadsheet.lab.metrics import finite

    if out is None:
        return found
    picture = out.with_suffix(".png")
    found = found | {"findings": str(out), "figure": str(picture)}
    with writing(picture) as stream:
        draw().savefig(stream, format="png", dpi=150, bbox_inches="tight")
    write_atomic(out, json.dumps(finite(found), indent=1, ensure_ascii=False) + "\n")
    return found
