"""Where verbs put what they found: JSON, with a figure beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from broadsheet.cache import write_atomic, writing
from broadsheet.errors import InputError

Findings = Annotated[
    Path | None, typer.Option("--out", metavar="FILE.json", help="Where the findings go; a figure goes beside them (.png).")
]


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
