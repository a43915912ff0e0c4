"""`train` and `eval` take the same paths, and training leaves its run in the current folder."""

import gzip
import json

import pytest

TEXT = b"sea shells on the sea shore, " * 9


@pytest.mark.parametrize("spec", ["hf:{}/set?split=train", "{}/a.txt.gz", "{}/[ab].txt", "{}/set"])
def test_what_is_trained_on_can_be_evaluated(spec, trained, bytelm, tmp_path, monkeypatch):
    (tmp_path / "set").mkdir()
    rows = [json.dumps({"text": TEXT.decode()}) for _ in range(2)]
    (tmp_path / "set" / "train.jsonl").write_text("\n".join(rows))
    (tmp_path / "a.txt").write_bytes(TEXT)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(TEXT))
    monkeypatch.chdir(tmp_path)
    path = spec.format(tmp_path)
    settings = [f'data.train=["{path}"]', "data.heldout=[]", "evaluate={}", "name=mine"]
    out, _ = bytelm("train", trained / "recipe.toml", *settings)
    assert out.decode().splitlines()[-1] == "runs/mine"
    assert (tmp_path / "runs" / "mine" / "model.safetensors").is_file()
    report = json.loads(bytelm("eval", "runs/mine", path, "--json")[0])
    assert report["bytes"] == len(TEXT) * (2 if "set" in spec else 1)
