"""Mental Pong: a ball flies to the right, bounces off the floor or the ceiling, and is out of sight before it arrives.

The arena is 32 units wide and high (20 degrees on the monkeys' screen), a frame lasts 41 ms. Which trials there are follows the
lists of the published generator (github.com/RishiRajalingham/MPongBehavior_public): positions on a grid, 144 headings, four
speeds, at most one bounce, between 15 and 45 frames in sight and as many out of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from broadsheet.errors import InputError

FRAME = 0.041
"""Seconds."""
DEGREES = 0.625
"""Visual angle of a unit."""
BALL, OCCLUDER = 255, 128
"""Grey values of a picture; the background is 0."""


class Starts(NamedTuple):
    """How balls begin: position (units), heading (radians), speed (units a frame)."""

    x: np.ndarray
    y: np.ndarray
    heading: np.ndarray
    speed: np.ndarray

    def choose(self, which: np.ndarray) -> Starts:
        """Some of them."""
        return Starts(*(part[which] for part in self))


@dataclass(frozen=True)
class PongTrials:
    """Trials of Mental Pong.

    - `x`, `y`: (trials, frames) position of the ball, NaN after the end.
    - `hidden`: first frame in which the ball is behind the occluder; `end`: first frame in which it is at the right wall.
    - `y_end`: height at the end: where the paddle should be.
    - `bounces`, `hidden_bounces`: until the end, and while hidden.
    - `starts`: how the balls began.
    """

    x: Float[np.ndarray, "trials frames"]
    y: Float[np.ndarray, "trials frames"]
    hidden: Int[np.ndarray, " trials"]
    end: Int[np.ndarray, " trials"]
    bounces: Int[np.ndarray, " trials"]
    hidden_bounces: Int[np.ndarray, " trials"]
    starts: Starts

    def __len__(self) -> int:
        return len(self.x)

    @cached_property
    def y_end(self) -> Float[np.ndarray, " trials"]:
        return self.y[np.arange(len(self)), self.end]

    @cached_property
    def states(self) -> Float[np.ndarray, "trials frames 4"]:
        """Position and velocity (units, units a frame): x, y, dx, dy; velocity is that of the step to come."""
        dx, dy = (np.diff(path, axis=1, append=np.nan) for path in (self.x, self.y))
        last = np.arange(len(self)), self.end
        dx[last], dy[last] = dx[last[0], self.end - 1], dy[last[0], self.end - 1]
        return np.stack([self.x, self.y, dx, dy], axis=-1)

    def choose(self, which: np.ndarray) -> PongTrials:
        """Some trials."""
        parts = {name: getattr(self, name)[which] for name in ("x", "y", "hidden", "end", "bounces", "hidden_bounces")}
        return PongTrials(**parts, starts=self.starts.choose(which))


class Paths(NamedTuple):
    """Balls on their way, without an end: (balls, frames) positions, and whether one bounced on the way to a frame."""

    x: np.ndarray
    y: np.ndarray
    bounced: np.ndarray


@dataclass(frozen=True)
class MentalPong:
    """The task.

    - `size`: of the arena (units); `occluder`: where it begins; `radius`: at which a ball touches a wall.
    - `frames`: simulated; `seen`: fewest and most frames in sight, and out of it.
    - `speeds`: units a frame; `headings`: how many, up to 0.4 pi up and down.
    - `most_bounces`: of an accepted trial, counted over all simulated frames, also after the end, as the published program
      does, or until the end (`count="shown"`).
    """

    size: float = 32.0
    occluder: float = 24.0
    radius: float = 0.64
    frames: int = 100
    seen: tuple[int, int] = (15, 45)
    speeds: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    headings: int = 144
    most_bounces: int = 1
    count: Literal["simulated", "shown"] = "simulated"

    def grid(self) -> Starts:
        """All starts of the published lists, 2.6 million of them."""
        x, y = (self.size * np.arange(0.05, end, 0.01) for end in (0.55, 0.95))
        heading = np.linspace(-0.4 * np.pi, 0.4 * np.pi, self.headings)
        return Starts(*(part.ravel() for part in np.meshgrid(x, y, heading, self.speeds, indexing="ij")))

    def fly(self, starts: Starts) -> Paths:
        """Where the balls are, step by step: elastic walls on three sides, none on the right."""
        x, y = np.array(starts.x, float), np.array(starts.y, float)
        dx, dy = starts.speed * np.cos(starts.heading), starts.speed * np.sin(starts.heading)
        paths = Paths(*(np.zeros((len(x), self.frames), kind) for kind in (float, float, bool)))
        paths.x[:, 0], paths.y[:, 0] = x, y
        low, high = self.radius, self.size - self.radius
        for t in range(1, self.frames):
            x, y = x + dx, y + dy
            floor, ceiling = y < low, y > high
            left = (x < low) & ~floor & ~ceiling
            y = np.where(floor, y + 2 * (low - y), np.where(ceiling, y - 2 * (y - high), y))
            x = np.where(left, x + 2 * (low - x), x)
            dy, dx = np.where(floor | ceiling, -dy, dy), np.where(left, -dx, dx)
            paths.x[:, t], paths.y[:, t], paths.bounced[:, t] = x, y, floor | ceiling | left
        return paths

    def trials(self, starts: Starts) -> tuple[PongTrials, Bool[np.ndarray, " starts"]]:
        """The accepted trials among these starts, and which they are."""
        few, many = self.seen
        across = starts.speed * np.cos(starts.heading)
        ahead, behind = (self.occluder - starts.x) / across, (self.size - self.occluder) / across
        accepted = (ahead >= few + 1) & (ahead <= many - 1) & (behind >= few + 1) & (behind <= many - 1)
        starts = starts.choose(accepted)
        paths = self.fly(starts)
        hidden, end = (np.argmax(paths.x >= edge, axis=1) for edge in (self.occluder, self.size))
        frame = np.arange(self.frames)
        shown = frame <= end[:, None]
        # the published program notes a bounce one frame late, so that it never sees one in the last frame
        counted = paths.bounced[:, :-1] if self.count == "simulated" else paths.bounced & shown
        stays = (end > 0) & (hidden > 0) & (counted.sum(axis=1) <= self.most_bounces)
        for length in (hidden, end - hidden):
            stays &= (length >= few) & (length <= many)
        accepted[accepted] = stays
        if not stays.any():
            width = 1
        else:
            width = int(end[stays].max()) + 1
        behind_it = shown & (frame >= hidden[:, None])
        x, y = (np.where(shown, path, np.nan)[stays, :width] for path in (paths.x, paths.y))
        made = PongTrials(
            x,
            y,
            hidden[stays],
            end[stays],
            (paths.bounced & shown).sum(axis=1)[stays],
            (paths.bounced & behind_it).sum(axis=1)[stays],
            starts.choose(stays),
        )
        return made, accepted

    def sample(self, count: int, seed: int | np.random.Generator, *, balanced: bool = False) -> PongTrials:
        """Accepted trials, drawn from the lists without replacement; `balanced`: half of them bounce.

        **Raises:** `InputError` where the lists do not have as many.
        """
        if count < 1:
            raise InputError(f"{count} trials of Mental Pong; at least 1 is wanted.")
        rng, grid = np.random.default_rng(seed), self.grid()
        order = rng.permutation(len(grid.x))
        chunk = max(2000, 20 * count)
        found: list[PongTrials] = []
        for first in range(0, len(order), chunk):
            found.append(self.trials(grid.choose(order[first : first + chunk]))[0])
            bounced = np.concatenate([part.bounces for part in found]) > 0
            quotas = {True: count // 2, False: count - count // 2} if balanced else {None: count}
            picks = [np.flatnonzero(bounced == kind if kind is not None else bounced >= 0)[:n] for kind, n in quotas.items()]
            if all(len(pick) == n for pick, n in zip(picks, quotas.values(), strict=True)):
                return _joined(found).choose(np.sort(np.concatenate(picks)))
        raise InputError(f"The lists of this Mental Pong have no {count} trials.")

    def render(
        self, x: np.ndarray, y: np.ndarray, size: int = 32, *, occluder: bool = True, drawn: float = 1.0, spot: float = 0.0
    ) -> UInt8[np.ndarray, "trials frames height width"]:
        """Pictures of balls at positions (trials, frames); none is drawn at NaN.

        **Arguments:** `size`: pixels across; `drawn`: radius (units), its edge one pixel wide; `spot`: instead of a disc a
        Gaussian spot of this width (units), which small pictures carry better.
        """
        centres = (np.arange(size) + 0.5) * self.size / size
        out = np.zeros((*np.shape(x), size, size), np.uint8)
        for k in np.ndindex(np.shape(x)[:-1]):
            across, down = ((centres - np.asarray(part[k])[..., None]) ** 2 for part in (x, y))
            far = down[..., :, None] + across[..., None, :]
            if spot:
                made = np.exp(-far / (2 * spot**2))
            else:
                made = np.clip((drawn - np.sqrt(far)) * size / self.size + 0.5, 0, 1)
            out[k] = np.rint(BALL * np.nan_to_num(made))
        if occluder:
            out[..., centres >= self.occluder] = OCCLUDER
        return out


def _joined(parts: list[PongTrials]) -> PongTrials:
    width = max(part.x.shape[1] for part in parts)
    x, y = (
        np.concatenate([np.pad(getattr(p, n), ((0, 0), (0, width - p.x.shape[1])), constant_values=np.nan) for p in parts])
        for n in "xy"
    )
    rest = {n: np.concatenate([getattr(p, n) for p in parts]) for n in ("hidden", "end", "bounces", "hidden_bounces")}
    starts = Starts(*(np.concatenate(columns) for columns in zip(*(p.starts for p in parts), strict=True)))
    return PongTrials(x, y, **rest, starts=starts)


def folded(y: np.ndarray, low: float, high: float) -> np.ndarray:
    """A straight path between two walls: reflected as often as it crosses them."""
    turned = np.mod(np.asarray(y) - low, 2 * (high - low))
    return low + np.minimum(turned, 2 * (high - low) - turned)


def bouncing_balls(
    videos: int, frames: int, seed: int | np.random.Generator, *, size: float = 32.0, radius: float = 0.64,
    speeds: tuple[float, float] = (0.25, 1.0),
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Balls that fly in all directions between four walls, nothing in their way: (videos, frames) x and y."""
    rng = np.random.default_rng(seed)
    start = rng.uniform(radius, size - radius, (2, videos, 1))
    heading, speed = rng.uniform(0, 2 * np.pi, (videos, 1)), rng.uniform(*speeds, (videos, 1))
    way = speed * np.arange(frames)
    x, y = (
        folded(begin + turn(heading) * way, radius, size - radius) for begin, turn in zip(start, (np.cos, np.sin), strict=True)
    )
    return x, y
