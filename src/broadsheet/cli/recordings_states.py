"""States of a recording by the switching GLM: how many, which when, and with what couplings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from broadsheet.cli.findings import Findings, check_findings, write_findings
from broadsheet.cli.output import bar, console, number, print_json, table
from broadsheet.cli.pages import AsJson
from broadsheet.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from broadsheet.recordings import HMMGLM
    from broadsheet.recordings.binned_files import Binned


def states(
    recording: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="NWB; .npz or .csv, of spikes or of counts in bins; a folder of CRCNS pfc-6; or an address, streamed.",
        ),
    ],
    states: Annotated[int, typer.Option("--states", min=1, max=50, help="States of the model that is described.")] = 3,
    up_to: Annotated[int, typer.Option("--states-up-to", min=0, max=50, help="Also compare 1 to so many states.")] = 0,
    weights: Annotated[
        Literal["free", "gaussian", "onehot"],
        typer.Option(help="Couplings: free, around a shared mean, or type times strength."),
    ] = "free",
    dt: Annotated[float, typer.Option("--dt", min=1e-4, help="Bins, s.")] = 0.02,
    window: Annotated[
        str, typer.Option(metavar="FROM,TO", help="Of each trial, s around its start, as -5,10; else all of the recording.")
    ] = "",
    stretch: Annotated[float, typer.Option(min=0.1, help="Without trials: stretches that are held out as one, s.")] = 30.0,
    folds: Annotated[int, typer.Option(min=2, help="Blocks of trials or stretches that are held out in turn.")] = 5,
    penalty: Annotated[float, typer.Option(min=0, help="Precision of a prior of free couplings around 0.")] = 10.0,
    restarts: Annotated[int, typer.Option(min=1, help="Random starts, of which the best is kept.")] = 3,
    max_iter: Annotated[int, typer.Option(min=1, help="Iterations of EM at most.")] = 50,
    seed: Annotated[int, typer.Option(min=0, help="Of the random starts.")] = 0,
    out: Findings = None,
    as_json: AsJson = False,
) -> None:
    """Find states of a recording in which neurons are coupled differently: a hidden Markov chain of coupled Poisson GLMs.

    Said are the likelihood of held-out blocks against rates that do not change, couplings and states; look at all three. Long
    fits go on where they were interrupted.
    """
    import numpy as np

    from broadsheet.cache import unfinished
    from broadsheet.recordings.binned_files import read_binned

    check_findings(out)
    binned = read_binned(recording, dt=dt, window=_window(window), stretch=stretch)
    counts = binned.counts
    if len(counts) < folds:
        raise InputError(f"The recording has {len(counts)} trials or stretches; --folds {folds} wants as many, or more.")
    options: dict[str, Any] = {"weights": weights, "share_bias": False, "penalty": penalty, "restarts": restarts,
                               "max_iter": max_iter, "random_state": seed}  # fmt: skip
    asked = sorted({*range(1, up_to + 1), states})
    parameters = {"fingerprint": _fingerprint(counts), "dt": dt, "folds": folds, **options}
    with unfinished("recordings-states", parameters) as folder, bar(f"{len(asked)} models, {folds} blocks") as show:
        whole = len(asked) * folds + 1
        scores = {}
        for k, size in enumerate(asked):
            scores[size] = _held_out(counts, size, folds, options, folder,
                                     lambda share, k=k: show((k * folds + share) / whole, f"{asked[k]} states"))  # fmt: skip
        model = _model(states, options).fit(
            counts, checkpoint=folder / f"whole-{states}",
            report=lambda share, value: show((whole - 1 + share) / whole, f"{states} states, {value:.0f} nats"),
        )  # fmt: skip
        probable = model.predict_proba(counts)
        groups = _groups(model.weights_)
        found = _described(recording, binned, model, probable, scores, groups)
        report = write_findings(out, found, lambda: _figure(binned, model, probable, scores, groups))
        if out is not None:
            states_file = out.with_suffix(".npz")
            _write_arrays(states_file, binned, model, probable)
            report["arrays"] = str(states_file)
    if as_json:
        print_json(report)
        return
    _print(report, np.asarray(model.weights_))


def _window(text: str) -> tuple[float, float] | None:
    if not text:
        return None
    try:
        start, stop = map(float, text.split(","))
    except ValueError:
        raise InputError(f"--window {text!r}: two numbers with a comma between are wanted, as -5,10.") from None
    if not start < stop:
        raise InputError(f"--window {text!r}: the first number must be the smaller one.")
    return start, stop


def _model(size: int, options: dict[str, Any]) -> HMMGLM:
    from broadsheet.recordings import HMMGLM

    return HMMGLM(size, **options)


def _fingerprint(counts: list[np.ndarray]) -> str:
    """Of the data, so that only the same work goes on."""
    import hashlib

    import numpy as np

    total = hashlib.sha256()
    for part in counts:
        total.update(str(part.shape).encode())
        total.update(np.ascontiguousarray(part).tobytes())
    return total.hexdigest()


def _held_out(
    counts: list[np.ndarray], size: int, folds: int, options: dict[str, Any], folder: Path, report: Any
) -> dict[str, float]:
    """Log-likelihood a bin and bits a spike of blocks that were held out in turn; those that are done are found again."""
    import json

    import numpy as np

    from broadsheet.cache import write_atomic
    from broadsheet.recordings import bits_per_spike

    rows = []
    for k, held in enumerate(np.array_split(np.arange(len(counts)), folds)):
        file = folder / f"held-{size}-{k}.json"
        if not file.is_file():
            train = [part for j, part in enumerate(counts) if j not in held]
            test = [counts[j] for j in held]
            model = _model(size, options).fit(
                train, checkpoint=folder / f"fit-{size}-{k}", report=lambda share, _, k=k: report(k + share)
            )
            total = float(model.log_prob(test).sum())
            rates = _rates(train)
            bins = sum(int((~np.isnan(part)).any(axis=1).sum()) for part in test)
            row = {"nats": total, "bins": bins, "bits_per_spike": bits_per_spike(total, test, rates)}
            write_atomic(file, json.dumps(row))
        rows.append(json.loads(file.read_text()))
        report(k + 1)
    return {
        "nats_per_bin": sum(row["nats"] for row in rows) / max(1, sum(row["bins"] for row in rows)),
        "bits_per_spike": float(np.mean([row["bits_per_spike"] for row in rows])),
    }


def _rates(parts: list[np.ndarray]) -> np.ndarray:
    """Spikes a bin of each unit; a silent one gets half a spike in all."""
    import numpy as np

    seen = sum((~np.isnan(part)).sum(axis=0) for part in parts)
    return np.maximum(sum(np.nansum(part, axis=0, dtype=float) for part in parts), 0.5) / np.maximum(seen, 1)


def _groups(weights: np.ndarray) -> np.ndarray:
    """A community for each unit, of the mean strength of couplings over states and directions."""
    import numpy as np

    from broadsheet.recordings.communities import louvain

    strength = np.abs(weights).mean(axis=0)
    strength = (strength + strength.T) / 2
    np.fill_diagonal(strength, 0.0)
    return louvain(strength)


def _described(
    recording: str,
    binned: Binned,
    model: HMMGLM,
    probable: list[np.ndarray],
    scores: dict[int, dict[str, float]],
    groups: np.ndarray,
) -> dict[str, Any]:
    import numpy as np

    together = np.concatenate(probable)
    paths = model.predict(binned.counts)
    visits = [np.flatnonzero(np.diff(path)).size + 1 for path in paths]
    rows = []
    for s in range(model.n_states):
        weights = model.weights_[s]
        off = weights[~np.eye(len(weights), dtype=bool)]
        rows.append({
            "state": s + 1, "occupancy": float(together[:, s].mean()),
            "dwell_s": binned.dt / max(1 - float(model.transition_[s, s]), 1e-12) if model.n_states > 1 else None,
            "excitation": float(off[off > 0].sum() / len(weights)), "inhibition": float(off[off < 0].sum() / len(weights)),
        })  # fmt: skip
    return {
        "recording": recording, "units": list(binned.names), "dt": binned.dt, "sequences": len(binned.counts),
        "bins": sum(map(len, binned.counts)), "held_out": {str(size): score for size, score in scores.items()},
        "log_likelihood": float(model.log_prob(binned.counts).sum()), "converged": bool(model.converged_),
        "states": rows, "visits_per_sequence": float(np.mean(visits)), "transition": model.transition_.tolist(),
        "communities": groups.tolist(), "weights": model.weights_.tolist() if len(binned.names) <= 60 else None,
        "biases": model.biases_.tolist(),
    }  # fmt: skip


def _write_arrays(path: Path, binned: Binned, model: HMMGLM, probable: list[np.ndarray]) -> None:
    """Couplings, and the probability of each state in each bin, sequence after sequence."""
    import numpy as np

    from broadsheet.cache import writing

    more = {"types": model.types_, "strengths": model.strengths_} if model.weights == "onehot" else {}
    with writing(path) as stream:
        np.savez_compressed(
            stream, weights=model.weights_, biases=model.biases_, transition=model.transition_, units=np.array(binned.names),
            probabilities=np.concatenate(probable).astype(np.float32), lengths=[len(part) for part in probable],
            starts=binned.starts, dt=binned.dt, **more,
        )  # fmt: skip


def _print(report: dict[str, Any], weights: np.ndarray) -> None:
    right: dict[str, Any] = {"justify": "right"}
    print(f"{len(report['units'])} units, {report['bins']} bins of {report['dt']:g} s in {report['sequences']} sequences")
    columns: list[Any] = ["states", ("held out (nats a bin)", right), ("beyond constant rates (bits a spike)", right)]
    held = [(size, number(row["nats_per_bin"]), number(row["bits_per_spike"])) for size, row in report["held_out"].items()]
    console().print(table(columns, held, "Likelihood of blocks that were held out"))
    columns = ["state", *((name, right) for name in ("occupancy", "lasts (s)", "excitation", "inhibition"))]
    rows = [(row["state"], *(number(row[name]) for name in ("occupancy", "dwell_s", "excitation", "inhibition"))) for row in
            report["states"]]  # fmt: skip
    console().print(table(columns, rows, "States; couplings onto a unit, summed"))
    if not report["converged"]:
        print("EM had not converged: --max-iter lets it go on.")
    if "findings" in report:
        print(f"Written to {report['findings']} and {report['arrays']}, the figure to {report['figure']}.")


def _figure(
    binned: Binned, model: HMMGLM, probable: list[np.ndarray], scores: dict[int, dict[str, float]], groups: np.ndarray
) -> Any:
    """A raster with the states beneath, couplings ordered by community, occupancy, and likelihood against states."""
    import numpy as np
    from matplotlib.figure import Figure

    from broadsheet.lab.plots import COLOURS, SYSTEM_COLOUR, label

    size = model.n_states
    order = np.lexsort((np.arange(len(groups)), groups))
    fig = Figure(figsize=(max(9.0, 2.6 * size), 8.5), layout="constrained")
    grid = fig.add_gridspec(4, 1, height_ratios=(2.4, 0.8, 2.4, 2.0))
    shown = np.nan_to_num(np.asarray(binned.counts[0], float))[: int(30 / binned.dt) + 1]
    raster, beneath = fig.add_subplot(grid[0]), fig.add_subplot(grid[1])
    times = binned.starts[0] + binned.dt * np.arange(len(shown))
    at, unit = np.nonzero(shown[:, order])
    raster.plot(times[at], unit, "|", color="black", markersize=max(1.0, min(5.0, 150 / len(order))), markeredgewidth=0.6)
    raster.set(xlim=(times[0], times[-1]), ylim=(-0.5, len(order) - 0.5))
    label(raster, "time (s)", "unit, by community", "the first sequence")
    colours = [COLOURS[s % len(COLOURS)] for s in range(size)]
    beneath.stackplot(times, probable[0][: len(times)].T, colors=colours, labels=[f"state {s + 1}" for s in range(size)])
    beneath.set(xlim=(times[0], times[-1]), ylim=(0, 1))
    label(beneath, "time (s)", "probability", legend=False)
    maps = grid[2].subgridspec(1, size)
    bound = float(np.quantile(np.abs(model.weights_), 0.99)) or 1.0
    axes = []
    for s in range(size):
        axes.append(axis := fig.add_subplot(maps[s]))
        image = axis.imshow(model.weights_[s][np.ix_(order, order)], cmap="seismic", vmin=-bound, vmax=bound)
        for edge in np.flatnonzero(np.diff(groups[order])) + 0.5:
            axis.axhline(edge, color="k", lw=0.4)
            axis.axvline(edge, color="k", lw=0.4)
        label(axis, "source", "target", f"state {s + 1}")
        axis.title.set_color(colours[s])
    fig.colorbar(image, ax=axes, label="coupling", shrink=0.8)
    last = grid[3].subgridspec(1, 2)
    left, right = fig.add_subplot(last[0]), fig.add_subplot(last[1])
    left.bar(np.arange(size) + 1, np.concatenate(probable).mean(axis=0), color=colours)
    left.set_xticks(np.arange(size) + 1)
    label(left, "state", "occupancy")
    right.plot(list(scores), [row["nats_per_bin"] for row in scores.values()], "o-", color=SYSTEM_COLOUR)
    right.set_xticks(list(scores))
    label(right, "states", "held out (nats a bin)")
    return fig
