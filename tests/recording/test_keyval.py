from hypothesis import given, settings
from hypothesis import strategies as st

from retrograde.recording.keyval import join, split

keys = st.text(st.characters(exclude_characters="=,", exclude_categories=["Cs"]), min_size=1)
values = st.text(st.characters(exclude_categories=["Cs"]))


@settings(deadline=None)
@given(st.lists(st.tuples(keys, values), min_size=1).map(tuple))
def test_what_join_writes_split_reads(pairs):
    assert split(join(pairs)) == pairs


def test_implied_key_switches_and_doubled_commas():
    assert split("VGA,readonly,id=a,,b", "driver") == (
        ("driver", "VGA"),
        ("readonly", "on"),
        ("id", "a,b"),
    )


def test_the_implied_value_may_hold_doubled_commas():
    assert split("a,,b,c=d", "path") == (("path", "a,b"), ("c", "d"))


def test_without_implied_key_a_first_word_is_a_switch():
    assert split("menu,order=c") == (("menu", "on"), ("order", "c"))


def test_a_value_may_hold_equals_signs():
    assert split("string=a=b") == (("string", "a=b"),)


def test_empty_text_has_no_pairs():
    assert split("") == ()
