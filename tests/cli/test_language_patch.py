"""The verb that patches activations, on the tiny chain's shipped stages in folders."""

import csv
import json
from pathlib import Path

import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

from broadsheet.cli.app import app
from broadsheet.errors import BroadsheetError
from broadsheet.language import tiny_world as tiny
from broadsheet.language.architectures import Sizes, new_model
from broadsheet.language.tiny_model import tiny_model
from broadsheet.papers.post_training_reshapes import _tiny_pairs

SHIPPED = Path(__file__).parents[1] / "references" / "tiny_chain"
FORM = ("--question", " this statement is :", "--start", "<bos> ")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    for stage in ("base", "sft"):
        model = tiny_model(0)
        model.load_state_dict(load_file(SHIPPED / f"{stage}.safetensors"))
        model.save_pretrained(root / stage)
        tiny.tokenizer().save_pretrained(root / stage)
    with (root / "pairs.csv").open("w") as stream:
        rows = csv.writer(stream)
        rows.writerow(["true", "false"])
        rows.writerows((pair.true, pair.false) for pair in _tiny_pairs(tiny.World(0), 7))
        rows.writerow(["the city of city_1 is in city_object_1 .", "the city city_2 ."])
    return root


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("BROADSHEET_HOME", str(tmp_path / "home"))


def run(*words):
    """What is printed, and what is said beside it; a mistake, as the sentence that it gets."""
    found = CliRunner().invoke(app, ["language", "patch", *map(str, words)])
    if isinstance(found.exception, BroadsheetError):
        return "", str(found.exception)
    if found.exception is not None:
        raise found.exception
    return found.stdout, found.stderr


def test_base_and_post_are_patched_and_compared(folders, tmp_path):
    out = tmp_path / "found.json"
    said, beside = run(
        folders / "base", folders / "sft", "--pairs", folders / "pairs.csv", *FORM, "--control", "--out", out, "--json"
    )
    assert "1 have two statements of different numbers of tokens: left out" in beside
    found = json.loads(said)
    assert json.loads(out.read_text()) == found
    assert out.with_suffix(".png").stat().st_size > 10_000
    assert found["pairs"] == 5
    assert found["layers"] == [-1, 0, 1, 2]
    assert found["tokens"][3] == "[subject]"
    assert set(found["maps"]) == {
        name + suffix for name in ("base", "post", "base into post", "post into base") for suffix in ("", ", other statements")
    }
    base, other = found["maps"]["base"], found["maps"]["base, other statements"]
    assert base["unpatched"] < 0 < base["true_statement"]
    assert base["mean"][0][3] == pytest.approx(base["true_statement"], abs=1e-4)  # the subject is all that differs
    assert other["mean"][0][3] < base["mean"][0][3] - 2
    assert found["similarity"]["pearson"] > 0.5


def test_it_goes_on_where_it_was_stopped(folders, tmp_path, monkeypatch):
    from broadsheet.language import patching

    command = (folders / "base", "--pairs", folders / "pairs.csv", *FORM, "--block", 2, "--json")
    whole = json.loads(run(*command)[0])
    real, seen = patching.patch_models, []

    def stopping(models, pairs, *rest, **options):
        seen.append(len(pairs))
        if len(seen) == 2:
            raise RuntimeError("stopped")
        return real(models, pairs, *rest, **options)

    monkeypatch.setattr(patching, "patch_models", stopping)
    with pytest.raises(RuntimeError, match="stopped"):
        run(*command)
    again = json.loads(run(*command)[0])
    assert seen == [2, 3, 3]  # five pairs: the last one goes with those before it
    assert again == whole


def test_the_last_word_and_some_layers(folders, tmp_path):
    spoken = tmp_path / "spoken.jsonl"
    rows = [
        {kind: getattr(pair, kind).removesuffix(" .") for kind in ("true", "false")} for pair in _tiny_pairs(tiny.World(0), 6)
    ]
    spoken.write_text("".join(json.dumps(row) + "\n" for row in rows))
    said, _ = run(folders / "sft", "--pairs", spoken, "--start", "<bos> ", "--last-word", "--layers", "1,-1")
    assert "4 pairs" in said
    assert "in, after block 1" in said or "[subject], embedding" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--layers", "0,x"), "--layers '0,x': numbers of blocks"),
        (("--layers", "0,7"), "Block 7 does not exist; the model has 3"),
        (("--answers", "yes"), "two answers are wanted"),
        (("--out", "found.txt"), "findings are written as .json"),
        (("--dtype", "float8"), "The precision is 'float8'"),
        (("--device", "abacus"), "PyTorch has no device 'abacus'"),
        (("--limit", "3", "--question", " is this :"), "begin with the same token"),
    ],
)
def test_mistakes_get_a_sentence(words, message, folders):
    extra = () if "--question" in words else FORM
    if "same token" in message:
        words = (*words, "--answers", " TRUE, TRUE")
    assert message in run(folders / "base", "--pairs", folders / "pairs.csv", *extra, *words)[1]


def test_models_that_do_not_fit_each_other_get_a_sentence(folders, tmp_path):
    for name, width in (("wide", 32), ("foreign", 64)):
        new_model("llama", Sizes(words=len(tiny.WORDS), width=width, blocks=3)).save_pretrained(tmp_path / name)
        tiny.tokenizer().save_pretrained(tmp_path / name)
    table = json.loads((tmp_path / "foreign" / "tokenizer.json").read_text())
    ids = table["model"]["vocab"]
    ids["city"], ids["the"] = ids["the"], ids["city"]
    (tmp_path / "foreign" / "tokenizer.json").write_text(json.dumps(table))
    pairs = ("--pairs", folders / "pairs.csv", *FORM)
    assert (
        "width 64 and 12 tokens cannot be put into a run of 3 blocks, width 32"
        in run(folders / "base", tmp_path / "wide", *pairs)[1]
    )
    assert "make different tokens of the statements" in run(folders / "base", tmp_path / "foreign", *pairs)[1]
    (tmp_path / "one.csv").write_text("true,false\na city .,the city .\n")
    assert "1 pair of statements; 2 serve as labelled examples" in run(folders / "base", "--pairs", tmp_path / "one.csv")[1]
    (tmp_path / "empty.csv").write_text("")
    assert "has the columns none" in run(folders / "base", "--pairs", tmp_path / "empty.csv")[1]
