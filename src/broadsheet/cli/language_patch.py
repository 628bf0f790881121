"""The verb that patches activations: where a model, or a base and what was made of it, keeps what makes a statement true."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broadsheet.cli.findings import Findings, check_findings, write_findings
from broadsheet.cli.language_input import Device, ModelName, Precision
from broadsheet.cli.output import bar, console, number, print_json, table
from broadsheet.cli.pages import AsJson
from broadsheet.errors import InputError

if TYPE_CHECKING:
    from broadsheet.language.patch_maps import PatchMap
    from broadsheet.language.patching import Combination
    from broadsheet.language.statement_pairs import TokenPairs

OTHER = ", other statements"


def patch(
    base: ModelName,
    pairs: Annotated[
        Path, typer.Option(metavar="FILE", help="CSV, TSV or JSONL: true,false (a pair a line), or statement,label (matched).")
    ],
    post: Annotated[
        str | None, typer.Argument(metavar="POST", help="A model made from it, with the same tokens: patched too, and across.")
    ] = None,
    question: Annotated[str, typer.Option(help="What follows a statement.")] = " This statement is:",
    answers: Annotated[
        str, typer.Option(metavar="TRUE,FALSE", help="The answers, with the blank before them.")
    ] = " TRUE, FALSE",
    start: Annotated[
        str, typer.Option(help="What stands before everything, such as a token that the tokenizer leaves out.")
    ] = "",
    last_word: Annotated[
        bool,
        typer.Option("--last-word", help="No question: D is of the last word of the true statement, which the models say."),
    ] = False,
    control: Annotated[
        bool, typer.Option("--control", help="Also states of other pairs' true statements, which know nothing of the pair.")
    ] = False,
    layers: Annotated[str | None, typer.Option(metavar="0,1,…", help="Blocks; -1 is the embedding. By default all.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=3, help="Read so many pairs; the first two serve as labelled examples.")
    ] = None,
    block: Annotated[int, typer.Option(min=2, help="Pairs whose states are in memory at a time.")] = 32,
    rows: Annotated[
        int | None, typer.Option(min=1, help="Patched runs in a pass; by default as many as 256 MB have room for.")
    ] = None,
    device: Device = "cpu",
    dtype: Precision = "float32",
    out: Findings = None,
    as_json: AsJson = False,
) -> None:
    """Where states of a true statement turn a model's verdict on a false one: over blocks and tokens, within models and across.

    The two statements of a pair have as many tokens, and the same last word. D is the logit of TRUE less that of FALSE.
    Interrupted, the same command goes on behind the last block of pairs.
    """
    from broadsheet.cache import checksum, unfinished
    from broadsheet.language.models import load_on, model_identity
    from broadsheet.language.statement_pairs import Question, read_statement_pairs, tokenize_pairs

    check_findings(out)
    chosen = _numbers(layers)
    if answers.count(",") != 1:
        raise InputError(f"--answers {answers!r}: two answers are wanted, with a comma between them.")
    true, false = answers.split(",")
    form = Question(question, true, false, start, asked=not last_word)
    model, words = load_on(device, base, precision=dtype)
    models = {"base": model}
    found, left_out = read_statement_pairs(pairs, words)
    groups, more = tokenize_pairs(words, found[:limit], question=form)
    for reason, count in (left_out + more).items():
        typer.echo(f"{pairs}: {count} {reason}: left out.", err=True)
    if post is not None:
        models["post"], others = load_on(device, post, precision=dtype)
        _same_tokens(groups, tokenize_pairs(others, found[:limit], question=form)[0], base, post)
    which: list[Combination] = [("base", "base")]
    which += [("post", "post"), ("base", "post"), ("post", "base")] if post is not None else []
    work = {
        "models": [model_identity(name) for name in (base, post) if name], "pairs": checksum(pairs), "limit": limit,
        "form": [question, answers, start, last_word], "layers": chosen, "dtype": dtype, "control": control, "block": block,
    }  # fmt: skip
    with unfinished("patch", work) as folder, bar("patch") as tell:
        maps = _all(
            models, groups, which, folder, block, control, {"layers": chosen, "rows": rows}, lambda share: tell(share, "")
        )
    findings = _findings(maps, groups, left_out + more) | {"base": base, "post": post, "pairs_file": str(pairs)}
    shown = {name: parts[0] for name, parts in maps.items()}
    findings = write_findings(out, findings, lambda: _figure(shown))
    if as_json:
        print_json(findings)
        return
    _show(findings, shown)


def _numbers(text: str | None) -> list[int] | None:
    try:
        return None if text is None else [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--layers {text!r}: numbers of blocks with commas between them are wanted.") from None


def _same_tokens(ours: list[TokenPairs], theirs: list[TokenPairs], base: str, post: str) -> None:
    """Raises `InputError` where two tokenizers make different prompts of the pairs."""
    same = len(ours) == len(theirs) and all(
        a.answers == b.answers
        and a.true.shape == b.true.shape
        and bool((a.true == b.true).all() and (a.false == b.false).all())
        for a, b in zip(ours, theirs, strict=True)
    )
    if not same:
        raise InputError(
            f"The tokenizers of {base} and {post} make different tokens of the statements; they have to be the same."
        )


def _all(
    models: dict[str, Any],
    groups: list[TokenPairs],
    which: list[Combination],
    folder: Path,
    size: int,
    control: bool,
    options: dict[str, Any],
    tell: Any,
) -> dict[str, list[PatchMap]]:
    """Name of a map -> the maps of the groups of pairs; what an earlier run left in the folder is not made again."""
    from broadsheet.language.patch_maps import PatchMap
    from broadsheet.language.patching import patch_models

    whole, done = sum(len(group) for group in groups), 0
    parts: dict[str, list[list[PatchMap]]] = {}
    for k, group in enumerate(groups):
        starts = [begin for begin in range(0, len(group), size) if len(group) - begin > 1 or begin == 0]
        for begin, end in zip(starts, [*starts[1:], len(group)], strict=True):  # a last one alone goes with those before it
            some = group[begin:end]
            sources = {"": some} | ({OTHER: some.with_other_sources()} if control and len(some) > 1 else {})
            for suffix, prompts in sources.items():
                files = {pair: folder / f"{k}-{begin}-{len(suffix)}-{'-'.join(pair)}.npz" for pair in which}
                made = {pair: PatchMap.read(file) for pair, file in files.items() if file.is_file()}
                if len(made) < len(which):
                    made = patch_models(models, prompts, which, block=len(some), **options)
                    for pair, file in files.items():
                        made[pair].write(file)
                for source, target in which:
                    name = (target if source == target else f"{source} into {target}") + suffix
                    parts.setdefault(name, [[] for _ in groups])[k].append(made[source, target])
            done += len(some)
            tell(done / whole)
    return {name: [PatchMap.joined(some) for some in by_group if some] for name, by_group in parts.items()}


def _findings(maps: dict[str, list[PatchMap]], groups: list[TokenPairs], left_out: Counter[str]) -> dict[str, Any]:
    """What is written: the maps of the pairs of the most frequent length, and those by role of all pairs."""
    import numpy as np

    from broadsheet.language.patch_maps import ROLES, similarity

    first = maps["base"][0]
    counts = [len(group) for group in groups]
    found: dict[str, Any] = {
        "pairs": counts[0], "pairs_of_other_lengths": sum(counts[1:]), "left_out": dict(left_out),
        "layers": list(first.layers), "tokens": list(first.columns), "roles": list(ROLES), "maps": {},
    }  # fmt: skip
    for name, parts in maps.items():
        one = parts[0]
        row, column = np.unravel_index(one.mean.argmax(), one.mean.shape)
        weights = [len(part) for part in parts]
        found["maps"][name] = {
            "unpatched": float(one.unpatched.mean()),
            "true_statement": float(one.source.mean()),
            "largest": {"difference": float(one.mean.max()), "block": one.layers[row], "token": one.columns[column]},
            "mean": one.mean.tolist(),
            "normalised": one.normalised.tolist(),
            "by_role": np.average([part.by_role for part in parts], axis=0, weights=weights).tolist(),
        }
    if "post" in maps:
        found["similarity"] = similarity(first, maps["post"][0])
    return found


def _show(found: dict[str, Any], maps: dict[str, PatchMap]) -> None:
    right = {"justify": "right"}
    rows = []
    for name, part in found["maps"].items():
        best = part["largest"]
        where = f"{best['token']}, {'embedding' if best['block'] < 0 else 'after block ' + str(best['block'])}"
        rows.append((name, *(number(part[key]) for key in ("unpatched", "true_statement")), number(best["difference"]), where))
    columns: list[str | tuple[str, dict[str, Any]]] = [
        "map",
        ("D, false statement", right),
        ("D, true statement", right),
        ("largest D, patched", right),
        "where",
    ]
    others = found["pairs_of_other_lengths"]
    title = f"{found['pairs']} pairs" + (f" (and {others} of other lengths)" if others else "")
    console().print(table(columns, rows, title))
    if "similarity" in found:
        alike = {key: number(value) for key, value in found["similarity"].items()}
        print(
            f"Maps of base and post, in steps: correlation {alike['pearson']}, "
            f"largest difference {alike['largest_difference']}, at subjects and objects {alike['largest_at_knowledge']}."
        )


def _figure(maps: dict[str, PatchMap]) -> Any:
    """A heat map a map, and the difference of those of base and post."""
    import numpy as np

    from broadsheet.lab.plots import figure
    from broadsheet.language.patch_maps import draw_map

    count = len(maps) + ("post" in maps)
    columns = min(count, 3)
    fig, axes = figure(columns, -(-count // columns))
    flat = np.atleast_1d(axes).ravel()
    limit = max(float(np.abs(one.mean).max()) for one in maps.values())
    for axis, (name, one) in zip(flat, maps.items(), strict=False):
        image = draw_map(axis, one.mean, one.layers, one.columns, limit, name)
    fig.colorbar(image, ax=axes, label="D (logits)", shrink=0.7)
    if "post" in maps:
        apart = maps["base"].normalised - maps["post"].normalised
        image = draw_map(flat[len(maps)], apart, maps["base"].layers, maps["base"].columns, 1.0, "base less post, in steps")
        fig.colorbar(image, ax=flat[len(maps)], location="top", shrink=0.8)
    for axis in flat[count:]:
        axis.remove()
    return fig
