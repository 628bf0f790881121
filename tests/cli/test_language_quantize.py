"""The verb that quantises a language model, on a folder and a file of texts; killed in its middle; and given what it cannot use."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, BertConfig, BertModel
from typer.testing import CliRunner

from broadsheet.cli.app import app
from broadsheet.errors import BroadsheetError, InputError
from broadsheet.language.architectures import Sizes, new_model
from broadsheet.language.compressed import weight_bytes
from broadsheet.language.models import load
from broadsheet.language.quantisation import perplexity, windows
from broadsheet.language.tiny_world import WORDS, World, tokenizer

SIZES = Sizes(words=len(WORDS), width=32, blocks=3, heads=4, positions=64, mlp=48)
OPTIONS = ("--length", 24, "--batch", 4, "--per", "group", "--group-size", 16)


def run(*arguments):
    found = CliRunner().invoke(app, ["language", "quantize", *map(str, arguments)])
    if found.exception is not None and not isinstance(found.exception, BroadsheetError | SystemExit):
        raise found.exception
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantize")
    new_model("llama", SIZES, seed=4).to(torch.bfloat16).save_pretrained(folder / "model")
    tokenizer().save_pretrained(folder / "model")
    rng = np.random.default_rng(3)
    (folder / "texts.txt").write_text("\n".join(World(0).document(rng) for _ in range(64)) + "\n")
    return folder


def test_a_folder_becomes_a_smaller_one_with_findings(place, home, tmp_path):
    out = tmp_path / "small"
    told = run(place / "model", "--calibrate", place / "texts.txt", "--out", out, "--bits", 4, "--iters", 3, *OPTIONS, "--json")
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    assert found == json.loads((out / "quantisation.json").read_text())
    assert (out / "quantisation.png").stat().st_size > 5000
    assert found["dtype"] == "bfloat16"  # the model's own
    assert found["scheme"]["group_size"] == 16
    small = AutoModelForCausalLM.from_pretrained(out)
    assert small.dtype == torch.bfloat16
    lines = (place / "texts.txt").read_text().splitlines()
    model, words = load(str(place / "model"), dtype=torch.bfloat16)
    held = windows(model, words, lines[7::8], 24)
    assert found["perplexity"]["before"] == pytest.approx(perplexity(model, held, batch=4))
    assert found["perplexity"]["after"] == pytest.approx(perplexity(small, held, batch=4), rel=1e-6)
    assert found["bytes"]["after"] == weight_bytes(out) < 0.8 * found["bytes"]["before"]
    assert found["bytes"]["before"] == pytest.approx(weight_bytes(place / "model"), rel=0.1)
    assert found["peak_mb"] > 100
    assert len(found["block_errors"]) == len(found["block_errors_nearest"]) == 3
    assert not list((home / "cache" / "quantize-unfinished").glob("*/"))
    with pytest.raises(InputError, match="is there already"):
        raise run(place / "model", "--calibrate", place / "texts.txt", "--out", out).exception


def test_what_was_killed_goes_on_to_the_same_end(place, home, tmp_path):
    asked = ["--calibrate", place / "texts.txt", "--iters", 40, *OPTIONS]
    command = [sys.executable, "-m", "broadsheet.cli", "language", "quantize", place / "model", *asked, "--out", tmp_path / "a"]
    process = subprocess.Popen([str(word) for word in command], env=os.environ | {"HF_HUB_OFFLINE": "1"})
    parts = home / "cache" / "quantize-unfinished"
    limit = time.monotonic() + 120
    while not list(parts.glob("*/block-0000.safetensors")):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < limit
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "a").exists()
    assert 1 <= len(list(parts.glob("*/block-*.safetensors"))) < 3
    for out in ("a", "b"):  # goes on, and begins anew
        assert run(place / "model", *asked, "--out", tmp_path / out).exit_code == 0
        assert not list(parts.glob("*/"))
    one, other = ((tmp_path / out / "model.safetensors").read_bytes() for out in ("a", "b"))
    assert one == other


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"--bits": 9}, "9 bits"),
        ({"--method": "best"}, "method 'best' is unknown"),
        ({"--per": "row"}, "per 'row'"),
        ({"--group-size": 20}, "cannot be divided into groups of 20"),
        ({"--dtype": "int3"}, "precision is 'int3'"),
        ({"--device": "nowhere"}, "no device 'nowhere'"),
        ({"--calibrate": "one.txt"}, "has 1 text, one a line; at least 16 are wanted: of 8 one is held out"),
        ({"--calibrate": "empty.txt"}, "0 texts"),
        ({"--calibrate": "none.txt"}, "no such file"),
        ({"MODEL": "gpt2"}, "is a Conv1D"),
        ({"MODEL": "few"}, "The tokenizer gives the token"),
        ({"MODEL": "nan"}, "hold NaN"),
        ({"MODEL": "empty"}, "cannot be loaded"),
        ({"MODEL": "encoder"}, "has no unembedding"),
    ],
)
def test_mistakes_get_a_sentence(change, said, place, home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.txt").write_text("the city of\n")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "empty").mkdir()
    name = change.get("MODEL", "model")
    if name == "encoder":
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        BertModel(BertConfig(vocab_size=len(WORDS), **sizes)).save_pretrained(tmp_path / name)
        tokenizer().save_pretrained(tmp_path / name)
    if name in ("gpt2", "few", "nan"):
        made = new_model(
            "gpt2" if name == "gpt2" else "llama", Sizes(words=20 if name == "few" else len(WORDS), width=16, blocks=1)
        )
        if name == "nan":
            made.lm_head.weight.data[0, 0] = torch.nan
        made.save_pretrained(tmp_path / name)
        tokenizer().save_pretrained(tmp_path / name)
    options = {
        "--calibrate": place / "texts.txt",
        "--out": "out",
        "--iters": 1,
        "--length": 24,
        "--per": "group",
        "--group-size": 16,
    }
    options |= {key: value for key, value in change.items() if key != "MODEL"}
    found = run(tmp_path / name if "MODEL" in change else place / "model", *(word for pair in options.items() for word in pair))
    assert isinstance(found.exception, BroadsheetError)
    assert said in str(found.exception)
    assert not (tmp_path / "out").exists()
