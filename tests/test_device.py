"""Where to compute: one rule, errors that name what is here, no float64 where there is none."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from bytelm.arch import chunk_stats
from bytelm.device import KINDS, choose_device
from bytelm.errors import BytelmError
from bytelm.nn import attention
from bytelm.recipe import Recipe
from bytelm.recipe_sections import MuonSettings
from bytelm.registry import architecture
from bytelm.training import train
from bytelm.training.distributed import Ranks
from bytelm.training.optimizer import Optimizers
from bytelm.vocab import ByteVocab
from tests.arch.cases import CASES, arguments_of, training_batch
from tests.training.runs import tiny_recipe


@pytest.fixture
def machine(monkeypatch):
    """Pretend that torch finds these devices."""

    def pretend(*, cuda: int = 0, mps: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return pretend


@pytest.mark.parametrize(
    ("here", "chosen"),
    [
        ({}, "cpu"),
        ({"mps": True}, "mps"),
        ({"cuda": 1}, "cuda"),
        ({"cuda": 2, "mps": True}, "cuda"),
    ],
)
def test_auto_is_the_fastest_kind_that_is_here(machine, here, chosen):
    machine(**here)
    assert choose_device("auto") == choose_device() == torch.device(chosen)
    assert choose_device("cpu") == torch.device("cpu")


def test_several_processes_do_not_share_an_mps(machine):
    machine(mps=True)
    assert choose_device("auto", several=True) == torch.device("cpu")
    with pytest.raises(BytelmError, match="'mps' trains in one process only: choose auto or cpu"):
        choose_device("mps", several=True)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("cuda", "'cuda' is not available here: choose auto or cpu"),
        ("mps", "'mps' is not available here"),
        ("cud", "unknown device 'cud'; did you mean 'cuda'"),
        ("cuda:x", "unknown device 'cuda:x'"),
        ("", "unknown device ''"),
    ],
)
def test_a_device_that_is_not_here_is_refused_with_what_is(machine, wanted, message):
    machine()
    with pytest.raises(BytelmError, match=message):
        choose_device(wanted)


def test_one_of_several_gpus_is_checked(machine):
    machine(cuda=2)
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(BytelmError, match="there are 2, cuda:0 to cuda:1"):
        choose_device("cuda:2")


@pytest.mark.parametrize("kind", ["auto", *KINDS])
def test_every_kind_is_a_value_of_train_device(tmp_path, kind):
    assert tiny_recipe(tmp_path, f"train.device={kind}").train.device == kind


def test_training_on_a_device_that_is_not_here_leaves_no_directory(tmp_path, machine):
    machine()
    with pytest.raises(BytelmError, match="'mps' is not available here"):
        train(tiny_recipe(tmp_path, "train.device=mps"), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_closing_evaluation_runs_where_training_did(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from bytelm import loading
    from bytelm.cli.app import app

    used = []
    load_run = loading.load_run

    def spy(path, **options):
        used.append(options["device"])
        return load_run(path, **options)

    monkeypatch.setattr(loading, "load_run", spy)
    (tmp_path / "tiny.toml").write_text(tiny_recipe(tmp_path, "train.steps=2").to_toml())
    arguments = ["train", f"{tmp_path}/tiny.toml", "--run", f"{tmp_path}/run", "--device", "cpu"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0 and used == [torch.device("cpu")]
    assert Recipe.load(tmp_path / "run" / "recipe.toml").train.device == "cpu"


class NoFloat64(TorchDispatchMode):
    """Fails where an operation gives float64, as it would on an MPS device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                assert tensor.dtype != torch.float64, f"{func} gives float64"
        return out


@pytest.mark.parametrize("name", CASES)
def test_a_training_step_needs_no_float64_where_there_is_none(name, monkeypatch):
    monkeypatch.setattr(chunk_stats, "has_float64", lambda device: False)
    for module in (attention,):  # there the tables are made on the CPU, and moved
        make_tables = module.rotary_tables

        def outside(*args, make_tables=make_tables, **kwargs):
            with _disable_current_modes():
                return make_tables(*args, **kwargs)

        monkeypatch.setattr(module, "rotary_tables", outside)
    arch, settings = CASES[name]
    kind = architecture(arch)
    config = kind.Config(**settings)
    model = kind(config, ByteVocab(), **arguments_of(kind, config))
    batch = training_batch(model)
    with NoFloat64():
        output = model(batch)
        sum(output.aux.values(), start=output.loss).backward()
        Optimizers(model, MuonSettings(kind="muon"), muon_dtype=torch.float32).step(1.0)


def test_rotary_tables_are_made_on_the_cpu_where_there_is_no_float64(monkeypatch):
    from bytelm.nn import rope

    positions = torch.arange(7)
    wanted = rope.rotary_tables(positions, 8, base=10_000.0, dtype=torch.float32)
    monkeypatch.setattr(rope, "has_float64", lambda device: False)
    found = rope.rotary_tables(positions, 8, base=10_000.0, dtype=torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))


def test_sums_over_ranks_keep_all_digits():
    found = Ranks(torch.device("cpu")).total_sums({"a": 1 / 3, "b": torch.tensor([1, 2])})
    assert found["a"] == 1 / 3 and found["b"].tolist() == [1.0, 2.0]
