"""What total cross sections of J/psi photoproduction say of J/psi on the nucleon: on a user's file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from broadsheet.cli.findings import Findings, check_findings, write_findings
from broadsheet.cli.output import bar, console, number, print_json, table
from broadsheet.cli.pages import AsJson

OTHERS = {"vmd": "The photon as a J/psi", "loop": "The quark loop", "power law": "A power of the distance to threshold"}
"""How the models beside the fit are called."""


def photoproduction(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA.csv",
            help="Total cross sections with errors against the photon's energy or W: HEPData's CSV or YAML, or a table whose "
            "header has units in brackets (E_gamma [GeV], sigma [nb], stat, sys).",
        ),
    ],
    kind: Annotated[Literal["1Y", "2Y"], typer.Option(help="One Yukawa, or the difference of two.")] = "1Y",
    mu: Annotated[float, typer.Option(min=0.05, max=3, help="Inverse range of the potential, GeV.")] = 0.3,
    free_range: Annotated[bool, typer.Option("--free-range", help="Fit mu as well.")] = False,
    born: Annotated[
        Literal["loop", "vmd"], typer.Option(help="How the photon turns into J/psi: by a quark loop, or as a J/psi itself.")
    ] = "loop",
    fsi: Annotated[bool, typer.Option(help="Final-state interaction.")] = True,
    pomeron: Annotated[bool, typer.Option(help="Pomeron exchange.")] = True,
    waves: Annotated[int, typer.Option(min=1, max=4, help="Partial waves that rescatter.")] = 2,
    scale_error: Annotated[
        float, typer.Option(min=0, max=1, help="Relative error that all points share, as 0.27; its scale is fitted too.")
    ] = 0.0,
    out: Findings = None,
    as_json: AsJson = False,
) -> None:
    """Strength of the potential between a charm quark and the nucleon, and the scattering length of J/psi on the nucleon.

    Errors are from the covariance, and where chi squared has risen by one. Beside the fit: the photon as a J/psi with the same
    potential, and a power of the distance to threshold, which know no dynamics of a loop. With --out the findings go to a JSON
    file, and data, fit and band to a figure beside it. Energies in GeV, lengths in fm, cross sections in nb.
    """
    import numpy as np

    from broadsheet.matter.cross_section_files import read_cross_sections
    from broadsheet.matter.measured_cross_sections import THRESHOLD, power_law
    from broadsheet.matter.photoproduction_fit import PhotoproductionFit

    check_findings(out)
    found = read_cross_sections(data, THRESHOLD)
    energies, measured = found.energy, found.measured
    shape: dict[str, Any] = {"kind": kind, "mu": mu, "pomeron": pomeron, "waves": waves, "scale_error": scale_error}
    free = ("alpha", "mu") if free_range else ("alpha",)
    with bar(f"{len(energies)} cross sections") as show:
        model = PhotoproductionFit(**shape, free=free, born=born, fsi=fsi).fit(energies, measured)
        show(0.4, "intervals")
        intervals = {name: model.profile(name) for name in model.parameters_}
        show(0.7, "other models")
        other = "vmd" if born == "loop" else "loop"
        rival = PhotoproductionFit(**shape, free=free, born=other, fsi=fsi).fit(energies, measured)
    curve = power_law(energies, measured, exponent=None if len(energies) > 2 else 2.0)
    fitted, scale = model.predict(energies), model.parameters_.get("scale", 1.0)
    result: dict[str, Any] = {
        "data": str(data), "table": found.name, "notes": list(found.notes), "points": len(energies),
        "units": {"energy": "GeV", "cross section": "nb", "length": "fm"},
        "parameters": {
            name: {"value": value, "error": model.errors_[name], "from": intervals[name][0], "to": intervals[name][1]}
            for name, value in model.parameters_.items()
        },
        "mu": model.potential_.mu, "at_limit": list(model.at_limit_), "covariance": model.covariance_.tolist(),
        "scattering_length": model.scattering_length_, "scattering_length_error": model.scattering_length_error_,
        "chi2": model.chi2_, "degrees_of_freedom": model.dof_, "evaluations": model.evaluations_,
        "others": {
            rival.born: {"chi2": rival.chi2_, "degrees_of_freedom": rival.dof_, "scattering_length": rival.scattering_length_},
            "power law": {"chi2": curve.chi2, "degrees_of_freedom": len(energies) - 2, "exponent": curve.exponent},
        },
        "energy": energies.tolist(), "sigma": found.sigma.tolist(), "up": found.up.tolist(), "down": found.down.tolist(),
        "fitted": (scale * fitted).tolist(), "pull": model.pulls_.tolist(),
    }  # fmt: skip
    grid = np.geomspace(0.01, max(float(energies.max()) * 1.02 - THRESHOLD, 1.0), 80) + THRESHOLD
    if out is not None:
        sigma, band = model.band(grid)
        result["curve"] = {"energy": grid.tolist(), "sigma": sigma.tolist(), "band": band.tolist()}
    result = write_findings(out, result, lambda: _figure(result, rival.predict(grid), curve(grid) / scale, rival.born))
    if as_json:
        print_json(result)
        return
    _print(result)


def _figure(result: dict[str, Any], rival: Any, curve: Any, name: str) -> Any:
    import numpy as np

    from broadsheet.lab.plots import COLOURS, CONTROL_COLOUR, SYSTEM_COLOUR, figure, label

    fig, axis = figure(width=6.0, height=4.2)
    scale = result["parameters"].get("scale", {"value": 1.0})["value"]
    energy, sigma, band = (np.array(result["curve"][key]) for key in ("energy", "sigma", "band"))
    axis.errorbar(
        result["energy"], np.array(result["sigma"]) / scale, yerr=np.array([result["down"], result["up"]]) / scale, fmt="o",
        color="k", ms=3, lw=0.8, label="data" if scale == 1 else f"data / {scale:.2f}",
    )  # fmt: skip
    axis.plot(energy, sigma, color=SYSTEM_COLOUR, label="fit, with its standard error")
    axis.fill_between(energy, np.maximum(sigma - band, 1e-6), sigma + band, color=SYSTEM_COLOUR, alpha=0.2, lw=0)
    axis.plot(energy, rival, "--", color=COLOURS[1], label="photon as J/ψ" if name == "vmd" else "quark loop")
    axis.plot(energy, curve, ":", color=CONTROL_COLOUR, label="power law")
    axis.set_yscale("log")
    axis.set_ylim(bottom=0.3 * min(value for value in [*result["sigma"], *sigma] if value > 0))
    if max(energy) > 40:
        axis.set_xscale("log")
    label(axis, "photon energy (GeV)", "σ(γp → J/ψ p) (nb)")
    return fig


def _print(result: dict[str, Any]) -> None:
    right: dict[str, Any] = {"justify": "right"}
    names = ("E (GeV)", "σ (nb)", "+", "-", "fit (nb)", "pull")
    rows = [
        tuple(number(result[key][k]) for key in ("energy", "sigma", "up", "down", "fitted", "pull"))
        for k in range(result["points"])
    ]
    title = f"{result['table']}: chi squared {number(result['chi2'])} for {result['degrees_of_freedom']} degrees of freedom"
    console().print(table([(name, right) for name in names], rows, title))
    for name, each in result["parameters"].items():
        unit = " GeV" if name == "mu" else ""
        ends = f"from {number(each['from'])} to {number(each['to'])}"
        print(f"{name} = {number(each['value'])} ± {number(each['error'])}{unit}, {ends} where chi squared has risen by one.")
    for name in result["at_limit"]:
        print(f"{name} is at its limit: its error means nothing.")
    length, error = number(result["scattering_length"]), number(result["scattering_length_error"])
    print(f"Scattering length of J/psi on the nucleon: {length} ± {error} fm with mu = {number(result['mu'])} GeV.")
    print("It is that of this shape and range: another that fits as well may have another length.")
    if result["scattering_length"] > 0 < result["parameters"].get("alpha", {"value": 0.0})["value"]:
        print("The length is positive: the potential is so strong that it binds.")
    for name, each in result["others"].items():
        print(f"{OTHERS[name]}: chi squared {number(each['chi2'])} for {each['degrees_of_freedom']}.")
    for note in result["notes"]:
        print(f"{note[0].upper()}{note[1:]}.")
    written = [result[key] for key in ("findings", "figure") if key in result]
    if written:
        print(f"Written to {', '.join(written)}.")
