import json
import math

from hypothesis import given
from hypothesis import strategies as st

from broadsheet.lab.metrics import add_run, finite, from_json, table_from_json, table_to_json, to_json

names = st.text(max_size=5)
arms = st.dictionaries(names, st.dictionaries(names, st.floats()))


@given(st.dictionaries(st.integers(), arms))
def test_tables_come_back_from_strict_json_with_nan_for_what_is_not_finite(table):
    again = table_from_json(json.loads(json.dumps(table_to_json(table), allow_nan=False)))
    assert {seed: {arm: set(row) for arm, row in made.items()} for seed, made in again.items()} == {
        seed: {arm: set(row) for arm, row in made.items()} for seed, made in table.items()
    }
    for seed, made in table.items():
        for arm, row in made.items():
            for name, value in row.items():
                read = again[seed][arm][name]
                assert read == value if math.isfinite(value) else math.isnan(read)


def test_numbers_are_rounded_where_digits_are_given():
    assert to_json({"system": {"a": 1 / 3, "b": 1.23456789e-7, "c": -math.inf}}, 6) == {
        "system": {"a": 0.333333, "b": 1.23457e-7, "c": None}
    }
    assert to_json({"": {"a": 3}}) == {"": {"a": 3.0}}


def test_a_run_of_the_system_brings_the_arms_that_share_its_training():
    table = {}
    add_run(table, 7, "system", {"": {"a": 1.0}, "null": {"a": 2.0}})
    add_run(table, 7, "fast", {"": {"a": 3.0}, "null": {"a": 4.0}})
    add_run(table, 8, "system", from_json({"system": {"a": None}}))
    assert table[7] == {"system": {"a": 1.0}, "null": {"a": 2.0}, "fast": {"a": 3.0}}
    assert math.isnan(table[8]["system"]["a"])


def test_finite_goes_into_tables_and_lists():
    assert finite({"a": [1, math.nan, (math.inf, "x")], "b": {"c": -math.inf, "d": True}}) == {
        "a": [1, None, [None, "x"]],
        "b": {"c": None, "d": True},
    }
