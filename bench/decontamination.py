"""Training documents that share 8-grams with evaluation prompts: ours, a plain scan, a dictionary of n-grams, lm-eval's Janitor."""

import resource
import time
from collections import defaultdict

import numpy as np

from harness import Comparison

N, THRESHOLD, WORDS = 8, 0.5, 200_000


def texts(case):
    """Documents and prompts of words drawn by Zipf's law; every fiftieth document has a prompt in it, whole or by half."""
    rng = np.random.default_rng(0)
    share = np.cumsum(1 / np.arange(1, WORDS + 1))
    words = np.array([f"w{k}" for k in range(WORDS)], dtype=object)

    def text(count):
        return " ".join(words[np.searchsorted(share, rng.random(count) * share[-1])])

    prompts = [text(rng.integers(20, 100)) for _ in range(case["prompts"])]
    documents = []
    for k in range(case["documents"]):
        made = text(rng.integers(40, 200))
        if k % 50 == 0:
            parts = prompts[rng.integers(len(prompts))].split()
            made += " " + " ".join(parts if k % 100 else parts[: len(parts) // 2])
        documents.append(made)
    return documents, prompts


def shape(documents, prompts, scanned):
    return {"documents": documents, "prompts": prompts, "scanned": scanned}


comparison = Comparison(
    "Decontamination: documents that hold evaluation prompts",
    {
        "2000 documents, 500 prompts": shape(2000, 500, 2000),
        "20 000 documents, 20 000 prompts": shape(20_000, 20_000, 40),
        "10 000 documents (of 10^6), 100 000 prompts": shape(10_000, 100_000, 5),
    },
    text="8-grams of words drawn by Zipf's law from 200 000, documents of 40 to 200 words, prompts of 20 to 100; every fiftieth document "
    "holds a prompt or the half of one. A run makes what is asked of the prompts and passes all documents by. Plain scan: each document's set of "
    "n-grams beside each prompt's; where that takes hours it passes some documents by and its time is multiplied. Dictionary: from n-gram to "
    "places in plain Python. These two part words at spaces alone; ours reads lower-cased words and signs. Janitor, of lm-eval, is its Python form: it finds documents with an n-gram of any prompt, and no pairs or overlaps. "
    "*A million documents* is what the index, once made, takes for as many.",
    agree={"pairs": 0.0, "matches": 0.0, "overlap": 1e-9, "items": 0.0},
    shown={"documents_a_second": "documents a second", "million": "a million documents (s)", "index_seconds": "index (s)"},
    turns=3,
)  # fmt: skip


def overlap(places, length):
    """The share of a prompt that n-grams at these places mark."""
    return len({at + k for at in places for k in range(N)}) / length


def summary(pairs, documents, begin, indexed, end):
    """Values of a run from (document, overlap) of its pairs and the times at which it began, had the index and ended."""
    return {
        "pairs": len(pairs),
        "matches": sum(share > THRESHOLD for _, share in pairs),
        "overlap": sum(share for _, share in pairs),
        "items": len({item for item, _ in pairs}),
        "documents_a_second": documents / (end - indexed),
        "million": 1e6 * (end - indexed) / documents,
        "index_seconds": indexed - begin,
        "seconds": end - begin,
    }


@comparison.side("broadsheet")
def broadsheet(case, given):
    from broadsheet.language.ngram_index import Overlaps, PromptIndex

    documents, prompts = texts(case)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def run():
        begin = time.perf_counter()
        index = PromptIndex([[prompt] for prompt in prompts], N)
        indexed = time.perf_counter()
        found = Overlaps.joined(list(index.search([document] for document in documents)))
        end = time.perf_counter()
        pairs = list(zip(found.items.tolist(), found.overlaps.tolist(), strict=True))
        more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        return {**summary(pairs, len(documents), begin, indexed, end), "more_mb": more}

    return run


def grams(text):
    parts = text.split()
    return [tuple(parts[k : k + N]) for k in range(len(parts) - N + 1)], len(parts)


@comparison.side("plain scan")
def plain(case, given):
    documents, prompts = texts(case)
    some = documents[: case["scanned"]]

    def run():
        begin = time.perf_counter()
        asked = [(grams(prompt), set(grams(prompt)[0])) for prompt in prompts]
        indexed = time.perf_counter()
        pairs = []
        for item, document in enumerate(some):
            there = set(grams(document)[0])
            for (known, length), distinct in asked:
                if not distinct.isdisjoint(there):
                    pairs.append((item, overlap([k for k, gram in enumerate(known) if gram in there], length)))
        end = indexed + (time.perf_counter() - indexed) * len(documents) / len(some)
        made = summary(pairs, len(documents), begin, indexed, end)
        whole = ("pairs", "matches", "overlap", "items")
        return made if len(some) == len(documents) else {name: made[name] for name in made if name not in whole}

    return run


@comparison.side("dictionary")
def dictionary(case, given):
    documents, prompts = texts(case)

    def run():
        begin = time.perf_counter()
        places, lengths = defaultdict(list), []
        for number, prompt in enumerate(prompts):
            known, length = grams(prompt)
            lengths.append(length)
            for k, gram in enumerate(known):
                places[gram].append((number, k))
        indexed = time.perf_counter()
        pairs = []
        for item, document in enumerate(documents):
            found = defaultdict(list)
            for gram in set(grams(document)[0]):
                for number, k in places.get(gram, ()):
                    found[number].append(k)
            pairs += [(item, overlap(at, lengths[number])) for number, at in found.items()]
        return summary(pairs, len(documents), begin, indexed, time.perf_counter())

    return run


@comparison.side("lm-eval Janitor", environment="lmeval", packages=("lm-eval",))
def janitor(case, given):
    import importlib.util
    from pathlib import Path

    place = (
        Path(importlib.util.find_spec("lm_eval").origin).parent / "decontamination" / "janitor.py"
    )  # without the package's imports
    spec = importlib.util.spec_from_file_location("janitor", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    documents, prompts = texts(case)

    def run():
        begin = time.perf_counter()
        made = module.Janitor(N, window_to_remove=0, minimum_slice_length=0)
        for prompt in prompts:
            made.register_contaminant_python(prompt)
        indexed = time.perf_counter()
        items = sum(made.clean_python(document) != [document] for document in documents)
        end = time.perf_counter()
        values = summary([], len(documents), begin, indexed, end)
        return {name: values[name] for name in ("documents_a_second", "million", "index_seconds", "seconds")} | {"items": items}

    return run
