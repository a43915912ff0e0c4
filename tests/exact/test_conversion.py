"""Every way into the converter takes the same settings: model objects, directories, GGUF files."""

import pytest
import torch

import bytelm
from bytelm.errors import BytelmError, CheckpointError
from bytelm.exact import ByteConverter, WindowedConverter, load_token_model

transformers = pytest.importorskip("transformers")
pytest.importorskip("gguf")
from tests.exact.gguf_file import write_gguf  # noqa: E402
from tests.exact.test_huggingface import llama, tokenizer  # noqa: E402

TEXT = b"It's a test,\n\nisn't it? Yes"


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """The same model as a directory and as a file."""
    folder = tmp_path_factory.mktemp("models")
    model, words = llama(), tokenizer()
    model.save_pretrained(folder / "hf")
    words.save_pretrained(folder / "hf")
    return {"directory": folder / "hf", "file": write_gguf(folder / "m.gguf", model, words)}


@pytest.fixture(params=["directory", "file"])
def path(request, paths):
    return paths[request.param]


def test_a_directory_a_file_and_the_model_object_are_the_same_byte_model(paths):
    direct = bytelm.convert(llama(), tokenizer(), mode="canonical")
    for path in paths.values():
        loaded = load_token_model(path, mode="canonical")
        torch.testing.assert_close(
            loaded.score_with_end(TEXT), direct.score_with_end(TEXT), rtol=0, atol=2e-5
        )


def test_mode_beam_and_epsilon_reach_the_converter(path):
    lm = load_token_model(path, mode="all", beam=3, epsilon=0.125)
    assert isinstance(lm, ByteConverter)
    assert (lm.mode, lm.pruning.beam, lm.pruning.epsilon) == ("all", 3, 0.125)
    assert load_token_model(path, mode="canonicalised").mode == "canonicalised"
    with pytest.raises(BytelmError, match="did you mean 'canonical'"):
        load_token_model(path, mode="canonicle")
    with pytest.raises(BytelmError, match="beam must be at least 1"):
        load_token_model(path, beam=0)


def test_start_stands_before_every_text(path):
    lm = load_token_model(path, mode="canonical", start=[0, 40])
    assert lm.lm.start_ids == [0, 40]
    direct = bytelm.convert(llama(), tokenizer(), mode="canonical", start=[0, 40])
    torch.testing.assert_close(lm.score(TEXT), direct.score(TEXT), rtol=0, atol=2e-5)
    assert not torch.allclose(lm.score(TEXT), load_token_model(path, mode="canonical").score(TEXT))


def test_a_window_reads_texts_beyond_the_model_s_context(path):
    text = TEXT * 20
    with pytest.raises(BytelmError, match="window"):
        load_token_model(path, mode="canonical").score(text)
    lm = load_token_model(path, mode="canonical", window=60, stride=20)
    assert isinstance(lm, WindowedConverter)
    assert (lm.window, lm.stride) == (60, 20)
    scores = lm.score(text)
    inside = lm.converter.score(text[:60])
    torch.testing.assert_close(scores[:60], inside, rtol=0, atol=1e-4)
    late = lm.converter.score(text[101:111], context=text[60:101])
    torch.testing.assert_close(scores[101:111], late, rtol=0, atol=1e-4)
    assert lm.start(text).logprob == pytest.approx(float(scores.sum()), abs=1e-2)


def test_load_gives_the_same_settings_to_the_converter(path):
    lm = bytelm.load(path, mode="canonical", start=[0, 40], window=30, stride=10)
    assert (lm.window, lm.stride, lm.converter.mode) == (30, 10, "canonical")
    assert lm.converter.lm.start_ids == [0, 40]


def test_what_is_no_model_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="no config.json"):
        load_token_model(tmp_path)
    with pytest.raises(FileNotFoundError):
        load_token_model(tmp_path / "none.gguf")
