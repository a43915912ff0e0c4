"""Names that scripts written against the package import, from where they import them."""

from importlib import import_module

import pytest

from bytelm.errors import BytelmError
from bytelm.exact.converter import ByteConverter
from bytelm.exact.models.tabular import TabularLM
from bytelm.exact.tokenizers.tables import TokenizerTables

PATHS = {
    "bytelm.exact.converter": ["ByteConverter"],
    "bytelm.exact.gguf": ["EXPRESSIONS", "read_gguf_tokenizer", "read_metadata"],
    "bytelm.exact.tables": ["TokenizerTables", "merge_encoder", "rank_encoder"],
    "bytelm.exact.token_lm": ["TabularLM", "TokenLM"],
    "bytelm.exact.tokenizer_files": [
        "expression_spans",
        "read_rwkv",
        "read_sentencepiece",
        "read_tiktoken",
        "read_tokenizer_json",
    ],
    "bytelm.lm.generate": ["generate", "generate_batch"],
    "bytelm.lm.infill": ["find_template", "infill"],
    "bytelm.lm.regex": ["regex_dfa"],
}


@pytest.mark.parametrize("path", PATHS)
def test_a_script_finds_every_name_where_it_looks_for_it(path):
    module = import_module(path)
    for name in PATHS[path]:
        value = getattr(module, name)
        if callable(value):  # the same object as where it is defined
            assert value is getattr(import_module(value.__module__), name)


def test_the_dummy_prefix_has_a_short_name():
    model = TabularLM(lambda h: [0.5, 0.25, 0.25], [b" ", b"a", None], eos_ids={2})
    tables = TokenizerTables(model.vocab_bytes, dummy_prefix=b" ")
    settings = {"mode": "all", "beam": 9, "epsilon": 0.0}
    short = ByteConverter(model, None, prefix=tables.prefix, **settings)
    whole = ByteConverter(model, None, dummy_prefix=b" ", **settings)
    assert short.dummy_prefix == whole.dummy_prefix == b" "
    assert short.score(b"a").tolist() == whole.score(b"a").tolist()
    with pytest.raises(BytelmError, match="one setting"):
        ByteConverter(model, None, prefix=b" ", dummy_prefix=b" ", **settings)
