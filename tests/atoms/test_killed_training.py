"""A training that is killed at any of its writes, again and again, ends in the same file as one that is not."""

import itertools
import os

import jax
import pytest

from broadsheet.atoms.labels import molecules
from broadsheet.atoms.message_passing import MessageConfig
from broadsheet.atoms.potential import scaled
from broadsheet.atoms.potentials.schnet import SchNet
from broadsheet.atoms.training import LabelledSet, Training, train

SETTINGS = Training(steps=12, batch=6, learning_rate=3e-3, evaluate=3, force_weight=0.0)


class Killed(BaseException):
    """Stands for SIGKILL: nothing handles it."""


@pytest.fixture(scope="module")
def result():
    group = molecules(("CH3CH2OH",), 18)[0]
    potential = scaled(SchNet(MessageConfig(width=8, interactions=1, basis=8), 1), group[:12])
    sets = LabelledSet(group[:12], potential), LabelledSet(group[12:], potential)

    def run(folder):
        folder.mkdir(exist_ok=True)
        train(potential, *sets, SETTINGS, jax.random.key(0), checkpoint=folder / "checkpoint", keep=folder / "kept.safetensors")
        return (folder / "kept.safetensors").read_bytes()

    return run


def kill_at(monkeypatch, number, after):
    """Kills at the n-th file that is put into its place, before or after; returns how many were."""
    replace, count = os.replace, itertools.count()

    def killing(old, new):
        mine = next(count) == number
        if mine and not after:
            raise Killed
        replace(old, new)
        if mine:
            raise Killed

    monkeypatch.setattr(os, "replace", killing)
    return count


@pytest.mark.parametrize("after", [False, True])
def test_killed_at_each_write_once(result, tmp_path, monkeypatch, after):
    undisturbed = result(tmp_path / "whole")
    kills = 0
    for number in itertools.count():
        place = tmp_path / f"{number}"
        with monkeypatch.context() as patch:
            kill_at(patch, number, after)
            try:
                result(place)
                break
            except Killed:
                kills += 1
        assert result(place) == undisturbed
    assert kills >= 2 * SETTINGS.steps // SETTINGS.evaluate - 1  # of checkpoints, and of nearly as many potentials


def test_killed_again_and_again(result, tmp_path, monkeypatch):
    """After each second write: one checkpoint at the most is reached between two kills."""
    undisturbed, kills = result(tmp_path / "whole"), 0
    for _ in range(20):
        with monkeypatch.context() as patch:
            kill_at(patch, 1, True)
            try:
                last = result(tmp_path / "killed")
                break
            except Killed:
                kills += 1
    assert kills >= 3
    assert last == undisturbed
