"""Tiny models over the ids of a Binary BPE tokenizer, in fp64."""

import torch

from bytelm.arch.base import ByteModel
from bytelm.arch.hnet import HNet
from bytelm.arch.hnet.config import HNetConfig
from bytelm.arch.transformer import Transformer, TransformerConfig
from bytelm.lm.subword import SubwordLM
from bytelm.tokenizer import BinaryBPE
from bytelm.tokenizer.vocabulary import token_vocab

TEXT = b"she sells sea shells by the sea shore. " * 5
BPE = BinaryBPE.train([TEXT], vocab_sizes=[285])[285]


def random_model(kind: type[ByteModel], config, bpe: BinaryBPE = BPE) -> ByteModel:
    """Large random matrices, so that every part moves the logits, and tokens that are likely."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(3)
        model = kind(config, token_vocab(bpe)).double()
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=1.0 / parameter.shape[1] ** 0.5)
    return model


def transformer(*, attention_window: int = -1, **options) -> SubwordLM:
    config = TransformerConfig(layers=2, d_model=16, heads=2, hidden=32, window=attention_window)
    return SubwordLM(random_model(Transformer, config), BPE, **{"window": 40, **options})


def mamba(**options) -> SubwordLM:
    config = HNetConfig(layout=["m2"], d_model=[16], d_state=4, head_dim=8)
    return SubwordLM(random_model(HNet, config), BPE, **{"window": 40, **options})


def hnet(**options) -> SubwordLM:
    config = HNetConfig(
        layout=["m1", ["T1"], "m1"], d_model=[16, 16], d_intermediate=[0, 32], num_heads=[0, 2],
        d_state=4, head_dim=8, target=[3],
    )  # fmt: skip
    return SubwordLM(random_model(HNet, config), BPE, **{"window": 40, **options})
