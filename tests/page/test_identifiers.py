"""Every spelling of an identifier is read as the same one, and nothing else is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadsheet.page.identifiers import ARCHIVES, doi, identifier

NEW = "2306.16922"


@pytest.mark.parametrize(
    "text",
    [
        "2306.16922", "2306.16922v2", "2306.16922V12", " 2306.16922\n", "arXiv:2306.16922", "ARXIV:2306.16922v1", "arxiv 2306.16922v2",
        "arXiv: 2306.16922", "arXiv:2306.16922v1 [cs.LG]", "arXiv:2306.16922 [cond-mat.mes-hall]", "<2306.16922>", '"2306.16922",',
        "https://arxiv.org/abs/2306.16922", "http://www.arxiv.org/abs/2306.16922v3", "arxiv.org/abs/2306.16922",
        "https://arxiv.org/pdf/2306.16922", "https://arxiv.org/pdf/2306.16922v2.pdf", "https://arxiv.org/pdf/2306.16922.pdf#page=3",
        "https://arxiv.org/html/2306.16922v1", "https://arxiv.org/html/2306.16922v1#S2.E1", "https://arxiv.org/format/2306.16922",
        "https://arxiv.org/abs/2306.16922?context=cs.NE", "https://arxiv.org/abs/2306.16922/", "HTTPS://ARXIV.ORG/ABS/2306.16922",
        "https://export.arxiv.org/abs/2306.16922v1", "https://de.arxiv.org/abs/2306.16922", "https://arxiv.org/e-print/2306.16922",
        "https://ar5iv.labs.arxiv.org/html/2306.16922", "https://www.alphaxiv.org/abs/2306.16922", "https://scirate.com/arxiv/2306.16922",
        "https://huggingface.co/papers/2306.16922", "https://huggingface.co/papers/2306.16922#community", "hf.co/papers/2306.16922",
        "https://api.semanticscholar.org/arXiv:2306.16922", "/papers/2306.16922", "http://127.0.0.1:8000/papers/2306.16922v2",
        "10.48550/arXiv.2306.16922", "10.48550/ARXIV.2306.16922", "doi:10.48550/arXiv.2306.16922", "DOI 10.48550/arXiv.2306.16922v2",
        "https://doi.org/10.48550/arXiv.2306.16922", "http://dx.doi.org/10.48550/arxiv.2306.16922", "doi.org/10.48550/arXiv.2306.16922",
        "https://doi.org/10.48550%2FarXiv.2306.16922", "oai:arXiv.org:2306.16922", "arxiv:２３０６.１６９２２", "2306.16922.",
    ],
)  # fmt: skip
def test_new_identifiers(text):
    assert identifier(text) == NEW


@pytest.mark.parametrize(
    "text",
    [
        "math/0309136", "math.GT/0309136", "math.gt/0309136v2", "MATH.GT/0309136", "arXiv:math.GT/0309136", "arxiv.org/abs/math/0309136",
        "https://arxiv.org/abs/math.GT/0309136v1", "https://arxiv.org/pdf/math/0309136v1.pdf", "https://arxiv.org/ps/math/0309136",
        "https://arxiv.org/abs/math%2F0309136", "10.48550/arXiv.math/0309136", "https://doi.org/10.48550/arxiv.math/0309136",
        "math/0309136 [math.GT]", "oai:arXiv.org:math/0309136",
    ],
)  # fmt: skip
def test_old_identifiers_without_their_subject_class(text):
    assert identifier(text) == "math/0309136"


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "v2", "arxiv", "arXiv:", "2306.169", "2306.169222", "2306,16922", "12306.16922", "2306.16922vv2", "2306.16922 and more",
        "dendrites 2306.16922", "papers/0309136", "mathematics/0309136", "math/03091", "math/03091361", "a/1234567",
        "https://arxiv.org/", "https://arxiv.org/list/cs.LG/2306", "https://arxiv.org/a/someone_x_1", "https://huggingface.co/papers",
        "10.1145/2363.2528", "https://dl.acm.org/doi/pdf/10.1145/2363.2528", "https://doi.org/10.1145/2363.2528",
        "10.1038/s41586-021-03819-2", "10.48550/arXiv.", "10.48550/2306.16922", "daily:2023-06-30", "arxiv:cat:cs.NE",
        "https://arxiv.org/abs/2306.16922/../x", "elm-neuron", "2306.16922" * 500,
    ],
)  # fmt: skip
def test_what_is_none(text):
    assert identifier(text) is None


def test_dois_of_others_are_known_as_such():
    assert doi("https://doi.org/10.1038/s41586-021-03819-2") == "10.1038/s41586-021-03819-2"
    assert doi("doi:10.1145/2363.2528.") == "10.1145/2363.2528"
    assert doi("https://arxiv.org/abs/2306.16922") is None


NUMBERS = st.one_of(
    st.from_regex(r"[0-9]{4}\.[0-9]{4,5}", fullmatch=True),
    st.builds("{}/{}".format, st.sampled_from(ARCHIVES), st.from_regex(r"[0-9]{7}", fullmatch=True)),
)
BEFORE = (
    "", "arXiv:", "arxiv ", "https://arxiv.org/abs/", "arxiv.org/pdf/", "http://export.arxiv.org/html/", "10.48550/arXiv.", "doi:10.48550/arXiv.",
    "https://doi.org/10.48550/arXiv.", "https://huggingface.co/papers/", "oai:arXiv.org:",
)  # fmt: skip


@given(NUMBERS, st.sampled_from(BEFORE), st.sampled_from(("", "v1", "v23")), st.sampled_from((str, str.upper, str.lower)))
def test_all_spellings_of_all_identifiers_are_one(number, before, version, case):
    assert identifier(case(f"{before}{number}{version}")) == number


@given(NUMBERS.filter(lambda number: "/" in number), st.sampled_from((".GT", ".gt", ".AP", ".mes-hall")))
def test_a_subject_class_is_no_part_of_it(number, subject):
    archive, digits = number.split("/")
    assert identifier(f"{archive}{subject}/{digits}") == number


@given(st.text(max_size=60))
def test_any_text_has_one_preferred_form_or_none(text):
    found = identifier(text)
    assert found is None or identifier(found) == found
