"""Boundary rules: parallel and in pieces alike, stable to insertion on the right, as published."""

import math
from dataclasses import replace
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bytelm.errors import BytelmError
from bytelm.nn.boundaries import RULES, LearnedRule, RuleName, space_like
from bytelm.nn.boundary_rule import RuleOptions
from bytelm.nn.segments import Segments
from bytelm.nn.stepping.boundaries import rule_steps
from tests.nn.cuts import NAMES, TEXTS, cut_bytes, cut_whole, make_rule, stretch_of, vectors


def test_every_rule_has_a_name_that_configs_accept():
    assert set(get_args(RuleName)) == set(RULES)


@given(name=NAMES, text=TEXTS, data=st.data())
def test_a_rule_cuts_in_pieces_as_it_cuts_at_once(name, text, data):
    rule, ids = make_rule(name), torch.tensor([list(text)])
    whole = cut_whole(rule, stretch_of(ids))
    state, at = rule.init_state(1, torch.zeros(1, dtype=torch.float64)), 0
    starts, p, ends = [], [], []
    while at < len(text):
        size = data.draw(st.integers(1, len(text) - at))
        piece = replace(
            stretch_of(ids[:, at : at + size]), positions=torch.arange(at, at + size)[None]
        )
        with torch.no_grad():
            cuts, state = rule.cut(piece, state)
        starts.append(cuts.starts)
        p += [] if cuts.p is None else [cuts.p]
        ends += [] if cuts.ends is None else [cuts.ends]
        at += size
    assert torch.equal(torch.cat(starts, 1), whole.starts)
    if whole.p is not None:
        assert (torch.cat(p, 1) - whole.p).abs().max() < 1e-12
    if whole.ends is not None:
        assert torch.equal(torch.cat(ends, 1), whole.ends)


@given(name=NAMES, texts=st.tuples(TEXTS, TEXTS), data=st.data())
def test_in_place_a_rule_cuts_as_in_parallel_from_any_state(name, texts, data):
    """Rows stand at different positions, and some leave out steps."""
    rule = make_rule(name)
    at = [data.draw(st.integers(0, len(text))) for text in texts]
    states = [rule.init_state(1, torch.zeros(1).double()) for _ in texts]
    whole = [cut_bytes(name, text).starts[0].tolist() for text in texts]
    with torch.no_grad():
        for b, text in enumerate(texts):
            if at[b]:
                stretch = stretch_of(torch.tensor([list(text[: at[b]])]))
                states[b] = rule.cut(stretch, states[b])[1]
        steps = rule_steps(rule, states[0].join(states[1:]))
        while rows := [b for b in range(2) if at[b] < len(texts[b])]:
            rows = data.draw(st.sampled_from([rows, rows[:1], rows[-1:]]))
            ids, places = [texts[b][at[b]] for b in rows], [at[b] for b in rows]
            x = vectors(torch.tensor([ids]))[0]
            found, _ = steps.cut(x, rows, torch.tensor(rows), places, ids)
            for b, start in zip(rows, found, strict=True):
                assert at[b] == 0 or start == whole[b][at[b]]
                at[b] += 1


@given(name=NAMES, texts=st.tuples(TEXTS, TEXTS, TEXTS), following=TEXTS)
def test_ragged_rows_are_cut_as_alone_and_so_is_what_follows(name, texts, following):
    rule, L = make_rule(name), max(map(len, texts))
    ids = torch.tensor([[*text, *b"\n " * L][:L] for text in texts])
    counts = torch.tensor([len(text) for text in texts])
    after = torch.tensor([list(following)] * 3)
    positions = counts[:, None] + torch.arange(len(following))
    with torch.no_grad():
        cuts, state = rule.cut(
            stretch_of(ids, Segments(L, counts)), rule.init_state(3, torch.zeros(1).double())
        )
        then, _ = rule.cut(replace(stretch_of(after), positions=positions), state)
    for b, text in enumerate(texts):
        alone = cut_bytes(name, text + following).starts[0]
        assert torch.equal(cuts.starts[b, : len(text)], alone[: len(text)])
        assert not cuts.starts[b, len(text) :].any()
        assert torch.equal(then.starts[b], alone[len(text) :])


@given(name=NAMES, text=TEXTS, other=TEXTS, data=st.data())
def test_what_follows_never_moves_a_boundary(name, text, other, data):
    n = data.draw(st.integers(1, len(text)))
    kept = cut_bytes(name, text).starts[:, :n]
    assert torch.equal(kept, cut_bytes(name, text[:n]).starts)
    assert torch.equal(kept, cut_bytes(name, text[:n] + other).starts[:, :n])


@given(name=NAMES, text=TEXTS, other=TEXTS)
def test_a_packed_document_is_cut_as_alone(name, text, other):
    documents = torch.tensor([[0] * len(text) + [1] * len(other)])
    packed = cut_bytes(name, text + other, Segments(documents.shape[1], None, documents))
    alone = [cut_bytes(name, t).starts for t in (text, other)]
    assert torch.equal(packed.starts, torch.cat(alone, 1))
    assert packed.starts[0, 0] and packed.starts[0, len(text)]


def test_an_identity_router_merges_repeats_and_splits_opposites():
    router = make_rule("learned")
    v = torch.randn(6, dtype=torch.float64)
    same = router(v.expand(1, 9, 6), v[None])
    assert same.abs().max() < 1e-12
    sign = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(4)
    flip = router(sign[None, :, None] * v, -v[None])
    assert (flip - 1).abs().max() < 1e-12


def test_a_new_router_leaves_half_the_bytes_as_starts():
    torch.manual_seed(0)
    x = torch.randn(4, 200, 32)
    p = LearnedRule(RuleOptions(dim=32))(x, torch.zeros(4, 32))
    assert 0.3 < float((p > 0.5).float().mean()) < 0.7
    assert math.isclose(float(p.detach().mean()), 0.5, abs_tol=0.05)


def test_space_starts_follow_spacebytes_rule_for_every_pair_of_bytes():
    def oracle(byte):
        return not ((chr(byte).isalnum() and byte < 128) or 0x80 <= byte <= 0xBF)

    kinds = [oracle(byte) for byte in range(256)]
    assert space_like(torch.arange(256)).tolist() == kinds
    assert space_like(torch.arange(256, 264)).all()
    pairs = torch.cartesian_prod(torch.arange(256), torch.arange(256))
    starts = cut_whole(make_rule("space"), stretch_of(pairs)).starts
    assert starts[:, 1].tolist() == [kinds[b] and not kinds[a] for a, b in pairs.tolist()]
    text = "a bc, d\u00e9\u4e2d".encode()
    found = cut_bytes("space", text).starts[0].nonzero()[:, 0].tolist()
    assert found == [0, 1, 4, 7, 9]


def test_fixed_starts_align_with_records_after_the_bos():
    rule = RULES["fixed"](RuleOptions(dim=6, stride=4)).double()
    starts = cut_whole(rule, stretch_of(torch.zeros(1, 10, dtype=torch.long))).starts
    assert starts[0].nonzero()[:, 0].tolist() == [0, 1, 5, 9]


def test_given_starts_come_from_outside_or_follow_chosen_bytes():
    outside = torch.tensor([[False, True, False, False, True]])
    assert cut_bytes("given", b"a\nb c").starts.tolist() == [[True, False, True, False, True]]
    found = cut_bytes("given", b"a\nb c", boundaries=outside).starts
    assert found.tolist() == [[True, True, False, False, True]]
    nobody = RULES["given"](RuleOptions(dim=6))
    with pytest.raises(BytelmError, match="given_after"):
        cut_whole(nobody, stretch_of(torch.tensor([[97, 10, 98]])))
