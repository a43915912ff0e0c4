"""Ids, errors and the registry: the names everything else relies on."""

import pytest

from bytelm.errors import BytelmError, MissingExtraError, unknown_name
from bytelm.registry import architecture, architectures
from bytelm.vocab import BYTES, END, OUTCOMES, ByteVocab


def test_specials_start_at_256_and_the_end_outcome_is_eos():
    vocab = ByteVocab(sentinels=3)
    assert min(vocab.specials.values()) == BYTES == END == vocab.eos == OUTCOMES - 1
    assert sorted(vocab.specials.values()) == list(range(BYTES, vocab.size))


def test_a_vocabulary_survives_its_checkpoint_and_refuses_another_scheme():
    vocab = ByteVocab(sentinels=2)
    assert ByteVocab.from_dict(vocab.to_dict()) == vocab
    foreign = {"sentinels": 0, "specials": {"bos": 254, "eos": 255}}
    with pytest.raises(BytelmError, match="another id scheme"):
        ByteVocab.from_dict(foreign)


def test_unknown_names_come_with_the_nearest_match():
    with pytest.raises(BytelmError, match="did you mean 'fim_prefix'"):
        ByteVocab()["fim_prefx"]
    with pytest.raises(BytelmError, match="did you mean 'transformer'"):
        architecture("transfomer")
    assert unknown_name("thing", "zzz", []) == "unknown thing 'zzz'; allowed: (none)"
    with pytest.raises(BytelmError, match="between 0 and 1000"):
        ByteVocab(sentinels=-1)


def test_every_registered_architecture_loads():
    for name in architectures():
        assert architecture(name).Config is not None


def test_a_missing_extra_says_how_to_install_it():
    error = MissingExtraError("lief", "binaries", "reading sections")
    assert "pip install 'bytelm[binaries]'" in str(error) and isinstance(error, ImportError)
