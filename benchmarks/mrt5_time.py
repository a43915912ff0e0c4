"""How much time hard deletion saves: a T5 beside MrT5s that delete 30, 50 and 70 % of its source.

    python -m benchmarks.mrt5_time

Weights are random, as time does not depend on them; the bias of each gate is set to the quantile
of its logits that gives the wanted rate on the very source. Gate and packing are part of the time.
The shape is that of ByT5-small (12 + 4 layers, 6 heads of 64, deletion after 3 layers) with
narrower vectors. CPU seconds of one thread, all models in turn: the encoder alone, and the whole
teacher-forced forward pass with a target of 189 bytes for each 1,024 of the source, as the paper
has it.
"""

import statistics
from functools import partial
from typing import Any

import torch

from benchmarks.common import cpu_seconds, store
from bytelm.arch.t5 import T5, MrT5
from bytelm.data import Batch
from bytelm.vocab import ByteVocab

SHAPE: dict[str, Any] = {
    "encoder_layers": 12,
    "decoder_layers": 4,
    "d_model": 384,
    "heads": 6,
    "head_dim": 64,
    "hidden": 1024,
}
RATES, LENGTHS, REPEATS = (0.3, 0.5, 0.7), (256, 512, 1024, 2048), 3


@torch.no_grad()
def with_rate(rate: float, source: Batch) -> MrT5:
    """An MrT5 of the shape whose gate deletes that share of the source."""
    torch.manual_seed(0)
    model = MrT5(MrT5.Config(**SHAPE, gate_layer=3), ByteVocab()).eval()
    ids, lengths = model.ended(source)
    logits = model.shortener(model._read(ids, lengths)[0])
    model.shortener.score.bias.sub_(logits.quantile(rate))
    return model


def measure() -> list[dict[str, Any]]:
    """One row per length: seconds by model of the encoder and of everything, and rates found."""
    torch.manual_seed(0)
    plain = T5(T5.Config(**SHAPE), ByteVocab()).eval()
    rows = []
    for length in LENGTHS:
        source = Batch(ids=torch.randint(0, 256, (1, length)))
        batch = Batch(ids=torch.randint(0, 256, (1, max(2, 189 * length // 1024))), source=source)
        models = {"t5": plain, **{f"{rate:.0%}": with_rate(rate, source) for rate in RATES}}
        with torch.no_grad():
            found = {n: float(m(batch).stats.get("deleted", 0.0)) for n, m in models.items()}
            encoder = cpu_seconds(
                {n: partial(m.encode, source) for n, m in models.items()}, repeats=REPEATS
            )
            whole = cpu_seconds({n: partial(m, batch) for n, m in models.items()}, repeats=REPEATS)
        rows.append({"length": length, "deleted": found, "encoder": encoder, "forward": whole})
        print(rows[-1], flush=True)
    return rows


def saved(row: dict[str, Any], part: str, name: str) -> float:
    """Share of T5's time that a model saves: of medians."""
    return 1 - statistics.median(row[part][name]) / statistics.median(row[part]["t5"])


def main() -> None:
    """Measure, and write benchmarks/results/mrt5_time.{json,md}."""
    torch.set_num_threads(1)
    result = {"shape": SHAPE, "rows": measure()}
    table: list[list[object]] = [
        ["source bytes", "part", "T5, CPU s", *(f"saved at {rate:.0%} deleted" for rate in RATES)]
    ]
    for row in result["rows"]:
        for part in ("encoder", "forward"):
            shares = [f"{saved(row, part, f'{rate:.0%}'):.0%}" for rate in RATES]
            seconds = f"{statistics.median(row[part]['t5']):.3f}"
            table.append([row["length"], part, seconds, *shares])
    store("mrt5_time", result, table)


if __name__ == "__main__":
    main()
