"""The bundled samples: small, listed with their hashes, and split without leaks."""

import hashlib
import lzma
import re
from pathlib import Path

DATA = Path(__file__).resolve().parents[2] / "data"


def listed() -> dict[str, str]:
    rows = re.findall(r"^\| `([^`]+)` \| [\d,]+ \| `([0-9a-f]{64})` \|$", _sources(), re.MULTILINE)
    return dict(rows)


def _sources() -> str:
    return (DATA / "SOURCES.md").read_text(encoding="utf-8")


def test_every_listed_file_has_its_hash_and_every_file_is_listed():
    rows = listed()
    for name, digest in rows.items():
        assert hashlib.sha256((DATA / name).read_bytes()).hexdigest() == digest, name
    files = {str(p.relative_to(DATA)) for p in DATA.rglob("*") if p.is_file()}
    ours = {name for name in files if name.split("/")[0] in ("prose", "scripts", "executables")}
    assert ours == set(rows)


def test_samples_are_small_and_hold_no_code_of_ours():
    assert sum(p.stat().st_size for p in DATA.rglob("*")) <= 8 << 20
    assert not list(DATA.rglob("*.py"))


def test_no_held_out_speech_is_in_the_training_text():
    train, held = ((DATA / "prose" / f"{n}.txt").read_bytes() for n in ("train", "heldout"))
    assert held.count(b"\n") == 12 and train.count(b"\n") == 117
    sentences = [set(text.split(b". ")) for text in (train, held)]
    long = {sentence for sentence in sentences[1] if len(sentence) >= 60}
    assert len(long & sentences[0]) < 0.01 * len(long)


def test_the_held_out_speeches_are_as_hard_as_stated():
    held = (DATA / "prose" / "heldout.txt").read_bytes()
    packed = lzma.compress(held, preset=9 | lzma.PRESET_EXTREME)
    assert abs(8 * len(packed) / len(held) - 2.25) < 0.01
