import json
import shutil
import subprocess
from pathlib import Path

import pytest

from broadsheet.errors import DataError, InputError
from broadsheet.lab.engine import execute, metrics_table, plan
from broadsheet.lab.external import load_repository
from broadsheet.lab.messages import JobSpec
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
    assert len(store.find()) == 6
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
        text = toml.replace("./walk.sh 0.5 {seed} {out}", command).replace("timeout = 60", "timeout = 1")
        (repository / "claims.toml").write_text(text)
        plans, verdicts = check(repository, store, (100,))
        assert words in plans[0].failure, command
        assert set(verdicts.values()) == {"not run"}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[repository]", "[repository", "not valid TOML"),
        ("{out}", "", "has no {out}"),
        ('metric = "late"', 'metrics = "late"', "a check has a metric"),
        ("at_least = 10", "at_least = 10, at_most = 2", "one of"),
        ('of = "tied"', 'of = "free"', "no command is given for the control free"),
        ('id = "C1"', 'id = ""', "id"),
        ("[[experiment]]", "[experiment]", "list of tables"),
    ],
)
def test_mistakes_in_the_file_are_named(repository, old, new, words):
    path = repository / "claims.toml"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError, match=words):
        load_repository(repository)


def test_a_folder_without_claims(tmp_path):
    with pytest.raises(InputError, match=r"no claims\.toml"):
        load_repository(tmp_path)


def test_a_draft_can_be_read(tmp_path):
    from broadsheet.cli.pages import DRAFT

    (tmp_path / "claims.toml").write_text(DRAFT.format(slug="x", arxiv="2501.00001", title=json.dumps('A "title"')))
    assert load_repository(tmp_path).facts["title"] == 'A "title"'
