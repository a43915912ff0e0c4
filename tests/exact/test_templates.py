"""Chat templates are programs of strangers: they end, in bounded memory, and reach nothing."""

import resource
import sys
import time

import pytest

pytest.importorskip("jinja2")
from bytelm.errors import BytelmError
from bytelm.exact import templates
from bytelm.exact.templates import render

DOUBLING = (
    "{% set n = namespace(x='ab') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}"
)
HOSTILE = {
    "loops in loops": (
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "does not end within",
    ),
    "doubling": (DOUBLING, "more memory"),
    "a tower": ("{{ 10 ** (10 ** 10) }}", "too large a number"),
    "a product": ("{{ 2 ** 255 * 2 ** 255 * 2 ** 255 }}", "too large a number"),
    "repeating": ("{{ 'a' * 10000000000 }}", "too long a text"),
    "a long list": ("{{ [1] * 10000000000 }}", "too long a text"),
    "padding": ("{{ 'a'.center(100000000000) }}", "more memory"),
    "formatting": ("{{ '%99999999999d' % 1 }}", "more memory"),
    "recursion": ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "nested too deeply"),
    "a range": ("{{ range(1000000000) | list }}", "Range too big"),
    "classes": ("{{ ''.__class__.__mro__ }}", "unsafe"),
    "globals": ("{{ cycler.__init__.__globals__ }}", "unsafe"),
    "filler": ("{{ lipsum(n=100000) }}", "lipsum"),
    "syntax": ("{% if %}", "TemplateSyntaxError"),
    "its own refusal": (
        "{{ raise_exception('no system\nrole') }}",
        "TemplateError: no system role",
    ),
    "another template": ("{% include '/etc/passwd' %}", "no loader"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_template_that_does_not_end_or_reaches_out_is_refused(name):
    template, message = HOSTILE[name]
    start = time.process_time()
    with pytest.raises(BytelmError, match=message) as raised:
        render(template)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 400
    assert time.process_time() - start < 60  # they would take days


def test_bounds_are_lifted_afterwards():
    before = resource.getrlimit(resource.RLIMIT_AS), sys.gettrace()
    render("{{ 1 }}")
    with pytest.raises(BytelmError):
        render(DOUBLING)
    assert (resource.getrlimit(resource.RLIMIT_AS), sys.gettrace()) == before


def test_an_honest_template_is_far_from_the_bounds(monkeypatch):
    """A conversation of 100 turns, by a template such as models have."""
    template = (
        "{% for m in messages %}{% if m.role not in ('user', 'model') %}"
        "{{ raise_exception('role') }}{% endif %}"
        "<|{{ m['role'] }}|>\n{{ m.content | trim }}{{ eos }}\n{% endfor %}<|model|>\n"
    )
    messages = [{"role": "user", "content": f" {i} "} for i in range(100)]
    expected = "".join(f"<|user|>\n{i}</s>\n" for i in range(100)) + "<|model|>"
    monkeypatch.setattr(templates, "_STEPS", 20_000)
    monkeypatch.setattr(templates, "_MEMORY", 64 << 20)
    assert render(template, messages=messages, eos="</s>") == expected


@pytest.mark.parametrize(
    ("name", "template", "least"),
    [
        ("_STEPS", "{% for i in range(50) %}{{ i }}{% endfor %}", 1000),
        ("_LARGEST_NUMBER", "{{ 1000 * 1000 }}", 1000),
        ("_LONGEST_TEXT", "{{ 'ab' * 50 }}", 100),
    ],
)
def test_each_bound_holds_where_it_is_set(name, template, least, monkeypatch):
    monkeypatch.setattr(templates, name, least)
    found = render(template)
    monkeypatch.setattr(templates, name, least // 10)
    with pytest.raises(BytelmError, match="the chat template fails"):
        render(template)
    assert found
