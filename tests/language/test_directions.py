"""Directions and steering, against the authors' program, scikit-learn, closed forms and plain loops."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from safetensors.numpy import save_file
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LinearRegression

from broadsheet.errors import DataError, InputError
from broadsheet.language import tiny_world as tiny
from broadsheet.language.architectures import Sizes, new_model
from broadsheet.language.directions import (
    Direction,
    centred,
    cosine,
    folds,
    mass_mean,
    mass_mean_by_block,
    separation,
    transfer_table,
    ttpd,
)
from broadsheet.language.hooks import captured
from broadsheet.language.interventions import intervene, nie, preference, random_directions
from broadsheet.language.refusal import Requests, Steering, answers, everywhere, refusal_direction, refusal_rate, refuses
from broadsheet.language.states import Spool, batches, mean_states, read_states
from broadsheet.language.tiny_tasks import CHAT, requests, statements, truth_task
from broadsheet.language.tiny_world import World
from broadsheet.language.truth import Exchange, Site, balanced_labels, choose_site

REFERENCE = Path(__file__).parents[1] / "references" / "post_training" / "directions.json"
LAYER = 1
KINDS = ("llama", "qwen2", "qwen3", "mistral", "olmo2", "gpt_neox", "gpt2")


@pytest.fixture(scope="module")
def theirs():
    """What the authors' program says of base and SFT (bench/references_directions.py)."""
    return json.loads(REFERENCE.read_text())


@pytest.fixture(scope="module")
def task():
    return truth_task(World(0))


@pytest.fixture(scope="module")
def models(shipped):
    return {name: shipped(name) for name in ("base", "sft")}


def asked(kind, count=40):
    return [tiny.encode(CHAT.format(text)) for text in requests(kind)[:count]]


@pytest.mark.parametrize("name", ["base", "sft"])
def test_directions_and_probes_are_those_of_the_official_code(name, models, task, theirs):
    states = read_states(models[name], task.rows, LAYER)
    made = task.fit(centred(states, task.groups), Site.one(LAYER, -1))
    assert_allclose(made.vector, theirs[name]["direction"], atol=1e-5)
    assert made.bias == pytest.approx(theirs[name]["bias"], abs=1e-3 * abs(made.slope))
    assert task.accuracy(made, states) == pytest.approx(theirs[name]["accuracy"], abs=1e-6)
    polarity = np.where(np.arange(len(task.labels)) % 4 < 2, 1, -1)
    general, polar = ttpd(states, task.labels, polarity, task.groups)
    assert_allclose(general, theirs[name]["general"], atol=1e-5)
    assert_allclose(polar, theirs[name]["polar"], atol=1e-5)


def test_effects_are_those_of_the_official_code(models, task, theirs):
    true, false = task.prompts["city"]
    places = {"colon": ([LAYER], [-1]), "span": ([0, LAYER], [-4, -3])}
    for asked_for, (true_0, true_1, false_0, false_1) in theirs["nie"].items():
        pair, where = asked_for.split(", ")
        source, target = pair.split(" in ")
        layers, positions = places[where]
        options = {"layers": layers, "positions": positions, "answers": task.answers}
        found = nie(models[target], np.array(theirs[source]["direction"]), true, false, **options)
        assert_allclose(task.plain(models[target]), (true_0, false_0), atol=1e-5)
        wanted = ((true_1 - true_0) / (-1 - true_0), (false_1 - false_0) / (1 - false_0))
        assert_allclose((found.to_false, found.to_true), wanted, atol=1e-5)


def test_refusal_is_that_of_the_official_code(models, theirs):
    harmful, harmless = asked("harmful"), asked("harmless")
    made = refusal_direction(models["sft"], harmful, harmless, 1)
    assert_allclose(made.unit, theirs["refusal"]["direction"], atol=1e-5)
    assert made.norm == pytest.approx(theirs["refusal"]["length"], rel=1e-5)
    with intervene(models["sft"], {1: 2 * made.unit}), torch.no_grad():
        assert_allclose(models["sft"](torch.tensor(harmless[:4])).logits[:, -1, :32], theirs["refusal"]["added"], atol=2e-5)
    with intervene(models["sft"], everywhere(models["sft"], made.unit), mode="ablate"), torch.no_grad():
        assert_allclose(models["sft"](torch.tensor(harmful[:4])).logits[:, -1, :32], theirs["refusal"]["ablated"], atol=2e-5)
    assert {text: float(refuses(text)) for text in theirs["refusal"]["scores"]} == theirs["refusal"]["scores"]


@pytest.mark.parametrize("kind", KINDS)
def test_states_and_steering_in_models_of_each_kind(kind):
    """Against hidden states that the model itself gives out, and against adding to them by hand."""
    model = new_model(kind, Sizes(words=50, width=16, blocks=3)).eval()
    rows = [[4, 7, 9], [3, 8, 2, 1, 5], [11, 12, 13]]
    with torch.no_grad():
        hidden = [model(torch.tensor([row]), output_hidden_states=True).hidden_states for row in rows]
    for layer in (0, 1):
        wanted = [states[layer + 1][0, -2].numpy() for states in hidden]
        assert_allclose(read_states(model, rows, layer, position=-2, batch=2), wanted, atol=1e-5)
        assert_allclose(mean_states(model, rows, position=-2)[layer], np.mean(wanted, 0), atol=1e-5)
    vector = np.linspace(-1, 1, 16)
    ids = torch.tensor([rows[1]])
    with torch.no_grad(), intervene(model, {1: vector}, [-1, -3]), captured(model, [1]) as moved:
        model(ids)
    change = moved[1][0] - hidden[1][2][0]
    assert_allclose(change[[-1, -3]], np.tile(vector, (2, 1)), atol=1e-5)
    assert float(change[[0, 1, 3]].abs().max()) < 1e-6
    with torch.no_grad(), intervene(model, everywhere(model, vector), mode="ablate"), captured(model) as without:
        model(ids)
    assert max(float((states @ torch.tensor(vector, dtype=torch.float32)).abs().max()) for states in without.values()) < 1e-4
    with torch.no_grad():
        assert torch.equal(model(ids, output_hidden_states=True).hidden_states[2], hidden[1][2])  # nothing stays


def test_a_spool_is_what_is_read_layer_by_layer_and_goes_on_after_an_interruption(base, task, tmp_path):
    class Stop(Exception):
        pass

    def stop(done):
        if done > 0.4:
            raise Stop

    with pytest.raises(Stop):
        Spool(tmp_path, range(3), len(task.rows)).write(base, task.rows, batch=20, report=stop)
    seen = []
    spool = Spool(tmp_path, range(3), len(task.rows)).write(base, task.rows, batch=20, report=seen.append)
    assert len(seen) < len(list(batches(task.rows, 20)))
    for layer in range(3):
        assert_allclose(spool.read(layer), read_states(base, task.rows, layer), atol=1e-5)


def test_memory_does_not_grow_with_the_blocks():
    """2000 texts through 2 and then 8 blocks of width 1024: a layer of them all is 8 MB, the six more are 49 MB."""
    program = """
import resource, types, torch, tempfile
from pathlib import Path
from broadsheet.language.states import Spool, mean_states, read_states
from broadsheet.language.directions import transfer_table
class Stub(torch.nn.Module):
    def __init__(self, blocks):
        super().__init__()
        self.config = types.SimpleNamespace(num_hidden_layers=blocks, get_text_config=lambda decoder=True: self.config)
        self.table = torch.nn.Embedding(20, 1024)
        self.layers = torch.nn.ModuleList(torch.nn.LayerNorm(1024) for _ in range(blocks))
    def get_input_embeddings(self): return self.table
    def forward(self, input_ids, use_cache=False):
        states = self.table(input_ids)
        for layer in self.layers: states = layer(states)
        return types.SimpleNamespace(logits=states)
rows, labels = [[1 + k % 17, k % 19, 1] for k in range(2000)], [k % 2 for k in range(2000)]
groups = [k % 4 // 2 for k in range(2000)]
for blocks in (2, 8):
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        spool = Spool(Path(folder), range(blocks), 2000).write(Stub(blocks), rows)
        for layer in range(blocks):
            transfer_table({"": spool.read(layer)}, labels, groups)
        mean_states(Stub(blocks), rows)
        read_states(Stub(blocks), rows, blocks - 1)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    few, many = (int(size) for size in done.stdout.split())
    assert many - few < 16_000  # KB


def test_mass_mean_against_a_plain_loop_and_groups_do_not_matter():
    rng = np.random.default_rng(0)
    labels, groups = np.tile([1, 0], 30), np.repeat(["a", "b", "c"], 20)
    truth = rng.standard_normal(8)
    x = rng.standard_normal((60, 8)) + np.outer(labels, 3 * truth)
    found = mass_mean(x, labels, groups)
    by_hand = np.mean([x[k] for k in range(60) if labels[k]], 0) - np.mean([x[k] for k in range(60) if not labels[k]], 0)
    assert_allclose(found, by_hand)  # labels are balanced in each group
    offset = {"a": 0.0, "b": 100.0, "c": -50.0}
    moved = x + np.array([offset[group] for group in groups])[:, None]
    assert_allclose(mass_mean(moved, labels, groups), found, atol=1e-9)
    assert Direction.fit(moved, labels, groups, layer=0).accuracy(moved, labels, groups) > 0.9
    assert separation(x, labels, found) == pytest.approx(separation(3 * x, labels, 2 * found))


def test_ttpd_is_least_squares_and_tells_negated_texts_apart():
    rng = np.random.default_rng(1)
    y, p = rng.choice([-1, 1], 200), rng.choice([-1, 1], 200)
    general, polar = rng.standard_normal((2, 6))
    x = np.outer(y, general) + 3 * np.outer(y * p, polar) + 0.01 * rng.standard_normal((200, 6))
    found = ttpd(x, y > 0, p)
    wanted = LinearRegression(fit_intercept=False).fit(np.stack([y, y * p], 1), x - x.mean(0)).coef_.T
    assert_allclose(found, wanted, atol=1e-9)
    assert cosine(found[0], general) > 0.999
    one = Direction.fit(x, (y > 0).astype(int), layer=0, kind="ttpd", polarities=p)
    assert cosine(one.vector, general) > 0.999


def test_the_transfer_table_holds_groups_out():
    rng = np.random.default_rng(2)
    labels, groups = np.tile([1, 0], 50), np.repeat(list("abcde"), 20)
    x = rng.standard_normal((100, 4)) + np.outer(labels, [4, 0, 0, 0])
    table = transfer_table({"a": x, "b": x @ np.diag([1, 1, 1, 2.0]), "turned": x[:, ::-1]}, labels, groups)
    assert min(table["a", "a"], table["a", "b"]) > 0.9
    assert table["a", "turned"] < 0.75
    known = LinearDiscriminantAnalysis().fit(x, labels).score(x, labels)
    assert abs(table["a", "a"] - known) < 0.05
    noise = rng.standard_normal((100, 60))
    assert abs(transfer_table({"": noise}, labels)["", ""] - 0.5) < 0.2
    assert Direction.fit(noise, labels, layer=0).accuracy(noise, labels) > 0.75
    assert sum(look.sum() for _, look in folds(labels, groups)) == sum(look.sum() for _, look in folds(labels)) == 100


def test_a_direction_is_saved_and_read_again(tmp_path):
    made = Direction(np.linspace(-1, 1, 9), 3, -2, 0.5, -0.25, "of a model", "ttpd")
    path = made.save(tmp_path / "d.safetensors")
    again = Direction.load(path)
    assert_allclose(again.vector, made.vector, rtol=0)
    assert (again.layer, again.position, again.slope, again.bias, again.model, again.kind) == (
        3,
        -2,
        0.5,
        -0.25,
        "of a model",
        "ttpd",
    )
    with pytest.raises(InputError, match=r"width of 9, the model one of 4 \(it is of of a model\)"):
        again.predict(np.zeros((2, 4)))
    save_file({"other": np.ones(3)}, tmp_path / "other.safetensors")
    (tmp_path / "none.safetensors").write_bytes(b"nothing")
    save_file({"direction": np.array([1.0, np.nan])}, tmp_path / "nan.safetensors",
              metadata={"layer": "0", "position": "-1", "slope": "1", "bias": "0", "model": "", "kind": "x"})  # fmt: skip
    for name, said in (("other", "holds no direction"), ("none", "holds no direction"), ("nan", "finite numbers")):
        with pytest.raises(DataError, match=said):
            Direction.load(tmp_path / f"{name}.safetensors")


def test_the_direction_of_truth_turns_answers_over_and_random_ones_do_not(models, task):
    site, scores = choose_site(models["base"], task, [Site.one(1, -1), Site.one(1, -5)])
    here = Exchange(models, ["base", "sft"], task, site)
    assert scores.max() > 0.9 > 0.3 > scores.min()  # at the period nothing is read
    found = here.readings(here.own)
    assert found["nie_least"] > 0.7
    assert found["cosine"] > 0.9
    vector = here.own["base"].vector
    chance = [here.effect(here.along("base", drawn), "base").mean for drawn in random_directions(vector, 3)]
    assert np.mean(chance) < 0.5
    assert here.from_words()["own_base"] == 0.5  # no word of another relation is among those it is fitted on
    true, false = task.prompts["city"]
    with intervene(models["base"], {site.layer: -vector}, [-1]):
        moved = preference(models["base"], true, *task.answers).mean()
    plain = preference(models["base"], true, *task.answers).mean()
    assert here.effect(here.own["base"], "base").to_false == pytest.approx((moved - plain) / (-1 - plain), rel=1e-5)
    assert np.linalg.norm(random_directions(vector, 3), axis=1) == pytest.approx(np.linalg.norm(vector))
    assert mass_mean_by_block(models["base"], task.rows, task.labels, task.groups)[1] == pytest.approx(
        mass_mean(read_states(models["base"], task.rows, 1), task.labels, task.groups)
    )


def test_labels_that_say_nothing_are_balanced():
    found = statements(World(0))
    other = balanced_labels(found.labels, found.groups)
    for group in set(found.groups):
        here = found.groups == group
        assert np.mean(other[here & (found.labels == 1)]) == np.mean(other[here & (found.labels == 0)]) == 0.5


def test_steering_makes_a_model_refuse_and_not_refuse(models):
    words, split = tiny.tokenizer(), slice(0, 24)
    kinds = [(asked(kind, 40)[split], asked(kind, 40)[24:]) for kind in ("harmful", "harmless")]
    given = Requests(*kinds)
    steer = Steering(models["sft"], words, given, tokens=2, phrases=("sorry",))
    assert steer.before() == (1.0, 0.0)
    refusal, nothing = given.directions(models["sft"])
    assert_allclose(refusal[1], refusal_direction(models["sft"], kinds[0][0], kinds[1][0], 1).vector, atol=1e-5)
    add, _ = steer.best(refusal)
    assert steer.added(refusal[add], add) > 0.8
    assert steer.added(random_directions(refusal[add], 1)[0], add) == 0.0
    assert np.linalg.norm(nothing[2]) < 0.5 * np.linalg.norm(refusal[2])
    assert steer.first_words() == pytest.approx(
        (models["sft"].lm_head.weight[tiny.IDS["sorry"]] - models["sft"].lm_head.weight[tiny.IDS["sure"]]).detach().numpy()
    )
    said = answers(models["sft"], words, kinds[0][1][:2], tokens=3)
    assert said == ["sorry i can"] * 2
    assert refusal_rate(models["sft"], words, kinds[0][1], tokens=1, phrases=("sure",)) == 0.0


def test_generation_with_a_cache_is_steered_as_a_whole_pass_is(models):
    """Token by token against passing the whole text anew each time, as the official code does."""
    model, prompts = models["sft"], asked("harmless", 3)
    vector = refusal_direction(model, asked("harmful"), asked("harmless"), 2).vector
    with intervene(model, {2: vector}), torch.no_grad():
        found = answers(model, tiny.tokenizer(), prompts, tokens=4)
        ids = torch.tensor(prompts)
        for _ in range(4):
            ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], 1)
    assert found == [tiny.tokenizer().decode(row, skip_special_tokens=True) for row in ids[:, -4:]]


def test_mistakes_get_a_sentence(base):
    rows = [[1, 2, 3], [1, 2]]
    with pytest.raises(InputError, match="counted from the end"):
        read_states(base, rows, 1, position=0)
    with pytest.raises(InputError, match="2 tokens has none at position -3"):
        read_states(base, rows, 1, position=-3)
    with pytest.raises(InputError, match="Block 7 does not exist"):
        read_states(base, rows, 7)
    with pytest.raises(InputError, match="no texts"):
        read_states(base, [], 1)
    with pytest.raises(InputError, match="the token 999; the embedding"):
        read_states(base, [[999]], 1)
    with pytest.raises(InputError, match="width of 5, the model one of 64"), intervene(base, {0: np.ones(5)}):
        pass
    with pytest.raises(InputError, match="length 0"), intervene(base, {0: np.zeros(64)}, mode="ablate"):
        pass
    with pytest.raises(InputError, match="add or ablate"), intervene(base, {0: np.ones(64)}, mode="turn"):
        pass
    x = np.ones((4, 3))
    for labels, said in (([1, 1, 1, 1], "both 0 and 1"), ([0, 1], "4 states and 2 labels"), ([0, 1, 2, 1], "both 0 and 1")):
        with pytest.raises(InputError, match=said):
            mass_mean(x, labels)
    with pytest.raises(InputError, match="same polarity"):
        ttpd(x, [0, 1, 0, 1], [1, 1, 1, 1])
    with pytest.raises(InputError, match="width 3 and 2"):
        cosine(np.ones(3), np.ones(2))
    with pytest.raises(InputError, match=r"differ in width \(a 3, b 2\)"):
        transfer_table({"a": x, "b": x[:, :2]}, [0, 1, 0, 1])
    with pytest.raises(InputError, match="mass-mean or ttpd"):
        Direction.fit(x, [0, 1, 0, 1], layer=0, kind="svm")
    broken = new_model("gpt2", Sizes(words=20, width=16, blocks=2)).eval()
    with torch.no_grad():
        broken.transformer.h[0].mlp.c_fc.weight[0, 0] = torch.nan
    with pytest.raises(InputError, match=r"transformer.h.0.mlp.c_fc.weight of the GPT2LMHeadModel hold NaN"):
        read_states(broken, [[1, 2]], 1)
