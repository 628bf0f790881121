import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from broadsheet.errors import DataError, InputError
from broadsheet.lab import growth
from broadsheet.lab.engine import execute, metrics_table, plan
from broadsheet.lab.external import load_repository
from broadsheet.lab.identity import code_hash, repository_hash
from broadsheet.lab.jobs import Jobs
from broadsheet.lab.ledger import scale
from broadsheet.lab.messages import JobSpec
from broadsheet.lab.registry import entries
from broadsheet.lab.verdicts import judge

EXAMPLE = Path(__file__).parent / "repository"


@pytest.fixture
def repository(tmp_path, home):
    """A repository in awk and shell, under git."""
    place = tmp_path / "walker"
    shutil.copytree(EXAMPLE, place)
    subprocess.run(["git", "init", "-q", str(place)], check=True)
    return place


def check(folder, store, seeds=(100, 101, 102)):
    entry = load_repository(folder)
    plans = [plan(entry, JobSpec(entry.slug, name, seeds=seeds), store) for name in entry.experiments]
    execute(plans, store)
    table = metrics_table(plans, store)
    verdicts = {c.id: judge(c, table[name], "quick").verdict for name, c in entry.claims()}
    return plans, verdicts


def test_claims_of_a_repository_in_another_language(repository, store):
    plans, verdicts = check(repository, store)
    assert [made.failure for made in plans] == [""]
    assert verdicts == {"C1": "holds", "C2": "vacuous", "C3": "fails"}
    assert len(store.find()) == 9
    again, _ = check(repository, store)
    assert not again[0].missing  # found, not repeated
    (repository / "walk.awk").write_text((repository / "walk.awk").read_text() + "\n# changed\n")
    changed = plan(load_repository(repository), JobSpec("walker", "walk"), store)
    assert changed.missing


def test_only_the_commands_metrics_count(repository, store):
    toml = (repository / "claims.toml").read_text()
    for command, words in (
        ("sh -c 'exit 3' {out}", "ended with 3"),
        ("no-such-program {out}", "no such program"),
        ("sh -c 'true' {out}", "wrote no file"),
        ("sh -c 'echo [] > $0' {out}", "no object"),
        ("sh -c 'sleep 30' {out}", "longer than"),
    ):
        text = toml.replace("./walk.sh 0.5 {seed} {out} {steps}", command).replace("timeout = 60", "timeout = 1")
        (repository / "claims.toml").write_text(text)
        plans, verdicts = check(repository, store, (100,))
        assert words in plans[0].failure, command
        assert set(verdicts.values()) == {"not run"}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[repository]", "[repository", "not valid TOML"),
        ("{out}", "", "has no {out}"),
        ('metric = "late"', 'metrics = "late"', "no key 'metrics'"),
        ('metric = "late", ', "", "a check has a metric"),
        ("at_least = 10", "at_least = 10, at_most = 2", "one of"),
        ('of = "tied"', 'of = "free"', "no command is given for free"),
        ('ablation = "tied"', 'ablation = "free"', "no command is given for free"),
        ('ablation = "tied"', 'control = "tied"', "claim C2: there is no key 'control'"),
        ("nulls =", "rivals =", "experiment 'walk': there is no key 'rivals'"),
        ('title = "A', 'titel = "A', r"\[repository\]: there is no key 'titel'"),
        ('null = "none yet"', 'no_null = ""', "no null model"),
        ('grows = "steps"', 'grows = "epochs"', "grows with 'epochs'"),
        ("steps = 200", "step = 200", "which its settings do not give"),
        ("steps = 200", "steps = [1]", "settings is a table"),
        ("steps = 200", "steps = 200, seed = 1", "seed cannot be a setting"),
        ("loose =", "tied =", "have one name"),
        ("at_least = 1 ", 'at_least = 1, over = "all" ', "over='all'"),
        ('no_null = "there is no walk without a walker"', 'no_null = "x"\nseeds = "three"', "claim C2"),
        ('id = "C1"', 'id = ""', "id"),
        ("[[experiment]]", "[experiment]", "list of tables"),
        ("timeout = 60", 'timeout = "soon"', "timeout is a number of seconds"),
        ("timeout = 60", "timeout = nan", "timeout is a number of seconds"),
        ("timeout = 60", "timeout = -1", "timeout is a number of seconds"),
        ("timeout = 60", 'exclusive = "no"', "exclusive is true or false"),
        ("timeout = 60", "summary = 3", "summary"),
        ("timeout = 60", f"timeout = {'9' * 5000}", "not valid TOML"),
        ("./walk.sh 0.5 {seed} {out} {steps}", "./walk.sh 'half {seed} {out} {steps}", "no line of a shell"),
        ("./walk.sh 0.5 {seed} {out} {steps}", "./walk.sh\\u0000 {seed} {out} {steps}", "names no program"),
        ("[repository]", "[repository]\narxiv = 2306.16922", "arxiv = .* is text"),
        ("[repository]", "[repository]\nauthors = true", "authors is their number"),
        ("[repository]", f"deep = {'[' * 100_000}", "nested too deeply"),
        ("[repository]", f"{'a.' * 200_000}a = 1\n[repository]", "nested too deeply"),
        ("[repository]", f"{'a' * 900_000}\n[repository]", "not valid TOML"),
        ("at_least = 10", f"at_least = {'{a=' * 20_000}1", "nested too deeply"),
    ],
)
def test_mistakes_in_the_file_are_named(repository, old, new, words):
    path = repository / "claims.toml"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError, match=words):
        load_repository(repository)


def test_links_out_of_a_repository_are_neither_read_nor_hashed(tmp_path, home):
    place, outside = tmp_path / "linked", tmp_path / "outside"
    shutil.copytree(EXAMPLE, place)
    outside.mkdir()
    (outside / "secret").write_text("one")
    (place / "own").write_text("own")
    for name, target in (("file", outside / "secret"), ("folder", outside), ("inside", "own"), ("circle", "circle")):
        (place / name).symlink_to(target)
    os.mkfifo(place / "pipe")  # to read it would never end
    (place / os.fsdecode(b"\xff")).write_text("a name that is no UTF-8")
    for git in (False, True):
        if git:
            subprocess.run(["git", "init", "-q", str(place)], check=True)
        first = repository_hash(place, "")
        (outside / "secret").write_text(f"other {git}")
        assert repository_hash(place, "") == first
        (place / "own").write_text(f"changed {git}")
        assert repository_hash(place, "") != first
    changed = repository_hash(place, "")
    (place / "file").unlink()
    (place / "file").symlink_to(outside / "elsewhere")
    assert repository_hash(place, "") != changed


def test_claims_that_are_a_link_out_of_their_repository_are_refused(tmp_path):
    (tmp_path / "claims.toml").symlink_to(EXAMPLE / "claims.toml")
    with pytest.raises(DataError, match="link out of its repository"):
        load_repository(tmp_path)


def test_a_verdict_says_whose_commands_it_rests_on():
    entry = load_repository(EXAMPLE)
    assert scale("quick", entry.facts["basis"], entry.experiments["walk"]) == "its own size, by the repository's own commands"


def test_a_job_of_a_repository_is_not_the_papers_whose_name_it_bears(tmp_path, store):
    shutil.copytree(EXAMPLE, tmp_path / "r")
    toml = tmp_path / "r" / "claims.toml"
    toml.write_text(
        toml.read_text().replace("[repository]", '[repository]\narxiv = "2306.16922"').replace('"walker"', '"ELM neuron"')
    )
    entry = load_repository(toml.parent)
    assert entry.slug == "elm-neuron"
    made = plan(entry, JobSpec(entry.slug, "walk"), store)
    job = Jobs(store).start(made.job)
    assert Jobs(store).job(job).spec.repository
    assert not plan(entries()["elm-neuron"], JobSpec("elm-neuron", "recall"), store).job.repository


def test_a_folder_without_claims(tmp_path):
    with pytest.raises(InputError, match=r"no claims\.toml"):
        load_repository(tmp_path)


def test_a_draft_can_be_read(tmp_path):
    from broadsheet.cli.pages import DRAFT

    (tmp_path / "claims.toml").write_text(DRAFT.format(slug="x", arxiv="2501.00001", title=json.dumps('A "title"')))
    assert load_repository(tmp_path).facts["title"] == 'A "title"'


def test_a_repository_grows(repository, store):
    entry = load_repository(repository)
    experiment = entry.experiments["walk"]
    assert growth.sizes(experiment, "quick", "steps", (1, 2.5)) == [200, 500]
    plans = {
        factor: plan(entry, JobSpec("walker", "walk", seeds=(100, 101, 102), overrides={"steps": size}), store)
        for factor, size in ((1.0, 200), (2.0, 400))
    }
    execute(list(plans.values()), store)
    assert not plan(entry, JobSpec("walker", "walk", seeds=(100, 101, 102)), store).missing  # 1x is the preset itself
    kept = growth.record(plans, "steps", store)
    by_claim = {claim.id: growth.growths(claim, experiment, {"steps": kept}, kept["code_hash"]) for claim in experiment.claims}
    assert by_claim["C1"][0].text == "holds at 1x, 2x"
    assert by_claim["C1"][0].sizes == (200, 400)
    assert by_claim["C2"][0].text == "vacuous at 1x, 2x"


def test_all_of_an_experiments_controls_are_tried_unless_a_claim_names_some():
    claims = {claim.id: claim for _, claim in load_repository(EXAMPLE).claims()}
    assert (claims["C1"].ablations, claims["C1"].nulls) == (("tied",), ("loose",))
    assert (claims["C2"].controls, claims["C2"].no_null) == (("tied",), "there is no walk without a walker")
    assert claims["C3"].waits_for_null


def test_controls_of_older_files_are_ablations_without_a_null_model(tmp_path):
    text = """
[[experiment]]
name = "e"
command = "run on {out}"
controls = { off = "run off {out}", half = "run half {out}" }
[[experiment.claim]]
id = "C1"
statement = "a is large"
control = "off"
checks = [{ metric = "a", at_least = 0.5 }]
[[experiment.claim]]
id = "C2"
statement = "a is large"
checks = [{ metric = "a", at_least = 0.5 }]
"""
    (tmp_path / "claims.toml").write_text(text)
    claims = {claim.id: claim for _, claim in load_repository(tmp_path).claims()}
    assert [claims[name].ablations for name in ("C1", "C2")] == [("off",), ("off", "half")]
    assert all(claim.waits_for_null for claim in claims.values())
    (tmp_path / "claims.toml").write_text(text.replace("controls =", 'nulls = { mean = "mean {out}" }\ncontrols ='))
    with pytest.raises(DataError, match="an older name of ablations"):
        load_repository(tmp_path)


SMALL = """
[[experiment]]
name = "e"
command = "run {out}"
nulls = { mean = "mean {out}" }
[[experiment.claim]]
id = "C1"
statement = "a is large"
no_ablation = "there is nothing to switch off"
checks = [{ metric = "a", at_least = 1 }]
"""


def test_an_entry_as_it_comes(tmp_path):
    place = tmp_path / "My Folder!"
    place.mkdir()
    (place / "claims.toml").write_text(SMALL)
    entry = load_repository(place / "claims.toml")
    assert entry.facts == {
        "slug": "my-folder", "arxiv": "", "title": "My Folder!", "published": "", "authors": 0, "basis": "repository",
        "summary": "", "code": str(place), "topics": [], "parts": [], "requires": [], "notes": [],
    }  # fmt: skip
    assert (entry.folder, entry.module, list(entry.experiments)) == (place, "", ["e"])
    made = entry.experiments["e"]
    assert (made.summary, made.presets, made.variants, made.fields) == ("", {"quick": {}}, {"mean": {}}, ())
    assert (made.deterministic, made.exclusive) == (True, False)  # no command takes a seed
    assert made.command == {"commands": {"system": "run {out}", "mean": "mean {out}"}, "folder": str(place), "timeout": 600.0}
    again = {name: made.command[name] for name in reversed(made.command)}
    assert code_hash(entry, made) == code_hash(entry, replace(made, command=again))  # whatever their order
    (claim,) = made.claims
    assert (claim.kind, claim.where, claim.ablations, claim.nulls, claim.seeds) == ("paper", "", (), ("mean",), 3)
    assert (claim.checks[0].metric, claim.checks[0].sense, claim.checks[0].value) == ("a", "at_least", 1.0)
    assert type(claim.checks[0].value) is float


def test_an_entry_that_says_everything(tmp_path):
    text = """
[repository]
name = "Sampler 2"
arxiv = "2306.16922"
title = "A sampler"
published = "2025-01-02"
authors = 3
summary = "It forgets."
[[experiment]]
name = "e"
summary = "Mixing."
command = "run {seed} {steps} {out}"
ablations = { off = "off {out}" }
settings = { steps = 10, rate = 0.5, fast = true, mode = "a" }
deterministic = true
exclusive = true
timeout = 2592000
[[experiment.claim]]
id = "C1"
statement = "a is large"
kind = "check"
where = "section 3"
null = "off"
ablation = []
about = "off"
seeds = 5
reason = "why"
reference = "a closed form"
published = "0.9"
grows = "steps"
answers_to = {}
checks = [{ metric = "a", equals = 1, tol = 0.5, of = "off", minus = "system", over = "count", count = 2, within = [0, 2], chance = 0.1 }]
"""
    (tmp_path / "claims.toml").write_text(text.replace('null = "off"', "null = []"))
    entry = load_repository(tmp_path)
    assert {name: entry.facts[name] for name in ("slug", "arxiv", "title", "published", "authors", "summary")} == {
        "slug": "sampler-2", "arxiv": "2306.16922", "title": "A sampler", "published": "2025-01-02", "authors": 3,
        "summary": "It forgets.",
    }  # fmt: skip
    made = entry.experiments["e"]
    assert (made.summary, made.deterministic, made.exclusive, made.command["timeout"]) == ("Mixing.", True, True, 2592000.0)
    assert made.presets["quick"] == made.command["settings"] == {"steps": 10, "rate": 0.5, "fast": True, "mode": "a"}
    assert [(field.name, field.kind, field.default) for field in made.fields] == [
        ("steps", "int", 10), ("rate", "float", 0.5), ("fast", "bool", True), ("mode", "text", "a"),
    ]  # fmt: skip
    (claim,) = made.claims
    said = (claim.kind, claim.where, claim.about, claim.seeds, claim.reason, claim.reference, claim.published, claim.grows)
    assert said == ("check", "section 3", "off", 5, "why", "a closed form", "0.9", "steps")
    (check,) = claim.checks
    assert (check.tol, check.of, check.minus, check.over, check.count, check.within, check.chance) == (
        0.5, "off", "system", "count", 2, (0.0, 2.0), 0.1,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", r"has no \[\[experiment\]\]"),
        (SMALL + SMALL, "two experiments are called 'e'"),
        (SMALL.replace('"run {out}"', '"run {out}"\ntimeout = 2592001'), "timeout is a number"),
        (SMALL.replace('"run {out}"', '"run {out}"\ntimeout = 0'), "timeout is a number"),
        (SMALL.replace('"run {out}"', '"run {out}"\ntimeout = true'), "timeout is a number"),
        (SMALL.replace('"mean {out}"', "3"), "nulls is a table of name"),
        (SMALL.replace('{ mean = "mean {out}" }', '"mean {out}"'), "nulls is a table of name"),
        (SMALL.replace('"run {out}"', '"run {out}"\nsettings = 3'), "settings is a table"),
        (SMALL.replace('"run {out}"', '"run {out}"\nsettings = { out = 3 }'), "out cannot be a setting"),
        (SMALL.replace("mean =", "system ="), "or that of the system"),
        (SMALL.replace("at_least = 1", 'at_least = "much"'), "claim C1: could not convert"),
        (SMALL.replace("at_least = 1", "at_least = 1, tol = 3, within = [1]"), "claim C1"),
        (SMALL.replace('id = "C1"', 'id = "C1"\nwhere = 3\nkind = "other"'), "'paper' or 'check' is wanted"),
        ("[repository]\nsummary = 3\n" + SMALL, "summary = .* is text"),
        ("[repository]\npublished = 3\n" + SMALL, "published = .* is text"),
        ("[repository]\nauthors = 2.0\n" + SMALL, "authors is their number"),
        ("[repository]\ntitle = ' '\n" + SMALL, "title = .* is missing"),
        ("repository = 3\n" + SMALL, r"\[repository\] has to be a table"),
    ],
)
def test_more_mistakes_in_the_file_are_named(tmp_path, text, told):
    (tmp_path / "claims.toml").write_text(text)
    with pytest.raises(DataError, match=told):
        load_repository(tmp_path)


def test_a_name_without_a_letter_is_a_repository(tmp_path):
    (tmp_path / "claims.toml").write_text('[repository]\nname = "!!"\n' + SMALL)
    assert load_repository(tmp_path).slug == "repository"
