"""The contract of `ByteLM`, one check a property, for every implementation in `CASES`.

To put another model under contract, add a `Case` here. `texts` says which bytes the model is asked
about (a model over two letters has nothing to say about the others). Tolerances are in nats: fp64
models must agree to 1e-9.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from hypothesis import strategies as st

from bytelm.arch.base import STORED, ArchConfig, ByteModel
from bytelm.arch.hnet import HNet
from bytelm.arch.hnet.config import HNetConfig, unnest
from bytelm.arch.t5 import T5, MrT5, MrT5Config, T5Config
from bytelm.arch.transformer import Transformer, TransformerConfig
from bytelm.lm.ensemble import Ensemble
from bytelm.lm.native import NativeLM
from bytelm.lm.ngram import NgramLM
from bytelm.lm.protocol import ByteLM
from bytelm.lm.seq2seq import Seq2SeqLM
from bytelm.vocab import ByteVocab

ANY_BYTES = st.binary(max_size=18) | st.text(max_size=6).map(str.encode)


@dataclass(frozen=True)
class Case:
    """A model under contract: how to make it, the texts to try, the tolerance in nats, and whether
    a context is a source of its own instead of the beginning of the text."""

    make: Callable[[], ByteLM]
    texts: st.SearchStrategy[bytes] = ANY_BYTES
    tolerance: float = 1e-9
    source: bool = False


def strong(kind: type[ByteModel], config: ArchConfig) -> ByteModel:
    """A model in fp64 with large random matrices, so that every part of it moves the logits."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(3)
        model = kind(config, ByteVocab()).double()
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=2.0 / parameter.shape[1] ** 0.5)
    return model


def transformer(*, layers: int = 2, window: int = 10, stride: int = 4) -> NativeLM:
    config = TransformerConfig(layers=layers, d_model=16, heads=2, hidden=32)
    return NativeLM(strong(Transformer, config), window=window, stride=stride)


def t5(*, window: int = 10, stride: int = 4) -> Seq2SeqLM:
    config = T5Config(encoder_layers=1, decoder_layers=2, d_model=16, heads=2, hidden=32)
    return Seq2SeqLM(strong(T5, config), window=window, stride=stride)


def mrt5(*, window: int = 10, stride: int = 4) -> Seq2SeqLM:
    config = MrT5Config(d_model=16, heads=2, hidden=32, softmax1=True)
    return Seq2SeqLM(strong(MrT5, config), window=window, stride=stride)


def hnet(layout: list, *, boundaries: str = "learned") -> NativeLM:
    stages = len(unnest(layout)) // 2
    settings = {  # more than each layout has a use for
        "layout": layout,
        "d_model": [16] * (stages + 1),
        "d_intermediate": [32] * (stages + 1),
        "num_heads": [2] * (stages + 1),
        "d_state": 4,
        "head_dim": 8,
        "boundaries": [boundaries] * stages,
        "given_after": [32, 101] if boundaries == "given" else [],
        "target": [3] * stages,
    }
    config = HNetConfig.model_validate(settings, context=STORED)
    return NativeLM(strong(HNet, config), window=12, stride=5)


SHELLS = b"she sells sea shells by the sea shore. \xff\x00na\xc3\xafve"


def ngram(text: bytes = SHELLS, order: int = 3) -> NgramLM:
    return NgramLM.train([text, text[::-1]], order=order)


def ensemble(how: str, **options: object) -> Ensemble:
    members = [ngram(), transformer(layers=1), ngram(b"by the shore", order=2)]
    return Ensemble(members, how, **options)


CASES = {
    "transformer": Case(transformer),
    "transformer, window 1": Case(lambda: transformer(window=1, stride=1)),
    "transformer, wide window": Case(lambda: transformer(window=200, stride=100)),
    "hnet": Case(lambda: hnet(["m1", ["T1"], "m1"])),
    "hnet, two stages": Case(lambda: hnet(["m1", ["t1", ["T1m1"], "t1"], "M1"])),
    "hnet, spaces": Case(lambda: hnet(["m1", ["T1"], "m1"], boundaries="space")),
    "hnet, given": Case(lambda: hnet(["m1", ["T1"], "m1"], boundaries="given")),
    "mambabyte": Case(lambda: hnet(["m2"])),
    "encoder-decoder": Case(t5, source=True),
    "encoder-decoder, wide window": Case(lambda: t5(window=200, stride=100), source=True),
    "encoder-decoder that deletes": Case(mrt5, source=True),
    "ngram": Case(ngram),
    "ngram, order 0": Case(lambda: ngram(order=0)),
    "mixture": Case(lambda: ensemble("mixture", weights=[1, 2, 3])),
    "bayes": Case(lambda: ensemble("bayes", weights=[1, 2, 3])),
    "switch": Case(lambda: ensemble("switch", weights=[1, 2, 3], rate=0.1)),
    "product": Case(lambda: ensemble("product")),
    "proxy": Case(lambda: ensemble("proxy", weights=[0.7])),
}
