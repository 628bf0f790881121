import dataclasses
import json
import math
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadsheet.errors import InputError, MissingExtraError
from broadsheet.lab import Claim, Paper, Report, at_least, registry
from broadsheet.lab.registry import Entry, ExperimentEntry, describe
from broadsheet.lab.schema import Field, fields_of


@dataclasses.dataclass(frozen=True)
class Inner:
    """A config within a config."""

    width: int = 8


plain = {
    bool: st.booleans(),
    int: st.integers(),
    float: st.floats(allow_nan=False, allow_infinity=False),
    str: st.text(max_size=6),
    Literal["none", "a", "b"]: st.sampled_from(["none", "a", "b"]),
    Literal[1, 2, 10]: st.sampled_from([1, 2, 10]),
}
nested = {tuple[kind, ...]: st.lists(values, max_size=3).map(tuple) for kind, values in plain.items()} | {
    tuple[int, float]: st.tuples(plain[int], plain[float]),
    tuple[tuple[int, ...], ...]: st.lists(st.lists(st.integers(), min_size=1, max_size=3).map(tuple), max_size=3).map(tuple),
    tuple[tuple[Literal["a", "b"], float], ...]: st.just((("a", 0.5), ("b", 1.0))),
}
optional = {kind | None: st.none() | values for kind, values in (plain | nested).items()}
kinds = plain | nested | optional | {Inner: st.just(Inner())}


@st.composite
def configs(draw):
    """A config dataclass with a field of each of some kinds, and an instance of it."""
    chosen = draw(st.lists(st.sampled_from(list(kinds)), min_size=1, max_size=4))
    made = dataclasses.make_dataclass("Made", [(f"x{k}", kind) for k, kind in enumerate(chosen)], frozen=True)
    return made(*(draw(kinds[kind]) for kind in chosen))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)
words = st.sampled_from(
    ["none", "None", "true", "No", "1", "0", "10", "1e3", "1e+3", "1.5", "-2", "nan", "inf", "-Infinity", "1e999", "a", "a+b",
     "1+2.5", "1 2", "1;2", "1+2;3", "a+1;b+2", "", " ", "1_0", "٣", "9" * 40, "2.0"]
)  # fmt: skip


def both_sides(config):
    """The experiment with this preset, and its entry as the index gives it back."""
    paper = Paper("made", "2501.1", "t", "2025-01-01", 1, "code", "s")
    experiment = paper.experiment(presets={"quick": config})(lambda config, key, log: Report())
    kept = json.loads(json.dumps(describe(paper, "made").to_dict()))
    return experiment, Entry.from_dict(kept).experiment(experiment.name)


def outcome(call):
    """What a call gives, or the words of its mistake."""
    try:
        return call()
    except InputError as error:
        return str(error)


def fits(value, kind):
    """Whether a value is of a type, written out anew."""
    options = getattr(kind, "__args__", ())
    if type(None) in options:
        return value is None or fits(value, next(option for option in options if option is not type(None)))
    if kind in (bool, int, float, str, Inner):
        return type(value) is kind and (kind is not float or math.isfinite(value))
    if getattr(kind, "__origin__", None) is tuple:
        wanted = options[:1] * len(value) if options[-1] is ... else options
        return type(value) is tuple and len(value) == len(wanted) and all(map(fits, value, wanted))
    return any(value == option and type(value) is type(option) for option in options)


@given(configs(), st.data())
def test_planner_and_experiment_read_every_value_alike(config, data):
    experiment, entry = both_sides(config)
    name = data.draw(st.sampled_from([field.name for field in dataclasses.fields(config)]))
    value = data.draw(words | st.text(max_size=8) | json_values)
    planned = outcome(lambda: entry.configure("quick", "system", {name: value}))
    made = outcome(lambda: experiment.configure("quick", "system", {name: value}))
    if isinstance(made, str):
        assert planned == made
        assert made.count("\n") == 0
        return
    assert planned == json.loads(json.dumps(dataclasses.asdict(made), allow_nan=False))
    assert all(fits(getattr(made, field.name), field.type) for field in dataclasses.fields(made))
    assert dataclasses.replace(made, **{name: getattr(config, name)}) == config


def text_of(value):
    """A value as a person writes it on a command line."""
    if isinstance(value, tuple):
        return (";" if any(isinstance(part, tuple) for part in value) else "+").join(map(text_of, value))
    return str(value)


@given(st.data())
def test_every_value_can_be_given_as_json_and_as_text(data):
    kind = data.draw(st.sampled_from([kind for kind in kinds if kind is not Inner]))
    (field,) = fields_of(dataclasses.make_dataclass("Made", [("x", kind)]))
    value = data.draw(kinds[kind])
    assert field.parse(json.loads(json.dumps(value))) == value
    typed = text_of(value)
    if "str" not in str(kind) and not (field.optional and typed == "none"):  # a text may hold what separates, or "none"
        assert field.parse(typed) == value


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        (int, "1.5", "a whole number is wanted"),
        (int, True, "a whole number is wanted"),
        (int, float("inf"), "a whole number is wanted"),
        (float, "nan", "a finite number is wanted"),
        (float, 10**400, "a finite number is wanted"),
        (float, None, "a finite number is wanted"),
        (bool, "maybe", "true or false is wanted"),
        (bool | None, "maybe", "true or false, or none is wanted"),
        (str, ["a"], "text is wanted"),
        (Literal["digits", "mnist"], "banana", "one of digits, mnist is wanted"),
        (tuple[int, ...], "1+b", r"a list \(a whole number each\) is wanted"),
        (tuple[int, ...], {"a": 1}, "a list"),
        (tuple[float, int], "1", r"2 values \(a finite number; a whole number\) is wanted"),
        (Inner, {"width": 3}, "cannot be changed"),
        (str | None, ["x" * 1000], "…; text, or none is wanted"),
    ],
)
def test_mistakes_are_one_short_sentence(kind, value, words):
    (field,) = fields_of(dataclasses.make_dataclass("Made", [("x", kind)]))
    with pytest.raises(InputError, match=words) as caught:
        field.parse(value)
    assert len(str(caught.value)) < 200


def test_what_is_particular():
    (sizes, source, large, ratio) = fields_of(
        dataclasses.make_dataclass(
            "Made", [("sizes", tuple[float, ...]), ("source", Literal["a", "none"] | None), ("large", int), ("ratio", float)]
        )
    )
    assert sizes.parse("1e+3+2") == (1000.0, 2.0)
    assert sizes.parse(np.array([1, 2])) == (1.0, 2.0)
    assert source.parse("none") == "none"  # where it is a choice
    assert source.parse(None) is None
    assert large.parse("12345678901234567891") == 12345678901234567891
    assert large.parse(np.int64(3)) == 3
    assert type(ratio.parse(np.float32(0.5))) is float


def test_defaults_are_those_of_the_class():
    @dataclasses.dataclass
    class Made:
        needed: int
        sizes: tuple[int, ...] = (1, 2)
        inner: Inner = dataclasses.field(default_factory=Inner)

    assert [field.default for field in fields_of(Made)] == [..., [1, 2], {"width": 8}]
    assert all(Field.from_json(json.loads(json.dumps(field.to_json()))) == field for field in fields_of(Made))


def test_other_types_are_refused_when_a_paper_is_written():
    for kind in (dict, list[int], int | str, tuple):
        with pytest.raises(InputError, match=r"Made\.x is of type"):
            fields_of(dataclasses.make_dataclass("Made", [("x", kind)]))
    paper = Paper("made", "2501.1", "t", "2025-01-01", 1, "code", "s")
    with pytest.raises(InputError, match="one class"):
        paper.experiment(presets={"smoke": Inner(), "quick": both_sides})(lambda config, key, log: Report())


def test_a_paper_and_its_experiments_as_they_come():
    paper = Paper("made", "2501.1", "t", "2025-01-01", 1, "code", "s")
    assert paper.facts() == {
        "slug": "made", "arxiv": "2501.1", "title": "t", "published": "2025-01-01", "authors": 1, "basis": "code", "summary": "s",
        "code": "", "topics": [], "parts": [], "requires": [], "verbs": [], "notes": [], "tasks": {}, "answers": {},
    }  # fmt: skip

    def _main_(config, key, log):
        """What it does,
        in words.

        And more."""

    ours = Claim("C1", "s", kind="check", checks=[at_least("a", 1.0)], seeds=5)
    made = paper.experiment(presets={"smoke": Inner(2), "quick": Inner()}, variants={"off": {"width": 1}}, claims=[ours])(
        _main_
    )
    assert (made.name, made.summary, made.variant_names()) == ("main", "What it does, in words.", ["system", "off"])
    assert (made.precision, made.deterministic, made.exclusive, made.data, made.cost) == ("float32", False, False, None, 10.0)
    assert made.configure("quick") == Inner(8)
    assert made.configure("quick", "off") == Inner(1)
    assert made.configure("smoke", "off", {"width": "3"}) == Inner(3)
    paper.untested.append(Claim("U", "s", kind="paper", untested="why"))
    assert [claim.id for claim in paper.claims()] == ["C1", "U"]
    with pytest.raises(InputError, match=r"made: two claims are called C1\."):
        paper.experiment(presets={"quick": Inner()}, claims=[ours])(_main_)
    with pytest.raises(InputError, match="has no setting 'depth'"):
        paper.experiment(presets={"quick": Inner()}, variants={"off": {"depth": 1}})(_main_)
    entry = describe(paper, "mylab.made")
    found = entry.experiment("main")
    assert (found.seeds_at("quick"), found.seeds_at("smoke"), found.claims_at("smoke")) == (5, 1, [])
    assert dataclasses.replace(found, deterministic=True).seeds_at("quick") == 1
    assert [(name, claim.id) for name, claim in entry.claims()] == [("main", "C1"), ("", "U")]
    said = found.to_dict()
    assert (said["presets"], said["variants"], said["figures"]) == (
        {"smoke": {"width": 2}, "quick": {"width": 8}}, {"off": {"width": 1}}, [],
    )  # fmt: skip
    assert "command" not in said
    assert Entry.from_dict(json.loads(json.dumps(entry.to_dict()))) == entry
    assert ExperimentEntry("e", "", {}, {}, ()).to_dict() == {
        "name": "e", "summary": "", "presets": {}, "variants": {}, "claims": [], "fields": [], "figures": [], "precision": "float32",
        "deterministic": False, "exclusive": False, "data": None, "cost": 10.0,
    }  # fmt: skip
    with pytest.raises(InputError, match="made has no experiment 'other'; there are main"):
        entry.experiment("other")


def test_a_reports_numbers_are_its_own_or_those_of_its_arms():
    assert Report({"a": 1}).scalars() == {"": {"a": 1.0}}
    assert Report().scalars() == {"": {}}
    assert Report(arms={"off": {"a": 1}}).scalars() == {"off": {"a": 1.0}}
    assert Report({"b": 2}, arms={"off": {"a": 1}}).scalars() == {"": {"b": 2.0}, "off": {"a": 1.0}}
    with pytest.raises(InputError, match="metric 'a' of 'off' is None"):
        Report(arms={"off": {"a": None}}).scalars()


def test_papers_that_are_not_here_and_what_they_need(monkeypatch):
    with pytest.raises(InputError, match=r"Did you mean dense-hebbian, sdr-dendrites, dale-langevin\? 'broadsheet list'"):
        registry.entry("dense")
    with pytest.raises(InputError, match=r"'zzzz' runs here\. 'broadsheet list'"):
        registry.entry("zzzz")

    def missing(name):
        def load(module):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        monkeypatch.setattr(registry.importlib, "import_module", load)

    for name, extra in (("h5py", "data"), ("torch.nn", "language"), ("rdkit.Chem", "atoms"), ("pynwb", "recordings")):
        missing(name)
        with pytest.raises(MissingExtraError, match=f"extra '{extra}'"):
            registry.import_paper("some.paper")
    for name in ("of_somebody", None):
        missing(name)
        with pytest.raises(ModuleNotFoundError):
            registry.import_paper("some.paper")
    monkeypatch.setattr(registry.importlib.util, "find_spec", lambda name: None if name == "torch" else name)
    for requires, extra in ((["language", "atoms"], "language"), (["atoms"], None), ([], None)):
        assert registry.missing_extra(Entry({"slug": "x", "requires": requires}, "x", {})) == extra
    assert registry.missing_extra(Entry({"slug": "x"}, "x", {})) is None
