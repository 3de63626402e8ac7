import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boxscore import CATALOGUE, Identity, keys
from boxscore.keys import LONGEST, Key, legal, parse, spell

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


TEXTS = st.text() | st.sampled_from([
    *("test", "train", "a-test", "test-train", "x-test-night", "v1.2", "coco_2017", "bccd-test a"),
    *("../../etc", "<script>", "a/b", "7f3a2c", "7f3a2c0b11d4", "naïve 😀", "train 12ab", "x" * 99),
])  # fmt: skip
SPLITS = st.sampled_from(["train", "test"]) | TEXTS.map(keys.further_split)
GROUPS = st.builds(
    lambda algorithm, size: Identity(algorithm, size).group,
    TEXTS.filter(lambda text: text.split() != []),
    st.sampled_from(["640x640", "800x1333"]),
)
MEASURES = st.sampled_from(list(CATALOGUE))
FINGERPRINTS = TEXTS.map(keys.word) | st.from_regex(r"[0-9a-f]{12}", fullmatch=True)
PARTS = st.one_of(
    st.builds(
        lambda kind, measure, group, split: Key(kind, measure, group=group, split=split),
        st.sampled_from(["loss", "native"]),
        MEASURES | TEXTS.map(legal),
        GROUPS,
        SPLITS,
    ),
    st.builds(
        lambda measure, dataset, split, fingerprint: Key(
            "metric", measure, "", legal(dataset), split, keys.short(fingerprint)
        ),
        MEASURES,
        TEXTS,
        SPLITS,
        FINGERPRINTS,
    ).flatmap(
        lambda parts: (
            st.just(parts)
            | TEXTS.map(lambda name: replace(parts, kind="per class", class_name=legal(name)))
        )
    ),
    st.builds(Key, st.sampled_from(["progress", "summary"]), MEASURES.map("best_{}".format)),
)


@given(PARTS)
def test_a_key_is_read_back_as_it_was_spelled(parts: Key) -> None:
    assert parse(spell(parts)) == parts


@given(PARTS)
def test_a_key_is_legal_in_both_trackers(parts: Key) -> None:
    spelled = spell(parts)
    assert MLFLOW.match(spelled)
    assert len(spelled) <= 250
    assert spelled.count("/") == 1


@given(PARTS, PARTS)
def test_two_series_never_share_a_key(one: Key, other: Key) -> None:
    assert one == other or spell(one) != spell(other)


@given(TEXTS, TEXTS)
def test_two_fingerprints_of_users_never_share_a_word(one: str, other: str) -> None:
    words = keys.word(one), keys.word(other)
    assert one == other or words[0] != words[1]


def test_what_is_no_key_is_refused() -> None:
    for text in (
        "loss",
        "loss A 1x1/total",
        "eval/box_AP",
        "per class a-test 1/box_AP",
        "metric a/x",
    ):
        with pytest.raises(ValueError, match="no key"):
            parse(text)
