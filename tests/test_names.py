import re

from hypothesis import given
from hypothesis import strategies as st

from boxscore.names import LONGEST, legal

MLFLOW = re.compile(r"^[/\w.\- :]*$")


@given(st.text())
def test_any_text_becomes_a_piece_of_a_legal_name(text: str) -> None:
    name = legal(text)
    assert name
    assert len(name) <= LONGEST
    assert MLFLOW.match(name)
    assert "/" not in name
    assert ".." not in name
    assert name == name.strip(". ")


@given(st.text(), st.text())
def test_two_texts_do_not_meet_in_one_name(one: str, other: str) -> None:
    assert one == other or legal(one) != legal(other)


@given(st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,30}", fullmatch=True))
def test_what_is_legal_stays_as_it_is(text: str) -> None:
    assert legal(text) == text


def test_a_text_that_looks_like_another_ones_name_is_marked_too() -> None:
    assert legal(legal("a/b")) != legal("a/b")


def test_long_texts_that_differ_late_stay_apart() -> None:
    assert legal("x" * 300 + "a") != legal("x" * 300 + "b")
