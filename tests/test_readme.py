"""The Python of the README runs as it stands, on tiny runs in place of the trained ones."""

import re
from pathlib import Path

from bytelm.lm.classifier import Classifier
from tests.arch.cases import make
from tests.lm.contract import hnet, transformer
from tests.lm.runs import save_run

ROOT = Path(__file__).parents[1]


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", readme, flags=re.M | re.S)
    assert blocks
    save_run(hnet(["m1", ["T1"], "m1"]), tmp_path / "runs/hnet-tiny", arch="hnet")
    save_run(transformer(), tmp_path / "runs/transformer-tiny", arch="transformer")
    classifier = Classifier(make("encoder"), window=20)
    save_run(classifier, tmp_path / "runs/encoder-tiny", arch="encoder")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert names["state"].logprob < 0
