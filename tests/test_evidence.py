"""docs/evidence.md says what the stored results say, and every result is accounted for."""

import json

import pytest

from benchmarks.claim import VERDICTS
from benchmarks.claims import CLAIMS, NOT_CLAIMS
from benchmarks.evidence import DOCUMENT, RESULTS, document, load


def test_the_document_is_what_the_command_makes():
    assert DOCUMENT.read_text(encoding="utf-8") == document(), "run python -m benchmarks.evidence"


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.claim[:40])
def test_a_verdict_stands_on_its_figure(claim):
    assert claim.verdict in VERDICTS
    if claim.check is not None:
        assert claim.check(load(claim.result)), f"{claim.claim}: {claim.figure(load(claim.result))}"


def test_every_stored_result_supports_a_claim_or_is_named_as_none():
    stored = {path.stem for path in RESULTS.glob("*.json")}
    used = {claim.result for claim in CLAIMS if claim.result}
    assert used <= stored
    assert stored == used | NOT_CLAIMS.keys() and not used & NOT_CLAIMS.keys()


def test_figures_follow_the_results(tmp_path, monkeypatch):
    """With other numbers in the files, every figure of the document is another."""

    def changed(value):
        if isinstance(value, dict):
            return {key: changed(part) for key, part in value.items()}
        if isinstance(value, list):
            return [changed(part) for part in value]
        return value * 1.37 + 1 if isinstance(value, float) else value

    from benchmarks import evidence

    for path in RESULTS.glob("*.json"):
        (tmp_path / path.name).write_text(json.dumps(changed(json.loads(path.read_text()))))
    before = [claim.figure(load(claim.result)) for claim in CLAIMS if claim.figure]
    monkeypatch.setattr(evidence, "RESULTS", tmp_path)
    after = [claim.figure(load(claim.result)) for claim in CLAIMS if claim.figure]
    assert all(old != new for old, new in zip(before, after, strict=True))


def test_cards_are_what_their_figures_say():
    from benchmarks.cards import ROOT, card

    for name, result in load("cards").items():
        written = (ROOT / "models" / f"{name}.md").read_text(encoding="utf-8")
        assert written == card(name, result), f"run python -m benchmarks.cards {name} RUN..."
