"""Prompts for infilling have the ids of each family's reference, and its ends are ends."""

import pytest

from bytelm.lm.fim_templates import TEMPLATES

pytest.importorskip("transformers")
from benchmarks import fim_families
from benchmarks.exact_packages import package_file


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_ids_of_a_prompt_are_the_reference_s(name):
    equal, asked, _ = fim_families.compared(name)
    assert equal == asked >= len(fim_families.PAIRS)


@pytest.mark.slow
def test_codestral_s_prompts_have_the_ids_of_mistral_s_own_tokenizer():
    family = fim_families.mistral(package_file("mistral-v3"))
    equal, asked, _ = fim_families.compared("codestral", family)
    assert equal == asked == len(fim_families.PAIRS)


def test_the_documented_table_is_what_the_command_makes():
    text = fim_families.DOCS.read_text(encoding="utf-8")
    assert text == fim_families.document(text), "run python -m benchmarks.fim_families"


@pytest.mark.parametrize("order", ["psm", "spm"])
def test_transformers_own_infilling_of_code_llama_agrees(order):
    """`suffix=` of its tokenizer, with the normaliser alone: the published files have no
    pre-tokenizer, which here would put a second dummy blank before the suffix."""
    template = TEMPLATES["codellama"]
    family = fim_families.codellama(template)
    tokenizer, _ = fim_families.codellama_tokenizer(template)
    tokenizer.backend_tokenizer.pre_tokenizer = None
    for prefix, suffix in fim_families.PAIRS:
        if prefix and suffix:
            found = tokenizer(
                prefix, suffix=suffix, suffix_first=order == "spm", add_special_tokens=False
            )
            assert found.input_ids == family.reference(template, order, prefix, suffix)


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name != "bytelm"])
def test_what_ends_a_middle_ends_a_text(name):
    template = TEMPLATES[name]
    family = fim_families.MAKERS.get(name, fim_families.byte_level)(template)
    ends = {family.tables.specials[end] for end in template.ends}
    assert ends <= family.tables.eos_ids
    assert all(family.tables.vocab_bytes[i] is None for i in family.tables.eos_ids)
