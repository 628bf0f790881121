"""What the official program of arXiv 2411.15124 (Apache-2.0) says of generated answers, and of overlaps of generated prompts.

PEER bench/references_verifiers.py OFFICIAL PAPER

in an environment with numpy, sympy, antlr4-python3-runtime==4.11 and langdetect. OFFICIAL is a checkout of github.com/allenai/open-instruct
(e6c3044), PAPER one of 9c2d44bec, the state of the paper's runs, which `gsm8k` follows. What they say is kept as
tests/references/post_training/verifiers.json: for each answer 0 or 1, or E where the program raises. The answers themselves are made anew,
by `cases`, wherever they are compared. Elasticsearch and spaCy, which the decontamination asks, are replaced by a plain scan
and by our rule for tokens.
"""

import hashlib
import importlib
import json
import logging
import random
import re
import sys
import types
from pathlib import Path

OUT = Path(__file__).parent.parent / "tests" / "references" / "post_training" / "verifiers.json"
COUNT = 1000
HOSTILE = ["", " ", "\n", "$", "$$", "\\", "{", "}", "((((", "</think>", "<|assistant|>", "\x00", "é", "٣", "５", "-", ".", ",", "\\boxed",
           "\\boxed{", "\\boxed ", "\\fbox{1}", "[", "<<", "*", '"', "******", "I hope it is correct."]  # fmt: skip


def sums(draw: random.Random) -> tuple[str, str]:
    """An answer with numbers in it, and a label."""

    def number() -> str:
        digits = str(draw.randint(0, 10 ** draw.randint(1, 7)))
        form = draw.choice(
            [
                "{}",
                "{}",
                "-{}",
                "+{}",
                "{}.0",
                ".{}",
                "-.{}",
                "{}.5",
                "+{}.25",
                "${}",
                "{}%",
                "{}.",
                "1,{}",
                "{},",
                "{}e3",
                "--{}",
                "10-{}",
                "{}/2",
            ]
        )
        text = form.format(digits)
        return f"{int(digits):,}" if draw.random() < 0.2 else text

    parts = [
        draw.choice(["so", "The answer is", "=", "####", "left", *HOSTILE]) if draw.random() < 0.6 else number()
        for _ in range(draw.randint(1, 7))
    ]
    text = draw.choice([" ", " ", "", "\n"]).join(parts)
    found = re.findall(r"[-+]?\d*\.?\d+", text.replace(",", ""))
    label = (
        draw.choice([found[-1], found[-1].lstrip("-+"), found[0]])
        if found and draw.random() < 0.85
        else draw.choice([number(), text.upper(), "NONE"])
    )
    return text, label


def mathematics(draw: random.Random) -> tuple[str, str]:
    """An answer in mathematics, in one of the forms in which it is looked for, and a label that is often equal to it."""

    def expression(depth: int) -> tuple[str, str]:
        """Two spellings of one value."""
        if depth == 0 or draw.random() < 0.3:
            plain = draw.choice(
                [
                    str(draw.randint(0, 99)),
                    "x",
                    "y",
                    "\\pi",
                    f"{draw.randint(0, 9)}.{draw.randint(1, 99)}",
                    f"1{draw.randint(100, 999)}",
                ]
            )
            other = f"1,{plain[1:]}" if len(plain) == 4 and plain.isdigit() else plain + "0" if "." in plain else plain
            return plain, other
        one, two = expression(depth - 1), expression(depth - 1)
        kind = draw.randrange(8)
        return [
            (f"{one[0]}+{two[0]}", f"{two[1]}+{one[1]}"),
            (f"{one[0]}-({two[0]})", f"-({two[1]})+{one[1]}"),
            (f"({one[0]})({two[0]})", f"({two[1]}) \\cdot ({one[1]})"),
            (f"\\frac{{{one[0]}}}{{{two[0]}}}", f"({one[1]})/({two[1]})"),
            (f"({one[0]})^2", f"({one[1]})({one[1]})"),
            (f"\\sqrt{{{one[0]}}}", f"\\sqrt{{{one[1]}}}"),
            (f"\\sqrt{{{one[0]}}}", f"({one[1]})^{{\\frac{{1}}{{2}}}}"),
            (f"\\left({one[0]}\\right)", f"({one[1]})"),
        ][kind]

    said, label = expression(draw.choice([0, 0, 1, 1, 2]))
    special = draw.random()
    if special < 0.25:
        said, label = draw.choice(SPELLINGS)
        said, label = draw.choice([(said, label), (label, said)])
    elif special < 0.4:
        label = expression(draw.choice([0, 1]))[0]
    elif special < 0.5:
        label = said
    form = draw.choice(["\\boxed{%s}", "So $\\boxed{%s}$.", "\\boxed %s$", "\\boxed{1} or \\boxed{%s}", "\\fbox{%s}", "Final Answer: The final answer is %s. I hope it is correct.",
                        "Final Answer: The final answer is $%s$. I hope it is correct.", "It is $%s$", "$1$ and $%s$", "It is $%s", "%s", "x = %s", "%s", "\\boxed{%s", "Final Answer: The final answer is %s",
                        "$%s$.", "<think>\\boxed{3}</think> %s", "Final Answer: The final answer is\n%s. I hope it is correct."])  # fmt: skip
    return form % said + (draw.choice(HOSTILE) if draw.random() < 0.15 else ""), label


SPELLINGS = [
    ("0.5", "\\frac{1}{2}"), ("0.5", "\\frac12"), (".5", "0.5"), ("1/2", "\\frac{1}{2}"), ("3 \\text{ cm}", "3"), ("3\\text{ cm}", "3"), ("12\\%", "12"), ("90^\\circ", "90"),
    ("\\$5", "5"), ("1,000", "1000"), ("1,2", "2,1"), ("1,2", "1,3"), ("(1,2)", "(1, 2)"), ("[2,5)", "[2,5]"), ("x=5", "5"), ("xy=5", "5"), ("\\text{even}", "even"), ("\\text{Even}", "\\text{even}"),
    ("\\dfrac{3}{4}", "\\tfrac34"), ("\\sqrt3", "\\sqrt{3}"), ("2\\sqrt{2}", "\\sqrt{8}"), ("\\sqrt{4}", "2"), ("\\infty", "\\infty"), ("-\\infty", "\\infty"), ("7)", "7"), ("2+", "2"), ("5.", "5"),
    ("\\sin^2 x+\\cos^2 x", "1"), ("\\sin(2x)", "2\\sin x\\cos x"), ("\\log 8", "3\\log 2"), ("e^{2}", "e^2"), ("|x|", "x"), ("3!", "6"), ("\\binom{5}{2}", "10"), ("\\frac", "1"), ("\\sqrt", "1"),
    ("a/b", "a/b"), ("a/b", "\\frac{a}{b}"), ("1/2/3", "\\frac{1}{6}"), ("x^2-1", "(x-1)(x+1)"), ("x(x+1)", "x^2+x"), ("f(x)", "f(x)"), ("\\begin{pmatrix}1\\end{pmatrix}", "\\begin{pmatrix} 1 \\end{pmatrix}"),
    ("100000", "100,000"), ("10^{5}", "100000"), ("2^{10}", "1024"), ("x_1", "x_{1}"), ("ab", "ba"), ("\\text{no}", "\\text{on}"), ("1\\frac{1}{2}", "\\frac{3}{2}"), ("3 x 4", "12"), ("5 and 6", "5,6"), ("5 \\text{ and } 6", "5,6"),
    ("0.333", "\\frac{1}{3}"), ("x\\in[1,2]", "[1,2]"), ("\\frac{\\sqrt{3}}{3}", "\\frac{1}{\\sqrt{3}}"), ("\\{1,2\\}", "\\{2,1\\}"), ("\\emptyset", "\\emptyset"), ("1+2i", "2i+1"), ("\\pm 2", "2"), ("", ""), ("5\\,", "5"), ("5 dollars", "5"),
    ("\\left\\{1\\right\\}", "1"), ("\\lfloor 2.5 \\rfloor", "2"), ("\\overline{x}", "x"), ("\\frac{1}{0}", "\\frac{2}{0}"), ("0^0", "1"), ("\\ln e", "1"), ("\\log_2 8", "3"), ("\\lim_{x\\to 0} x", "0"), ("\\sum_{k=1}^{3} k", "6"), ("\\int_0^1 x dx", "\\frac{1}{2}"),
]  # fmt: skip
"""Pairs that one way of comparing or another takes for equal."""

WORDS = [
    "the",
    "of",
    "a",
    "Sentence",
    "word",
    "TITLE",
    "NASA",
    "Dr.",
    "e.g.",
    "poem",
    "of",
    "joy,",
    "end.",
    "why?",
    "yes!",
    "No",
    "hello",
    "well",
    "keyword",
    "kitten",
    "SOS",
]
MARKS = [
    "\n",
    "\n\n",
    "* * *",
    "- point",
    "* point",
    "*bold*",
    "[name]",
    "<<title>>",
    "******",
    "P.S.",
    "P.P.S. more",
    ",",
    '"',
    "SECTION 1",
    "{",
    "}",
    "*",
    "</think>",
    "<answer>",
    "</answer>",
    "[",
    "]",
    "<<",
    ">>",
]


def prose(draw: random.Random) -> str:
    """A text with marks in it that constraints look for."""
    shape = draw.random()
    if shape < 0.08:
        return draw.choice([*HOSTILE, '{"a": [1, 2]}', "[1, 2", "NaN", '"quoted"', "A\n******\nB", "A******A", "12", "null"])
    parts = [draw.choice(MARKS if draw.random() < 0.35 else WORDS) for _ in range(draw.randint(1, 25))]
    text = draw.choice([" ", " ", "\n"]).join(parts)
    return draw.choice([text, text, text, text.upper(), text.lower(), f'"{text}"'])


SPOKEN = {
    "en": "The children went to the market in the morning because they wanted to buy some fresh bread and apples.",
    "de": "Die Kinder gingen am Morgen auf den Markt, weil sie frisches Brot und einige Äpfel kaufen wollten.",
    "fr": "Les enfants sont allés au marché le matin parce qu'ils voulaient acheter du pain frais et des pommes.",
    "es": "Los niños fueron al mercado por la mañana porque querían comprar pan fresco y algunas manzanas.",
    "ru": "Дети пошли утром на рынок, потому что они хотели купить свежий хлеб и несколько яблок.",
}
KINDS = ["verify_keywords", "verify_keyword_frequency", "validate_forbidden_words", "verify_letter_frequency", "validate_response_language",
         "verify_paragraph_count", "validate_word_constraint", "verify_sentence_constraint", "validate_paragraphs", "verify_postscript",
         "validate_placeholders", "verify_bullet_points", "validate_title", "validate_choice", "validate_highlighted_sections",
         "validate_sections", "validate_json_format", "validate_repeat_prompt", "validate_two_responses", "validate_uppercase",
         "validate_lowercase", "validate_frequency_capital_words", "validate_end", "validate_quotation", "validate_no_commas"]  # fmt: skip


def constrained(draw: random.Random, number: int) -> tuple[str, dict]:
    """An answer and a constraint, each kind in turn."""
    kind, text = KINDS[number % len(KINDS)], prose(draw)
    answer = text.replace("<|assistant|>", "").split("</think>")[-1].strip()
    some = draw.sample(WORDS, 2)
    count, quantifier = draw.randint(0, 4), draw.choice(["at least", "around", "at most"])
    given: dict = {
        "verify_keywords": {"keyword_list": draw.choice([some, some[:1], []])},
        "verify_keyword_frequency": {"word": some[0], "N": draw.randint(0, 2)},
        "validate_forbidden_words": {"forbidden_words": some},
        "verify_letter_frequency": {
            "letter": draw.choice("aeoS,"),
            "N": draw.choice([answer.count("a"), answer.count("e"), count]),
        },
        "verify_paragraph_count": {"N": draw.choice([answer.count("* * *") + 1, count])},
        "validate_word_constraint": {"N": len(answer.split()) + draw.randint(-2, 2), "quantifier": quantifier},
        "verify_sentence_constraint": {"N": draw.randint(1, 6), "quantifier": quantifier},
        "validate_paragraphs": {
            "N": answer.count("\n\n") + 1,
            "first_word": draw.choice([answer[:3], some[0], ""]),
            "i": draw.randint(1, answer.count("\n\n") + 1),
        },
        "verify_postscript": {"postscript_marker": draw.choice(["P.S.", "P.P.S"])},
        "validate_placeholders": {"N": draw.randint(0, 3)},
        "verify_bullet_points": {"N": draw.randint(0, 3)},
        "validate_choice": {"options": draw.choice([some, ["yes!", "No"]])},
        "validate_highlighted_sections": {"N": draw.randint(0, 3)},
        "validate_sections": {"N": count, "section_splitter": draw.choice(["SECTION", "*", "Section"])},
        "validate_repeat_prompt": {"original_prompt": draw.choice([answer[:5], some[0]])},
        "validate_frequency_capital_words": {"N": draw.randint(0, 12), "quantifier": quantifier},
        "validate_end": {"end_phrase": draw.choice([answer[-4:], some[0]])},
    }.get(kind, {})
    if kind == "validate_response_language":
        spoken = draw.choice(list(SPOKEN))
        text, given = SPOKEN[spoken], {"language": draw.choice([spoken, spoken, *SPOKEN])}
    return text, {"func_name": kind, **given}


def cases(name: str) -> list[tuple[str, object]]:
    """Answers and labels for a verifier, always the same."""
    draw = random.Random(f"{name} cases")
    if name == "ifeval":
        return [constrained(draw, number) for number in range(COUNT)]
    return [(mathematics if name == "math" else sums)(draw) for _ in range(COUNT)]


def prompts(count: int, words: int, name: str) -> list[list[str]]:
    """Prompts of few words, of one or two fields, so that n-grams come again."""
    draw = random.Random(f"{name} prompts")
    return [
        [" ".join(f"w{draw.randrange(words)}" for _ in range(draw.randint(1, 30))) for _ in range(draw.choice([1, 1, 2]))]
        for _ in range(count)
    ]


def digest(values: object) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


def stub(name: str, **values: object) -> types.ModuleType:
    made = types.ModuleType(name)
    made.__getattr__ = lambda attribute: types.SimpleNamespace  # type: ignore[method-assign]
    vars(made).update(values)
    sys.modules[name] = made
    return made


def official(folder: Path):
    """The program's verifiers, without what they don't need here."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "open_instruct"]:
        del sys.modules[name]
    made = stub("open_instruct")
    made.__path__ = [str(folder / "open_instruct")]
    for name in (
        "logger_utils",
        "context_window_checker",
        "judge_utils",
        "IFEvalG",
        "rubrics",
        "utils",
        "rubrics.prompts",
        "rubrics.run_utils",
    ):
        setattr(made, name.partition(".")[0], stub(f"open_instruct.{name}", setup_logger=logging.getLogger))
    stub("requests")
    return importlib.import_module("open_instruct.ground_truth_utils")


def answer(call, text: str, label: object) -> str:
    try:
        return str(int(bool(call(text, label))))
    except Exception:
        return "E"


def overlaps(folder: Path) -> list[list]:
    """(item, prompt, overlap) of the program's own n-gram match, with a plain scan in Elasticsearch's place."""
    token = re.compile(r"\w+|[^\w\s]")
    items, asked = prompts(200, 3, "train"), prompts(60, 3, "eval")

    class Token:
        def __init__(self, text, i):
            self.text, self.i = text, i

    class Doc(list):
        text = property(lambda self: " ".join(each.text for each in self))

        def __getitem__(self, at):
            return Doc(super().__getitem__(at)) if isinstance(at, slice) else super().__getitem__(at)

    turns = [(item, f" {' '.join(token.findall(turn.lower()))} ") for item, some in enumerate(items) for turn in some]

    class Index:
        def search(self, query, **_):
            phrase = query["bool"]["filter"][0]["match_phrase"]["text"]
            hits = [
                {"_id": k, "_source": {"original_id": item}} for k, (item, turn) in enumerate(turns) if f" {phrase} " in turn
            ]
            return {"hits": {"total": len(hits), "hits": hits}}

    stub("spacy", load=lambda name: lambda text: Doc(Token(each, i) for i, each in enumerate(token.findall(text.lower()))))
    for name in ("torch", "elasticsearch", "transformers", "datasets", "yaml"):
        stub(name)
    stub("tqdm", tqdm=lambda rows: rows)
    sys.path.insert(0, str(folder / "decontamination"))
    search = importlib.import_module("search")
    found = []
    for number, fields in enumerate(asked):
        row = {str(k): text for k, text in enumerate(fields)}
        _, _, best = search.ngram_match(Index(), "", [row], list(row), 8, 10**6)
        found += [[item, number, score] for item, score in sorted(best.items())]
    return sorted(found)


def verdicts(name: str, root: Path) -> dict[str, str]:
    """What the program at `root` says of all cases of a verifier."""
    module = official(root)
    call = {
        "gsm8k": lambda text, label: module.verify_gsm8k_sample(text, label),
        "gsm8k_signed": lambda text, label: module.GSM8KVerifier()([], text, label).score,
        "math": lambda text, label: module.MathVerifier()([], text, label).score,
        "ifeval": lambda text, label: module.IFEvalVerifierOld()([], text, json.dumps(label)).score,
    }[name]
    some = cases(name)
    said = "".join(answer(call, text, label) for text, label in some)
    print(name, len(some), said.count("1"), "right", said.count("E"), "errors", flush=True)
    return {"cases": digest(some), "said": said}


def main(folder: Path, paper: Path) -> None:
    made: dict[str, object] = {
        name: verdicts(name, paper if name == "gsm8k" else folder) for name in ("gsm8k", "gsm8k_signed", "math", "ifeval")
    }
    made["overlaps"] = overlaps(folder)
    print("overlaps", len(made["overlaps"]))
    OUT.write_text(json.dumps(made) + "\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
