"""The Python of the README runs as it stands, on tiny runs in place of the trained ones."""

import re
from pathlib import Path

from bytelm.lm.classifier import Classifier
from bytelm.nn.boundaries import RULES
from bytelm.registry import ARCHITECTURES
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


def test_the_page_on_architectures_names_every_causal_one_and_every_rule():
    page = (ROOT / "docs/architectures.md").read_text(encoding="utf-8")
    causal = [name for name, kind in ARCHITECTURES.items() if kind.family == "causal"]
    missing = [name for name in [*causal, *RULES] if f"`{name}`" not in page]
    assert causal and not missing
