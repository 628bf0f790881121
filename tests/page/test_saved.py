import calendar
from datetime import date
from pathlib import Path

import pytest

from broadsheet.errors import DataError
from broadsheet.page import saved
from broadsheet.page.saved import parse_page, read_page

REAL = Path(__file__).parents[3] / "shared" / "page" / "daily-papers.txt"
LONG = "An abstract that goes on for a while. " * 10
PAGE = f"""new

Get trending papers in your email inbox!

Daily Papers

byAK and the research community

Dec 11

Learning with α and J/Ψ: a $\\Psi$ story

{LONG}

  • 8 authors
·
Nov 25, 2022

A paper without authors

{LONG}

Another one

{LONG}

  • 1 authors
·
Apr 3 12

The last

{LONG}

  • 23 authors
·
Dec 12
"""
TODAY = date(2026, 1, 20)


def test_dates_years_comments_and_missing_lines():
    page = parse_page(PAGE, "page", None, TODAY)
    assert page.as_of == date(2025, 12, 11)
    assert [paper.title for paper in page.papers] == [
        "Learning with α and J/Ψ: a $\\Psi$ story", "A paper without authors", "Another one", "The last",
    ]  # fmt: skip
    assert [paper.published for paper in page.papers] == ["2022-11-25", None, "2025-04-03", "2024-12-12"]
    assert [paper.authors for paper in page.papers] == [8, None, 1, 23]
    assert [paper.comments for paper in page.papers] == [None, None, 12, None]
    assert all(paper.abstract == LONG.strip() for paper in page.papers)


def test_the_pages_own_date_decides_the_year():
    assert parse_page(PAGE, "page", date(2023, 12, 11), TODAY).papers[2].published == "2023-04-03"
    assert parse_page(PAGE, "page", None, date(2025, 12, 10)).as_of == date(2024, 12, 11)
    assert parse_page(PAGE.replace("Dec 11", "Dec 11, 2021", 1), "page", None, TODAY).as_of == date(2021, 12, 11)


def test_leap_days():
    text = PAGE.replace("Apr 3 12", "Feb 29")
    assert parse_page(text, "page", date(2025, 12, 11), TODAY).papers[2].published == "2024-02-29"
    with pytest.raises(DataError, match="no date"):
        parse_page(PAGE.replace("Apr 3 12", "Feb 30"), "page", None, TODAY)


def test_every_cut_is_noticed_or_ends_an_entry():
    """Cut anywhere: an error of one sentence, or whole entries only."""
    whole = parse_page(PAGE, "page", None, TODAY).papers
    for length in range(0, len(PAGE), 7):
        try:
            cut = parse_page(PAGE[:length], "page", None, TODAY).papers
        except DataError as error:
            assert "\n" not in str(error)
        else:
            assert [p.title for p in cut] == [p.title for p in whole[: len(cut)]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"\n \n", "empty"),
        (b"just some text\nof two lines\n", "not a saved Daily Papers page"),
        (bytes(range(256)), "UTF-8"),
        (PAGE.encode("utf-16"), "UTF-8"),
        (PAGE.encode("latin-1", "replace").replace(b"?", b"\xe9"), "UTF-8"),
        (b"\x89PNG\r\n\x1a\n\0\0", "UTF-8"),
        (b"x" * (50 * 2**20), "at most 8 MiB"),
    ],
)
def test_wrong_files_get_one_sentence(tmp_path, content, words):
    path = tmp_path / "page.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        read_page(path)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not REAL.exists(), reason="the real page is not in this checkout")
def test_the_real_page():
    page = read_page(REAL, date(2025, 12, 11))
    assert len(page.papers) == 42
    assert sum(paper.published is not None for paper in page.papers) == 41
    assert sum(paper.authors is not None for paper in page.papers) == 41
    assert {paper.title[:12]: paper.comments for paper in page.papers if paper.comments} == {
        "TÜLU 3: Push": 3, "Visual Jigsa": 2, "Jointly Rein": 1,
    }  # fmt: skip
    by_title = {paper.title: paper for paper in page.papers}
    assert by_title["Cybloids - Creation and Control of Cybernetic Colloids"].published == "2024-08-01"
    assert by_title["Visual Jigsaw Post-Training Improves MLLMs"].published == "2025-09-29"
    assert by_title["Dale meets Langevin: A Multiplicative Denoising Diffusion Model"].authors is None
    assert all(len(paper.abstract) > 200 for paper in page.papers)


@pytest.mark.parametrize("year", [1896, 1900, 1904, 2000, 2023, 2024, 2100, 2400])
def test_leap_years_are_those_of_the_calendar(year):
    assert saved._leap(year) is calendar.isleap(year)


def test_a_leap_day_may_be_eight_years_ago():
    """1900 had none: before 29 February 1904 the last one was in 1896."""
    found = saved.DATE.fullmatch("Feb 29")
    assert saved.resolve_date(found, date(1904, 2, 28)) == date(1896, 2, 29)
    assert saved.resolve_date(found, date(1904, 2, 29)) == date(1904, 2, 29)
    assert saved.resolve_date(saved.DATE.fullmatch("Mar 1"), date(2025, 3, 1)) == date(2025, 3, 1)
    assert saved.resolve_date(saved.DATE.fullmatch("Mar 2"), date(2025, 3, 1)) == date(2024, 3, 2)
    assert saved.resolve_date(saved.DATE.fullmatch("Mar 2, 2031"), date(2025, 3, 1)) == date(2031, 3, 2)


def entry(title, abstract=LONG, tail="• 8 authors\n·\nNov 25, 2022\n"):
    return f"{title}\n{abstract}\n{tail}"


def test_titles_at_their_limit_and_abstracts_of_several_lines():
    """A line starts a new entry where it is shorter than 300 characters and the one before it is not."""
    page = parse_page("Dec 11, 2024\n" + entry("x" * 300), "page", None, TODAY)
    assert (page.papers[0].title, page.year_was_given) == ("x" * 300, True)
    with pytest.raises(DataError, match="too long for a title"):
        parse_page("Dec 11\n" + entry("x" * 301), "page", None, TODAY)
    for length, count in ((299, 1), (300, 2)):
        page = parse_page("Dec 11\n" + entry("One", f"{'x' * length}\nTwo\n{LONG}"), "page", None, TODAY)
        assert len(page.papers) == count
        assert page.year_was_given is False
    page = parse_page("Dec 11\n" + entry("One", f"{'x' * 300}\n{'y' * 300}"), "page", None, TODAY)
    assert [paper.abstract for paper in page.papers] == [f"{'x' * 300} {'y' * 300}"]
    assert parse_page("Dec 11\n" + entry("One"), "page", date(2020, 1, 1), TODAY).year_was_given is True


def test_a_second_day_on_a_page_and_lines_that_are_out_of_place():
    text = (
        "Dec 11, 2024\n"
        + entry("One", tail="• 8 authors\n·\nNov 25\n")
        + "Dec 10, 2020\n"
        + entry("Two", tail="• 1 author\n·\nDec 10 3\n")
    )
    page = parse_page(text, "page", None, TODAY)
    assert [(paper.published, paper.comments) for paper in page.papers] == [("2024-11-25", None), ("2020-12-10", 3)]
    assert page.as_of == date(2020, 12, 10)
    for wrong, said in (
        ("Dec 11\n• 8 authors\n·\nNov 25", "stands where a title is wanted"),
        ("Dec 11\n" + entry("One", tail="• 8 authors\nNov 25\nmore"), "stands where the date of 'One' is wanted"),
        ("Dec 11\n" + entry("One", tail="• 8 authors\n·\nFoo 25"), "stands where the date of 'One' is wanted"),
        ("Dec 11\n" + entry("One", tail="• 8 authors\n·"), "ends in the middle of an entry"),
        ("Foo 11\n" + entry("One"), "no date of its own"),
        ("Dec 11 5\n" + entry("One", tail="• 8 authors"), "no date of its own"),
        ("Dec 11\nOne\n" + LONG, "no line of authors"),
        (entry("One", tail="• 8 authors") + "Dec 11", "no date of its own"),
    ):
        with pytest.raises(DataError, match=said):
            parse_page(wrong, "page", None, TODAY)
