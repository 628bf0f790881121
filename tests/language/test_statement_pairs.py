"""Pairs of statements: how they are matched, read and made into prompts."""

import json

import pytest

from broadsheet.errors import DataError, InputError
from broadsheet.language import tiny_world as tiny
from broadsheet.language.statement_pairs import Pair, Question, match_statements, read_statement_pairs, tokenize_pairs

WORLD = tiny.World(0)
ASKED = Question(" this statement is :", start="<bos> ", between=" ")
OBJECTS = WORLD.objects["city"]


@pytest.fixture(scope="module")
def words():
    return tiny.tokenizer()


def pair(a, b):
    return Pair(WORLD.statement("city", a), WORLD.statement("city", b, int(OBJECTS[a] - OBJECTS[b]) % tiny.OBJECTS))


PAIRS = [pair(a, b) for a in range(4) for b in range(6, 9) if OBJECTS[a] != OBJECTS[b]]


def test_statements_are_matched_by_their_shape_and_last_word(words):
    said = [
        ("the city of city_1 is in city_object_1", True),
        ("the city of city_2 is in city_object_1", False),
        ("the city of city_3 is in city_object_1", False),
        ("the city of city_4 is in city_object_1", True),
        ("the city of city_5 is in city_object_1", True),
        ("the city of city_6 is in city_object_2", True),
        ("the animal animal_1 is a animal_object_1", True),
        ("the person animal_1 is a animal_object_1 .", False),
    ]
    found, left_out = match_statements(*zip(*said, strict=True), words)
    last, first = said[2][0], said[1][0]
    assert found == [Pair(said[0][0], last), Pair(said[3][0], first), Pair(said[4][0], first)]
    assert left_out == {"have another shape than most": 2, "are true and end on a word on which no false one ends": 1}


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl"])
def test_files_of_pairs_and_of_labelled_statements(ending, words, tmp_path):
    def written(rows):
        path = tmp_path / f"pairs{ending}"
        between = "\t" if ending == ".tsv" else ","
        lines = [json.dumps(row) for row in rows] if ending == ".jsonl" else [between.join(rows[0])]
        lines += [] if ending == ".jsonl" else [between.join(map(str, row.values())) for row in rows]
        path.write_text("\n".join(lines) + "\n")
        return read_statement_pairs(path, words)

    assert written([{"true": p.true, "false": p.false} for p in PAIRS]) == (PAIRS, {})
    a, b = PAIRS[0], PAIRS[1]
    both = [{"statement": s, "label": label} for p in (a, b) for s, label in ((p.true, 1), (p.false, 0))]
    assert written(both)[0] == [Pair(a.true, b.false), Pair(b.true, a.false)]  # all end on a period here
    named = [{"id": "x", "statement": a.true, "label": 1}, {"id": "x", "statement": a.false, "label": 0}]
    found, left_out = written([*named, {"id": "y", "statement": b.true, "label": 1}])
    assert found == [a]
    assert left_out == {"ids have no true and false statement, one each": 1}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "claim,truth\nx,1\n", "has the columns claim, truth; true and false, or statement and label, are wanted"),
        ("a.csv", "", "has the columns none"),
        ("a.csv", "true,false\na b .,\n", "line 2: 'false' holds no text"),
        ("a.csv", "statement,label\nthe city,yes\n", "line 2: the label is 'yes'; 1"),
        ("a.csv", "statement,label\nthe city,1\n", "has no pair of a true and a false statement: 1 are true and end"),
        ("a.jsonl", '{"true": "a"}\n[1]\n', "line 2: a JSON object a line is wanted"),
        ("a.txt", "a\n", r"are read from \.csv, \.tsv and \.jsonl"),
    ],
)
def test_bad_files_are_refused(name, text, message, words, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises((DataError, InputError), match=message):
        read_statement_pairs(tmp_path / name, words)


def test_prompts_have_columns_from_the_statement_on(words):
    [prompts], left_out = tokenize_pairs(words, PAIRS, question=ASKED)
    assert not left_out
    assert len(prompts) == len(PAIRS) - 2
    assert prompts.columns == 12
    assert prompts.names == (
        "the", "city", "of", "[subject]", "is", "in", "[object]", ".", "this", "statement", "is", ":",
    )  # fmt: skip
    assert prompts.answers == (tiny.IDS["TRUE"], tiny.IDS["FALSE"])
    assert prompts.different.sum(0).tolist() == [0, 0, 0, len(prompts), *[0] * 8]
    starts = set()
    for row, made in enumerate(PAIRS[2:]):
        text = tiny.decode(prompts.true[row])
        assert text.startswith("<bos> the city of")
        assert text.endswith(f"{made.true} this statement is :")
        assert tiny.decode(prompts.false[row]).endswith(f"{made.false} this statement is :")
        assert (text.count("TRUE"), text.count("FALSE")) == (2, 2)
        starts.add(text.split(made.true)[0])
    assert len(starts) > 1  # the examples are in another order
    assert len(prompts[1:3]) == 2
    shifted = prompts.with_other_sources()
    assert (shifted.true[0] == prompts.true[1]).all()
    assert (shifted.false == prompts.false).all()


def test_without_a_question_the_last_word_is_left_out(words):
    spoken = [Pair(p.true.removesuffix(" ."), p.false.removesuffix(" .")) for p in PAIRS]
    form = Question(asked=False, start="<bos> ", between=" ")
    [prompts], _ = tokenize_pairs(words, spoken, question=form)
    assert prompts.names == ("the", "city", "of", "[subject]", "is", "in")
    assert prompts.answers is None
    assert [tiny.WORDS[k] for k in prompts.objects] == [p.true.split()[-1] for p in spoken[2:]]
    assert "FALSE" not in tiny.decode(prompts.true[0])
    assert prompts[:2].objects.tolist() == prompts.objects[:2].tolist()


def test_pairs_that_do_not_fit_are_counted(words):
    long, other = Pair(PAIRS[2].true, "the city city_9 ."), Pair(PAIRS[2].true, PAIRS[2].true.replace(" .", " ?"))
    same = Pair(PAIRS[2].true, PAIRS[2].true)
    groups, left_out = tokenize_pairs(words, [*PAIRS[:4], long, other, same], question=ASKED)
    assert [len(group) for group in groups] == [2]
    assert left_out == {
        "have two statements of different numbers of tokens": 1,
        "have two statements with different last words": 1,
        "have the same statement twice": 1,
    }
    animal = Pair("the animal animal_1 is a animal_object_1 .", "the animal animal_2 is a animal_object_1 .")
    groups, _ = tokenize_pairs(words, [*PAIRS[:4], animal], question=ASKED)
    assert [(len(group), group.columns) for group in groups] == [(2, 12), (1, 11)]
    with pytest.raises(InputError, match="2 pairs of statements; 2 serve as labelled examples"):
        tokenize_pairs(words, PAIRS[:2], question=ASKED)
    with pytest.raises(InputError, match="No pair of statements remains: 1 have the same"):
        tokenize_pairs(words, [*PAIRS[:2], same], question=ASKED)
    with pytest.raises(InputError, match="begin with the same token"):
        tokenize_pairs(words, PAIRS, question=Question(" this statement is :", " TRUE a", " TRUE b", between=" "))
