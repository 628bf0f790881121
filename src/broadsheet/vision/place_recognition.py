"""An ensemble of place modules: each learns consecutive places, all see every query, and the best response wins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from broadsheet.errors import InputError
from broadsheet.plasticity.rule import LearningRule
from broadsheet.vision.place_modules import Module, PlaceCells, PlaceModule

Passages = Float[np.ndarray, "passages places side side"]
SILENT = -1


class ModularVPR(BaseEstimator):
    """Recognises places after learning passages of a route, without gradients; modules never see each other.

    Neurons that answer to places all over the route are silenced: those that fire for more than `hyperactive` of the
    reference images. Images are those of `broadsheet.vision.places.front_end`.

    **Parameters:**

    - `module_size`: consecutive places a module learns; `n_exc`: its excitatory neurons.
    - `epochs`: how often each image is shown, always in the same order.
    - `hyperactive`: images; 0 silences no neuron.
    - `rule`: of `PlaceModule`; None for `diehl_cook()`; `theta_plus`, `pause`: of `PlaceCells`; `learn`: False leaves the
      weights as they were drawn, which is a control.
    - `dt`: ms; `random_state`: integer.

    **Attributes:** `modules_`; `assignment_` (neurons,): the place for which a neuron fired most, -1 for none;
    `training_rate_`: its mean spike count then; `hyperactivity_` (neurons,), after `record`: reference images to which it
    answers.
    """

    def __init__(
        self, module_size: int = 25, n_exc: int = 400, *, epochs: int = 20, hyperactive: int = 0,
        rule: LearningRule | None = None, theta_plus: float = 0.05, pause: float = 50.0, learn: bool = True,
        dt: float = 0.5, random_state: int = 0,
    ) -> None:  # fmt: skip
        self.module_size = module_size
        self.n_exc = n_exc
        self.epochs = epochs
        self.hyperactive = hyperactive
        self.rule = rule
        self.theta_plus = theta_plus
        self.pause = pause
        self.learn = learn
        self.dt = dt
        self.random_state = random_state

    def fit(
        self, reference: Any, y: None = None, *, executor: Executor | None = None, report: Callable[[float], None] | None = None
    ) -> ModularVPR:
        """Trains all modules on passages (passages, places, side, side), one by one or through an executor.

        **Arguments:** `executor`: of `concurrent.futures`, or a Dask client's (`client.get_executor()`); `report`: called with
        the number of modules done, without an executor after each epoch, with its share of a module.
        """
        images = _passages(reference)
        if self.module_size < 1 or self.epochs < 1:
            raise InputError(f"module_size = {self.module_size} and epochs = {self.epochs}; at least 1 of each is wanted.")
        self.n_places_ = images.shape[1]
        parts = [images[:, k : k + self.module_size] for k in range(0, self.n_places_, self.module_size)]
        given = [(self.get_params(), part, number) for number, part in enumerate(parts)]
        self.modules_: list[Module] = []
        assigned, rates = [], []
        one = partial(_train_module, report=report) if executor is None else _train_module
        for number, (module, place, rate) in enumerate((executor.map if executor else map)(one, given)):
            self.modules_.append(module)
            assigned.append(np.where(place == SILENT, SILENT, place + number * self.module_size))
            rates.append(rate)
            if report is not None:
                report(number + 1)
        self.assignment_, self.training_rate_ = np.concatenate(assigned), np.concatenate(rates)
        return self

    def record(self, reference: Any) -> ModularVPR:
        """Counts to how many images of the first passage, of all places, each neuron answers."""
        self.hyperactivity_ = (self.responses(_passages(reference)[0], draw=1) > 0).sum(axis=0)
        return self

    def calibrate(self, images: Any, labels: Any, thresholds: Sequence[int]) -> ModularVPR:
        """Chooses `hyperactive` by the recall on images that are not tested on; where several do as well, the highest."""
        check_is_fitted(self, "hyperactivity_")
        counts = self.responses(images)
        truth = np.asarray(labels)
        if truth.shape != (len(counts),) or not ((truth >= 0) & (truth < self.n_places_)).all():
            raise InputError(f"{len(counts)} images need as many labels from 0 to {self.n_places_ - 1}.")

        def right(threshold: int) -> tuple[float, float]:
            scores = self.place_scores(counts, threshold)
            return float(((scores.argmax(axis=1) == truth) & scores.any(axis=1)).mean()), float(threshold or np.inf)

        self.hyperactive = int(max(thresholds, key=right))
        return self

    def responses(self, images: Any, *, draw: int = 2) -> Float[np.ndarray, "images neurons"]:
        """Spike counts of all modules' neurons, each module with the same input spikes; `draw` numbers the random input."""
        check_is_fitted(self, "modules_")
        net = place_module(self.get_params())
        key = jax.random.fold_in(jax.random.key(self.random_state), draw)
        return np.concatenate([net.respond(module, images, key) for module in self.modules_], axis=1)

    def silenced(self, hyperactive: int | None = None) -> np.ndarray:
        """Which neurons do not count."""
        limit = self.hyperactive if hyperactive is None else hyperactive
        if not limit:
            return np.zeros(len(self.assignment_), bool)
        check_is_fitted(self, "hyperactivity_")
        return self.hyperactivity_ >= limit

    def place_scores(
        self, counts: Float[np.ndarray, "images neurons"], hyperactive: int | None = None
    ) -> Float[np.ndarray, "images places"]:
        """Mean spike count of the neurons assigned to each place, silenced ones as if they did not fire."""
        heard = counts * ~self.silenced(hyperactive)
        belongs = self.assignment_[:, None] == np.arange(self.n_places_)
        return heard @ (belongs / np.maximum(belongs.sum(axis=0), 1))

    def scores(self, images: Any) -> Float[np.ndarray, "images places"]:
        """Score of each place."""
        return self.place_scores(self.responses(images))

    def predict(self, images: Any) -> Int[np.ndarray, " images"]:
        """The place with the best score; -1 where no neuron answers."""
        scores = self.scores(images)
        return np.where(scores.any(axis=1), scores.argmax(axis=1), SILENT)

    def score(self, images: Any, y: Any) -> float:
        """Share of images of which the place is right."""
        return float((self.predict(images) == np.asarray(y)).mean())


def place_module(settings: dict[str, Any]) -> PlaceModule:
    """A module by the parameters of `ModularVPR`."""
    cells = PlaceCells(settings["n_exc"], theta_plus=settings["theta_plus"], pause=settings["pause"], dt=settings["dt"])
    return PlaceModule(cells, settings["rule"])


def _train_module(
    given: tuple[dict[str, Any], np.ndarray, int], report: Callable[[float], None] | None = None
) -> tuple[Module, np.ndarray, np.ndarray]:
    """(what was learned, the place of each neuron within the module, its mean count there)."""
    settings, images, number = given
    net = place_module(settings)
    k_init, k_train = jax.random.split(jax.random.fold_in(jax.random.key(settings["random_state"]), 1000 + number))
    module = net.init(k_init, images[0, 0].size)
    shown = images.reshape(-1, images[0, 0].size)
    counts = np.zeros((len(shown), settings["n_exc"]))
    if settings["learn"]:
        for epoch in range(settings["epochs"]):
            module, counts = net.train(module, shown, jax.random.fold_in(k_train, epoch))
            if report is not None:
                report(number + (epoch + 1) / settings["epochs"])
    else:
        counts = net.respond(module, shown, k_train)
    by_place = counts.reshape(*images.shape[:2], -1).mean(axis=0)
    best = by_place.max(axis=0)
    return module, np.where(best > 0, by_place.argmax(axis=0), SILENT), best


def _passages(reference: Any) -> np.ndarray:
    images = np.asarray(reference, np.float32)
    if images.ndim != 4 or images.size == 0:
        raise InputError(f"The reference has the shape {images.shape}; (passages, places, side, side) is wanted.")
    return images
