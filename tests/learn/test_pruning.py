import math
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from broadsheet.errors import InputError
from broadsheet.learn import GMP, SET, GraNet, RigL, StaticSparse, fit, sparse, sparsity, with_average
from broadsheet.learn.pruning import FixedMasks, live_by_layer, regrown, sparse_state
from broadsheet.learn.pruning_plasticity import pruned_at_once, pruning_plasticity, regenerated, training_cost
from broadsheet.learn.sparse_masks import erk_densities, exchanged, largest, live_counts, live_total, pruned, score_keys

REFERENCES = Path(__file__).parents[1] / "references"
TARGET = jax.random.normal(jax.random.key(5), (4, 12))


class Loss(eqx.Module):
    def __call__(self, model, x, key):
        out = jnp.tanh(x @ model["first"].T + model["bias"]) @ model["second"].T
        return jnp.mean((out - x @ TARGET.T) ** 2)


def batch(key):
    return jax.random.normal(key, (16, 12))


def model():
    keys = jax.random.split(jax.random.key(0))
    return {
        "first": jax.random.normal(keys[0], (20, 12)) / 3,
        "bias": jnp.zeros(20),
        "second": jax.random.normal(keys[1], (4, 20)) / 4,
    }


OPTIMISER = optax.adam(0.01)
N = 20 * 12 + 4 * 20


def trained(rule, steps=40, optimiser=OPTIMISER, chunk=5, **options):
    return fit(
        model(), Loss(), batch, optimiser=optimiser, steps=steps, key=jax.random.key(1), sparsifier=rule, chunk=chunk, **options
    )


def live_of(state):
    return [live for live, _ in live_by_layer(state).values()]


def test_the_largest_are_those_of_a_stable_sort():
    rng = np.random.default_rng(0)
    kinds = (rng.standard_normal(64), rng.integers(-2, 3, 64), np.zeros(64), np.r_[np.inf, 1e-38, rng.standard_normal(62)])
    for values in kinds:
        values, among = values.astype(np.float32), rng.random(64) < 0.7
        scores = np.where(among, np.abs(values), -1)
        for count in (0, 1, 5, among.sum(), 64):
            wanted = np.zeros(64, bool)
            wanted[np.argsort(-scores, kind="stable")[:count]] = True
            found = largest(score_keys(jnp.asarray(values), jnp.asarray(among)), count)
            np.testing.assert_array_equal(found, wanted & among)
    halves = score_keys(jnp.array([1.0, -3.0, 2.0], jnp.float16), jnp.array([True, True, True]))
    np.testing.assert_array_equal(largest(halves, 2), [False, True, True])


def test_kernel_densities_meet_the_whole_and_the_rule():
    shapes = [(16, 3, 3, 3), (32, 16, 3, 3), (64, 32, 3, 3), (10, 64)]
    sizes = np.array([np.prod(shape) for shape in shapes])
    for density in (0.02, 0.1, 0.5, 0.99, 1.0):
        found = np.array(erk_densities(shapes, density))
        assert found @ sizes == pytest.approx(density * sizes.sum())
        assert found.max() <= 1
        raw = np.array([sum(shape) for shape in shapes]) / sizes
        below = found < 1
        assert np.ptp((found / raw)[below]) < 1e-9 if below.any() else True
        assert sum(live_counts(shapes, 1 - density, "erk")) == live_total(int(sizes.sum()), 1 - density)
    assert live_total(26200, 0.9) == 2620  # 1 - 0.9 is below 0.1
    assert live_counts([(10, 10), (3, 7)], 0.5, "uniform") == [50, 10]


def test_live_counts_follow_the_schedule_in_each_step():
    rule = GraNet(0.9, steps=40, every=3, t0=2, t_f=20, rescale=True)
    seen = []
    optimiser = rule.around(OPTIMISER)
    params, state = model(), optimiser.init(model())
    params = rule.start(params, state)
    update, slope = jax.jit(optimiser.update), jax.jit(jax.grad(lambda params, x: Loss()(params, x, None)))
    for step in range(40):
        gradient = slope(params, batch(jax.random.key(step)))
        before = sparse_state(state).masks
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        masks, inner = sparse_state(state).masks, sparse_state(state).inner[0]
        for name in ("first", "second"):
            assert not np.asarray(params[name])[~np.asarray(masks[name])].any()
            assert not np.asarray(inner.mu[name])[~np.asarray(before[name])].any()
            assert not np.asarray(inner.nu[name])[~np.asarray(before[name])].any()
        seen.append(sum(live_of(state)))
    at = [3, 6, 9, 12, 15, 18, 20]
    assert rule.prunes_at() == at
    known = dict(zip([0, *at], [0.5, *(0.9 - 0.4 * (1 - (t - 2) / 18) ** 3 for t in at)], strict=True))
    expected = [live_total(N, known[max(t for t in known if t <= step)]) for step in range(1, 41)]
    assert seen == expected
    assert sparsity(state) == pytest.approx(0.9)


@pytest.mark.parametrize("growth", ["gradient", "random", "momentum", None])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_each_setting_ends_at_its_sparsity(growth, scope):
    found = trained(GraNet(0.8, steps=40, every=5, growth=growth, scope=scope))
    assert sparsity(found.opt_state) == pytest.approx(0.8, abs=0.01 if scope == "layer" else 1e-12)
    assert np.isfinite(found.losses).all()
    for name in ("first", "second"):
        assert int((found.model[name] != 0).sum()) <= live_by_layer(found.opt_state)[f"['{name}']"][0]


def test_presets_do_what_they_are_named_for():
    start = lambda rule: np.array(live_of(rule.around(OPTIMISER).init(model())))  # noqa: E731
    settings = {"steps": 40, "every": 5}
    assert start(GMP(0.8, **settings)).sum() == N
    assert start(GraNet(0.8, **settings)).sum() == N // 2
    masks = {}
    for name, rule in {
        "rigl": RigL(0.8, **settings),
        "set": SET(0.8, **settings),
        "static": StaticSparse(0.8, **settings),
    }.items():
        first = sparse_state(rule.around(OPTIMISER).init(model())).masks
        last = sparse_state(trained(rule).opt_state).masks
        assert [int(mask.sum()) for mask in jax.tree.leaves(last)] == [int(mask.sum()) for mask in jax.tree.leaves(first)]
        masks[name] = all(bool((a == b).all()) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(last), strict=True))
    assert masks == {"rigl": False, "set": False, "static": True}


def test_an_exchange_ranks_the_live_only_and_may_take_back_what_it_removed():
    weights = jnp.array([0.0, 1e-30, 3.0, -2.0, 0.0, 0.0])
    mask = jnp.array([True, True, True, True, False, False])  # a live weight is zero
    grown = exchanged(mask, weights, lambda dead: score_keys(jnp.array([9.0, 0.1, 9, 9, 0.2, 0.3]), dead), 0.5)
    np.testing.assert_array_equal(grown, [True, False, True, True, False, True])
    none = exchanged(mask, weights, lambda dead: score_keys(jnp.ones(6), dead), 0.0)
    np.testing.assert_array_equal(none, mask)


def test_outputs_that_are_kept_leave_no_layer_empty():
    masks = {"large": jnp.ones((5, 8), bool), "small": jnp.ones((3, 4), bool)}
    weights = {"large": jnp.ones((5, 8)), "small": 1e-6 * jax.random.normal(jax.random.key(0), (3, 4))}
    keep = jnp.array([10])
    assert int(pruned(masks, weights, keep, "global")["small"].sum()) == 0
    kept = pruned(masks, weights, keep, "global", outputs=True)
    assert int(sum(mask.sum() for mask in kept.values())) == 10
    assert all(bool(mask.any(axis=1).all()) for mask in kept.values())


def test_static_masks_train_like_a_projected_optimiser():
    masks = pruned_at_once(model(), 0.6)
    held = trained(FixedMasks(masks), optimiser=optax.sgd(0.1)).model
    project = lambda m: jax.tree.map(lambda w, k: jnp.where(k, w, 0), m, masks)  # noqa: E731
    plain = fit(
        project(model()), Loss(), batch, optimiser=optax.sgd(0.1), steps=40, key=jax.random.key(1), project=project
    ).model
    for name in held:
        np.testing.assert_allclose(held[name], plain[name], rtol=1e-5, atol=1e-7)


def test_a_dense_rule_changes_nothing_and_moments_of_wrapped_optimisers_are_masked():
    plain = trained(None).model
    for name, leaf in trained(GraNet(0.0, s_init=0.0, steps=40, growth=None)).model.items():
        np.testing.assert_allclose(leaf, plain[name], rtol=1e-6)
    wrapped = optax.chain(
        optax.masked(optax.add_decayed_weights(0.1), {"first": True, "bias": False, "second": True}), OPTIMISER
    )
    state = sparse_state(trained(GMP(0.9, steps=40, every=5), optimiser=with_average(wrapped, 0.9)).opt_state)
    dead = ~np.asarray(state.masks["first"])
    assert not np.asarray(state.inner.average["first"])[dead].any()
    assert dead.sum() > 100


def test_resumes_to_the_same_weights(tmp_path):
    rule = GraNet(0.9, steps=40, every=4, growth="momentum")
    whole = trained(rule).model["first"]
    trained(rule, steps=20, checkpoint=tmp_path / "at")
    np.testing.assert_array_equal(trained(rule, checkpoint=tmp_path / "at").model["first"], whole)


@pytest.mark.parametrize("rule", [GraNet(0.9, steps=40, every=4), GMP(0.9, steps=40, every=3)])
def test_loops_that_know_when_masks_change_train_like_one_update_in_each_step(rule):
    compiled, key = trained(rule, chunk=11), jax.random.key(1)
    drawn = (batch(jax.random.split(jax.random.fold_in(key, t))[0]) for t in range(40))
    one_by_one = fit(model(), Loss(), drawn, optimiser=OPTIMISER, steps=40, key=key, sparsifier=rule)
    optimiser = rule.around(OPTIMISER)
    state = optimiser.init(model())
    params, changes = rule.start(model(), state), []
    update, slope = jax.jit(optimiser.update), jax.jit(jax.grad(lambda params, x: Loss()(params, x, None)))
    for t in range(40):
        before = state.masks
        updates, state = update(slope(params, batch(jax.random.split(jax.random.fold_in(key, t))[0])), state, params)
        params = optax.apply_updates(params, updates)
        if not all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(state.masks), strict=True)):
            changes.append(t + 1)
    assert changes
    assert all(rule.changes_at(t) for t in changes)
    for found in (compiled, one_by_one):
        for name in params:
            np.testing.assert_allclose(found.model[name], params[name], rtol=1e-4, atol=1e-6)


def test_rules_that_differ_in_numbers_share_a_program():
    first, second = (sparse(OPTIMISER, GraNet(s, steps=40, every=4)).update for s in (0.8, 0.9))
    assert first is second
    assert sparse(OPTIMISER, SET(0.9)).update is not first


def test_excluded_leaves_and_other_ranks_stay_dense():
    rule = GraNet(0.9, steps=10, every=2, exclude=lambda path, leaf: "second" in path)
    assert list(live_by_layer(trained(rule, steps=10).opt_state)) == ["['first']"]
    with pytest.raises(InputError, match="nothing to make sparse"):
        trained(GraNet(0.9, ranks=(4,)))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"s_init": 0.95}, "0.95 at the start"),
        ({"every": 0}, "every 0 steps"),
        ({"t0": 50, "t_f": 20}, "from 50 to 20"),
        ({"r0": 2.0}, "Shares to exchange"),
    ],
)
def test_rules_that_contradict_themselves_are_refused(options, said):
    with pytest.raises(InputError, match=said):
        GraNet(0.9, **options)


def test_what_is_missing_is_said():
    with pytest.raises(InputError, match="no state of a sparse"):
        sparsity(OPTIMISER.init(model()))
    with pytest.raises(InputError, match="needs key"):
        pruned_at_once(model(), 0.5, criterion="random")
    with pytest.raises(InputError, match="needs gradient"):
        pruned_at_once(model(), 0.5, criterion="gradient")
    with pytest.raises(InputError, match="from 0 to below 1"):
        pruned_at_once(model(), 1.0)
    optimiser = sparse(OPTIMISER, GMP(0.5))
    state = optimiser.init(model())
    with pytest.raises(InputError, match="is given the weights"):
        optimiser.update(model(), state)


def test_masks_are_those_of_the_official_code_but_for_the_weight_at_its_threshold():
    shapes = {"stem": (16, 3, 3, 3), "middle": (32, 16, 3, 3), "wide": (40, 32), "out": (10, 40)}
    rng, rule = np.random.default_rng(0), GraNet(0.9, steps=160, every=10, t_f=80)
    with np.load(REFERENCES / "granet.npz") as file:
        stored = dict(file)

    def masks_of(name):
        return {
            layer: jnp.asarray(np.unpackbits(stored[f"{name}_{layer}"])[: np.prod(shape)].reshape(shape).astype(bool))
            for layer, shape in shapes.items()
        }

    np.testing.assert_allclose(erk_densities(list(shapes.values()), 0.5), stored["erk"], rtol=1e-12)
    before, total = masks_of("first"), sum(map(math.prod, shapes.values()))
    for event in (1, 2, 3):
        weights, gradients = {}, {}
        for layer, shape in shapes.items():
            weights[layer] = jnp.asarray(rng.standard_normal(shape).astype(np.float32)) * before[layer]
            gradients[layer] = jnp.asarray(rng.standard_normal(shape).astype(np.float32))
        keep = live_total(total, rule.sparsity_at(10 * event))
        theirs = masks_of(f"pruned{event}")
        assert sum(int(mask.sum()) for mask in theirs.values()) == keep - 1  # they keep what is above the K-th largest
        share = float(stored[f"share{event}"])
        assert share == pytest.approx(0.005 + 0.495 * (1 + math.cos(math.pi * event / 16)) / 2, rel=1e-9)
        for keeping, extra in ((keep - 1, 0), (keep, 1)):
            ours = pruned(before, weights, jnp.array([keeping]), "global")
            assert sum(int((ours[layer] != theirs[layer]).sum()) for layer in shapes) == extra
        grown, known = regrown(theirs, weights, gradients, share, "gradient", jax.random.key(0)), masks_of(f"grown{event}")
        for layer in shapes:
            np.testing.assert_array_equal(grown[layer], known[layer])
        before = known


def test_pruning_plasticity_is_what_its_parts_say():
    net, right = model(), lambda m: -float(Loss()(m, batch(jax.random.key(9)), None))
    gradient = lambda m: eqx.filter_grad(Loss())(m, batch(jax.random.key(3)), None)  # noqa: E731
    seen = []

    def train(params, masks):
        seen.append((params, masks))
        return params

    found = pruning_plasticity(train, right, net, 0.75)
    cut = np.sort(np.abs(np.r_[np.ravel(net["first"]), np.ravel(net["second"])]))[-N // 4]
    by_hand = {name: leaf if name == "bias" else jnp.where(jnp.abs(leaf) >= cut, leaf, 0) for name, leaf in net.items()}
    assert found == pytest.approx(right(by_hand) - right(net), rel=1e-5)
    pruning_plasticity(train, right, net, 0.75, growth="gradient", gradient=gradient)
    (_, plain), (params, masks) = seen
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {name: int(mask.sum()) for name, mask in plain.items()}
    assert not bool((masks["first"] == plain["first"]).all())
    assert not np.asarray(params["first"])[~np.asarray(masks["first"])].any()
    again = regenerated(plain, net, "gradient", gradient=gradient)
    np.testing.assert_array_equal(again["first"], masks["first"])


def test_cost_counts_three_products_a_live_weight():
    live = np.array([[10, 20], [5, 20]])
    assert training_cost(live, [10, 20]) == pytest.approx((30 + 25) / 60)
    dense = training_cost(live, [10, 20], dense_gradients=np.array([False, True]), uses=[4, 1])
    assert dense == pytest.approx((3 * 60 + 2 * 40 + 60) / (6 * 60))
