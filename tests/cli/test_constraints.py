"""Constraints from the command line: patterns over text and bytes, JSON Schemas, stop strings."""

import json
import re

import pytest


def test_patterns_over_text_and_over_bytes(runs, bytelm):
    common = ("generate", runs / "flat", "--prompt", "sea", "--max-bytes", "12")
    written, _ = bytelm(*common, "--regex", r"(?a)^\d{3,5}$")
    assert re.fullmatch(rb"[0-9]{3,5}", written)
    written, _ = bytelm(*common, "--regex-bytes", r"\x00[\x80-\xff]{2}")
    assert re.fullmatch(rb"\x00[\x80-\xff]{2}", written)


def test_json_that_obeys_a_schema(runs, bytelm, tmp_path):
    pytest.importorskip("llguidance")
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "array", "items": {"type": "boolean"}, "maxItems": 3}')
    written, _ = bytelm("generate", runs / "flat", "--prompt", "sea", "--json-schema", schema)
    assert set(json.loads(written)) <= {True, False}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--stop", "\\"), "write \\\\ for a backslash"),
        (("--regex", "(" * 3000 + ")" * 3000), "nested too deeply"),
        (("--regex", "a{99999999999}"), "too large"),
        (("--regex", "a", "--regex-bytes", "a"), "not both"),
        (("--regex", "(?i)a"), "IGNORECASE"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(runs, bytelm, arguments, message):
    _, said = bytelm("generate", runs / "flat", "--prompt", "sea", *arguments, status=2)
    assert message in " ".join(said.split())
    assert "Traceback" not in said
