"""The claims about models over words, part of those in claims.py."""

from collections.abc import Callable
from statistics import mean
from typing import Any

from benchmarks.claim import Claim, count

LYT = "Learn Your Tokens, arXiv:2310.11628"
BYTE2WORD = "Byte2Word, arXiv:2211.12677"
B2W_COMMAND = "python -m benchmarks.byte2word --data DATA"


def share_right(result: Any, arm: str, kind: str = "all") -> float:
    """Share of next words of a kind that an arm writes right, over all its seeds."""
    found = [run["accuracy"][kind] for run in result["runs"][arm]]
    return sum(f["right"] for f in found) / max(sum(f["words"] for f in found), 1)


def next_words(kind: str) -> Callable[[Any], str]:
    """The shares of all arms in words."""

    def text(result: Any) -> str:
        parts = [f"{arm} {share_right(result, arm, kind):.1%}" for arm in result["runs"]]
        words = next(iter(result["runs"].values()))[0]["accuracy"][kind]["words"]
        return f"{', '.join(parts)} of {words:,} words after {result['seconds']:.0f} CPU seconds"

    return text


def average(result: Any, part: str, arm: str, name: str) -> float:
    """Mean of a figure over seeds."""
    return mean(run[name] for run in result[part][arm])


def masked_words(result: Any) -> str:
    """Bits per masked byte and whole words of both models, in words."""
    return "; ".join(
        f"{arm}: {average(result, 'masked', arm, 'bits_per_masked_byte'):.3f} bits per masked "
        f"byte, {average(result, 'masked', arm, 'word_accuracy'):.1%} of words"
        for arm in result["masked"]
    )


def noisy_spam(result: Any) -> str:
    """Accuracy of both models on mails, clean and with each noise, in words."""
    parts = []
    for arm, runs in result["spam"].items():
        kinds = [f"{kind} {average(result, 'spam', arm, kind):.1%}" for kind in runs[0]]
        parts.append(f"{arm}: {', '.join(kinds)}")
    return "; ".join(parts)


def nw_seeds(result: Any) -> str:
    """Seeds of the next-word benchmark."""
    return count(min(len(runs) for runs in result["runs"].values()), "seed")


def b2w_seeds(result: Any) -> str:
    """Seeds of the Byte2Word benchmark."""
    return count(min(len(runs) for runs in result["masked"].values()), "seed")


WORD_CLAIMS = (
    Claim(
        claim="Pooling bytes by words predicts whole next words better than flat bytes, at equal "
        "compute and the same bytes of context",
        source=LYT,
        result="next_word",
        figure=next_words("all"),
        runs=nw_seeds,
        verdict="partly",  # one seed
    ),
    Claim(
        claim="Pooling bytes by words predicts whole next words over 300 % better than subwords",
        source=LYT,
        result="next_word",
        figure=next_words("all"),
        runs=nw_seeds,
        verdict="not at this scale",
    ),
    Claim(
        claim="Pooling bytes by words is better on rare words by a factor of 30",
        source=LYT,
        result="next_word",
        figure=next_words("rare"),
        runs=nw_seeds,
        verdict="not at this scale",
    ),
    Claim(
        claim="Words composed from bytes by cross-attention need about a tenth of BERT's embedding "
        "parameters (a reconstruction: the paper's own sizes could not be read)",
        source=BYTE2WORD,
        result="byte2word",
        command=B2W_COMMAND,
        figure=lambda r: (
            f"{r['embedding_share']['bert_base']:.1%} at the size of BERT-base, "
            f"{r['embedding_share']['here']:.1%} of a table of 4,096 pieces at width 192"
        ),
        runs=lambda r: "counted",
        verdict="holds",
        check=lambda r: 0.09 < r["embedding_share"]["bert_base"] < 0.12,
    ),
    Claim(
        claim="With such an embedding masked words are predicted as well as by the subword model",
        source=BYTE2WORD,
        result="byte2word",
        command=B2W_COMMAND,
        figure=masked_words,
        runs=b2w_seeds,
        verdict="not at this scale",
    ),
    Claim(
        claim="It keeps up with the subword model in text classification, and stands noise better",
        source=BYTE2WORD,
        result="byte2word",
        command=B2W_COMMAND,
        figure=noisy_spam,
        runs=b2w_seeds,
        verdict="partly",
    ),
    Claim(
        claim="It transfers between languages better than the subword model",
        source=BYTE2WORD,
        verdict="not tried",
    ),
)
