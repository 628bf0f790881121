"""Potentials by name: each is a file of `broadsheet.atoms.potentials` that bears its name, or comes with another package.

Names are known without importing a potential, or JAX. A package brings its own by the entry-point group
`broadsheet.potentials`, as `name = "module:Class"`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from broadsheet.errors import InputError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints

    from jaxtyping import PRNGKeyArray

    from broadsheet.atoms.potential import Potential
    from broadsheet.atoms.training import LossTerm, Training

PACKAGE = "broadsheet.atoms.potentials"
GROUP = "broadsheet.potentials"
FOLDER = Path(__file__).parent / "potentials"

Class = TypeVar("Class", bound=type)


@dataclass(frozen=True)
class Kind:
    """What a potential says of itself; `potential` has the fields' meaning."""

    name: str
    network: type
    settings: type
    sizes: Mapping[str, Any]
    sized: Callable[[Any, int], Any] | None
    objective: Callable[[Training, float | None], LossTerm] | None
    equivariant: bool

    def has(self, setting: str) -> bool:
        """Whether there is such a setting, as `cutoff` or `direct`."""
        return setting in {field.name for field in fields(self.settings)}

    def config(
        self, size: str | None, width: int | None, cutoff: float | None, direct: bool, more: Mapping[str, Any]
    ) -> Any:  # fmt: skip
        """Settings for `build`; raises `InputError` naming a size or a setting that the potential has not."""
        if size is not None and size not in self.sizes:
            raise InputError(f"{self.name} has no size {size!r}; it has {', '.join(self.sizes)}.")
        config = self.sizes[next(iter(self.sizes)) if size is None else size]
        if direct and not self.has("direct"):
            raise InputError(f"{self.name} has no direct forces; its forces are the gradient of its energy.")
        given = dict(more)
        if width is not None and self.sized is None:
            given["width"] = width
        if cutoff is not None:
            given["cutoff"] = cutoff
        if self.has("direct"):
            given["direct"] = direct
        for name in given:
            if not self.has(name):
                known = ", ".join(field.name for field in fields(self.settings))
                raise InputError(f"{self.name} has no setting {name!r}; it has {known}.")
        if width is not None and self.sized is not None:
            config = self.sized(config, width)
        return replace(config, **given)


_kinds: dict[str, Kind] = {}


def potential(
    name: str,
    *,
    settings: type,
    sizes: Mapping[str, Any] | None = None,
    sized: Callable[[Any, int], Any] | None = None,
    objective: Callable[[Training, float | None], LossTerm] | None = None,
    equivariant: bool = True,
) -> Callable[[Class], Class]:
    """Marks a class of potentials as one that is built, trained, saved and loaded by its name.

    The class is made as `network(config, key)`, keeps `config` and takes an integer for `key` too. All its leaves are arrays.

    **Arguments:**

    - `name`: in the package, that of the file too.
    - `settings`: the type of `config`: a frozen dataclass of numbers, texts and tuples of integers, all with defaults, whose
      `check()` returns itself or raises `InputError`. The command line knows `width` (features of an atom), `cutoff` (Å) and
      `direct` (a head for forces) where it has them.
    - `sizes`: settings by name, the first taken where none is asked for; one called `tiny` is what tests and benchmarks build.
    - `sized`: (settings, width) -> settings, where other sizes have to follow the width.
    - `objective`: (settings of the training, weight or None) -> loss, where labels alone are not what it learns from; `weight`
      is that of what it learns beside them.
    - `equivariant`: whether, by construction, energies stay and gradients turn as structures are rotated.

    **Raises:** `InputError` for a name that another class has.
    """

    if not (is_dataclass(settings) and settings.__dataclass_params__.frozen):  # type: ignore[attr-defined]
        raise InputError(f"The settings of the potential {name!r}, {settings.__name__}, have to be a frozen dataclass.")

    def register(network: Class) -> Class:
        known = _kinds.get(name)
        if known is not None and (known.network.__module__, known.network.__name__) != (network.__module__, network.__name__):
            raise InputError(f"The potential {name!r} is {known.network.__module__}.{known.network.__name__} already.")
        chosen = {"standard": settings()} if sizes is None else dict(sizes)
        _kinds[name] = Kind(name, network, settings, chosen, sized, objective, equivariant)
        return network

    return register


def names() -> list[str]:
    """All potentials: the package's own, those of other packages, and those registered in this process."""
    return sorted({*own_names(), *(point.name for point in _entry_points()), *_kinds})


@cache
def own_names() -> tuple[str, ...]:
    """The package's own potentials, by their files."""
    return tuple(sorted(file.stem for file in FOLDER.glob("*.py") if file.stem != "__init__"))


def kind(of: str | type | Potential) -> Kind:
    """What a potential says of itself, by its name, its class or one of it; raises `InputError` where nothing is registered."""
    if not isinstance(of, str):
        network = of if isinstance(of, type) else type(of)
        found = _registered(network)
        if found is None:
            raise InputError(f"{network.__name__} is not registered; @potential(name, …) before the class registers it.")
        return found
    if of not in _kinds:
        _load(of)
    if of not in _kinds:
        if of in names():
            raise InputError(f"The module of the potential {of!r} registers none of that name by @potential({of!r}, …).")
        raise InputError(f"There is no potential called {of!r}; there are {', '.join(names())}.")
    return _kinds[of]


def kind_of_class(name: str) -> Kind:
    """The kind whose class has this name, as saved files say it; raises `InputError` where there is none."""
    for own in own_names():
        if own not in _kinds:
            _load(own)
    for each in _kinds.values():
        if each.network.__name__ == name:
            return each
    for point in _entry_points():
        if point.attr == name:
            return kind(point.name)
    raise InputError(f"no potential of the class {name!r} is here; there are {', '.join(names())}.")


def _entry_points(**which: Any) -> EntryPoints:
    from importlib.metadata import entry_points  # takes a while to import, and the command line lists the package's own alone

    return entry_points(group=GROUP, **which)


def _registered(network: type) -> Kind | None:
    return next((each for each in _kinds.values() if each.network is network), None)


def _load(name: str) -> None:
    """Imports the file or the entry point that bears the name."""
    if name in own_names():
        importlib.import_module(f"{PACKAGE}.{name}")
        return
    for point in _entry_points(name=name):
        try:
            point.load()
        except (ImportError, AttributeError) as error:
            raise InputError(f"The potential {name!r} of {point.value} cannot be loaded ({str(error)[:120]}).") from None


def build(
    of: str | type,
    key: PRNGKeyArray | int,
    *,
    size: str | None = None,
    width: int | None = None,
    cutoff: float | None = None,
    direct: bool = False,
    **settings: Any,
) -> Potential:
    """An untrained potential.

    **Arguments:** `of`: its name, or its class; `size`: one of its named sizes; `width`: features of an atom; `cutoff`: Å;
    `direct`: with a head for forces; `settings`: any others that it has. A paper's file gives the class, since what a run
    depends on is read from its imports.

    **Raises:** `InputError` for a name that is none, for what this potential has not, and for a class that does not keep what
    files and training need of it.
    """
    found = kind(of)
    return _whole(found, found.network(found.config(size, width, cutoff, direct, settings), key))


def _whole(found: Kind, network: Potential) -> Potential:
    """The network, after a look at what only shows when it is trained or saved."""
    import equinox as eqx
    import jax

    if not isinstance(getattr(network, "config", None), found.settings):
        raise InputError(f"{found.network.__name__} does not keep its settings: config = eqx.field(static=True) is wanted.")
    if not isinstance(getattr(network, "cutoff", None), float):
        raise InputError(f"{found.network.__name__} has no cutoff: cutoff: float = eqx.field(static=True), in Å, is wanted.")
    for path, leaf in jax.tree_util.tree_flatten_with_path(network)[0]:
        if not eqx.is_array(leaf):
            place = jax.tree_util.keystr(path, simple=True, separator=".")
            raise InputError(
                f"{found.network.__name__}.{place} is a {type(leaf).__name__}; leaves are arrays, or static fields."
            )
    return network


def own_loss(network: Potential, settings: Training, weight: float | None = None) -> LossTerm | None:
    """The loss that a network of this kind is trained with, for `train(…, loss=…)`; None where labels are all it learns from.

    **Arguments:** `weight`: of what it learns beside labels; by default, the network's own.

    **Raises:** `InputError` where a weight is given and labels are all.
    """
    found = _registered(type(network))
    if found is not None and found.objective is not None:
        return found.objective(settings, weight)
    if weight is not None:
        raise InputError(f"{type(network).__name__ if found is None else found.name} learns from labels alone.")
    return None
