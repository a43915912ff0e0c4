"""The commands that use a model, run as a user runs them (in this process)."""

import json
import os
import subprocess
import sys

import pytest

from bytelm.lm.generate import generate
from bytelm.loading import load
from tests.exact import test_huggingface as models
from tests.exact import test_starts as starts

from .conftest import TEXT


def test_eval_reports_the_model_beside_the_compressors(runs, bytelm):
    out, _ = bytelm("eval", runs / "hnet", runs / "text", "--json")
    report = json.loads(out)
    assert {"bits_per_byte", "bytes_per_second", "gzip", "xz", "zstd", "end_bits"} <= report.keys()
    assert (report["bytes"], report["documents"]) == (len(TEXT), 1)
    assert (report["window"], report["stride"]) == (63, 31)
    assert report["bits_per_byte"] == pytest.approx(load(runs / "hnet").bits_per_byte(TEXT))
    out, _ = bytelm("eval", runs / "hnet", runs / "text", "--stride", 5, "--primed", runs / "text")
    assert b"xz -9e, primed" in out and b"stride 5" in out


def test_generate_writes_the_bytes_themselves(runs, bytelm):
    options = {"temperature": 0.9, "top_k": 9, "top_p": 0.9}
    expected = generate(load(runs / "flat"), b"sea", max_bytes=40, seed=3, **options)
    flags = [x for k, v in options.items() for x in (f"--{k.replace('_', '-')}", v)]
    limits = ["--max-bytes", 40, "--seed", 3]
    out, err = bytelm("generate", runs / "flat", "--prompt", "sea", *limits, *flags)
    assert out == expected and not err


def test_generate_reads_prompt_files_and_stops(runs, bytelm):
    lm = load(runs / "flat")
    whole = generate(lm, TEXT, max_bytes=30, temperature=0)
    arguments = ["generate", runs / "flat", "--prompt-file", runs / "text", "--temperature", 0]
    out, _ = bytelm(*arguments, "--max-bytes", 30, "--stop", f"\\x{whole[5]:02x}")
    assert out == whole[: whole.index(whole[5])]
    out, _ = bytelm(*arguments, "--max-bytes", 9, "--utf8")
    (TEXT + out).decode()


def test_a_context_is_the_source_of_an_encoder_decoder_and_the_past_of_others(runs, bytelm):
    (runs / "short").write_bytes(b"she sells")
    files = ["--prefix-file", runs / "short", "--suffix-file", runs / "short"]
    for name in ("t5", "flat"):
        lm = load(runs / name)
        source, given = ["--context", "shells"], ["--context-file", runs / "short"]
        out, _ = bytelm("generate", runs / name, *source, "--max-bytes", 9, "--seed", 2)
        expected = generate(lm, max_bytes=9, seed=2, temperature=0.8, context=b"shells")
        assert out == expected
        report = json.loads(bytelm("score", runs / name, runs / "short", *source, "--json")[0])
        assert report["logprob"] == pytest.approx(
            float(lm.score(b"she sells", context=b"shells").sum())
        )
        rows = json.loads(bytelm("next", runs / name, *given, "--top", 1, "--json")[0])["next"]
        best = int(lm.start(context=b"she sells").logprobs().argmax())
        assert rows[0]["outcome"] == best
        one = ["infill", runs / name, *files, "--max-bytes", 4, "--candidates", 3]
        assert len(bytelm(*one, *source)[0]) <= 4
        assert bytelm(*one, *source)[0] == bytelm(*one, *source)[0]


def test_generate_searches_for_the_most_probable_text(runs, bytelm):
    arguments = ["generate", runs / "flat", "--prompt", "se", "--max-bytes", 5, "--beams", 3]
    expected = generate(load(runs / "flat"), b"se", max_bytes=5, beams=3)
    assert bytelm(*arguments)[0] == expected
    _, err = bytelm(*arguments, "--top-k", 3, status=2)
    assert "top_k cannot be combined" in err


def test_settings_of_converted_models_reach_every_command(runs, bytelm):
    (runs / "short").write_bytes(b"she sells")
    options = ["--mode", "all", "--beam", 3, "--epsilon", 0.01, "--window", 20]
    lm = load(runs / "subword", mode="all", beam=3, epsilon=0.01, window=20)
    out, _ = bytelm("generate", runs / "subword", "--max-bytes", 5, "--seed", 1, *options)
    assert out == generate(lm, max_bytes=5, seed=1, temperature=0.8)
    report = json.loads(bytelm("score", runs / "subword", runs / "short", "--json", *options)[0])
    assert report["logprob"] == pytest.approx(float(lm.score(b"she sells").sum()))
    assert report["window"] == 20
    rows = json.loads(bytelm("next", runs / "subword", "--top", 2, "--json", *options)[0])["next"]
    wanted = lm.start().logprobs().double().exp().sort(descending=True).values[:2].tolist()
    assert [row["probability"] for row in rows] == pytest.approx(wanted)
    files = ["--prefix-file", runs / "short", "--suffix-file", runs / "short"]
    bytelm("infill", runs / "subword", *files, "--max-bytes", 2, "--candidates", 2, *options)
    _, err = bytelm("score", runs / "flat", runs / "short", "--mode", "all", status=2)
    assert "mode" in err


def test_several_models_make_an_ensemble(runs, bytelm):
    arguments = ["eval", runs / "flat", runs / "text", "--model", runs / "hnet", "--json"]
    together = json.loads(bytelm(*arguments, "--ensemble", "bayes")[0])["bits_per_byte"]
    alone = [load(runs / name).bits_per_byte(TEXT) for name in ("flat", "hnet")]
    assert together <= min(alone) + 1 / len(TEXT)
    _, err = bytelm(*arguments, "--ensemble", "bays", status=2)
    assert "did you mean 'bayes'" in err


def test_score_gives_the_log_probability_of_every_byte(runs, bytelm):
    report = json.loads(bytelm("score", runs / "flat", runs / "text", "--json")[0])
    lm = load(runs / "flat")
    assert report["logprob"] == pytest.approx(float(lm.score(TEXT).sum()))
    assert len(report["bits"]) == len(TEXT)
    assert b"bits/byte" in bytelm("score", runs / "flat", runs / "text")[0]


def test_next_lists_the_most_probable_outcomes(runs, bytelm):
    rows = json.loads(bytelm("next", runs / "flat", "--prompt", "se", "--top", 257, "--json")[0])
    probabilities = [row["probability"] for row in rows["next"]]
    assert sum(probabilities) == pytest.approx(1, abs=1e-5)
    assert probabilities == sorted(probabilities, reverse=True)
    assert len(bytelm("next", runs / "flat", "--prompt", "se", "--top", 3)[0].splitlines()) == 3


@pytest.mark.parametrize("model", ["flat", "fim"])
def test_infill_writes_the_middle(runs, bytelm, model):
    (runs / "short").write_bytes(b"abc")
    files = ["--prefix-file", runs / "short", "--suffix-file", runs / "short"]
    out, _ = bytelm("infill", runs / model, *files, "--max-bytes", 6, "--candidates", 5)
    assert len(out) <= 6
    assert bytelm("infill", runs / model, *files, "--max-bytes", 6, "--candidates", 5)[0] == out


def test_infilling_says_in_which_format_it_asked(runs, bytelm):
    (runs / "short").write_bytes(b"abc")
    files = ["--prefix-file", runs / "short", "--suffix-file", runs / "short", "--max-bytes", 3]
    for model, options, template, said in (
        ("fim", [], "bytelm", False),
        ("fim", ["--template", "bytelm", "--order", "spm"], "bytelm", False),
        ("fim", ["--template", "none"], None, False),
        ("flat", ["--template", "none"], None, False),
        ("flat", [], None, True),
    ):
        out, err = bytelm("infill", runs / model, *files, *options, "--json")
        assert json.loads(out)["template"] == template
        assert ("none of the formats for infilling" in err) == said


def test_a_template_and_ends_of_one_s_own_reach_a_converted_model(tmp_path, runs, bytelm):
    """Symbols 257 to 261; `<E>`, which no file lists as an end, follows the middle."""
    names = ["<s>", "</s>", "<A>", "<B>", "<C>", "<E>"]
    follows = {260: ord("x"), ord("x"): 261, ord("y"): 261}
    starts.bigram_llama(262, follows).save_pretrained(tmp_path)
    words = starts.tokenizer(names, bos_token="<s>", eos_token="</s>")
    words.save_pretrained(tmp_path)
    (tmp_path / "mine.toml").write_text(
        'psm = ["<A>", "{prefix}", "<B>", "{suffix}", "<C>"]\nends = ["<E>"]'
    )
    (runs / "short").write_bytes(b"f(")
    files = ["--prefix-file", runs / "short", "--suffix-file", runs / "short", "--temperature", 0]
    out, err = bytelm("infill", tmp_path, *files, "--template", tmp_path / "mine.toml", "--json")
    assert (json.loads(out)["text"], json.loads(out)["template"]) == ("x", "mine")
    assert "none of the formats" not in err
    limits = ["--prompt", "y", "--max-bytes", 4, "--temperature", 0]
    for end in ([], ["--end", "<E>"], ["--end", "261"]):
        assert len(bytelm("generate", tmp_path, *limits, *end)[0]) == (0 if end else 4)


def test_chunks_show_where_the_model_cuts(runs, bytelm, tmp_path):
    page = tmp_path / "page.html"
    out, err = bytelm("chunks", runs / "hnet", runs / "text", "--html", page)
    assert b"\x1b" not in out and "stage 1" in err
    assert "東" in page.read_text(encoding="utf-8")
    report = json.loads(bytelm("chunks", runs / "hnet", runs / "text", "--json")[0])
    assert set(report["boundaries"][1]) <= set(report["boundaries"][0])
    both = [runs / "hnet", runs / "hnet"]
    out, err = bytelm("chunks", *both, runs / "text", "--html", page)
    assert out.count(b"hnet:") == 2 and err.count("hnet, stage 1") == 2
    assert page.read_text(encoding="utf-8").count("<section>") == 2
    several = json.loads(bytelm("chunks", *both, runs / "text", "--json")[0])["runs"]
    assert several == [{"run": str(runs / "hnet"), **report}] * 2


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """A Hugging Face directory."""
    folder = tmp_path_factory.mktemp("converted")
    models.llama().save_pretrained(folder)
    models.tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "canonical"},
        {"mode": "all", "beam": 2, "epsilon": 0.0},
        {"window": 9, "stride": 4, "device": "cpu"},
    ],
)
def test_the_options_of_a_converted_model_reach_it(converted, runs, bytelm, options):
    flags = [x for name, value in options.items() for x in (f"--{name}", value)]
    (runs / "brief").write_bytes(b"It's a test, isn't it?")
    report = json.loads(bytelm("score", converted, runs / "brief", *flags, "--json")[0])
    lm = load(converted, **options)
    assert report["logprob"] == pytest.approx(float(lm.score(b"It's a test, isn't it?").sum()))
    assert (report["window"], report["stride"]) == (lm.window, lm.stride)


def test_a_model_without_bos_says_what_to_type_and_takes_it(tmp_path, runs, bytelm):
    models.llama().save_pretrained(tmp_path)
    models.tokenizer(bos=None).save_pretrained(tmp_path)
    (runs / "brief").write_bytes(b"It's a test")
    _, err = bytelm("score", tmp_path, runs / "brief", status=2)
    assert "--start ID,..." in err
    report = json.loads(bytelm("score", tmp_path, runs / "brief", "--start", "3,4", "--json")[0])
    expected = load(tmp_path, start=[3, 4]).score(b"It's a test")
    assert report["logprob"] == pytest.approx(float(expected.sum()))


def test_an_option_reaches_those_members_of_an_ensemble_that_take_it(converted, runs, bytelm):
    members = ["next", runs / "flat", "--model", converted, "--prompt", "It"]
    bytelm(*members, "--mode", "canonical")
    _, err = bytelm("next", runs / "flat", "--model", runs / "hnet", "--beam", 3, status=2)
    assert "--beam means nothing for any of these models" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["next", "{runs}/flat", "--mode", "all"], "mode is not an option"),
        (["next", "{runs}/flat", "--end", "eos"], "ends is not an option"),
        (
            [
                "infill",
                "{runs}/flat",
                "--prefix-file",
                "{runs}/text",
                "--suffix-file",
                "{runs}/text",
                "--template",
                "bytelm",
            ],
            "template bytelm does not fit this model: unknown special symbol 'fim_middle'",
        ),
        (["next", "{runs}/flat", "--device", "gpu"], "unknown device 'gpu'; did you mean 'cpu'?"),
        (["eval", "{runs}/missing", "{runs}/text"], "no model at"),
        (["eval", "{runs}/flat", "{runs}/missing"], "missing"),
        (["score", "{runs}/flat", "{runs}/missing"], "No such file"),
        (["score", "{runs}/flat", os.devnull], "empty"),
        (["chunks", "{runs}/flat", "{runs}/text"], "no chunks"),
        (["generate", "{runs}/flat", "--top-p", "3"], "top_p must be"),
        (["generate", "{runs}/flat", "--prompt", "a", "--prompt-file", "b"], "not both"),
        (["eval", "{runs}/flat", "{runs}/text", "--weights", "1"], "several models"),
        (["infill", "{runs}/flat", "--prefix-file", "{runs}/nope", "--suffix-file", "x"], "nope"),
    ],
)
def test_mistakes_exit_with_2_and_one_paragraph(runs, bytelm, arguments, message):
    out, err = bytelm(*(a.format(runs=runs) for a in arguments), status=2)
    assert message in err and not out
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "option", [["--window", 5], ["--primed", "x"], ["--model", "{}/flat"], ["--canonical-tokens"]]
)
def test_options_of_bits_per_byte_mean_nothing_for_other_families(runs, bytelm, option):
    option = [str(word).format(runs) for word in option]
    _, err = bytelm("eval", runs / "labels", runs / "text", *option, status=2)
    assert option[0] in err and "mean nothing here" in err


def test_the_device_is_chosen_for_every_command_and_by_the_library(runs, bytelm):
    (runs / "brief").write_bytes(b"sea")
    for name, run, *rest in (
        ("generate", "flat", "--max-bytes", 3),
        ("score", "flat", runs / "brief"),
        ("next", "flat"),
        ("eval", "flat", runs / "brief"),
        ("eval", "t5", runs / "brief"),
        ("classify", "labels", runs / "brief"),
        ("infill", "flat", "--prefix-file", runs / "brief", "--suffix-file", runs / "brief"),
    ):
        _, err = bytelm(name, runs / run, *rest, "--device", "cuda:7", status=2)
        assert "cuda:7" in err and "not available here" in err, name
    assert load(runs / "flat", device="auto").model.device.type in ("cpu", "cuda", "mps")
    for device in ("auto", "cpu"):
        assert bytelm("next", runs / "flat", "--device", device)[0]


def test_a_reader_that_leaves_early_is_no_error(runs):
    command = [sys.executable, "-m", "bytelm", "generate", str(runs / "flat"), "--max-bytes", "300"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_a_terminal_that_is_not_utf8_is_no_error(runs):
    command = [sys.executable, "-m", "bytelm", "chunks", str(runs / "hnet"), str(runs / "text")]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    done = subprocess.run(command, env=environment, capture_output=True)
    assert done.returncode == 0 and done.stdout.isascii()


def test_a_subword_run_is_used_as_any_other_and_says_which_figure_it_gives(runs, bytelm):
    lm, text = load(runs / "subword"), TEXT[:60]
    (runs / "short").write_bytes(text)
    out, _ = bytelm("eval", runs / "subword", runs / "short", "--json")
    exact = json.loads(out)
    assert exact["bits_per_byte"] == pytest.approx(lm.bits_per_byte(text))
    assert (exact["scored"], exact["window"]) == ("bytes", 63)
    out, _ = bytelm("eval", runs / "subword", runs / "short", "--canonical-tokens", "--json")
    tokens = json.loads(out)
    assert tokens["scored"] == "canonical tokens"
    assert tokens["bits_per_byte"] > exact["bits_per_byte"]
    out, _ = bytelm("generate", runs / "subword", "--prompt", "she se", "--max-bytes", 9)
    assert out
    bytelm("next", runs / "subword", "--prompt", "she se")
    bytelm("score", runs / "subword", runs / "short")
    _, err = bytelm("eval", runs / "flat", runs / "short", "--canonical-tokens", status=2)
    assert "data.tokenizer" in err
    _, err = bytelm("chunks", runs / "subword", runs / "short", status=2)
    assert "only native hierarchical models cut" in err


def test_a_draft_changes_no_text(runs, bytelm):
    command = ["generate", runs / "flat", "--prompt", "sea shells sea", "--max-bytes", 12]
    for temperature in ("0", "0.8"):
        plain, _ = bytelm(*command, "--temperature", temperature)
        drafted, _ = bytelm(*command, "--temperature", temperature, "--draft", "ngram")
        assert drafted == plain
    greedy = [*command, "--temperature", "0"]
    by_model, _ = bytelm(*greedy, "--draft", runs / "fim", "--draft-bytes", 3)
    assert by_model == bytelm(*greedy)[0]
    _, err = bytelm(*greedy, "--draft", runs / "flat", "--stats")
    assert "drafts: " in err and "bytes per call of the model" in err
    _, err = bytelm(*greedy, "--stats")
    assert "drafts" not in err
    _, err = bytelm(*command, "--draft", "ngrm", status=2)
    assert "did you mean ngram?" in err
    _, err = bytelm(*command, "--draft-bytes", 3, status=2)
    assert "--draft-bytes needs a draft" in err
    _, err = bytelm(*command, "--draft", "ngram", "--beams", 2, status=2)
    assert "draft cannot be combined" in err


def test_backends_write_the_same_and_statistics_go_to_stderr(runs, bytelm):
    command = ["generate", runs / "hnet", "--prompt", "sea shells", "--max-bytes", 30]
    command += ["--temperature", "0"]
    plain, err = bytelm(*command)
    assert "decode:" not in err
    for backend in ("eager", "compiled"):
        out, err = bytelm(*command, "--backend", backend, "--stats")
        assert out == plain
        assert f"backend: {backend} (as asked)" in err
        for fact in ("prefill: 10 bytes, ", "time to first byte: ", "decode: ", "chunks begun: "):
            assert fact in err
    _, err = bytelm(*command, "--backend", "fast", status=2)
    assert "'auto', 'eager', 'compiled'" in err
