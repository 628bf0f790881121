"""The examples in docstrings, run as they stand, each in a namespace of its module's names."""

import ast
import doctest
import importlib
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"


def examples():
    """(module, name, docstring, line) of each docstring with an example, from the text: decorators may hide the object."""
    for file in sorted(SOURCE.rglob("*.py")):
        if ">>> " not in file.read_text():
            continue
        module = ".".join(file.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ">>> " in (ast.get_docstring(node) or ""):
                name = getattr(node, "name", "")
                yield pytest.param(
                    module, name, ast.get_docstring(node), node.body[0].lineno, id=f"{module}.{name}".rstrip(".")
                )


FOUND = list(examples())


@pytest.mark.parametrize(("module", "name", "text", "line"), FOUND)
def test_example(module, name, text, line, home):
    names = dict(vars(importlib.import_module(module)))
    test = doctest.DocTestParser().get_doctest(text, names, f"{module}.{name}", module, line)
    assert test.examples
    said = []
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=said.append)
    assert result.failed == 0, "".join(said)


def test_the_first_things_that_a_reader_meets_have_one():
    named = {case.id for case in FOUND}
    for wanted in (
        "lab.verdicts.judge",
        "load",
        "dynamics.rollout.rollout",
        "networks.spikes.simulate",
        "atoms.potential.Potential",
        "atoms.motion.simulate",
    ):
        assert f"broadsheet.{wanted}" in named
