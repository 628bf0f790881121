"""The worm's 300 neurons by name: one list in one order, and the spellings that laboratories use."""

from __future__ import annotations

import functools
import re

_PAIRS = """
ADA ADE ADF ADL AFD AIA AIB AIM AIN AIY AIZ ALM ALN ASE ASG ASH ASI ASJ ASK AUA AVA AVB AVD AVE AVF AVH AVJ AVK AWA AWB AWC
BAG BDU CEPD CEPV FLP HSN I1 I2 IL1 IL1D IL1V IL2 IL2D IL2V LUA M2 M3 MC NSM OLL OLQD OLQV PDE PHA PHB PHC PLM PLN PVC PVD
PVN PVP PVQ PVW RIA RIB RIC RIF RIG RIM RIP RIV RMD RMDD RMDV RME RMF RMG RMH SAAD SAAV SABV SDQ SIAD SIAV SIBD SIBV SMBD
SMBV SMDD SMDV URAD URAV URB URX URYD URYV
"""
PAIRS = tuple(_PAIRS.split())
_SINGLE = """
ALA AQR AVG AVL AVM DVA DVB DVC I3 I4 I5 I6 M1 M4 M5 MI PDA PDB PQR PVM PVR PVT RID RIH RIR RIS RMED RMEV SABD
"""
SINGLE = tuple(_SINGLE.split())
CORD = {"AS": 11, "DA": 9, "DB": 7, "DD": 6, "VA": 12, "VB": 11, "VC": 6, "VD": 13}
ALIASES = {"AWCOFF": "AWCL", "AWCOF": "AWCL", "AWCON": "AWCR"}
"""The atlas of signal propagation names the AWC pair by what it senses; by its convention "off" is the left cell, though the
side differs between worms."""

_SENSORY = """
ADE ADF ADL AFD ALM ALN AQR ASE ASG ASH ASI ASJ ASK AVM AWA AWB AWC BAG CEPD CEPV FLP IL1 IL1D IL1V IL2 IL2D IL2V OLL OLQD
OLQV PDE PHA PHB PHC PLM PLN PQR PVD PVM SDQ URB URX URYD URYV
"""
SENSORY = frozenset(_SENSORY.split())
_MOTOR = """
AS AVL DA DB DD DVB HSN PDA PDB RIM RMD RMDD RMDV RME RMED RMEV RMF RMH SABD SABV SIAD SIAV SIBD SIBV SMBD SMBV SMDD SMDV
URAD URAV VA VB VC VD
"""
MOTOR = frozenset(_MOTOR.split())
_PHARYNX = """
I1 I2 I3 I4 I5 I6 M1 M2 M3 M4 M5 MC MI NSM
"""
PHARYNX = frozenset(_PHARYNX.split())
_GABA = """
AVL DD DVB RIS RME RMED RMEV VD
"""
GABA = frozenset(_GABA.split())
"""Classes whose chemical synapses inhibit in the simulator."""

_SPELLING = re.compile(r"([A-Z]+)0*([1-9][0-9]*)?([LRDV]*)")


@functools.cache
def canonical_names() -> tuple[str, ...]:
    """The 300 neurons (302 without CANL and CANR) in alphabetical order, "AS10" before "AS2": the order of every array here."""
    sided = [name + side for name in PAIRS for side in "LR"]
    cord = [f"{name}{k + 1}" for name, count in CORD.items() for k in range(count)]
    return tuple(sorted([*sided, *SINGLE, *cord]))


@functools.cache
def slots() -> dict[str, int]:
    """Name -> its place in `canonical_names`."""
    return {name: k for k, name in enumerate(canonical_names())}


def canonicalise(name: object) -> str | None:
    """The canonical name, or None for what names no one cell of the list.

    Read are any case, padding zeros (`VB02`, `M03L`), separators (`AVA_L`, `ava-l`) and the atlas' AWCON and AWCOFF. Names of a
    pair without a side (`AVA`), uncertain ones (`AVAL?`), numbers and empty ones name no one cell.
    """
    if isinstance(name, bytes):
        name = name.decode("utf-8", "replace")
    if not isinstance(name, str):
        return None
    found = _SPELLING.fullmatch(re.sub(r"[\s_.-]", "", name).upper())
    if not found:
        return None
    letters, number, side = found.groups()
    plain = letters + (number or "") + side
    plain = ALIASES.get(plain, plain)
    return plain if plain in slots() else None


def neuron_class(name: str) -> str:
    """The class of a canonical name: `AVA` of AVAL, `VB` of VB10."""
    if name[:2] in CORD and name[2:].isdigit():
        return name[:2]
    return name[:-1] if name[:-1] in PAIRS else name


def neuron_type(name: str) -> str:
    """`"sensory"`, `"inter"`, `"motor"` or `"pharynx"` of a canonical name."""
    kind = neuron_class(name)
    if kind in PHARYNX:
        return "pharynx"
    return "sensory" if kind in SENSORY else "motor" if kind in MOTOR else "inter"


def partner(name: str) -> str:
    """The cell of the other side, or the name itself where there is none."""
    other = name[:-1] + {"L": "R", "R": "L"}.get(name[-1], "")
    return other if other in slots() and neuron_class(name) in PAIRS else name
