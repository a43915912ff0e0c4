"""A model directory comes from strangers: nothing in it runs, and what is wrong is named."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import bytelm
from bytelm.errors import CheckpointError
from bytelm.exact.models.model_directory import check_directory

transformers = pytest.importorskip("transformers")
pytest.importorskip("gguf")
from safetensors.torch import load_file, save_file  # noqa: E402

from tests.exact.gguf_file import write_gguf  # noqa: E402
from tests.exact.test_huggingface import llama, tokenizer  # noqa: E402

MARK = "import pathlib; pathlib.Path({mark!r}).write_text('ran')\n"


@pytest.fixture
def folder(tmp_path):
    """A directory that loads."""
    folder = tmp_path / "model"
    llama().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def rewrite(path: Path, **changes: object) -> None:
    known = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**known, **changes}))


class Bomb:
    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return exec, (MARK.format(mark=str(self.mark)),)


def model_code(folder: Path, mark: Path) -> None:
    rewrite(
        folder / "config.json",
        model_type="evil",
        auto_map={"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"},
    )
    (folder / "evil.py").write_text(MARK.format(mark=str(mark)))


def model_code_of_a_known_type(folder: Path, mark: Path) -> None:
    model_code(folder, mark)
    rewrite(folder / "config.json", model_type="llama")


def tokenizer_code(folder: Path, mark: Path) -> None:
    rewrite(
        folder / "tokenizer_config.json",
        tokenizer_class="EvilTokenizer",
        auto_map={"AutoTokenizer": ["evil.Slow", "evil.Fast"]},
    )
    (folder / "evil.py").write_text(MARK.format(mark=str(mark)))


def pickled_weights(folder: Path, mark: Path) -> None:
    (folder / "model.safetensors").unlink()
    with (folder / "pytorch_model.bin").open("wb") as file:
        pickle.dump(Bomb(mark), file)


def generation_code(folder: Path, mark: Path) -> None:
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(MARK.format(mark=str(mark)))
    rewrite(folder / "generation_config.json", custom_generate=str(folder))


def template_code(folder: Path, mark: Path) -> None:
    code = MARK.format(mark=str(mark))
    command = repr(f'{sys.executable} -c "{code}"')
    (folder / "chat_template.jinja").write_text(
        "{{ cycler.__init__.__globals__.os.popen(" + command + ") }}"
    )


def an_adapter(folder: Path, mark: Path) -> None:
    other = folder.parent / "other"
    other.mkdir()
    model_code(other, mark)
    rewrite(folder / "adapter_config.json", base_model_name_or_path=str(other))


HOSTILE = {
    model_code: "'evil' model.*never runs code of a model directory",
    model_code_of_a_known_type: None,  # loads, by the class of transformers
    tokenizer_code: "never runs code of a model directory",
    pickled_weights: "pytorch_model.bin.*safetensors only",
    generation_code: None,
    template_code: None,
    an_adapter: "adapter_config.json",
}


@pytest.mark.parametrize("make", HOSTILE, ids=lambda make: make.__name__)
def test_loading_runs_nothing_of_the_directory(make, folder, tmp_path, monkeypatch):
    mark = tmp_path / "mark"
    make(folder, mark)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("the user was asked"))
    if HOSTILE[make] is None:
        bytelm.load(folder)
    else:
        with pytest.raises(CheckpointError, match=HOSTILE[make]):
            bytelm.load(folder)
    assert not mark.exists()


@pytest.mark.parametrize("make", [model_code, tokenizer_code], ids=lambda make: make.__name__)
def test_answers_on_standard_input_run_nothing_either(make, folder, tmp_path):
    mark = tmp_path / "mark"
    make(folder, mark)
    command = [sys.executable, "-m", "bytelm", "generate", str(folder), "--prompt-file", "-"]
    environment = {**os.environ, "HF_HOME": str(tmp_path)}
    done = subprocess.run(command, input=b"y\ny\nhi", capture_output=True, env=environment)
    assert done.returncode == 2 and b"never runs code of a model directory" in done.stderr
    assert not mark.exists() and b"[y/N]" not in done.stdout + done.stderr


def test_a_gguf_file_is_loaded_without_its_neighbours(folder, tmp_path, capsys):
    mark = tmp_path / "mark"
    model_code(folder, mark)
    rewrite(folder / "adapter_config.json", base_model_name_or_path=str(tmp_path))
    path = write_gguf(folder / "m.gguf", llama(), tokenizer())
    assert bytelm.load(path).start(b"a").logprob < 0
    assert not mark.exists()
    assert capsys.readouterr() == ("", "")  # no progress bar of another library


def test_a_directory_loads_without_a_word(folder, capsys):
    bytelm.load(folder)
    assert capsys.readouterr() == ("", "")


def index(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder / "elsewhere.safetensors")
    names = load_file(folder / "elsewhere.safetensors")
    weight_map = dict.fromkeys(names, name)
    rewrite(folder / "model.safetensors.index.json", metadata={}, weight_map=weight_map)


def change_vocabulary(folder: Path, number: int) -> None:
    """Give the last token of the vocabulary another id."""
    definition = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = definition["model"]["vocab"]
    vocabulary[max(vocabulary, key=vocabulary.get)] = number
    (folder / "tokenizer.json").write_text(json.dumps(definition))


DAMAGED = {
    "no config": (lambda f: (f / "config.json").unlink(), "config.json"),
    "config is a list": (lambda f: (f / "config.json").write_text("[]"), "not a JSON object"),
    "config is cut": (lambda f: (f / "config.json").write_text('{"a'), "is not JSON"),
    "config is deep": (lambda f: (f / "config.json").write_text("[" * 100_000), "is not JSON"),
    "config is huge": (
        lambda f: (f / "config.json").write_text(json.dumps({"a": "x" * 10_000_000})),
        "at most 4,194,304",
    ),
    "no model type": (lambda f: rewrite(f / "config.json", model_type=None), "no model_type"),
    "unknown type": (lambda f: rewrite(f / "config.json", model_type="llamma"), "'llamma' model"),
    "kernel by name": (
        lambda f: rewrite(f / "config.json", _attn_implementation="someone/kernel"),
        "someone/kernel",
    ),
    "kernel by name, nested": (
        lambda f: rewrite(f / "config.json", text_config={"experts_implementation": "a/b"}),
        "experts_implementation",
    ),
    "endless layers": (
        lambda f: rewrite(f / "config.json", num_hidden_layers=10**9),
        "asks for a larger model than its weights can fill",
    ),
    "endless vocabulary": (
        lambda f: rewrite(f / "config.json", vocab_size=10**12),
        "asks for a larger model than its weights can fill",
    ),
    "a far id": (lambda f: change_vocabulary(f, 4 * 10**9), "has the id 4000000000"),
    "one id twice": (
        lambda f: change_vocabulary(f, 0),
        "tokenizer.json is damaged: its vocabulary gives the id 0 to both",
    ),
    "a sparse id": (lambda f: change_vocabulary(f, 1 << 20), "has the id 1048576"),
    "quantised": (
        lambda f: rewrite(f / "config.json", quantization_config={"quant_method": "gptq"}),
        "quantised weights",
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors is missing"),
    "shards outside": (lambda f: index(f, "../elsewhere.safetensors"), "same directory"),
    "absolute shards": (lambda f: index(f, "/etc/passwd"), "same directory"),
    "pickled shards": (lambda f: index(f, "part.bin"), "same directory"),
    "a shard is missing": (lambda f: index(f, "part.safetensors"), "lacks part.safetensors"),
    "a long name": (lambda f: index(f, "a" * 5000), "aaa ... aaa"),
    "many missing shards": (
        lambda f: (
            index(f, "x"),
            rewrite(
                f / "model.safetensors.index.json",
                weight_map={str(i): f"{i}.safetensors" for i in range(999)},
            ),
        ),
        r"lacks 0.safetensors.* \.\.\. ",
    ),
    "no map": (
        lambda f: (index(f, "x"), rewrite(f / "model.safetensors.index.json", weight_map=1)),
        "no weight_map",
    ),
    "cut weights": (lambda f: os.truncate(f / "model.safetensors", 5000), "model.safetensors is"),
    "empty weights": (lambda f: os.truncate(f / "model.safetensors", 0), "model.safetensors is"),
    "tokenizer settings": (
        lambda f: (f / "tokenizer_config.json").write_text("nonsense"),
        "tokenizer_config.json is not JSON",
    ),
}


# what is told while the parts are loaded
LOADED = ("unknown type", "endless layers", "endless vocabulary", "a far id", "a sparse id")


@pytest.mark.parametrize("case", DAMAGED)
def test_what_cannot_be_loaded_is_named_before_transformers_sees_it(case, folder):
    damage, message = DAMAGED[case]
    damage(folder)
    with pytest.raises(CheckpointError, match=message) as raised:
        check_directory(folder) if case not in LOADED else bytelm.load(folder)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 1200


def test_a_damaged_tokenizer_is_named(folder):
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="tokenizer.json is not JSON of a tokenizer"):
        bytelm.load(folder)


NORM = "model.layers.1.input_layernorm.weight"


def change_tensors(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(NORM), rf"1 missing: {NORM}$"),
        (lambda t: t.pop("lm_head.weight"), r"1 missing: lm_head\.weight"),
        (lambda t: [t.pop(name) for name in list(t)[:5]], r"5 missing: .*, \.\.\.$"),
        (lambda t: t.update(extra=torch.ones(2)), "1 that the model has no place for: extra"),
        (
            lambda t: t.update({NORM: torch.ones(31)}),
            rf"1 of another shape: {NORM} has shape \(31,\) instead of \(32,\)",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_name(change, message, folder):
    change_tensors(folder, change)
    with pytest.raises(CheckpointError, match=message):
        bytelm.load(folder)


def test_tied_weights_are_stored_once_and_old_buffers_are_no_surplus(tmp_path):
    model = llama(tie_word_embeddings=True)
    model.save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    change_tensors(
        tmp_path,
        lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}),
    )
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    found = bytelm.load(tmp_path, mode="canonical").score(b"It's")
    direct = bytelm.convert(model, tokenizer(), mode="canonical").score(b"It's")
    torch.testing.assert_close(found, direct, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"blk.1.attn_norm.weight": None}, r"missing: .*layers\.1\.input_layernorm"),
        ({"rope_freqs.weight": (4,)}, r"no place for: rope_freqs\.weight"),
        ({"blk.1.attn_norm.weight": (31,)}, "of another shape"),
    ],
)
def test_tensors_of_a_gguf_file_that_do_not_fit_are_refused_by_name(names, message, tmp_path):
    path = write_gguf(tmp_path / "m.gguf", llama(), tokenizer(), tensors=names)
    with pytest.raises(CheckpointError, match=message):
        bytelm.load(path)


def test_damaged_gguf_files_are_refused_in_one_sentence(tmp_path):
    data = write_gguf(tmp_path / "m.gguf", llama(), tokenizer()).read_bytes()
    path = tmp_path / "damaged.gguf"
    huge = (1 << 60).to_bytes(8, "little")
    damaged = [data[:n] for n in (0, 4, 20, 100, 4000, len(data) // 2, len(data) - 3)]
    damaged += [data[:8] + huge + data[16:], data[:16] + huge + data[24:]]
    for broken in damaged:
        path.write_bytes(broken)
        with pytest.raises(CheckpointError) as raised:
            bytelm.load(path)
        assert "\n" not in str(raised.value) and "damaged.gguf" in str(raised.value)
