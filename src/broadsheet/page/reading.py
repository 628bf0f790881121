"""A claim as somebody reads it who has never seen one: a sentence that says what its verdict means, and each check as a strip
(`broadsheet.page.strips`).

The words for verdicts, controls and sizes are here, for the site, the report and the documentation alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from broadsheet.lab.claims import SYSTEM, Claim
from broadsheet.lab.ledger import CURVES, SHOWN, Recorded
from broadsheet.lab.verdicts import GOOD, Trial
from broadsheet.page.strips import Strip, bound, strips

if TYPE_CHECKING:
    from jinja2 import BaseLoader, Environment
    from markupsafe import Markup

    from broadsheet.lab.growth import Growth

FOLDER = Path(__file__).parent
STYLES = FOLDER / "static" / "claims.css"

HOLDS = (
    "A claim holds when the system meets it and nothing else does: not the same system with the paper's mechanism switched off "
    "(an ablation), and not an explanation without the system (a null model)."
)
HOW_TO_READ = (
    "Each claim is tried on the system, then on the same system with the paper's mechanism switched off (an ablation) and on "
    "a trivial explanation without it (a null model): it holds when the system's dot lies in the shaded part, where the claim "
    "wants it, and neither of the others meets the whole claim."
)
TOY = (
    "“Toy size” is far smaller than what was published: such a verdict shows that the effect exists, and not that it is there "
    "at the paper's size."
)
VERDICTS = {
    "holds": "The system meets every check of the claim; no ablation and no null model does.",
    "mixed": "Undecided: some seeds, or a part of the interval, lie on the wrong side of the bound, or a control's interval "
    "reaches over it.",
    "fails": "The system does not meet it. It stays failing and visible, with what was found beside it.",
    "vacuous": "An ablation or a null model meets it too: whatever the system does, it proves nothing about the mechanism.",
    "provisional": "Fewer seeds than the claim asks for; what it leans to stands beside it.",
    "reference": "A check of our own code against something independent, a closed form or another library; where the paper's "
    "file names a wrong implementation, that is run beside it and has to miss the bound.",
    "reported": "A number without a bound.",
    "stale": "The code has changed since it was verified; what it was then stands beside it.",
    "not run": "Needs data, time or a size that were not at hand.",
}
"""What each verdict means."""

TROUBLES = ("fails", "mixed", "vacuous")
"""Verdicts that say that a claim does not hold."""


@dataclass(frozen=True)
class Size:
    """A claim at one multiple of a setting: for each check, what the system and its controls have."""

    factor: float
    value: float
    verdict: str
    cells: tuple[tuple[tuple[str, float], ...], ...]


@dataclass(frozen=True)
class Grown:
    """A claim as a setting grows; `curve` is the name of its figure, `checks` are the heads of the columns of its `sizes`."""

    setting: str
    text: str
    fades: bool
    stale: bool
    curve: str
    checks: tuple[str, ...]
    sizes: tuple[Size, ...]


@dataclass(frozen=True)
class Reading:
    """A recorded claim with the words and strips to read it by; `absent`: (kind of control, why there is none)."""

    state: Recorded
    means: str
    strips: tuple[Strip, ...]
    absent: tuple[tuple[str, str], ...]
    cautions: tuple[str, ...]
    growth: tuple[Grown, ...]

    @property
    def claim(self) -> Claim:
        return self.state.claim

    @property
    def verdict(self) -> str:
        return self.state.verdict or "not run"

    @property
    def then(self) -> str:
        """What a stale verdict was, and what a provisional one leans to."""
        if not self.state.leaning:
            return ""
        return f"was: {self.state.leaning}" if self.verdict == "stale" else f"so far: {self.state.leaning}"

    @property
    def source(self) -> str:
        """Whose claim it is, where it stands, and against what it is checked."""
        whose = "the paper's" if self.claim.kind == "paper" else "our own check"
        against = f"; against {self.claim.reference}" if self.claim.reference else ""
        return ", ".join(filter(None, [whose, self.claim.where])) + against

    @property
    def made(self) -> str:
        """The size, basis and number of seeds of the verdict."""
        if self.state.preset:
            count = len(self.state.seeds)
            return f"{self.state.scale} · {count} seed{'s' if count != 1 else ''}"
        return ""

    @property
    def reason(self) -> str:
        """Why it is not tested, why it does not hold, or what else is to be known of it, where somebody wrote it down."""
        return self.claim.untested or self.claim.reason


def read(state: Recorded) -> Reading:
    """A recorded claim in words and strips."""
    grown = tuple(_grown(state, one) for one in state.growth)
    return Reading(state, meaning(state), tuple(strips(state)), tuple(_absent(state.claim)), tuple(_cautions(state)), grown)


def meaning(state: Recorded) -> str:
    """What a claim's verdict means, in a sentence or two, for somebody who has never seen one."""
    return " ".join([_judged(state), *_as_it_grows(state)])


def _as_it_grows(state: Recorded) -> Iterable[str]:
    """What becomes of a good verdict where a setting has been grown."""
    if state.verdict is None or not state.growth or in_trouble(state):
        return
    for grown in state.growth:
        if grown.faded is not None:
            yield f"As {grown.setting} grows, it fades."
        elif len(grown.factors) > 1 and all(word in GOOD for word in grown.words):
            yield f"The same with {grown.factors[-1]:g} times the {grown.setting}."
        elif len(grown.factors) > 1:
            yield f"With {grown.factors[-1]:g} times the {grown.setting}: {grown.words[-1]}."


def _judged(state: Recorded) -> str:
    claim = state.claim
    if state.verdict is None:
        if claim.untested:
            return "It could not be tested here."
        return "Not measured yet." if claim.judged_at("quick") else "Not measured: it is judged at the paper's size only."
    verdict = state.verdict
    if verdict in ("stale", "provisional") and state.leaning:
        count = len(state.seeds)
        first = {
            "stale": "The code has changed since this was measured; then: ",
            "provisional": f"Only {count} of the {claim.seeds} seeds that it takes; so far: ",
        }[verdict]
        said = _meaning(state, state.leaning)
        return first + said[0].lower() + said[1:]
    return _meaning(state, verdict)


def _meaning(state: Recorded, verdict: str) -> str:
    claim = state.claim
    ours = claim.kind == "check"
    name = "Our code" if ours else "The system" if claim.about == SYSTEM else f"“{claim.about}”"
    does, does_not = ("passes", "does not pass") if ours else ("does this", "does not do this")
    if verdict == "vacuous":
        met = [f"{_called(claim, trial)} ({trial.control})" for trial in state.trials if trial.met]
        do = ("passes", "meets it") if len(met) == 1 else ("pass", "meet it")
        return f"It proves nothing: {' and '.join(met)} {do[0] if ours else do[1]} too."
    if verdict == "fails":
        missed = next((o for o in state.outcomes if not o.passed), None)
        return f"{name} {does_not}{f': {missed.metric} misses its bound' if missed else ''}."
    if verdict == "mixed":
        near = [trial.control for trial in state.trials if trial.unclear]
        if near and all(outcome.passed for outcome in state.outcomes):
            return f"Undecided: {name[0].lower() + name[1:]} {does}, but {' and '.join(near)} may do it too."
        return "Undecided: some seeds, or a part of the interval, lie on the wrong side of the bound."
    if verdict not in ("holds", "reference"):
        return VERDICTS.get(verdict, "")
    ablations, nulls = ", ".join(t.control for t in state.ablations), ", ".join(t.control for t in state.nulls)
    said = f"{name} {does}"
    if ablations:
        off = f"made wrong on purpose ({ablations}) it" if ours else f"with the paper's mechanism off ({ablations}) it"
        said += f"; {off if claim.about == SYSTEM else f'{ablations}, tried in its place,'} does not"
    if nulls:
        said += (
            f", and neither does a trivial explanation ({nulls})"
            if ablations
            else f"; a trivial explanation ({nulls}) does not"
        )
    return said + ("." if not claim.waits_for_null else ". No trivial explanation has been tried against it yet.")


def _called(claim: Claim, trial: Trial) -> str:
    """A control as the subject of a sentence."""
    if trial.kind == "null":
        return "a trivial explanation"
    if claim.kind == "check":
        return "an implementation that is wrong on purpose"
    return "the system with its mechanism off" if claim.about == SYSTEM else "what was tried in its place"


def _absent(claim: Claim) -> Iterable[tuple[str, str]]:
    if claim.kind == "paper" and claim.checks:
        if claim.no_ablation:
            yield "Mechanism off", claim.no_ablation
        if claim.waits_for_null:
            yield "Trivial explanation", "none yet"
        elif claim.no_null:
            yield "Trivial explanation", claim.no_null


def _cautions(state: Recorded) -> Iterable[str]:
    """What makes one doubt the claim or a control, with the paper's answer."""
    for warning in state.warnings:
        yield f"{warning[0].upper()}{warning[1:]}."
    for trial in state.trials:
        if trial.warnings:
            answer = (
                f"Why it is a fair control all the same: {trial.answer}" if trial.answer else "Nobody has answered this yet."
            )
            yield f"“{trial.control}” may fail by construction: {'; '.join(trial.warnings)}. {answer}"


def _grown(state: Recorded, grown: Growth) -> Grown:
    claim, preset = grown.claim, grown.verdicts[0].preset
    asked = [(claim.checks.index(check), k, check) for k, check in enumerate(claim.tried)]
    sizes = [
        Size(
            factor, size, word,
            tuple(
                (
                    (verdict.outcomes[place].of, verdict.outcomes[place].value),
                    *((trial.outcomes[k].of, trial.outcomes[k].value) for trial in verdict.trials),
                )
                for place, k, _ in asked
            ),
        )
        for factor, size, word, verdict in zip(grown.factors, grown.sizes, grown.words, grown.verdicts, strict=True)
    ]  # fmt: skip
    heads = tuple(f"{check.metric}, {bound(check, preset)}" for _, _, check in asked)
    name = f"{CURVES}{claim.id}-{grown.setting}"
    return Grown(grown.setting, grown.text, grown.faded is not None, grown.stale, name, heads, tuple(sizes))


def number(value: float | None) -> str:
    """A number as people read it."""
    return "–" if value is None or value != value else f"{value:.4g}"


def tally(states: Iterable[Recorded]) -> dict[str, int]:
    """How many claims have each verdict, in the order in which verdicts are shown."""
    found = Counter(state.verdict or "not run" for state in states)
    return {name: found[name] for name in SHOWN if name in found}


def in_trouble(state: Recorded) -> bool:
    """Whether a claim is known not to hold, or was when the code was as verified."""
    return state.verdict in TROUBLES or state.leaning in TROUBLES


FILTERS: dict[str, Callable[..., Any]] = {
    "number": number,
    "read": read,
    "meaning": meaning,
    "tally": tally,
    "css": lambda name: (name or "not run").replace(" ", ""),
}
"""What the templates of claims need, wherever they are rendered."""

WORDS = {"HOLDS": HOLDS, "HOW_TO_READ": HOW_TO_READ, "TOY": TOY, "VERDICTS": VERDICTS}


def loader() -> BaseLoader:
    """The templates of this folder: `claims.html.j2` is what shows a claim."""
    from jinja2 import FileSystemLoader

    return FileSystemLoader(FOLDER)


def environment() -> Environment:
    """Jinja with the templates of this folder, where a page of the site is not what renders them."""
    from jinja2 import Environment, StrictUndefined

    made = Environment(loader=loader(), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters |= FILTERS
    made.globals |= WORDS
    return made


def html(state: Recorded, drawn: Callable[[str, str], Markup | str], task: str = "") -> str:
    """A claim as HTML, for pages that are no templates.

    `drawn` gives the picture of a curve, by experiment and name; `task` says what the experiment is.
    """
    shown: Any = environment().get_template("claims.html.j2").module
    return str(shown.claim(read(state), drawn, task))
