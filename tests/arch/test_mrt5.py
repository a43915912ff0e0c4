"""MrT5: deletion does what the paper says, hard deletion saves positions and loses nothing else."""

import pytest
import torch
from torch.nn import functional as F

import bytelm
from bytelm.arch.t5 import T5, MrT5, T5Config, T5Memory
from bytelm.data import Batch
from bytelm.data.batch import byte_rows
from bytelm.errors import BytelmError
from bytelm.nn.biased import attend, mean_square_score
from bytelm.nn.controller import RateController
from bytelm.nn.deletion import FixedDeletion, RandomDeletion, valid_positions
from bytelm.nn.memory import Memory
from bytelm.vocab import ByteVocab
from tests.arch.cases import default_dtype, texty_ids

SOURCES = byte_rows([b"hello, wide world of bytes", b"two words", b"", b"0123456789"])
TIGHT = 1e-10


def mrt5(*, bias: float | None = 0.0, spread: float = 20.0, **settings) -> MrT5:
    """In float64, with a gate that deletes about half; bias None: as initialised."""
    torch.manual_seed(1)
    with default_dtype(torch.float64):
        sizes = {"encoder_layers": 4, "d_model": 32, "heads": 2, "hidden": 48, "gate_layer": 2}
        model = MrT5(MrT5.Config(**{**sizes, **settings}), ByteVocab())
    with torch.no_grad():
        for table in (model.encoder_bias, model.decoder_bias):
            table.weight.normal_()
        if bias is not None and model.config.deletion == "learned":
            model.shortener.score.weight.mul_(spread)
            model.shortener.score.bias.fill_(bias)
    return model.eval()


def batch_of(source: Batch = SOURCES) -> Batch:
    return Batch(ids=texty_ids(len(source.ids), 9), source=source)


@torch.no_grad()
def logits(model, batch=None, *, soft=False) -> torch.Tensor:
    found = model.train(soft)(batch or batch_of()).logits[..., :257]
    model.eval()
    return found


@torch.no_grad()
def full_length(model, source=SOURCES, *, compact_distances=False) -> T5Memory:
    """The memory of hard deletion the slow way: every position stays, deleted ones are hidden as
    keys. Written from the definition, with softmax over scores that are spelled out."""
    ids, lengths = model.ended(source)
    x, _ = model._read(ids, lengths)
    valid = valid_positions(ids.shape[1], lengths)
    keep = model.shortener.kept(model.shortener(x)) & valid
    keep[:, 0] |= ~keep.any(1)
    at = torch.arange(ids.shape[1]).expand_as(ids)
    if compact_distances:
        at = (keep.long().cumsum(1) - 1).clamp(min=0)
    bias = model.encoder_bias(at, at).masked_fill(~keep[:, None, None], -torch.inf)
    for block in model._encoder_blocks()[model.config.gate_layer :]:
        q, k, v = block.attention.heads(block.norm1(x))
        scores = q @ k.transpose(2, 3) + bias
        if model.config.softmax1:
            scores = F.pad(scores, (0, 1))
        found = scores.softmax(-1)[..., : k.shape[2]] @ v
        x = x + block.attention.out_proj(found.transpose(1, 2).flatten(2))
        x = x + block.mlp(block.norm2(x))
    gates = torch.zeros_like(keep, dtype=x.dtype).masked_fill(~keep, -torch.inf)
    return T5Memory(Memory(model.encoder_norm(x), lengths), Memory(gates[..., None], lengths))


@torch.no_grad()
def encode(model) -> T5Memory:
    return model.encode(SOURCES)


def survivors(memory: T5Memory) -> list[torch.Tensor]:
    """Per row, the vectors that can be read."""
    seen = memory.hidden.valid & (memory.gates.values[..., 0] > -torch.inf)
    return [values[row] for values, row in zip(memory.hidden.values, seen, strict=True)]


def gap(a, b) -> float:
    assert [len(x) for x in a] == [len(x) for x in b]
    return max(float((x - y).abs().max()) for x, y in zip(a, b, strict=True))


SOFTMAXES = pytest.mark.parametrize("softmax1", [False, True])


@SOFTMAXES
def test_nothing_deleted_is_t5(softmax1):
    model = mrt5(bias=1000.0, softmax1=softmax1)
    shape = {"encoder_layers": 4, "d_model": 32, "heads": 2, "hidden": 48, "softmax1": softmax1}
    plain = T5(T5Config(**shape), ByteVocab()).double().eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if k in plain.state_dict()})
    assert gap(logits(model), logits(plain)) < TIGHT


@SOFTMAXES
def test_hard_deletion_is_hiding_at_full_length(softmax1):
    model = mrt5(softmax1=softmax1)
    memory = encode(model)
    assert 0.2 < float(1 - memory.hidden.lengths.sum() / (SOURCES.lengths + 1).sum()) < 0.8
    assert memory.hidden.values.shape[1] == memory.hidden.lengths.max() < SOURCES.ids.shape[1]
    assert gap(survivors(memory), survivors(full_length(model))) < TIGHT


def test_distances_are_those_before_the_deletion():
    model = mrt5()
    wrong = survivors(full_length(model, compact_distances=True))
    assert gap(survivors(encode(model)), wrong) > 1e-3


@SOFTMAXES
def test_soft_equals_hard_where_gates_are_saturated(softmax1):
    model = mrt5(spread=1e6, softmax1=softmax1)
    source = byte_rows([b"hello, wide world of bytes", b"two words", b"0123456789"])
    assert not model.deleted(source).all(dim=1).any()  # such a row keeps one position after all
    batch = batch_of(source)
    assert gap(logits(model, batch, soft=True), logits(model, batch)) < 1e-9


def test_soft_differs_from_hard_by_the_gates_of_survivors():
    """And not at all where they keep them, but for what a deleted position still weighs."""
    settings = {"spread": 1.0, "softmax1": True, "scale": -4000.0}
    assert gap(logits(mrt5(**settings), soft=True), logits(mrt5(**settings))) > 1e-3
    model = mrt5(**settings, keep_gates=True)
    assert gap(logits(model, soft=True), logits(model)) < TIGHT


def test_a_constant_gate_changes_nothing_but_under_softmax1():
    for softmax1 in (False, True):
        model = mrt5(spread=0.0, bias=1.0, softmax1=softmax1)
        differs = gap(logits(model, soft=True), logits(model)) > 1e-6
        assert differs == softmax1


def test_softmax1_is_a_softmax_with_a_zero_beside():
    q, k, v = torch.randn(3, 2, 1, 5, 4, dtype=torch.float64, generator=torch.manual_seed(0))
    bias = torch.randn(2, 1, 5, 5, dtype=torch.float64)
    scores = q @ k.transpose(2, 3) + bias
    expected = scores.exp() / (1 + scores.exp().sum(-1, keepdim=True)) @ v
    assert (attend(q, k, v, bias, softmax1=True) - expected).abs().max() < TIGHT
    high = attend(q, k, v, bias + 50, softmax1=True)
    assert (high - attend(q, k, v, bias, softmax1=False)).abs().max() < TIGHT
    nothing = attend(q, k, v, torch.full_like(bias, -torch.inf), softmax1=True)
    assert not nothing.any()
    valid = torch.tensor([[True] * 5, [True, True, False, False, False]])
    squares = (q @ k.transpose(2, 3)).square() * valid[:, None, None]
    mean = squares.sum() / (5 * valid.sum())
    assert (mean_square_score(q, k, valid) - mean).abs() < TIGHT


def test_the_threshold_is_the_sign_of_the_logit():
    gate = mrt5().shortener
    for x in (-1e-9, 1e-9, -3.0, 3.0):
        logit = torch.tensor([x], dtype=torch.float64)
        assert bool(gate.kept(logit)) == (x > 0) == bool(gate.gates(logit) > gate.scale / 2)
    gate = mrt5(threshold=0.25).shortener
    for x in (1.0, 1.2):  # ln 3 = 1.0986
        logit = torch.tensor([x], dtype=torch.float64)
        assert bool(gate.kept(logit)) == bool(gate.gates(logit) > 0.25 * gate.scale) == (x > 1.1)


def test_a_gate_begins_by_keeping():
    model = mrt5(bias=None)
    ids, lengths = model.ended(SOURCES)
    logits = model.shortener(model._read(ids, lengths)[0])
    assert model.shortener.score.bias == 1 and (logits > 0).float().mean() > 0.6


def test_a_row_of_which_all_is_deleted_keeps_its_first_position():
    model = mrt5(bias=-1000.0)
    assert model.encode(SOURCES).hidden.lengths.tolist() == [1, 1, 1, 1]
    assert logits(model).isfinite().all()
    assert gap(survivors(encode(model)), survivors(full_length(model))) < TIGHT
    gone = model.deleted(SOURCES)
    assert gone.sum(1).tolist() == [25, 8, 0, 9] and not gone[:, 0].any()


@torch.no_grad()
def test_greedy_texts_are_the_same_with_and_without_compaction():
    model = mrt5(softmax1=True)
    texts = []
    for memory in (model.encode(SOURCES), full_length(model)):
        state, ids, text = model.init_state(memory), torch.full((4,), model.vocab.bos), []
        for _ in range(15):
            found, state = model.step(ids, state)
            ids = found[:, :257].argmax(1).clamp(max=255)
            text.append(ids.tolist())
        texts.append(text)
    assert texts[0] == texts[1] and len({tuple(row) for row in texts[0]}) > 3


@torch.no_grad()
@pytest.mark.parametrize("rate", [0.3, 0.5])
def test_random_deletion_takes_exactly_its_share_of_each_row(rate):
    random, (ids, lengths) = RandomDeletion(rate).eval(), mrt5().ended(SOURCES)
    x = torch.arange(ids.shape[1]).expand_as(ids)[..., None].double()
    short = random(x, ids, lengths)
    expected = [max(1, n - round(rate * n)) for n in lengths.tolist()]
    assert short.lengths.tolist() == expected
    assert torch.equal(random(x, ids, lengths).positions, short.positions)  # it repeats
    for row, n in zip(short.positions.tolist(), expected, strict=True):
        assert row[:n] == sorted(set(row[:n]))
    torch.manual_seed(0)
    drawn = [random.train()(x, ids, lengths).deleted for _ in range(300)]
    assert abs(float(torch.stack(drawn).mean()) - rate) < 0.04


def test_random_deletion_favours_no_position():
    ids = torch.randint(0, 256, (4000, 10), generator=torch.manual_seed(0))
    short = RandomDeletion(0.5).eval()(torch.zeros(4000, 10, 1), ids, torch.full((4000,), 10))
    counts = short.positions.flatten().bincount(minlength=10)
    assert counts.sum() == 20_000 and (counts - 2000).abs().max() < 200


def test_fixed_deletion_keeps_the_beginning_of_each_segment_of_its_own_row():
    rows = [b"one, three four", b"aaaaaaaa", b"a.b", b"one, three four and more"]
    ids, lengths = mrt5().ended(byte_rows(rows))
    gate = FixedDeletion(0.5)
    x = torch.zeros(*ids.shape, 1)
    together = gate(x, ids, lengths)
    kept = [
        bytes(int(ids[b, p]) for p in together.positions[b, :n] if ids[b, p] < 256)
        for b, n in enumerate(together.lengths.tolist())
    ]
    assert kept[:3] == [b"on, th fo", b"aaaa", b"a."]
    assert kept[3].startswith(kept[0])  # and EOS is a segment by itself
    for b, n in enumerate(lengths.tolist()):
        alone = gate(x[b : b + 1, :n], ids[b : b + 1, :n], lengths[b : b + 1])
        m = int(together.lengths[b])
        assert torch.equal(alone.positions[0], together.positions[b, :m])


@pytest.mark.parametrize("deletion, expected", [("boundaries", None), ("pooling", 3)])
def test_merged_positions_stand_for_all_bytes(deletion, expected):
    model = mrt5(deletion=deletion, **({"stride": expected} if expected else {}))
    lengths = SOURCES.lengths + 1
    short = model.encode(SOURCES).hidden.lengths
    assert (short >= 1).all() and (short <= lengths).all()
    if expected:
        assert torch.equal(short, -(-lengths // expected))
    assert not model.deleted(SOURCES).any()


@torch.no_grad()
def test_learned_segments_are_averages_of_what_is_between_ends():
    merge = mrt5(deletion="boundaries").shortener
    ids, lengths = mrt5().ended(SOURCES)
    x = torch.randn(*ids.shape, 32, dtype=torch.float64, generator=torch.manual_seed(0))
    with torch.no_grad():
        merge.end.weight.mul_(30)
        merge.end.bias.fill_(8.0)
        short = merge(x, ids, lengths)
        ends = merge.end(F.gelu(merge.hidden(merge.norm(x))))[..., 0] > 0
    assert int(short.lengths.max()) > 2
    for b, n in enumerate(lengths.tolist()):
        cuts = [t for t in range(n) if ends[b, t] or t == n - 1]
        begins = [0, *(t + 1 for t in cuts[:-1])]
        assert short.positions[b, : len(cuts)].tolist() == begins
        means = [merge.norm(x)[b, i : j + 1].mean(0) for i, j in zip(begins, cuts, strict=True)]
        assert gap([short.x[b, : len(cuts)]], [torch.stack(means)]) < TIGHT * 10


@pytest.mark.parametrize("target", [0.2, 0.5, 0.8])
def test_the_controller_brings_a_plant_to_its_target(target):
    """rate = logistic(a (alpha - c)), followed with a lag, as a gate follows its loss."""
    controller, rate = RateController(target=target, k_p=0.5, k_i=0.02), 0.02
    for _ in range(3000):
        goal = float(torch.sigmoid(4 * (controller.alpha - 1)))
        rate += 0.2 * (goal - rate)
        controller.observe(rate)
        assert controller.alpha >= 0
    assert rate == pytest.approx(target, abs=0.01)


def test_the_weight_never_is_negative_and_follows_the_formula():
    controller = RateController(target=0.1, k_p=0.5, k_i=0.01, alpha=0.02)
    p, i = 0.0, 0.02
    for rate in (0.0, 0.4, 0.9, 0.9, 0.1, 0.0):
        controller.observe(rate)
        p, i = 0.9 * p + 0.1 * 0.5 * (0.1 - rate), i + 0.01 * (0.1 - rate)
        assert float(controller.alpha) == pytest.approx(max(0.0, p + i), abs=1e-7)


def test_noise_and_hard_batches_are_for_training_only():
    model = mrt5(noise=True, hard_share=1.0, spread=1.0)
    assert gap(logits(model), logits(model)) == 0
    assert gap(logits(model, soft=True), logits(model, soft=True)) > 1e-6
    model = mrt5(hard_share=1.0)
    assert gap(logits(model, soft=True), logits(model)) < TIGHT


@torch.no_grad()
def test_terms_of_the_loss_are_scaled_and_named():
    model = mrt5(alpha=0.5, score_penalty=0.1).train()
    output = model(batch_of())
    assert set(output.aux) == {"gate", "scores"} and output.aux["scores"] > 0
    ids, lengths = model.ended(SOURCES)
    gates = model.shortener.gates(model.shortener(model._read(ids, lengths)[0]))
    valid = valid_positions(ids.shape[1], lengths)
    assert float(output.aux["gate"]) == pytest.approx(0.5 * float(gates[valid].mean()))
    assert float(output.stats["deleted"]) == pytest.approx(
        float((gates[valid] < -15).double().mean()), abs=1e-6
    )


def test_float16_is_refused_and_bfloat16_is_near():
    model, batch = mrt5(softmax1=True), batch_of()
    with pytest.raises(BytelmError, match=r"float16: its unscaled activations"):
        mrt5().half()(batch)
    with pytest.raises(BytelmError, match="float16"), torch.autocast("cpu", dtype=torch.float16):
        mrt5().float()(batch)
    exact, model = logits(mrt5(bias=50.0, spread=1.0)), mrt5(bias=50.0, spread=1.0).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = logits(model)
    assert rough.dtype == torch.float32
    assert (rough - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize("deletion", ["learned", "random", "fixed"])
def test_the_released_layout_loads_and_round_trips(deletion):
    extra = {} if deletion == "learned" else {"deletion": deletion, "rate": 0.4}
    model = mrt5(**extra).float()
    config, weights = bytelm.hub.to_official(model)
    gate = "encoder.block.2.delete_gate"
    names = {f"{gate}.layer_norm.weight", f"{gate}.feed_forward.weight"}
    names |= {f"{gate}.feed_forward.bias"}
    assert names <= weights.keys() if deletion == "learned" else not names & weights.keys()
    if deletion == "learned":
        assert config["deletion_threshold"] == -15 and config["delete_gate_layer"] == 2
    again = bytelm.hub.from_official("mrt5", config, weights).eval()
    assert gap(logits(again), logits(model)) == 0


def test_gate_settings_come_from_the_checkpoint_not_from_our_defaults():
    config, _ = bytelm.hub.to_official(mrt5())
    bare = {
        k: v for k, v in config.items() if not k.startswith(("sigmoid", "delet", "use_", "gate"))
    }
    found = bytelm.hub.from_official("mrt5", bare | {"deletion_type": "scaled_sigmoid"}).config
    assert (found.scale, found.gate_layer, found.softmax1) == (-10, 2, False)
    with pytest.raises(BytelmError, match="deletion_type 'log_sigmoid' cannot be read"):
        bytelm.hub.from_official("mrt5", config | {"deletion_type": "log_sigmoid"})
    with pytest.raises(BytelmError, match="'pooling' has no released format"):
        bytelm.hub.to_official(mrt5(deletion="pooling"))
