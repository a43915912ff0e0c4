"""The prompts for infilling of each family, beside those of its reference: ids, symbol for symbol.

    python -m benchmarks.fim_families      writes the table of docs/exact.md

Of each family a small tokenizer of its kind is made, with the family's own markers, and a model
whose every question is noted. The ids that the converted model is asked about after a prompt for
infilling must be those of the reference: transformers on the prompt as the model card writes it,
the rules of Code Llama's own code and of `mistral-common` on SentencePiece, and for our own runs
the objective that trained them.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from bytelm.exact.converter import ByteConverter
from bytelm.exact.models.tabular import TabularLM
from bytelm.exact.tokenizers.gguf_tokenizer import EXPRESSIONS
from bytelm.exact.tokenizers.sentencepiece_model import read_sentencepiece
from bytelm.exact.tokenizers.tables import TokenizerTables, merge_encoder
from bytelm.exact.tokenizers.tokenizer_json import read_hf_tokenizer
from bytelm.files import write_text
from bytelm.lm.fim_templates import BLANK, PREFIX, SUFFIX, TEMPLATES, Order, Template
from bytelm.lm.infill import find_template
from bytelm.objectives.fim import fim
from bytelm.vocab import BYTES, ByteVocab

DOCS = Path(__file__).parent.parent / "docs" / "exact.md"
BEGIN, END = "<!-- fim families -->\n", "<!-- end of fim families -->"
TEXT = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
VOCABULARY = 700
TEXTS = (
    "",
    "x",
    " ",
    "\n",
    "def f(s):\n    ",
    '    """ ',
    "\n    return result\n",
    "naïve 東 🦊",
    "  a  b",
)
PAIRS = tuple(itertools.product(TEXTS, TEXTS))

Reference = Callable[[Template, Order, str, str], list[int]]


@dataclass
class Family:
    """A small tokenizer of one family: its tables, and the reference's ids of a prompt."""

    tables: TokenizerTables
    reference: Reference
    by: str


def byte_level(template: Template) -> Family:
    """A tokenizer of bytes, and the prompt as one string with its markers, as model cards do."""
    inner = Tokenizer(models.BPE())
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    expressions = EXPRESSIONS.get("qwen2" if template.name == "qwen" else "starcoder", ())
    cuts = [pre_tokenizers.Split(Regex(expression), "isolated") for expression in expressions]
    inner.pre_tokenizer = pre_tokenizers.Sequence([*cuts, last])
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator([TEXT], trainer(initial_alphabet=alphabet))
    return fast(template, inner)


def gemma(template: Template) -> Family:
    """A tokenizer of characters with single bytes to fall back on and without a dummy blank."""
    inner = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    inner.normalizer = normalizers.Replace(" ", "\u2581")
    inner.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    single = [f"<0x{byte:02X}>" for byte in range(256)]
    inner.train_from_iterator([TEXT], trainer(special_tokens=["<unk>", *single]))
    definition = json.loads(inner.to_str())
    definition["added_tokens"] = definition["added_tokens"][:1]  # the bytes are ordinary tokens
    return fast(template, Tokenizer.from_str(json.dumps(definition)))


def trainer(**options: Any) -> trainers.BpeTrainer:
    return trainers.BpeTrainer(vocab_size=VOCABULARY, show_progress=False, **options)


def fast(template: Template, inner: Tokenizer) -> Family:
    import transformers

    names = sorted({*template.symbols, *template.ends, "<eos>"})
    inner.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>")

    def reference(template: Template, order: Order, prefix: str, suffix: str) -> list[int]:
        texts = {PREFIX: prefix, SUFFIX: suffix, BLANK: ""}
        parts = [p.decode() if isinstance(p, bytes) else p for p in getattr(template, order)]
        prompt = "".join(texts.get(part, part) for part in parts)
        return list(tokenizer(prompt, add_special_tokens=False).input_ids)

    return Family(read_hf_tokenizer(tokenizer), reference, "transformers, the prompt as a string")


def trained_sentencepiece(template: Template, folder: Path) -> Path:
    """A SentencePiece model with byte fallback, a dummy blank and the family's markers."""
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text.txt"),
        model_prefix=str(folder / "trained"),
        vocab_size=VOCABULARY,
        model_type="bpe",
        byte_fallback=True,
        control_symbols=sorted({*template.symbols, *template.ends}),
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=3,
    )
    return folder / "trained.model"


def without_blank(processor: Any, text: str) -> list[int]:
    """SentencePiece's ids without the dummy blank: both references encode a suffix so."""
    before = processor.encode("\u263a")
    return list(processor.encode("\u263a" + text)[len(before) :])


def codestral(template: Template) -> Family:
    """A small tokenizer of Codestral's kind."""
    with tempfile.TemporaryDirectory() as folder:
        return mistral(trained_sentencepiece(template, Path(folder)))


def mistral(path: Path) -> Family:
    """A SentencePiece file with Mistral's markers, and `encode_fim` of mistral-common: the suffix
    loses its dummy blank, the prefix keeps it."""
    tables = read_sentencepiece(path)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))

    def reference(template: Template, order: Order, prefix: str, suffix: str) -> list[int]:
        first, second = (processor.piece_to_id(name) for name in ("[SUFFIX]", "[PREFIX]"))
        return [first, *without_blank(processor, suffix), second, *processor.encode(prefix)]

    return Family(tables, reference, "mistral-common's rule on SentencePiece")


def codellama(template: Template) -> Family:
    """`infilling_prompt_tokens` of Code Llama, and our tables of transformers' tokenizer."""
    tokenizer, processor = codellama_tokenizer(template)
    names = ("\u2581<PRE>", "\u2581<SUF>", "\u2581<MID>")

    def reference(template: Template, order: Order, prefix: str, suffix: str) -> list[int]:
        pre, suf, mid = (processor.piece_to_id(name) for name in names)
        before, after = processor.encode(prefix), without_blank(processor, suffix)
        if order == "spm":
            return [pre, suf, *after, mid, *before]
        return [pre, *before, suf, *after, mid]

    return Family(read_hf_tokenizer(tokenizer), reference, "Code Llama's rule on SentencePiece")


def codellama_tokenizer(template: Template) -> tuple[Any, Any]:
    """transformers' tokenizer of a small Code Llama, and the SentencePiece processor it is of."""
    import transformers

    with tempfile.TemporaryDirectory() as folder:
        path = trained_sentencepiece(template, Path(folder))
        processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    pieces = [processor.id_to_piece(i) for i in range(processor.get_piece_size())]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    # the merges of SentencePiece's BPE: every way to make a piece of two, by the score of the piece
    merges = [
        (piece[:n], piece[n:])
        for piece in pieces
        for n in range(1, len(piece))
        if piece[:n] in vocab and piece[n:] in vocab and not piece.startswith("<0x")
    ]
    return transformers.CodeLlamaTokenizer(vocab=vocab, merges=merges), processor


def ours(template: Template) -> Family:
    """The objective `fim`, whose documents are what our own runs learn from."""
    vocab = ByteVocab()
    data = [bytes([i]) if i < BYTES else None for i in range(vocab.size)]
    tables = TokenizerTables(data, specials=dict(vocab.specials))
    tables.eos_ids, tables.encoder = {vocab.eos}, merge_encoder(data, [], None)

    def reference(template: Template, order: Order, prefix: str, suffix: str) -> list[int]:
        whole = np.frombuffer((prefix + suffix).encode(), np.uint8)
        at = len(prefix.encode())
        return [int(i) for i in fim(whole, cuts=(at, at), mode=order)[:-1]]  # no middle, no end

    return Family(tables, reference, "the objective fim")


MAKERS: dict[str, Callable[[Template], Family]] = {
    "bytelm": ours,
    "codellama": codellama,
    "codestral": codestral,
    "codegemma": gemma,
}


def compared(name: str, family: Family | None = None) -> tuple[int, int, str]:
    """(prompts with the reference's ids, prompts asked, the reference) of a family.

    family: its tokenizer; default: a small one."""
    template = TEMPLATES[name]
    family = family or MAKERS.get(name, byte_level)(template)
    equal = asked = 0
    for order, (prefix, suffix) in itertools.product(template.orders, PAIRS):
        expected = family.reference(template, order, prefix, suffix)
        equal += tuple(expected) in questions(
            family.tables, order, prefix.encode(), suffix.encode()
        )
        asked += 1
    return equal, asked, family.by


def questions(
    tables: TokenizerTables, order: Order, prefix: bytes, suffix: bytes
) -> set[tuple[int, ...]]:
    """The ids after which the model is asked for a distribution by a prompt for infilling."""
    size, asked = len(tables.vocab_bytes), []

    def note(history: tuple[int, ...]) -> list[float]:
        asked.append(tuple(history))
        return [1 / size] * size

    lm = ByteConverter(
        TabularLM(note, tables.vocab_bytes, eos_ids=tables.eos_ids),
        tables.encoder,
        mode="canonical",
        beam=1,
        epsilon=0.0,
        specials=tables.specials,
        dummy_prefix=tables.dummy_prefix,
    )
    template = find_template(lm)
    assert template is not None, "the family's markers are among the specials"
    context, prompt = template.fill(order, prefix=prefix, suffix=suffix)
    lm.start(prompt, context=context).logprobs()
    return set(asked)


def table() -> str:
    """The table of docs/exact.md."""
    lines = [
        "| family | models | prompts | ends of a middle | ids equal the reference's | source |",
        "|---|---|---|---|---|---|",
    ]
    for name, template in TEMPLATES.items():
        equal, asked, by = compared(name)
        prompts = "<br>".join(f"`{shown(template, order)}`" for order in template.orders)
        ends = ", ".join(f"`{end}`" for end in template.ends).replace("|", "\\|") or "EOS"
        lines.append(
            f"| `{name}` | {template.models} | {prompts} | {ends} | {equal} of {asked} ({by}) | "
            f"{template.source.replace('|', chr(92) + '|')} |"
        )
    return "\n".join(lines) + "\n"


def shown(template: Template, order: Order) -> str:
    """A prompt as one line, the dummy blank as an underscore."""
    names: dict[str | bytes, str] = {PREFIX: "P", SUFFIX: "S", BLANK: "\u2423"}
    parts = getattr(template, order)
    text = " ".join(
        names.get(part) or (repr(part.decode())[1:-1] if isinstance(part, bytes) else part)
        for part in parts
    )
    return text.replace("|", "\\|")


def document(text: str) -> str:
    """docs/exact.md with the table as it is now."""
    head, _, rest = text.partition(BEGIN)
    return head + BEGIN + table() + rest[rest.index(END) :]


if __name__ == "__main__":
    write_text(DOCS, document(DOCS.read_text(encoding="utf-8")))
