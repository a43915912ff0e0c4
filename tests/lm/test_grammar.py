"""Grammars over bytes: what is written obeys them."""

import json
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytelm.errors import BytelmError, MissingExtraError
from bytelm.lm.constraint import Both, Constraint
from bytelm.lm.generate import generate_batch
from bytelm.lm.grammar import json_schema, lark
from bytelm.lm.ngram import NgramLM

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 5},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b", "é"]}, "maxItems": 2},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


def lm() -> NgramLM:
    return NgramLM.train([json.dumps(SCHEMA).encode(), b'{"name":"ab","age":12,"tags":["a"]}'])


def walk(constraint: Constraint, data: bytes) -> bool:
    """Whether the constraint allows each byte of `data`, and the end."""
    place = constraint.start(b"")
    for byte in data:
        if not constraint.allowed(place)[byte]:
            return False
        place = constraint.advance(place, byte)
    return bool(constraint.allowed(place)[256])


@pytest.fixture(autouse=True)
def library():
    return pytest.importorskip("llguidance")


def test_what_is_written_obeys_the_schema():
    rows = generate_batch(lm(), [b"x"] * 12, max_bytes=200, constraint=json_schema(SCHEMA), seed=3)
    for row in rows:
        assert row.finish in ("end", "constraint")
        found = json.loads(row.data)
        assert set(found) == {"name", "age", "tags"}
        assert len(found["name"]) <= 5 and 0 <= found["age"] <= 150
        assert all(tag in ("a", "b", "é") for tag in found["tags"]) and len(found["tags"]) <= 2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=4,
)


@settings(max_examples=25, deadline=None)
@given(value=JSON)
def test_any_json_obeys_the_empty_schema_and_half_of_it_does_not(value):
    data = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
    assert walk(json_schema({}), data)
    if isinstance(value, dict | list | str):
        assert not walk(json_schema({}), data[:-1])


def test_places_are_values_and_rows_fork_them():
    constraint = json_schema({"enum": ["ab", "ac"]})
    place = constraint.start(b"")
    for byte in b'"a':
        place = constraint.advance(place, byte)
    after_b = constraint.advance(place, ord("b"))
    assert constraint.allowed(place)[[ord("b"), ord("c"), ord('"')]].tolist() == [True, True, False]
    assert constraint.allowed(after_b).nonzero()[0].tolist() == [ord('"')]


def test_grammars_and_other_constraints_combine():
    digits = lark('start: /[0-9]+/ "," start | /[0-9]+/')
    assert walk(digits, b"12,3") and not walk(digits, b"12,")
    row = generate_batch(NgramLM.train([b"1,2"]), [b""], max_bytes=30, constraint=digits, utf8=True)
    assert walk(Both(digits, digits), row[0].data) or row[0].finish == "length"


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "object or a truth value"),
        ({"type": "nonsense"}, "cannot be used"),
        ({"type": "string", "pattern": "(a"}, "cannot be used"),
        ({"$ref": "#/nowhere"}, "cannot be used"),
    ],
)
def test_schemas_that_cannot_be_enforced_are_one_sentence(schema, message):
    with pytest.raises(BytelmError, match=message):
        json_schema(schema)


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(MissingExtraError, match="grammar"):
        json_schema({})
