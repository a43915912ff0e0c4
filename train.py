"""Train a byte-level model: `python train.py RECIPE [section.key=value ...]` (= `bytelm train`).

python train.py hnet-tiny
torchrun --nproc-per-node 2 -- train.py hnet-small
"""

import sys

from bytelm.cli.app import run

if __name__ == "__main__":
    run(["train", *sys.argv[1:]])
