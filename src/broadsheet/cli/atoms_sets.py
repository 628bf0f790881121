"""The information in sets of structures: choosing few that keep all, outliers, entropy."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from broadsheet.cli.atoms import File
from broadsheet.cli.output import bar, console, number, print_json, table
from broadsheet.cli.pages import AsJson
from broadsheet.errors import InputError


class Sampler(StrEnum):
    """How structures are chosen."""

    cover = "cover"
    random = "random"
    k_means = "k_means"
    mean_fps = "mean_fps"
    fps = "fps"
    environment_fps = "environment_fps"


Neighbours = Annotated[int, typer.Option(min=2, max=200, help="Neighbours in a descriptor.")]
Cutoff = Annotated[float, typer.Option(min=1, max=20, help="Å.")]
Width = Annotated[float, typer.Option(min=1e-4, help="Width of the kernel, 1/Å.")]
ByElement = Annotated[bool, typer.Option("--by-element", help="Tell elements apart; without, only distances count.")]


def _elements(by_element: bool, *files: Path | None) -> list[str] | None:
    """The elements in all of these files, or None where they are not told apart."""
    from broadsheet.atoms.files import iterate_structures

    if not by_element:
        return None
    return sorted(
        {symbol for file in files if file is not None for each in iterate_structures(file) for symbol in each.symbols}
    )


def compress(
    file: File,
    out: Annotated[Path, typer.Option(help="Where the chosen structures go, in the order of the choice.")] = Path(
        "chosen.extxyz"
    ),
    fraction: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share to keep; by default where H times D peaks.")
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="How many to keep, in place of a share.")] = None,
    method: Annotated[Sampler, typer.Option()] = Sampler.cover,
    neighbours: Neighbours = 32,
    cutoff: Cutoff = 5.0,
    width: Width = 0.015,
    by_element: ByElement = False,
    part: Annotated[
        int, typer.Option(min=100, help="Environments of one choice; larger sets are chosen from in parts.")
    ] = 50_000,
    scheduler: Annotated[str | None, typer.Option(metavar="tcp://…", help="A Dask scheduler that the parts go to.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Choose few structures that keep all atomic environments."""
    import math

    from broadsheet.atoms.compression import best_size, fractions_curve
    from broadsheet.atoms.environments import describe_all, overlap
    from broadsheet.atoms.files import iterate_structures, write_structures
    from broadsheet.atoms.parts import select_in_parts

    if fraction is not None and count is not None:
        raise InputError("Give --fraction or --count, not both.")
    if fraction == 0:
        raise InputError("--fraction 0 keeps nothing.")
    environments = describe_all(iterate_structures(file), neighbours, cutoff, elements=_elements(by_element, file))
    total = environments.structures
    size = count if count is not None else math.ceil((fraction or 1.0) * total)
    with bar("choosing") as show, _mapped(scheduler) as mapped:
        found = select_in_parts(environments, size, method.value, part=part, h=width, seed=seed, mapped=mapped,
                                report=lambda share: show(share, ""))  # fmt: skip
    chosen = found.indices
    if fraction is None and count is None:
        chosen = chosen[: best_size(environments, chosen, h=width)]
        if len(chosen) == total and not as_json:
            print("Entropy times diversity rises up to the whole file: nothing in it is redundant.")
    wanted = set(chosen.tolist())
    kept = {k: each for k, each in enumerate(iterate_structures(file)) if k in wanted}
    for rank, k in enumerate(chosen.tolist()):
        kept[k].info |= {"source_index": k, "rank": rank}
    write_structures([kept[k] for k in chosen.tolist()], out)
    (h,), (d,) = fractions_curve(environments, {len(chosen): chosen}, [len(chosen)], width)
    covered = overlap(environments.X, environments.of(chosen).X, width)
    result = {"out": str(out), "structures": total, "kept": len(chosen), "environments": len(environments.X),
              "entropy": float(h), "diversity": float(d), "overlap": covered, "indices": chosen.tolist()}  # fmt: skip
    if as_json:
        print_json(result)
        return
    print(f"{len(chosen)} of {total} structures kept; they cover {100 * covered:.1f} % of {len(environments.X)} environments.")
    print(f"Entropy {h:.3f} nats, diversity {d:.3f} nats. Written to {out}.")


@contextlib.contextmanager
def _mapped(scheduler: str | None) -> Iterator[Callable]:
    """`map` here, or on a Dask cluster."""
    if scheduler is None:
        yield map
        return
    from distributed import Client

    try:
        client = Client(scheduler, timeout=10)
    except (OSError, ValueError) as error:
        raise InputError(f"The scheduler {scheduler} does not answer ({str(error)[:80]}).") from None
    with client:
        yield lambda function, tasks: client.gather(client.map(function, list(tasks)))


def outliers(
    file: File,
    reference: Annotated[Path | None, typer.Option(help="What is known; the other structures of FILE by default.")] = None,
    out: Annotated[Path, typer.Option(help="Structures with dH on each atom, most novel first.")] = Path("outliers.extxyz"),
    top: Annotated[int, typer.Option(min=1, help="How many to list.")] = 10,
    neighbours: Neighbours = 32,
    cutoff: Cutoff = 5.0,
    width: Width = 0.015,
    by_element: ByElement = False,
    as_json: AsJson = False,
) -> None:
    """How new each structure is: the largest differential entropy of its environments, above 0 where unlike all others."""
    import numpy as np

    from broadsheet.atoms.environments import describe_all, novelty
    from broadsheet.atoms.files import iterate_structures, read_structures, write_structures

    structures, elements = read_structures(file, labels=False), _elements(by_element, file, reference)
    environments = describe_all(structures, neighbours, cutoff, elements=elements)
    if reference is not None:
        known = describe_all(iterate_structures(reference), neighbours, cutoff, elements=elements)
        per_atom = novelty(environments.X, known.X, width)
    else:
        if len(structures) < 2:
            raise InputError(f"{file} has one structure; give --reference.")
        per_atom = np.empty(len(environments.X))
        for k in range(len(structures)):
            own = environments.owner == k
            per_atom[own] = novelty(environments.X[own], environments.X[~own], width)
    largest = np.array([per_atom[environments.owner == k].max() for k in range(len(structures))])
    order = np.argsort(-largest, kind="stable")
    for k, each in enumerate(structures):
        each.arrays["dH"] = per_atom[environments.owner == k]
        each.info |= {"dH_max": float(largest[k]), "source_index": k}
    write_structures([structures[k] for k in order], out)
    rows = [{"structure": int(k), "formula": structures[k].get_chemical_formula(),
             "atom": int(structures[k].arrays["dH"].argmax()), "dH": float(largest[k])} for k in order[:top]]  # fmt: skip
    if as_json:
        print_json({"out": str(out), "novel": int((largest > 0).sum()), "structures": len(structures), "top": rows})
        return
    right: dict[str, Any] = {"justify": "right"}
    cells = [(row["structure"], row["formula"], row["atom"], number(row["dH"])) for row in rows]
    columns: list[Any] = [("structure", right), "formula", ("atom", right), ("dH (nats)", right)]
    console().print(table(columns, cells))
    print(
        f"{int((largest > 0).sum())} of {len(structures)} structures hold environments unlike all known ones. Written to {out}."
    )


def entropy(
    file: File,
    reference: Annotated[Path | None, typer.Option(help="Also the share of FILE's environments that these cover.")] = None,
    neighbours: Neighbours = 32,
    cutoff: Cutoff = 5.0,
    width: Width = 0.015,
    by_element: ByElement = False,
    as_json: AsJson = False,
) -> None:
    """Entropy and diversity of the atomic environments in a file."""
    import math

    from broadsheet.atoms.environments import describe_all, diversity, overlap
    from broadsheet.atoms.environments import entropy as entropy_of
    from broadsheet.atoms.files import iterate_structures

    elements = _elements(by_element, file, reference)
    found = describe_all(iterate_structures(file), neighbours, cutoff, elements=elements)
    d = diversity(found.X, width)
    result: dict[str, Any] = {"structures": found.structures, "environments": len(found.X),
                              "entropy": entropy_of(found.X, width),
                              "diversity": d, "distinct": math.exp(d)}  # fmt: skip
    if reference is not None:
        known = describe_all(iterate_structures(reference), neighbours, cutoff, elements=elements)
        result["covered"] = overlap(found.X, known.X, width)
    if as_json:
        print_json(result)
        return
    print(f"{result['environments']} environments in {result['structures']} structures.")
    print(f"Entropy {result['entropy']:.4f} nats (at most {math.log(len(found.X)):.4f}), diversity {d:.4f} nats: "
          f"about {result['distinct']:.0f} distinct environments.")  # fmt: skip
    if reference is not None:
        print(f"{100 * result['covered']:.1f} % of them are covered by {reference}.")
