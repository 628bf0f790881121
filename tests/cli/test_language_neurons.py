"""`broadsheet language neurons` on folders, against the functions it stands on."""

import json

import pytest
import torch

from broadsheet.cli import main
from broadsheet.language.architectures import Sizes, new_model
from broadsheet.language.feature_neurons import agreement, decode_neurons, find_neurons
from broadsheet.language.tiny_world import IDS, WORDS, tokenizer


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = []
    for k in range(2):
        folder = tmp_path_factory.mktemp(f"model{k}")
        new_model("qwen2", Sizes(words=len(WORDS), width=16, blocks=2, mlp=24), seed=k).save_pretrained(folder)
        tokenizer().save_pretrained(folder)
        made.append(folder)
    return made


def run(monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["broadsheet", "language", "neurons", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_neurons_are_found_clamped_and_compared(folders, home, tmp_path, monkeypatch, capsys):
    one, two = folders
    (tmp_path / "texts.txt").write_text("the city of city_1\n")
    code = run(monkeypatch, one, "--token", "city_object_2", "--top", 3, "--prompt", "the city of city_3 is in", "--clamp", 1,
               "--controls", 2, "--values", "0,5", "--texts", tmp_path / "texts.txt", "--against", two,
               "--out", tmp_path / "found.json", "--json")  # fmt: skip
    assert not code
    said = json.loads(capsys.readouterr().out)
    wanted = find_neurons(one, IDS["city_object_2"], k=3)
    assert [(row["layer"], row["neuron"]) for row in said["neurons"]] == [(each.layer, each.neuron) for each in wanted]
    assert said["clamps"][0]["values"] == [0.0, 5.0]
    assert len(said["side_effects"]) == 2
    assert said["agreement"] == agreement(decode_neurons(one), decode_neurons(two))[0]
    assert json.loads((tmp_path / "found.json").read_text())["neurons"] == said["neurons"]
    assert (tmp_path / "found.png").stat().st_size > 1000
    assert not list((home / "cache" / "neurons-unfinished").glob("*/"))
    assert not run(monkeypatch, one, "--token", "city_object_2", "--site", "down", "--norm", "cosine")
    assert "neuron" in capsys.readouterr().out


def test_an_interrupted_search_goes_on_behind_the_last_layer(folders, home, monkeypatch, capsys):
    import broadsheet.language.feature_neurons as room

    done = []

    def stopping(weights, directions, chosen, site, layer, *rest):
        done.append(layer)
        if len(done) == 2:
            raise KeyboardInterrupt
        return made(weights, directions, chosen, site, layer, *rest)

    made = room._token_layer
    monkeypatch.setattr(room, "_token_layer", stopping)
    assert run(monkeypatch, folders[0], "--token", "city_object_2", "--json") not in (0, None)
    capsys.readouterr()
    assert not run(monkeypatch, folders[0], "--token", "city_object_2", "--json")
    assert done == [0, 1, 1]
    wanted = find_neurons(folders[0], IDS["city_object_2"])
    assert [row["neuron"] for row in json.loads(capsys.readouterr().out)["neurons"]] == [each.neuron for each in wanted]


def test_mistakes_end_with_one_sentence(folders, home, tmp_path, monkeypatch, capsys):
    one = folders[0]
    (tmp_path / "empty.txt").write_text("\n")
    small = tmp_path / "small"
    new_model("llama", Sizes(words=20, width=16, blocks=1)).save_pretrained(small)
    tokenizer().save_pretrained(small)
    gptneox = tmp_path / "neox"
    new_model("gpt_neox", Sizes(words=len(WORDS), width=16, blocks=1)).save_pretrained(gptneox)
    tokenizer().save_pretrained(gptneox)
    experts = tmp_path / "experts"
    new_model("mixtral", Sizes(words=len(WORDS), width=16, blocks=1), num_local_experts=2).save_pretrained(experts)
    tokenizer().save_pretrained(experts)
    broken = new_model("llama", Sizes(words=len(WORDS), width=16, blocks=1))
    with torch.no_grad():
        broken.model.layers[0].mlp.up_proj.weight[0, 0] = torch.nan
    broken.save_pretrained(tmp_path / "broken")
    tokenizer().save_pretrained(tmp_path / "broken")
    token = ("--token", "city_object_2")
    for words, wanted in (
        ((one, "--token", "two words"), "No token is 'two words'"), ((small, *token), "is outside the vocabulary"),
        ((one, *token, "--values", "a"), "--values a"), ((one, *token, "--values", "nan"), "finite numbers"),
        ((one, *token, "--against", one), "same model"), ((one, *token, "--out", "a.txt"), "written as .json"),
        ((one, *token, "--texts", tmp_path / "empty.txt"), "goes with --prompt"), ((one, *token, "--hold", "x"), "--hold is 'x'"),
        ((one, *token, "--prompt", "the", "--texts", tmp_path / "empty.txt"), "has 0 texts"),
        ((tmp_path / "none", *token), "no such folder"), ((gptneox, *token, "--site", "gate"), "have no gate"),
        ((experts, *token), "has no MLP with separate maps"), ((tmp_path / "broken", *token), "hold NaN"),
        ((one, *token, "--norm", "x"), "norm is 'x'"), ((one, *token, "--prompt", ""), "no token"),
    ):  # fmt: skip
        assert run(monkeypatch, *words) == 2, words
        said = capsys.readouterr().err.strip().splitlines()
        assert wanted in said[-1]
        assert len([line for line in said if line.startswith("broadsheet:")]) == 1
