"""What a chat model reads before it answers: a user's message in the model's own chat template.

Templates are programs written by whoever made the model, and are bounded (`templates.py`). What
comes out is cut at special symbols, and the rest is encoded as text; a message that spells a
special symbol is refused, because the template would turn it into one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from bytelm.damage import malformed
from bytelm.errors import BytelmError
from bytelm.exact.models.pretrained import read_tokenizer
from bytelm.exact.tokenizers.gguf_tokenizer import read_gguf_tokenizer, read_metadata
from bytelm.exact.tokenizers.tables import TokenizerTables
from bytelm.exact.tokenizers.tokenizer_json import read_hf_tokenizer

_TEMPLATE = "tokenizer.chat_template"


def chat_ids(path: str | Path, message: bytes) -> list[int]:
    """The ids that stand before the answer to `message`, for `bytelm.load(path, start=ids)`.

    path: a Hugging Face directory or a .gguf file. `BytelmError` if the model has no chat template
    or it fails, or the message is not UTF-8 or spells a special symbol.
    """
    with malformed(path, "a model with a chat template"):
        template, tables, names = _read(Path(path))
    if not isinstance(template, str):
        raise BytelmError(
            f"{path} has no chat template: give the prompt as the model expects it, with --special "
            "for its markers"
        )
    try:
        text = message.decode()
    except UnicodeDecodeError as error:
        raise BytelmError(f"a chat message is text in UTF-8; byte {error.start} is not") from None
    for name in tables.specials:
        if name in text:
            raise BytelmError(f"the message spells the special symbol {name!r}: leave it out")
    return _ids(_render(template, text, names), tables)


def _read(path: Path) -> tuple[Any, TokenizerTables, dict[str, str]]:
    """The template, the tokenizer's tables, and what the template calls bos_token and eos_token."""
    if path.suffix == ".gguf":
        metadata = read_metadata(path)
        tokens = metadata["tokenizer.ggml.tokens"]
        found = {
            f"{name}_token": tokens[metadata[f"tokenizer.ggml.{name}_token_id"]]
            for name in ("bos", "eos")
            if f"tokenizer.ggml.{name}_token_id" in metadata
        }
        return metadata.get(_TEMPLATE), read_gguf_tokenizer(metadata), found
    tokenizer = read_tokenizer(path)
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    names = {"bos_token": tokenizer.bos_token or "", "eos_token": tokenizer.eos_token or ""}
    return template, read_hf_tokenizer(tokenizer), names


def _render(template: str, text: str, names: dict[str, str]) -> str:
    from bytelm.exact.templates import render  # jinja2 comes with transformers

    messages = [{"role": "user", "content": text}]
    return render(template, messages=messages, add_generation_prompt=True, **names)


def _ids(rendered: str, tables: TokenizerTables) -> list[int]:
    encoder = tables.require_encoder()
    longest_first = sorted(tables.specials, key=len, reverse=True)
    pattern = "|".join(map(re.escape, longest_first))
    ids: list[int] = []
    for part in re.split(f"({pattern})", rendered) if pattern else [rendered]:
        if part in tables.specials:
            ids.append(tables.specials[part])
        elif part:
            ids += encoder.encode(part.encode())
    return ids
