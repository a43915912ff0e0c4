"""The claims of docs/evidence.md: what is said, by whom, and which stored result speaks to it.

To add one, append a `Claim` to `CLAIMS` and run `python -m benchmarks.evidence`. Every figure is a
function of the JSON in benchmarks/results. Results that support no claim are listed in
`NOT_CLAIMS`, with the reason, so that none is forgotten.
"""

from benchmarks.claim import Claim, count
from benchmarks.claims_architectures import ARCHITECTURE_CLAIMS
from benchmarks.claims_blt import BLT_CLAIMS
from benchmarks.claims_data import DATA_CLAIMS
from benchmarks.claims_mrt5 import MRT5_CLAIMS
from benchmarks.claims_speed import SPEED_CLAIMS
from benchmarks.claims_study import STUDY_CLAIMS
from benchmarks.claims_words import WORD_CLAIMS
from benchmarks.figures import (
    WAYS,
    all_of,
    beam,
    better,
    bits,
    card_bits,
    card_text,
    encoding,
    excess,
    genlm_differences,
    genlm_speeds,
    same_merges,
    seeds,
    side_by_side,
    span,
    texts,
    trained_by_both,
    training_ratio,
)

README = "README.md"
HNET = "H-Net, arXiv:2507.07955"
LEADING = ("MambaByte", "H-Net, learned", "H-Net, space", "H-Net, fixed 6")
NOT_CLAIMS = {  # name of a result -> why no claim stands on it
    "tokenizer_families": "says which tokenizers are read as by their own libraries",
    "speculative": "says when a draft pays on one machine: a table of docs/speculative.md",
    "exact_cost": "says what the converter costs by kind and length of text",
    "model_types": "says which model types the converter reads or refuses",
}

# (source, claim) of what nothing here speaks to yet: replace by a `Claim` once it is measured
UNTRIED = (
    (
        "MrT5, arXiv:2410.20771",
        "Deleting tokens in the encoder shortens ByT5's sequences by up to 75 % at "
        "comparable accuracy",
    ),
    (
        "ByteFormer, arXiv:2306.00238",
        "A Transformer on the bytes of TIFF files classifies ImageNet at 77.33 %, above a "
        "model of similar size on pixels",
    ),
    (
        "ByteGen, arXiv:2508.02247",
        "An H-Net over packed order-book events reproduces price distributions, heavy tails "
        "and bursts of a market",
    ),
    (
        "Bolmo, arXiv:2512.15586",
        "A subword model becomes a competitive byte model with less than 1 % of a "
        "pre-training budget",
    ),
)

CLAIMS = (
    Claim(
        claim="`hnet-tiny` reads held-out speeches at the code length of ppmd after minutes of "
        "training on two cores; ppmd primed with the same training text stays ahead",
        source=README,
        result="cards",
        command="python -m benchmarks.cards hnet-tiny RUN...",
        figure=card_text("hnet-tiny"),
        runs=lambda r: count(len(r["hnet-tiny"]["runs"]), "seed"),
        machine=lambda r: r["hnet-tiny"]["machine"],
        verdict="holds",
        check=lambda r: card_bits(r, "hnet-tiny") < r["hnet-tiny"]["cold"]["ppmd"] + 0.01,
    ),
    Claim(
        claim="`hnet-small` is below ppmd primed with its training text",
        source=README,
        result="cards",
        command="python -m benchmarks.cards hnet-small RUN...",
        figure=card_text("hnet-small"),
        runs=lambda r: count(len(r["hnet-small"]["runs"]), "seed"),
        machine=lambda r: r["hnet-small"]["machine"],
        verdict="holds",
        check=lambda r: card_bits(r, "hnet-small") < r["hnet-small"]["primed"]["ppmd"],
    ),
    Claim(
        claim="After 75 CPU seconds H-Nets by any rule and MambaByte lie within 0.05 bits per "
        "byte, and ahead of flat Transformers",
        source=README,
        result="equal_compute",
        figure=side_by_side(
            "H-Net, learned", "H-Net, space", "H-Net, fixed 6", "MambaByte", "flat Transformer"
        ),
        runs=seeds,
        verdict="holds",
        check=lambda r: (
            max(leading := [bits(r, model) for model in LEADING]) - min(leading) < 0.05
            and max(leading)
            < min(bits(r, "windowed Transformer (128)"), bits(r, "flat Transformer"))
        ),
    ),
    Claim(
        claim="At equal compute a state-space model over bytes beats byte-level Transformers",
        source="MambaByte, arXiv:2401.13660",
        result="equal_compute",
        figure=lambda r: (
            side_by_side("MambaByte", "windowed Transformer (128)", "flat Transformer")(r)
            + "; with Mamba-2 layers"
        ),
        runs=seeds,
        verdict="holds",
        check=lambda r: (
            bits(r, "MambaByte")
            < min(bits(r, "windowed Transformer (128)"), bits(r, "flat Transformer"))
        ),
    ),
    Claim(
        claim="One stage of learned chunking beats MambaByte at equal compute",
        source=HNET,
        result="equal_compute",
        figure=side_by_side("H-Net, learned", "MambaByte"),
        runs=seeds,
        verdict="partly",
    ),
    Claim(
        claim="Learned chunks beat chunks of fixed length",
        source=HNET,
        result="equal_compute",
        figure=side_by_side("H-Net, learned", "H-Net, fixed 6"),
        runs=seeds,
        verdict="partly",
    ),
    Claim(
        claim="Learned chunks are as good as cutting English at spaces, inside the same network",
        source=HNET,
        result="equal_compute",
        figure=side_by_side("H-Net, learned", "H-Net, space"),
        runs=seeds,
        verdict="holds",
        check=lambda r: bits(r, "H-Net, learned") < bits(r, "H-Net, space") + 0.02,
    ),
    *STUDY_CLAIMS,
    *ARCHITECTURE_CLAIMS,
    *BLT_CLAIMS,
    Claim(
        claim="Cutting at space-like bytes beats patches of fixed length and flat byte-level "
        "Transformers at equal training compute",
        source="SpaceByte, arXiv:2404.14408",
        result="equal_compute",
        figure=lambda r: (
            side_by_side("H-Net, space", "H-Net, fixed 6", "flat Transformer")(r)
            + "; the rules inside an H-Net"
        ),
        runs=seeds,
        verdict="holds",
        check=lambda r: (
            bits(r, "H-Net, space") < min(bits(r, "H-Net, fixed 6"), bits(r, "flat Transformer"))
        ),
    ),
    Claim(
        claim="Binary BPE tokens help a model of executables at equal compute",
        source="docs/binary-bpe.md",
        result="binary_compute",
        command="python -m benchmarks.binary_compute --corpus CORPUS",
        figure=lambda r: (
            side_by_side("Transformer, 16K tokens", "Transformer, bytes", "Mamba-2, bytes")(r)
            + ": a Transformer, yes; Mamba-2 over bytes is ahead of both"
        ),
        runs=seeds,
        verdict="partly",
    ),
    Claim(
        claim="Binary BPE has the merges of Hugging Face `tokenizers` for a small part of its CPU "
        "time in training",
        source=README,
        result="bpe_train",
        command="python -m benchmarks.bpe_train --series",
        figure=lambda r: (
            f"equal merges in {len(trained_by_both(r))} cases, "
            f"{span([training_ratio(r, case) for case in trained_by_both(r)])} times less CPU"
        ),
        runs=lambda r: "median of 3, theirs once",
        verdict="holds",
        check=lambda r: (
            same_merges(r) and min(training_ratio(r, c) for c in trained_by_both(r)) > 30
        ),
    ),
    Claim(
        claim="Binary BPE encodes several times faster than Hugging Face `tokenizers`",
        source=README,
        result="bpe_codec",
        figure=lambda r: (
            f"{span(encoding(r), '.1f')} times on {r['mib']} MiB in pieces of 8 KiB, for "
            "vocabularies of 4K to 64K"
        ),
        verdict="holds",
        check=lambda r: min(encoding(r)) > 6,
    ),
    Claim(
        claim="Summing over token strings gives a byte distribution whose error falls as the beam "
        "grows",
        source="Vieira et al., arXiv:2412.03719",
        result="exact_table",
        figure=lambda r: (
            f"K=8, epsilon 1e-2: {all_of(beam(r, 8, '0.01'))}; "
            f"1e-3: {all_of(beam(r, 8, '0.001'))}; K=64, 1e-4: "
            f"{all_of(beam(r, 64, '0.0001'))} bits/byte (English / code / CJK)"
        ),
        verdict="holds",
        check=lambda r: all(
            coarse > medium > fine
            for coarse, medium, fine in zip(
                beam(r, 8, "0.01"), beam(r, 8, "0.001"), beam(r, 64, "0.0001"), strict=True
            )
        ),
    ),
    Claim(
        claim="Prompting a tokenized model at any byte, without regard to token boundaries, needs "
        "the exact distribution: naive prompting and token healing lose",
        source="Phan et al., arXiv:2410.09303",
        result="exact_table",
        figure=lambda r: (
            "; ".join(
                f"{method} {all_of([t[method]['bits_per_byte'] for t in texts(r)])}"
                for method in ("naive", "healing", "canonical")
            )
            + " bits/byte (English / code / CJK)"
        ),
        verdict="holds",
        check=lambda r: all(
            t["canonical"]["bits_per_byte"]
            < min(t[method]["bits_per_byte"] for method in ("naive", "healing"))
            for t in texts(r)
        ),
    ),
    Claim(
        claim="Exact byte probabilities improve filling in the middle where a cut falls inside a "
        "token, and change nothing between tokens",
        source="Phan et al., arXiv:2410.09303",
        result="exact_infill",
        figure=lambda r: (
            "; ".join(
                f"{where}: naive {all_of([t[where]['naive'] for t in texts(r)])}, canonical "
                f"{all_of([t[where]['canonical'] for t in texts(r)])}"
                for where in ("inside a token", "between tokens")
            )
            + " bits/byte (English / code)"
        ),
        runs=lambda r: f"{sum(t[w]['cuts'] for t in texts(r) for w in t)} cuts, seed {r['seed']}",
        verdict="holds",
        check=lambda r: all(
            t["inside a token"]["canonical"] < t["inside a token"]["naive"]
            and abs(t["between tokens"]["canonical"] - t["between tokens"]["naive"]) < 0.03
            for t in texts(r)
        ),
    ),
    Claim(
        claim="Combining models of different vocabularies byte by byte improves on each of them",
        source="Phan et al., arXiv:2410.09303",
        result="exact_ensemble",
        figure=lambda r: (
            "; ".join(
                f"{name}: best member {better(t):.4f}, switch {t['switch']:.4f}, "
                f"bayes {t['bayes']:.4f}"
                for name, t in r["results"].items()
            )
            + ". Switching gains where a text changes, not on prose"
        ),
        verdict="partly",
    ),
    Claim(
        claim="A Bayes mixture of two models costs at most one bit per text more than the better "
        "one",
        source="docs/exact.md",
        result="exact_ensemble",
        figure=lambda r: f"{span(excess(r), '.2f')} bits above the better one, over whole texts",
        verdict="holds",
        check=lambda r: max(excess(r)) <= 1 + 1e-6,
    ),
    Claim(
        claim="The converter gives the figures of genlm-bytes, faster",
        source="docs/exact.md",
        result="exact_genlm",
        figure=lambda r: (
            f"{span(genlm_speeds(r), '.1f')} times the bytes per CPU second; bits/byte ours less "
            f"theirs, step by step: {all_of(genlm_differences(r, 'steps'), '+.4f')} (English / "
            "code / CJK)"
        ),
        verdict="holds",
        check=lambda r: (
            min(genlm_speeds(r)) > 2
            and max(d for way in WAYS for d in genlm_differences(r, way)) < 0.001
        ),
    ),
    Claim(
        claim="State-space duality is faster than attention, and more so the longer the sequence",
        source="Mamba-2, arXiv:2405.21060",
        result="ssd",
        figure=lambda r: (
            "on a CPU, attention takes "
            + ", ".join(
                f"{r[f'attention/ssd at {n}']:.1f} times as long at {n}"
                for n in (1024, 2048, 4096, 8192)
            )
        ),
        verdict="holds",
        check=lambda r: (
            1
            < r["attention/ssd at 1024"]
            < r["attention/ssd at 2048"]
            < r["attention/ssd at 4096"]
            < r["attention/ssd at 8192"]
        ),
    ),
    Claim(
        claim="Generation from cached states writes what rerunning the model writes, many times "
        "faster, also for a hierarchical model",
        source="docs/LOG.md",
        result="generation",
        figure=lambda r: "; ".join(
            f"{case['model']} {case['speedup']:.0f} times, "
            f"{'identical' if case['identical'] else 'other'} bytes"
            for case in r
        ),
        verdict="holds",
        check=lambda r: all(case["identical"] and case["speedup"] > 10 for case in r),
    ),
    *SPEED_CLAIMS,
    *DATA_CLAIMS,
    Claim(
        claim="A small encoder tells the bundled formats and languages apart on held-out documents "
        "(at least 97 %), better than naive Bayes on byte histograms",
        source="models/encoder-tiny.md",
        result="classify_bundled",
        command="python -m benchmarks.classify_bundled RUN...",
        figure=lambda r: "; ".join(
            f"{name}: {span([100 * share for share in group['encoder']], '.1f')} %, naive Bayes "
            f"{group['naive_bayes']:.1%}"
            for name, group in r["groups"].items()
        ),
        runs=lambda r: count(len(r["seeds"]), "seed"),
        verdict="holds",
        check=lambda r: (
            min((held := r["groups"]["all held-out documents"])["encoder"]) >= 0.97
            and min(held["encoder"]) > held["naive_bayes"]
        ),
    ),
    *WORD_CLAIMS,
    *MRT5_CLAIMS,
    *(Claim(claim=claim, source=source, verdict="not tried") for source, claim in UNTRIED),
)
