"""A text that the vocabulary cannot spell is an error that names the offset, in every command."""

import pytest
from typer.testing import CliRunner

from bytelm.cli.app import app
from bytelm.errors import BytelmError

transformers = pytest.importorskip("transformers")
from tokenizers import Tokenizer, decoders, models, pre_tokenizers  # noqa: E402

from bytelm.exact.tokenizers.tables import byte_alphabet  # noqa: E402
from tests.exact.test_starts import bigram_llama  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model whose tokens write every byte but the newline."""
    folder = tmp_path_factory.mktemp("model")
    written = [c for c, byte in byte_alphabet().items() if byte != 0x0A]
    inner = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(written)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(["</s>"])
    words = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>")
    bigram_llama(256, {}).save_pretrained(folder)
    words.save_pretrained(folder)
    (folder / "text").write_bytes(b"ab\ncd")
    return folder


@pytest.mark.parametrize(
    "command",
    [
        ("generate", "{model}", "--prompt-file", "{text}"),
        ("generate", "{model}", "--prompt-file", "{text}", "--beams", "2"),
        ("generate", "{model}", "--prompt-file", "{text}", "--json"),
        ("next", "{model}", "--prompt-file", "{text}"),
        ("score", "{model}", "{text}"),
        ("eval", "{model}", "{text}"),
        ("infill", "{model}", "--prefix-file", "{text}", "--suffix-file", "{text}"),
    ],
    ids=lambda command: " ".join(command[::3]),
)
@pytest.mark.parametrize("mode", ["all", "canonical"])
def test_every_command_names_the_byte_it_cannot_write(folder, command, mode):
    names = {"model": folder, "text": folder / "text"}
    arguments = [part.format(**names) for part in command]
    done = CliRunner().invoke(app, [*arguments, "--mode", mode])
    assert isinstance(done.exception, BytelmError), done.output
    assert "offset 2" in str(done.exception)
