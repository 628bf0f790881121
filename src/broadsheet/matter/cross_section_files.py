"""Measured cross sections from HEPData's CSV and YAML files, or from a plain table.

Units and errors are those that the file names: energies of the photon (MeV, GeV, TeV) or in the centre of mass, cross sections
in fb to mb, statistical and systematic errors, symmetric or not, in the cross section's unit or per cent. Errors of a point are
added in quadrature.
"""

from __future__ import annotations

import csv
import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from broadsheet.errors import DataError
from broadsheet.files import MIB, read_text
from broadsheet.matter.photoproduction import photon_energy

ENERGY_UNITS = {"mev": 1e-3, "gev": 1.0, "tev": 1e3}
AREA_UNITS = {"fb": 1e-6, "pb": 1e-3, "nb": 1.0, "mub": 1e3, "ub": 1e3, "µb": 1e3, "microbarn": 1e3, "mb": 1e6}
"""In nb."""

TOTAL = re.compile(r"<?w(\b|_|gamma|>).*|sqrt\(?s\)?.*|cms energy|energy cm")
PHOTON = re.compile(r"<?e(_|\()?(gamma|γ|g)\b.*|e\(p=1\)|(photon )?(beam )?energy|e|e_?beam|plab")
"""Names of the energy, without unit and markup, in small letters."""


class CrossSections(NamedTuple):
    """Total cross sections (points,), nb, at photon energies, GeV, with errors up and down, and what the file says of them."""

    energy: np.ndarray
    sigma: np.ndarray
    up: np.ndarray
    down: np.ndarray
    name: str
    notes: tuple[str, ...]

    @property
    def measured(self) -> np.ndarray:
        """(points, 3): cross section, upward and downward error, nb."""
        return np.stack([self.sigma, self.up, self.down], axis=1)


class _Point(NamedTuple):
    where: str
    energy: str
    low: str
    high: str
    sigma: str
    errors: tuple[tuple[str, str, str], ...]  # label, up, down


class _Table(NamedTuple):
    name: str
    energy: str  # header, with the unit in brackets
    sigma: str
    points: list[_Point]


def read_cross_sections(path: str | Path, threshold: float | None = None, max_bytes: int = 16 * MIB) -> CrossSections:
    """Cross sections against energy from a file.

    `.csv` files are HEPData's (with `#:` lines, perhaps several tables below each other, of which the first of a cross section
    against energy counts) or plain tables: a header with names and units (`E_gamma [GeV], sigma [nb], stat +, stat -, sys`) and
    a line for each point. `.yaml` files are HEPData's tables. Where a bin has no centre its middle is taken.

    **Arguments:** `threshold`: least energy of a photon, GeV, that a point may have.

    **Raises:** `DataError` where errors or units are missing, a number is none, errors are not positive, a cross section is
    negative, or an energy lies below threshold; it names the line.
    """
    path = Path(path)
    text = read_text(path, max_bytes)
    tables = _yaml_tables(path, text) if path.suffix.lower() in (".yaml", ".yml") else _csv_tables(path, text)
    notes, found = [], None
    for table in tables:
        if found is None and _unit(table.sigma, AREA_UNITS) is not None and _is_energy(table.energy):
            found = table
        else:
            notes.append(f"{table.name} ({table.sigma} against {table.energy}) was left out")
    if found is None:
        seen = "; ".join(f"{table.sigma!r} against {table.energy!r}" for table in tables) or "no table"
        raise DataError(
            f"{path} has no cross section (fb, pb, nb, mub, mb) against the energy of a photon or W (MeV, GeV, TeV), units in "
            f"brackets: {seen}."
        )
    return _numbers(path, found, notes, threshold)


def _unit(header: str, units: dict[str, float]) -> float | None:
    """What a header's unit, in brackets or after IN, is worth."""
    match = re.search(r"[\[(]\s*([^\[\]()/]+?)\s*[\])]\s*$", header) or re.search(r"\bin\s+(\S+)\s*$", header, re.IGNORECASE)
    return units.get(match[1].strip().lower().replace("\\mu", "mu").replace("$", "")) if match else None


def _bare(header: str) -> str:
    """A header without its unit, in small letters and without markup."""
    text = re.sub(r"\s*(\[[^\]]*\]|\bin\s+[gmt]ev)\s*$", "", header, flags=re.IGNORECASE)
    if _unit(header, ENERGY_UNITS) is not None and text == header:
        text = re.sub(r"\s*\([^)]*\)\s*$", "", header)
    return re.sub(r"\\(text|mathrm|rm|langle|rangle)\b|[\\${}]", "", text).strip().lower()


def _is_energy(header: str) -> bool:
    return _unit(header, ENERGY_UNITS) is not None and any(names.fullmatch(_bare(header)) for names in (TOTAL, PHOTON))


def _numbers(path: Path, table: _Table, notes: list[str], threshold: float | None) -> CrossSections:
    scale, area = _unit(table.energy, ENERGY_UNITS), _unit(table.sigma, AREA_UNITS)
    assert scale is not None
    assert area is not None
    rows = []
    labels: set[str] = set()
    for point in table.points:
        if point.sigma in ("", "-"):
            notes.append(f"{point.where} has no value")
            continue
        energy = _value(path, point, point.energy, "energy") if point.energy else _middle(path, point)
        sigma = _value(path, point, point.sigma, "cross section")
        given = [(label, up, down) for label, up, down in point.errors if (up, down) not in (("", ""), ("-", "-"))]
        if not given:
            raise DataError(f"{path}, {point.where}: the cross section has no error; statistical or total errors are wanted.")
        labels |= {label for label, _, _ in given}
        ups, downs = (
            [_error(path, point, each[side], sigma) for each in given if each[side] not in ("", "-")] for side in (1, 2)
        )
        up, down = math.hypot(*ups), math.hypot(*downs)
        if not (up > 0 and down > 0):
            raise DataError(f"{path}, {point.where}: the errors are +{up:g} and -{down:g}; positive ones are wanted.")
        if sigma < 0:
            raise DataError(f"{path}, {point.where}: the cross section is negative ({sigma:g}).")
        energy *= scale
        if TOTAL.fullmatch(_bare(table.energy)):
            energy = photon_energy(energy)
        if threshold is not None and not energy > threshold:
            raise DataError(
                f"{path}, {point.where}: a photon of {energy:.4g} GeV is below the threshold at {threshold:.4f} GeV."
            )
        rows.append((energy, area * sigma, area * up, area * down))
    if not rows:
        raise DataError(f"{path}: {table.name} has no point.")
    parts = ", ".join(sorted(label or "unnamed" for label in labels))
    notes.append(f"errors of a point are the quadratic sum of: {parts}" if len(labels) > 1 else f"errors are: {parts}")
    energies, sigmas, ups, downs = np.array(sorted(rows)).T
    return CrossSections(energies, sigmas, ups, downs, table.name, tuple(notes))


def _value(path: Path, point: _Point, text: str, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{path}, {point.where}: the {what} is {text!r}; a number is wanted.")
    return value


def _middle(path: Path, point: _Point) -> float:
    ends = [_value(path, point, each, "end of the energy bin") for each in (point.low, point.high)]
    return sum(ends) / 2


def _error(path: Path, point: _Point, text: str, sigma: float) -> float:
    """Size of an error, which may be a share of the cross section in per cent."""
    value = abs(_value(path, point, text.rstrip("% ").strip(), "error"))
    return value / 100 * abs(sigma) if text.rstrip().endswith("%") else value


def _yaml_tables(path: Path, text: str) -> list[_Table]:
    """HEPData's table: a list of independent and one of dependent variables."""
    import yaml

    try:
        data = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise DataError(f"{path} is not valid YAML ({str(error).splitlines()[0][:80]}).") from None
    try:
        axes, columns = data["independent_variables"], data["dependent_variables"]
        axis = next((each for each in axes if _is_energy(_header(each))), axes[0])
        tables = []
        for number, column in enumerate(columns):
            points = []
            for k, (x, y) in enumerate(zip(axis["values"], column["values"], strict=True)):
                low, high, middle = (str(x.get(each, "")) for each in ("low", "high", "value"))
                errors = tuple((str(each.get("label", "")), *_sides(each)) for each in y.get("errors", ()))
                points.append(_Point(f"point {k + 1}", middle, low, high, str(y["value"]), errors))
            tables.append(_Table(f"column {number + 1}", _header(axis), _header(column), points))
        return tables
    except (KeyError, TypeError, AttributeError, ValueError, IndexError):
        raise DataError(
            f"{path} is no table of HEPData's, with headers and values of independent_variables and dependent_variables."
        ) from None


def _header(variable: dict[str, Any]) -> str:
    header = variable["header"]
    return f"{header['name']} [{header['units']}]" if header.get("units") else str(header["name"])


def _sides(error: dict[str, Any]) -> tuple[str, str]:
    if "symerror" in error:
        return str(error["symerror"]), str(error["symerror"])
    return str(error["asymerror"]["plus"]), str(error["asymerror"]["minus"])


def _csv_tables(path: Path, text: str) -> list[_Table]:
    """Tables with empty or `#` lines between them; a name in a line `#: name: …` is that of what follows."""
    tables: list[_Table] = []
    name, block = path.name, []
    for number, line in enumerate([*text.split("\n"), ""], 1):
        if line.strip() and not line.startswith("#"):
            block.append((number, line))
            continue
        if block:
            tables.append(_csv_table(path, name, block))
            block = []
        if line.startswith("#: name:"):
            name = line.removeprefix("#: name:").strip()
    return tables


def _csv_table(path: Path, name: str, block: list[tuple[int, str]]) -> _Table:
    head = block[0][1]
    separator = next((each for each in ("\t", ";") if each in head), ",")
    rows = list(csv.reader([line for _, line in block], delimiter=separator))
    header = [each.strip() for each in rows[0]]
    if len(set(header)) < len(header):
        raise DataError(f"{path}, line {block[0][0]}: a column is there twice.")
    energy = next((k for k, each in enumerate(header) if _is_energy(each)), 0)
    sigma = next((k for k, each in enumerate(header) if _unit(each, AREA_UNITS) is not None and not _error_label(each)), None)
    if sigma is None:
        return _Table(name, header[energy], ", ".join(header[1:]) or "nothing", [])
    bins = {each.rsplit(" ", 1)[1].lower(): k for k, each in enumerate(header) if re.search(r" (LOW|HIGH)$", each)}
    sides = _error_columns(header, sigma)
    points = []
    for (line, _), row in zip(block[1:], rows[1:], strict=True):
        if len(row) != len(header):
            raise DataError(f"{path}, line {line}: {len(row)} fields, where the header has {len(header)}.")
        cells = [each.strip() for each in row]
        errors = tuple((label, cells[up], cells[down]) for label, (up, down) in sides.items())
        low, high = (cells[bins[each]] if each in bins else "" for each in ("low", "high"))
        points.append(_Point(f"line {line}", cells[energy], low, high, cells[sigma], errors))
    return _Table(name, header[energy], header[sigma], points)


def _error_label(header: str) -> str:
    """What kind of error a column holds; empty where it holds none."""
    bare = re.sub(r"\s*[\[(][^\[\]()]*[\])]\s*$", "", header).strip()
    bare = re.sub(r"\s*[+-]$", "", bare)
    match = re.match(
        r"(d?err|error|stat|sys|syst|total|tot|unc|uncertainty|sigma_?err|dsigma|d_sigma)\w*\b", bare, re.IGNORECASE
    )
    return bare if match else ""


def _error_columns(header: list[str], sigma: int) -> dict[str, tuple[int, int]]:
    """Label -> columns of the upward and the downward error, of those behind the cross section up to the next quantity."""
    found: dict[str, list[int]] = {}
    for k, each in enumerate(header[sigma + 1 :], sigma + 1):
        label = _error_label(each)
        if not label:
            if _unit(each, AREA_UNITS) is not None or each.endswith("]"):
                break
            continue
        plain = re.sub(r"\s*[\[(][^\[\]()]*[\])]\s*$", "", each).rstrip()
        side = 0 if plain.endswith("+") else 1 if plain.endswith("-") else 2
        pair = found.setdefault(label, [-1, -1])
        if side in (0, 2):
            pair[0] = k
        if side in (1, 2):
            pair[1] = k
    return {label: (up if up >= 0 else down, down if down >= 0 else up) for label, (up, down) in found.items()}
