"""Commands that papers, the front page and the guide name, through the command line's own parser."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from broadsheet.cli.app import app
from broadsheet.lab.registry import entries

ROOT = Path(__file__).parents[2]
VERBS = {(entry.slug, verb) for entry in entries().values() for verb in entry.facts.get("verbs", ())}
WRITTEN = {
    (path.name, line.strip())
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "rooms").glob("*.md"))
    for line in re.findall(
        r"^(?: {4})?broadsheet (?:atoms|language|matter|networks|neurons|recordings) .*$", path.read_text(), re.MULTILINE
    )
}


def parsed(command):
    """Parses a command as a shell would, without running it."""
    words = shlex.split(command, comments=True)
    assert words.pop(0) == "broadsheet"
    asked = typer.main.get_command(app)
    context = asked.make_context("broadsheet", words)
    while hasattr(asked, "resolve_command"):
        name, asked, words = asked.resolve_command(context, [*context._protected_args, *context.args])
        context = asked.make_context(name, words, parent=context)


@pytest.mark.parametrize(("where", "command"), sorted(VERBS | WRITTEN))
def test_a_command_that_is_shown_parses(where, command):
    parsed(command)


def test_the_parser_refuses_what_does_not_parse():
    assert len({slug for slug, _ in VERBS}) > 10
    with pytest.raises(Exception, match="Missing parameter: potential"):
        parsed("broadsheet atoms md STRUCTURES.xyz MODEL")
    with pytest.raises(Exception, match="unexpected extra argument"):
        parsed("broadsheet atoms outliers new.xyz train.xyz --reference train.xyz")
