"""The claims of docs/hnet-at-small-compute.md, part of those in claims.py."""

from benchmarks.claim import Claim
from benchmarks.figures import run_bits, study_bits

STUDY = "docs/hnet-at-small-compute.md"
STUDY_CLAIMS = (
    Claim(
        claim="At equal bytes four times smaller steps and hashed n-gram tables are each worth "
        "about 0.2 bits per byte after 260 kB",
        source=STUDY,
        result="hnet_study",
        command="python -m benchmarks.hnet_study run",
        figure=study_bits(
            "space-m2T2m2-b4096", "space-m2T2m2-b1024", "space-m2T2m2-b1024-ngram", "mamba-ngram"
        ),
        verdict="holds",
        check=lambda r: (
            run_bits(r, "space-m2T2m2-b4096") - run_bits(r, "space-m2T2m2-b1024") > 0.15
            and run_bits(r, "space-m2T2m2-b1024") - run_bits(r, "space-m2T2m2-b1024-ngram") > 0.15
        ),
    ),
    Claim(
        claim="A router taught by the space rule and let go for the last fifth of training is "
        "level with that rule at equal bytes",
        source=STUDY,
        result="hnet_study",
        command="python -m benchmarks.hnet_study run",
        figure=study_bits(
            "space-m2T2m2-b1024-ngram", "taught80-m2T2m2-ngram", "taught-m2T2m2-ngram"
        ),
        verdict="holds",
        check=lambda r: (
            run_bits(r, "taught80-m2T2m2-ngram") - run_bits(r, "space-m2T2m2-b1024-ngram") < 0.02
        ),
    ),
)
