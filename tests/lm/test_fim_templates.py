"""Formats for infilling are data: the table, files of the same form, and what they may not hold."""

import pytest

from bytelm.errors import BytelmError
from bytelm.lm.ensemble import Ensemble
from bytelm.lm.fim_templates import MARKERS, TEMPLATES, Template, family_of, read_template
from bytelm.lm.infill import choose_template, find_template, infill
from bytelm.lm.ngram import NgramLM
from tests.lm.test_infill import Recorder

OWN = """
psm = ["<A>", "{prefix}", {text = "|"}, "<B>", "{suffix}", "<C>"]
ends = ["<end>"]
"""


class Told(Recorder):
    """One that tells what ends its texts."""

    def __init__(self, *symbols: str, ends=(), dummy_prefix=b""):
        super().__init__(*symbols)
        self._ends, self.dummy_prefix = set(ends), dummy_prefix

    @property
    def ends(self):
        return self._ends


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_family_says_who_uses_it_and_where_that_is_written(name):
    template = TEMPLATES[name]
    assert template.models and template.source and template.orders
    assert template.symbols <= MARKERS and set(template.ends) <= MARKERS
    assert family_of([*template.symbols, *template.ends]) is template
    assert family_of(template.symbols - {min(template.symbols)}) is not template


def test_the_dummy_blank_stands_before_the_text_that_has_one():
    lm = Told("▁<PRE>", "▁<SUF>", "▁<MID>", dummy_prefix=b" ")
    template = find_template(lm)
    fill = template.fill
    pre, suf, mid = "▁<PRE>", "▁<SUF>", "▁<MID>"
    assert fill(prefix=b"P", suffix=b"S") == ([pre, b" ", b"P", suf, b"S", mid], b"")
    assert fill("spm", prefix=b"P", suffix=b"S") == ([pre, suf, b"S", mid, b" "], b"P")
    # no text, no blank; but a middle that follows an empty prefix is the text that has it
    assert fill(prefix=b"", suffix=b"S") == ([pre, b"", suf, b"S", mid], b"")
    assert fill("spm", prefix=b"", suffix=b"S") == ([pre, suf, b"S", mid, b" "], b"")
    without = find_template(Told(pre, suf, mid))
    assert without.fill(prefix=b"P", suffix=b"S") == ([pre, b"P", suf, b"S", mid], b"")


def test_members_that_differ_in_the_dummy_blank_are_refused():
    symbols = ("▁<PRE>", "▁<SUF>", "▁<MID>")
    both = Ensemble([Told(*symbols, dummy_prefix=b" "), Told(*symbols)], "mixture")
    with pytest.raises(BytelmError, match="dummy blank"):
        find_template(both)
    same = Ensemble([Told(*symbols, dummy_prefix=b" ")] * 2, "mixture")
    assert find_template(same).blank == b" "
    assert Ensemble([NgramLM.train([b"a"], order=2)] * 2, "mixture").ends is None


def test_a_file_of_one_s_own_is_read_and_used(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(OWN)
    template = read_template(path)
    assert template.name == "mine" and template.orders == ("psm",)
    lm = Told("<A>", "<B>", "<C>", "<end>", ends=["<end>"])
    assert find_template(lm) is None
    assert infill(lm, prefix=b"p", suffix=b"s", max_bytes=9, temperature=0, template=path) == b"mid"
    ((prompts, contexts),) = lm.started
    assert prompts == [b""] and contexts == [("<A>", b"p", b"|", "<B>", b"s", "<C>")]


def test_a_template_that_does_not_fit_a_model_is_refused_by_name(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(OWN)
    with pytest.raises(BytelmError, match="mine does not fit.*'<B>'; did you mean '<b>'"):
        choose_template(Told("<A>", "<b>", "<C>"), path)
    with pytest.raises(BytelmError, match=r"ends a middle with '<end>'.*ends=\['<end>'\]"):
        choose_template(Told("<A>", "<B>", "<C>", "<end>"), path)
    assert choose_template(Told("<A>", "<B>", "<C>"), path).name == "mine"  # it has no such symbol
    with pytest.raises(BytelmError, match="unknown template 'starcodr'; did you mean 'starcoder'"):
        choose_template(Told(), "starcodr")
    assert choose_template(Told(), "none") is choose_template(Told(), None) is None
    given = Template("given", spm=("<A>", "{suffix}", "<B>", "{prefix}"))
    assert choose_template(Told("<A>", "<B>"), given) is given


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ends = []", "neither psm nor spm"),
        ('psm = ["<A>", "{prefix}"]', "psm has {suffix} 0 times"),
        ('psm = ["<A>", "{prefix}", "{prefix}", "{suffix}"]', "psm has {prefix} 2 times"),
        ('psm = ["{prefix}", "{suffix}"]', "names no special symbol"),
        ('psm = ["<A>", "{blank}", "<B>", "{prefix}", "{suffix}"]', "where no text follows"),
        ('psm = "<A>{prefix}{suffix}"', "psm is a list"),
        ('psm = ["<A>", 1, "{prefix}", "{suffix}"]', "psm is a list"),
        ('psm = ["<A>", {txt = "x"}, "{prefix}", "{suffix}"]', "psm is a list"),
        ('psm = ["<A>", "{prefix}", "{suffix}"]\nends = "<E>"', "ends is a list"),
        ('psmm = ["<A>", "{prefix}", "{suffix}"]', "unknown key 'psmm'; did you mean 'psm'"),
        ("psm = [", "is not TOML"),
    ],
)
def test_files_that_are_no_templates_say_why(text, message, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(BytelmError, match=message):
        read_template(path)
