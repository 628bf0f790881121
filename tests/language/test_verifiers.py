"""Verifiers: the registry, the card's traps, the official program's verdicts on a thousand answers each, and hostile texts."""

import importlib.util
import json
import re
import time
import types
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broadsheet.errors import InputError
from broadsheet.language.verifiers import constraints, names, registry, verifier, verifier_of, verify
from broadsheet.language.verifiers.ifeval import loosened, without_thinking
from broadsheet.language.verifiers.latex import Reader, same_value, value_at
from broadsheet.language.verifiers.mathematics import answers

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def official():
    """Generated answers and labels, and what the official program says of each, by verifier."""
    spec = importlib.util.spec_from_file_location("references_verifiers", ROOT / "bench" / "references_verifiers.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    said = json.loads((ROOT / "tests/references/post_training/verifiers.json").read_text())

    def of(name):
        cases = made.cases(name)
        assert made.digest(cases) == said[name]["cases"]
        return [(text, label, theirs) for (text, label), theirs in zip(cases, said[name]["said"], strict=True)]

    return of


def apart(name, cases):
    """(text, label, what the official program says) where it says something else."""
    return [(text, label, theirs) for text, label, theirs in cases if verify(name, text, label) != float(theirs)]


@pytest.mark.parametrize("name", ["gsm8k", "gsm8k_signed"])
def test_numbers_are_judged_as_by_the_official_program(official, name):
    assert not apart(name, official(name))


def test_constraints_are_judged_as_by_the_official_program_but_for_empty_answers(official):
    cases = official("ifeval")
    differing = apart("ifeval", cases)
    assert len(differing) == 5
    assert all(theirs == "1" and not without_thinking(text) for text, _, theirs in differing)


def test_mathematics_is_judged_as_by_the_official_program_but_for_what_is_explained(official):
    def left_over(text):
        """Whether SymPy's reader stops before the end and takes what it has: `7)` is 7, `1,2` is 1."""
        try:
            Reader(text).whole()
        except InputError as error:
            return "left over" in str(error) or "in place of" in str(error)
        return False

    differing = apart("math", official("math"))
    reasons = {"left over": 0, "limits and integrals": 0, "rounded": 0}
    for text, label, theirs in differing:
        found = [*answers(text), label]
        if theirs == "0":  # 1333 - 8.27 is not 1324.73 in floating point
            assert re.search(r"\d\.\d", label)
            reasons["rounded"] += 1
        elif any(re.search(r"\\(lim|int|sum)", part) for part in found):
            reasons["limits and integrals"] += 1
        else:
            assert any(map(left_over, found)), (text, label)
            reasons["left over"] += 1
    assert reasons == {"left over": 11, "limits and integrals": 5, "rounded": 2}


@pytest.mark.parametrize(
    ("text", "label", "right"),
    [
        ("10-7", "7", 1),
        ("-7", "-7", 0),
        ("-7", "7", 1),
        ("It is -3.5", "-3.5", 1),
        ("42.0", "42", 0),
        ("= +7", "7", 1),
        ("+7.5", "7.5", 0),
        ("1,234", "1234", 1),
        ("1,2,3", "3", 1),  # a comma is taken away once for each digit before it: 12,3
        ("first 3 then 4.", "4", 1),
        ("4 then 3", "4", 0),
        (".5", ".5", 1),
        ("5.", "5", 1),
        ("$18", "18", 1),
        ("18%", "18", 1),
        ("7e3", "3", 1),
        ("None", "none", 1),
        ("no number", "no number", 1),
        ("", "", 1),
        ("٣", "٣", 1),
        ("1/2", "2", 1),
        ("7", 7, 1),
        ("7.5", 7.5, 1),
    ],
)
def test_the_last_number_is_the_answer(text, label, right):
    assert verify("gsm8k", text, label) == right


def test_the_present_form_keeps_the_sign():
    assert verify("gsm8k_signed", "-7", "-7") == 1
    assert verify("gsm8k_signed", "10-7", "7") == 0


@pytest.mark.parametrize(
    ("text", "label", "right"),
    [
        (r"\boxed{1} and so \boxed{\frac{1}{2}}", "0.5", 1),  # the last one counts
        (r"\boxed{\frac{1}{2}} and \boxed{1}", "0.5", 0),
        (r"\boxed{2}. Final Answer: The final answer is 3. I hope it is correct.", "3", 1),
        ("Final Answer: The final answer is $x=3$. I hope it is correct.", "3", 1),
        ("Final Answer: The final answer is 3", "3", 0),  # the sign before the phrase is taken away, here the 3
        (r"$1$, $2$ and so $\sqrt{9}$.", "3", 1),
        ("x = 3", "3", 1),
        ("the answer is 3", "3", 0),
        (r"\boxed{3", "3", 0),
        (r"\boxed 3$ so", "3", 1),
        (r"\fbox{3}", r"\fbox{3}", 1),  # what is in it is not read, the whole text is
        (r"\boxed{12\%}", "12", 1),
        (r"\boxed{90^\circ}", "90", 1),
        (r"\boxed{(1, 2)}", "(1,2)", 1),
        (r"\boxed{1,2}", "1,3", 0),  # the official program: 1, as both begin with 1
        (r"\boxed{x(x+1)}", "x^2+x", 0),  # x(x+1) is a function called x
        (r"\boxed{(x+1)x}", "x^2+x", 1),
        (r"\boxed{\text{on}}", r"\text{no}", 1),  # products of letters, as there
        (r"\boxed{\infty}", r"\infty", 1),
        (r"\boxed{9^{9^{9^9}}}", "3", 0),
        (r"\boxed{5}", 5, 1),
    ],
)
def test_mathematical_answers(text, label, right):
    assert verify("math", text, label) == right


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"\sin^2 x+\cos^2 x", "1"),
        (r"\sin^{-1} 1", r"\arccos 0"),
        (r"\log_2 8", "3"),
        (r"\sin a \cdot \sin b", r"\sin b \cdot \sin a"),
        (r"\cos 2 \cdot x", r"\cos(2x)"),
        (r"\lg 1000", "3"),
        (r"\ln(e)", r"\log e"),
        (r"\exp(2)\exp 3", r"\exp(5)"),
        (r"\arsinh x", r"\ln(x+\sqrt{x^2+1})"),
        (r"\frac12 3", "1.5"),
        (r"2^{10}", "1,024"),
        (r"-2^2", "-4"),
        ("1/2x", r"\frac{1}{2x}"),
        ("3 x 4", "12"),
        ("5!", "120"),
        (r"\binom{5}{2}", "10"),
        (r"\lfloor 2.5 \rfloor + \lceil 2.5 \rceil", "5"),
        (r"|-3||x|", "3|x|"),
        (r"\sqrt[3]{8}", "2"),
        (r"\sqrt{3+2\sqrt{2}}", r"1+\sqrt{2}"),
        ("x_1", "x_{1}"),
        ("f'(x,2)", "f'(x, 1+1)"),
        (r"\overline{\overline{x}}", "x"),
        ("10^{60}+1", "1" + "0" * 59 + "1"),
    ],
)
def test_expressions_of_one_value(one, other):
    assert same_value(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"\sqrt{x^2}", "x"),
        ("|x|", "x"),
        ("10^{60}+1", "10^{60}"),
        ("0.333333333333", r"\frac{1}{3}"),
        (r"\pi", "3.14159265358979"),
        ("7)", "7"),
        ("1,2", "1"),
        (r"\frac{1}{0}", r"\frac{1}{0}"),
        ("x=1", "x=1"),
        (r"\log 8", r"\lg 8"),
        ("f(x)", "f(y)"),
        ("x_1", "x_2"),
        ("", ""),
    ],
)
def test_expressions_of_different_values_or_none(one, other):
    assert not same_value(one, other)


numbers = st.integers(-20, 20)
expressions = st.deferred(
    lambda: st.one_of(
        numbers.map(lambda k: ("n", k)),
        st.sampled_from("xyz").map(lambda name: ("s", name)),
        st.tuples(st.sampled_from(["+", "*", "-", "/"]), expressions, expressions),
        st.tuples(st.just("^"), expressions, st.integers(0, 3)),
        st.tuples(st.sampled_from(["sin", "cos", "sqrt"]), expressions),
    )
)


def in_sympy(tree):
    import sympy

    kind, *parts = tree
    if kind == "n":
        return sympy.Integer(parts[0])
    if kind == "s":
        return sympy.Symbol(parts[0])
    values = [in_sympy(part) if isinstance(part, tuple) else part for part in parts]
    return {
        "+": lambda a, b: a + b, "*": lambda a, b: a * b, "-": lambda a, b: a - b, "/": lambda a, b: a / b,
        "^": lambda a, b: a**b, "sin": sympy.sin, "sqrt": sympy.sqrt, "cos": sympy.cos,
    }[kind](*values)  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(expressions)
def test_values_are_those_of_sympy_where_it_prints_what_is_read(tree):
    """SymPy's own printer and numbers, at the values that are drawn for the symbols."""
    import sympy

    made = in_sympy(tree)
    shown = sympy.latex(made, mul_symbol="dot")
    found = value_at(shown, 0)
    if found is None or made.has(sympy.zoo, sympy.nan, sympy.I) or abs(found) > 1e100:
        return
    values = {symbol: sympy.sympify(value_at(symbol.name, 0)) for symbol in made.free_symbols}
    theirs = complex(made.evalf(20, subs=values, maxn=200))
    ours = complex(found)
    assert abs(ours - theirs) <= 1e-9 * max(1, abs(theirs)), shown


def test_loose_verification_leaves_out_lines_and_asterisks():
    wanted = {"func_name": "validate_quotation"}
    assert verify("ifeval", 'Sure:\n"quoted"', wanted) == 0
    assert verify("ifeval_loose", 'Sure:\n"quoted"', wanted) == 1
    assert verify("ifeval_loose", 'Sure:\n**"quoted"**\nBye', wanted) == 1
    assert verify("ifeval_loose", 'Well\nSure:\n"quoted"', wanted) == 0
    assert set(loosened("a\n*b*\nc")) == {
        "a\n*b*\nc", "a\nb\nc", "*b*\nc", "b\nc", "a\n*b*", "a\nb", "*b*", "b",
    }  # fmt: skip


def test_thinking_is_not_judged():
    wanted = json.dumps({"func_name": "validate_lowercase", "N": None})
    assert verify("ifeval", "<think>WHAT</think> HOW </think> <answer>so</answer>", wanted) == 1
    assert verify("ifeval", "so</think>", wanted) == 0  # nothing is left


def test_all_constraints_of_the_data_are_there():
    assert len(constraints.CONSTRAINTS) == 25


LABELS = {
    "exact": ["x"],
    "gsm8k": ["7"],
    "gsm8k_signed": ["7"],
    "math": ["7", r"\frac{1}{2}", "x" * 1000],
    "ifeval": [
        {"func_name": "verify_keywords", "keyword_list": ["a", "b" * 1000]},
        {"func_name": "verify_keyword_frequency", "word": "a", "N": 3},
        {"func_name": "validate_forbidden_words", "forbidden_words": ["a"]},
        {"func_name": "verify_letter_frequency", "letter": "a", "N": 3},
        {"func_name": "validate_response_language", "language": "en"},
        {"func_name": "verify_paragraph_count", "N": 3},
        {"func_name": "validate_word_constraint", "N": 3, "quantifier": "around"},
        {"func_name": "verify_sentence_constraint", "N": 3, "quantifier": "at least"},
        {"func_name": "validate_paragraphs", "N": 3, "first_word": "a", "i": 7},
        {"func_name": "verify_postscript", "postscript_marker": "P.S."},
        {"func_name": "validate_placeholders", "N": 3},
        {"func_name": "verify_bullet_points", "N": 3},
        {"func_name": "validate_title"},
        {"func_name": "validate_choice", "options": ["a", "b"]},
        {"func_name": "validate_highlighted_sections", "N": 3},
        {"func_name": "validate_sections", "N": 3, "section_splitter": "a"},
        {"func_name": "validate_json_format"},
        {"func_name": "validate_repeat_prompt", "original_prompt": "a"},
        {"func_name": "validate_two_responses"},
        {"func_name": "validate_uppercase"},
        {"func_name": "validate_lowercase"},
        {"func_name": "validate_frequency_capital_words", "N": 3, "quantifier": "at most"},
        {"func_name": "validate_end", "end_phrase": "a"},
        {"func_name": "validate_quotation"},
        {"func_name": "validate_no_commas"},
    ],
}
LABELS["ifeval_loose"] = LABELS["ifeval"]
HOSTILE = [
    "7", "a", "[", "<", "<<", "*", "<<>", "1,", "1.", ".", "-", "\\boxed{", "\\boxed ", "}", "{", "$", "$x", "=", "(", "{\"a\":", "\n", "a\n",
    "Final Answer: The final answer is", " I hope it is correct", "</think>", "<answer>", "\\frac", "\\sqrt", "A", "A1", "a.a ", "Dr. ", "\\text{", "a ",
    "x@", "http://", "* * *", "é", "٣", "\x00", "\ud800",
]  # fmt: skip


SLOW = ("7", "[", "<<", "*", "1,", "\\boxed{", "{", "$x", "Final Answer: The final answer is", "\\text{", "x@")


@pytest.mark.parametrize("piece", HOSTILE, ids=[ascii(piece) for piece in HOSTILE])
def test_no_text_takes_long_or_raises(piece):
    """A million characters made of one piece, for those that make a careless search slow; a tenth as many for the others."""
    text = piece * ((10**6 if piece in SLOW else 10**5) // len(piece))
    for name, labels in LABELS.items():
        for label in labels if piece in ("[", "<<") else labels[:2]:
            start = time.process_time()
            assert verify(name, text, label) in (0.0, 1.0)
            assert time.process_time() - start < 2.5, (name, label)


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(
        st.text(max_size=80),
        st.lists(
            st.sampled_from(
                [
                    *HOSTILE,
                    "^",
                    "_",
                    "!",
                    "|",
                    "9",
                    "x",
                    "\\sin",
                    "\\log",
                    "\\exp",
                    "\\tan",
                    "+",
                    ")",
                    "/",
                    "\\binom{",
                    "\\lfloor",
                    "'",
                ]
            ),
            max_size=120,
        ).map("".join),
    ),
    st.sampled_from(["7", "x^2", "\\frac12"]),
)
def test_any_text_has_a_verdict(text, label):
    for name in ("exact", "gsm8k", "gsm8k_signed", "math"):
        assert verify(name, text, label) in (0.0, 1.0)
    start = time.process_time()
    assert verify("math", f"\\boxed{{{text}}}", label) in (0.0, 1.0)
    assert time.process_time() - start < 1
    for label in LABELS["ifeval"]:
        assert verify("ifeval", text, label) in (0.0, 1.0)


@pytest.mark.parametrize(
    ("name", "label", "said"),
    [
        ("nothing", "7", "no verifier called 'nothing'; there are "),
        ("gsm8k", None, "label of a sum is None"),
        ("math", ["7"], "label of a mathematical answer"),
        ("math", "7" * 1001, "1001 characters"),
        ("ifeval", "not JSON", "is no JSON"),
        ("ifeval", "[" * 100_000, "is no JSON"),
        ("ifeval", {"N": 3}, "an object with func_name"),
        ("ifeval", {"func_name": "validate_rhyme"}, "no constraint 'validate_rhyme'"),
        ("ifeval", {"func_name": "validate_title", "N": 3}, "takes no arguments; the label has N"),
        ("ifeval", {"func_name": "verify_bullet_points"}, "takes N; the label has none"),
        ("ifeval", {"func_name": "verify_bullet_points", "N": "3"}, "N is '3'"),
        ("ifeval", {"func_name": "verify_bullet_points", "N": True}, "N is True"),
        ("ifeval", {"func_name": "verify_keywords", "keyword_list": [1]}, "keyword_list is"),
        ("ifeval", {"func_name": "validate_end", "end_phrase": 1}, "end_phrase is 1"),
        ("ifeval", {"func_name": "verify_letter_frequency", "letter": "ab", "N": 1}, "one character"),
        ("ifeval", {"func_name": "validate_word_constraint", "N": 1, "quantifier": "near"}, "quantifier is 'near'"),
        ("ifeval", {"func_name": "validate_sections", "N": 1, "section_splitter": ""}, "splitter is empty"),
    ],
)
def test_a_label_that_is_none_is_the_datas_fault(name, label, said):
    with pytest.raises(InputError, match=re.escape(said)):
        verify(name, "a text", label)


@pytest.fixture
def registered(monkeypatch):
    names()
    kept = {name: check for name, check in registry._verifiers.items() if name != "palindrome"}  # the guide's own example
    monkeypatch.setattr(registry, "_verifiers", kept)


def test_verifiers_of_others_are_asked_by_name(registered, monkeypatch):
    @verifier("palindrome")
    def palindrome(text, label):
        return text == text[::-1]

    assert verify("palindrome", "otto", None) == 1.0
    assert "palindrome" in names()
    assert verifier("palindrome")(palindrome) is palindrome  # again is no mistake
    point = types.SimpleNamespace(name="halves", value="other:halves", load=lambda: lambda text, label: 0.5)
    monkeypatch.setattr(
        registry.importlib.metadata, "entry_points", lambda group, name=None: [point] if name in (None, "halves") else []
    )
    assert verify("halves", "x", "y") == 0.5
    assert "halves" in names()

    def missing():
        raise ImportError("no module other")

    broken = types.SimpleNamespace(name="broken", value="other:broken", load=missing)
    monkeypatch.setattr(registry.importlib.metadata, "entry_points", lambda group, name=None: [broken])
    with pytest.raises(InputError, match="'broken' of other:broken cannot be loaded"):
        verifier_of("broken")


def test_mistakes_of_those_who_add_a_verifier(registered):
    with pytest.raises(InputError, match="@verifier needs a name"):
        verifier(lambda text, label: 1.0)
    with pytest.raises(InputError, match=r"called with \(text, label\)"):
        verifier("one")(lambda text: 1.0)
    with pytest.raises(InputError, match="'gsm8k' is broadsheet"):
        verifier("gsm8k")(lambda text, label: 1.0)
    for k, value in enumerate([2.0, -0.1, float("nan"), None, "much"]):
        verifier(f"wrong{k}")(lambda text, label, value=value: value)
        with pytest.raises(InputError, match=r"a number in \[0, 1\] is wanted"):
            verify(f"wrong{k}", "x", "y")
