"""Stages that tests and other packages bring, and chains that find what is made, go on where they stopped, and branch."""

import inspect
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from broadsheet.errors import InputError, JobError
from broadsheet.language import registry
from broadsheet.language import tiny_world as tiny
from broadsheet.language.chain import Chain, Link
from broadsheet.language.models import load
from broadsheet.language.registry import names, own_names, stage, stage_of
from broadsheet.language.tiny_model import tiny_model

made = []
"""Stages that were run, in order."""


@stage("averaged")
def averaged(model, words, context, *, share: float = 0.5):
    """A share of the weights it starts from, the rest from those of the link called base."""
    made.append("averaged")
    base = context.model("base").state_dict()
    with torch.no_grad():
        for name, weights in model.state_dict().items():
            weights.lerp_(base[name], 1 - share)
    return model


def add(model, number):
    with torch.no_grad():
        model.get_output_embeddings().weight += number
    return model


@stage("shifted")
def shifted(model, words, context, *, by: float = 0.25, texts: Path | None = None, quick: bool = False):
    """Adds a number to the unembedding."""
    made.append("shifted")
    context.report(0.5, {"by": by})
    return add(model, by)


@stage("halves")
def halves(model, words, context):
    """Adds 1/8 twice; the first time, it is stopped after the first half, which it has kept."""
    made.append("halves")
    kept = context.folder / "kept"
    if not kept.exists():
        add(model, 0.125).save_pretrained(kept)
        words.save_pretrained(kept)
        raise JobError("stopped half-way")
    return add(load(str(kept))[0], 0.125)


@stage("needing")
def needing(
    model, words, context, *, mix: tuple[float, ...] = (), rate: float = 1.0, texts: list[Path], more: dict | None = None
):
    made.append((mix, rate, texts))
    return model


@stage("started")
def started(model, words, context, *, kind: str = "gpt2"):
    made.append("started")
    context.record["seed"] = context.seed
    return tiny_model(context.seed, kind), tiny.tokenizer()


@pytest.fixture(autouse=True)
def fresh(home):
    made.clear()


BASE = Link("base", "started")
SHORT = {"steps": 2, "checked": False}


def head(chain, name):
    return chain.model(name).get_output_embeddings().weight


def test_a_stage_of_the_tests_own_in_a_chain_of_tiny_steps():
    chain = Chain(
        [
            Link("base", "tiny_pretraining", {"steps": 4, "until_learned": False}),
            Link("sft", "tiny_sft", {"steps": 2, "checked": False}),
            Link("mean", "averaged", {"share": 0.25}, uses=["base"]),
        ],
        attention="eager",
    ).build()
    base, sft, mean = (chain.model(name).state_dict() for name in chain.names)
    for name, weights in mean.items():
        assert torch.allclose(weights, 0.25 * sft[name] + 0.75 * base[name], atol=1e-7)
    assert not torch.equal(mean["lm_head.weight"], base["lm_head.weight"])
    assert chain.steps("base") == [0, 1, 2]


def test_what_is_made_is_found_and_only_what_follows_a_change_is_made_again():
    links = [BASE, Link("one", "shifted"), Link("two", "shifted", {"by": 0.5})]
    Chain(links, seed=4).build()
    assert made == ["started", "shifted", "shifted"]
    Chain(links, seed=4).build()
    assert len(made) == 3
    Chain([*links[:2], Link("two", "shifted", {"by": 0.25})], seed=4).build()
    assert made[3:] == ["shifted"]
    Chain([BASE, Link("one", "shifted", {"by": 1.0}), links[2]], seed=4).build()
    assert made[4:] == ["shifted", "shifted"]
    other = Chain(links, seed=5)
    assert other.record("base") == {"seed": 5}
    assert made[6:] == ["started"]


def test_chains_branch_and_share_their_beginning():
    chain = Chain([BASE, Link("left", "shifted"), Link("right", "shifted", {"by": -1.0}, after="base")])
    assert torch.allclose(head(chain, "left") - head(chain, "base"), torch.tensor(0.25))
    assert torch.allclose(head(chain, "right") - head(chain, "base"), torch.tensor(-1.0))
    assert made == ["started", "shifted", "shifted"]


def test_a_stopped_stage_goes_on_where_it_was():
    chain = Chain([BASE, Link("one", "halves")])
    with pytest.raises(JobError, match="half-way"):
        chain.build()
    assert torch.allclose(head(chain, "one") - head(chain, "base"), torch.tensor(0.25))
    assert made == ["started", "halves", "halves"]
    assert not [left for left in chain.folder("one").parents[1].glob("*unfinished/*") if left.is_dir()]


def test_a_chain_starts_from_a_folder(tmp_path):
    """Its content decides, not where it lies."""
    first = Chain([BASE]).folder("base")
    moved = first.rename(tmp_path / "moved")
    chain = Chain([Link("one", "shifted"), Link("back", "shifted", {"by": -0.25}, after="start")], start=str(moved))
    assert torch.allclose(head(chain, "one") - head(chain, "start"), torch.tensor(0.25))
    assert torch.allclose(head(chain, "back") - head(chain, "start"), torch.tensor(-0.25))
    again = moved.rename(tmp_path / "elsewhere")
    assert Chain([Link("one", "shifted")], start=str(again)).folder("one") == chain.folder("one")


def test_the_content_of_data_decides(tmp_path):
    file = tmp_path / "texts"
    file.write_text("one")
    copied = tmp_path / "copy"
    copied.write_text("one")
    folders = [Chain([BASE, Link("one", "shifted", {"texts": str(path)})]).folder("one") for path in (file, copied)]
    file.write_text("two")
    folders.append(Chain([BASE, Link("one", "shifted", {"texts": str(file)})]).folder("one"))
    assert folders[0] == folders[1] != folders[2]
    with pytest.raises(InputError, match="no such file"):
        Chain([BASE, Link("one", "shifted", {"texts": str(tmp_path / "none")})]).build()


def test_a_stage_may_run_in_one_thread_and_others_keep_theirs(monkeypatch):
    monkeypatch.setattr(registry, "_stages", dict(registry._stages))
    seen = []

    def threads(model, words, context):
        seen.append(torch.get_num_threads())
        return model

    stage("alone", one_thread=True)(lambda model, words, context: threads(model, words, context))
    stage("together")(threads)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        Chain([BASE, Link("one", "alone"), Link("two", "together")]).build()
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 2]


def test_a_record_has_numbers_of_tensors_and_arrays(monkeypatch):
    monkeypatch.setattr(registry, "_stages", dict(registry._stages))
    found = {
        "loss": torch.tensor(0.5, requires_grad=True),
        "more": {"share": np.float32(0.25), "count": np.int64(3), "right": np.bool_(True)},
        "curve": [torch.tensor([1.0, 2.0]), np.ones(2)],
        3: None,
    }
    stage("noted")(lambda model, words, context: context.record.update(found) or model)
    assert Chain([BASE, Link("a", "noted")]).record("a") == {
        "loss": 0.5,
        "more": {"share": 0.25, "count": 3, "right": True},
        "curve": [[1.0, 2.0], [1.0, 1.0]],
        "3": None,
    }


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"more": {"place": Path("here")}}, r"a: the record 'more\.place' is a PosixPath, .*trained is in (\S+)\.$"),
        ({"more": {(1, 2): 0.0}}, r"a: the record 'more' has the key \(1, 2\), .*trained is in (\S+)\.$"),
    ],
)
def test_a_record_that_is_no_json_loses_nothing_that_was_trained(monkeypatch, found, said):
    monkeypatch.setattr(registry, "_stages", dict(registry._stages))
    stage("noted")(lambda model, words, context: context.record.update(found) or add(model, 1.0))
    chain = Chain([BASE, Link("a", "noted")])
    with pytest.raises(JobError, match=said) as caught:
        chain.build()
    kept, _ = load(re.search(said, str(caught.value))[1])
    assert torch.allclose(kept.get_output_embeddings().weight - head(chain, "base"), torch.tensor(1.0))


def test_tiny_stages_show_progress():
    seen = []
    links = [
        Link("base", "started", {"kind": "llama"}),
        *(Link(name, name, SHORT) for name in ("tiny_sft", "tiny_dpo", "tiny_grpo")),
    ]
    Chain(links).build(lambda fraction, metrics: seen.append((fraction, *metrics)))
    steps = [(1.5, "loss"), (2, "loss"), (2,), (2.5, "loss"), (3, "loss"), (3,), (3.5, "reward"), (4, "reward"), (4,)]
    assert seen == [(0.25,), *((done / 4, *metrics) for done, *metrics in steps)]


def test_progress_is_shared_out():
    seen = []
    Chain([BASE, Link("one", "shifted", share=3.0)]).build(lambda fraction, metrics: seen.append((fraction, metrics)))
    assert seen == [(0.25, {}), (0.625, {"by": 0.25}), (1.0, {})]


def test_stages_of_other_packages_come_by_entry_point(monkeypatch):
    class Point:
        name, value = "foreign", "their.package:foreign"

        def load(self):
            @stage("foreign")
            def foreign(model, words, context):
                return model

            return foreign

    monkeypatch.setattr(registry, "_stages", dict(registry._stages))
    monkeypatch.setattr(
        registry.importlib.metadata, "entry_points", lambda group, name="foreign": [Point()] if name == "foreign" else []
    )
    assert "foreign" in names()
    chain = Chain([BASE, Link("theirs", "foreign")])
    assert torch.equal(head(chain, "theirs"), head(chain, "base"))
    registry._stages.pop("foreign")
    monkeypatch.setattr(Point, "load", lambda self: __import__("their"))
    with pytest.raises(InputError, match=r"their\.package:foreign cannot be loaded"):
        stage_of("foreign")


def test_own_stages_bear_the_names_of_their_files():
    assert {"tiny_pretraining", "tiny_sft", "tiny_dpo", "tiny_grpo", "tiny_even_words"} <= set(own_names())
    for name in own_names():
        assert stage_of(name).name == name
        assert stage_of(stage_of(name).run).name == name
        assert stage_of(name).one_thread or not name.startswith("tiny_")


@pytest.mark.parametrize("name", own_names())
def test_own_stages_have_json_settings_by_keyword_a_module_and_a_docstring(name):
    run = stage_of(name).run
    assert run.__module__ == f"broadsheet.language.stages.{name}"
    assert inspect.getdoc(run)
    kinds = [each.kind for each in inspect.signature(run).parameters.values()]
    assert set(kinds[3:]) <= {inspect.Parameter.KEYWORD_ONLY}
    defaults = stage_of(name).defaults
    assert json.loads(json.dumps(defaults)) == defaults


def test_a_module_that_registers_another_name_is_said_to(monkeypatch):
    class Point:
        name, value = "smoothed2", "their.package:smoothed2"

        def load(self):
            stage("other")(lambda model, words, context: model)

    monkeypatch.setattr(registry, "_stages", dict(registry._stages))
    monkeypatch.setattr(registry.importlib.metadata, "entry_points", lambda group, name="smoothed2": [Point()])
    with pytest.raises(
        InputError, match=r"^The module of the stage 'smoothed2' registers none of that name by @stage\('smoothed2'\)\.$"
    ):
        stage_of("smoothed2")


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (lambda model, context: model, r"'new' takes \(model, context\); \(model, words, context, \*, …settings\) is wanted"),
        (lambda model, context, words: model, r"takes \(model, context, words\)"),
        (lambda model, words, context, share=0.5: model, r"settings are keyword arguments: put \* before 'share'"),
    ],
)
def test_a_function_that_a_chain_could_not_call_is_refused(run, said):
    with pytest.raises(InputError, match=said):
        stage("new")(run)
    assert "new" not in names()


def test_a_stage_has_a_name():
    with pytest.raises(InputError, match=r"@stage needs a name: @stage\('add'\)"):
        stage(add)


@pytest.mark.parametrize(
    ("links", "said"),
    [
        ([Link("a", "no-such")], "no stage called 'no-such'; there are .*averaged"),
        ([Link("a", len)], "len is no stage"),
        ([BASE, BASE], "one checkpoint called 'base'"),
        ([Link("start", "started")], "one checkpoint called 'start'"),
        ([BASE, Link("a", "shifted", after="b")], "'a' asks for 'b'"),
        ([BASE, Link("a", "shifted", uses=["start"])], "'a' asks for 'start'"),
        ([BASE, Link("a", "shifted", {"bye": 1})], "shifted has no setting 'bye'; it has by, texts, quick"),
        ([BASE, Link("a", "shifted", {"by": "much"})], "by is 'much'; float is wanted"),
        ([BASE, Link("a", "shifted", {"quick": 1})], "quick is 1; bool is wanted"),
        ([BASE, Link("a", "shifted"), Link("b", "averaged")], "given no model 'base'"),
        ([Link("a", "tiny_sft", SHORT)], "'tiny_sft' is given no model: .* after another link, or the chain needs start=…"),
    ],
)
def test_mistakes_get_a_sentence(links, said):
    with pytest.raises(InputError, match=said):
        Chain(links).build()


def test_settings_are_json_and_some_have_to_be_given(tmp_path):
    for name in "ab":
        (tmp_path / name).write_text(name)
    texts = [str(tmp_path / name) for name in "ab"]
    Chain([BASE, Link("a", "needing", {"mix": [0.5], "rate": 2, "texts": texts})]).build()
    assert made[1:] == [([0.5], 2, texts)]
    with pytest.raises(InputError, match="needing needs the setting 'texts'"):
        Chain([BASE, Link("a", "needing")])
    with pytest.raises(InputError, match="no JSON value"):
        Chain([BASE, Link("a", "needing", {"texts": texts, "more": {"of": object()}})]).build()


@pytest.mark.parametrize(
    ("gives", "said"),
    [
        (lambda model: None, "gave nothing; return the model"),
        (lambda model: 3, "gave a int"),
        (lambda model: (model, None), "no tokenizer"),
        (lambda model: (model.get_output_embeddings().weight.data.fill_(float("nan")), model)[1], "not finite, lm_head"),
    ],
)
def test_what_is_no_model_is_not_kept(monkeypatch, gives, said):
    monkeypatch.setattr(registry, "_stages", dict(registry._stages))
    stage("broken")(lambda model, words, context: gives(model))
    with pytest.raises(JobError, match=said):
        Chain([BASE, Link("a", "broken")]).build()
    assert not list(Path(Chain([BASE]).folder("base")).parent.glob(".building-*"))


def test_two_functions_cannot_have_one_name():
    with pytest.raises(InputError, match=r"'averaged' is .*averaged already"):
        stage("averaged")(lambda model, words, context: model)
