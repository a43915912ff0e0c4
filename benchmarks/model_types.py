"""Which causal model types of transformers are read exactly: every one, with tiny random weights.

    python -m benchmarks.model_types [--minutes 6] [--only TYPE ...] [--table]

Each type of the installed transformers is built small, with windows and chunks of 6 tokens, read by
the adapter that `bytelm.convert` would choose, and compared with its own ordinary forward, text by
text: two texts of 72 and 49 tokens (64 beyond every window) side by side, in three calls, with a
fork. A type is `exact` (largest difference of log-probabilities below 1e-3), `refused` (by name, at
loading), `wrong`, or `not built` (no tiny configuration, or no language model over tokens alone).
Results are kept in `results/model_types.json` after each type, so that a run resumes where the last
one ended.
"""

from __future__ import annotations

import argparse
import json
import signal
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bytelm.errors import BytelmError
from bytelm.exact.models.huggingface import HuggingFaceLM, token_lm
from bytelm.exact.token_lm import PendingParent, extend_trees
from bytelm.files import write_text

RESULTS = Path(__file__).parent / "results" / "model_types.json"
DOCS = Path(__file__).parent.parent / "docs" / "exact.md"
VOCABULARY, WINDOW, PARAMETERS = 64, 6, 14_000_000
TOKENS = (72, 49)  # of the two texts
SECONDS = 90  # of one type
SMALL: dict[str, Any] = {
    **dict.fromkeys(("vocab_size",), VOCABULARY),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "dim", "attention_hidden_size"), 64),
    **dict.fromkeys(("embedding_size", "embed_dim", "word_embed_proj_dim", "emb_dim"), 64),
    **dict.fromkeys(
        ("intermediate_size", "n_inner", "d_ff", "decoder_ffn_dim", "encoder_ffn_dim", "ffn_dim",
         "moe_intermediate_size", "shared_expert_intermediate_size", "ffn_hidden_size",
         "dense_intermediate_size", "intermediate_size_mlp", "expert_ffn_hidden_size"), 64,
    ),
    **dict.fromkeys(
        ("num_hidden_layers", "n_layer", "n_layers", "decoder_layers", "encoder_layers",
         "num_layers"), 4,
    ),
    **dict.fromkeys(
        ("num_attention_heads", "n_head", "n_heads", "decoder_attention_heads",
         "encoder_attention_heads"), 4,
    ),
    "num_key_value_heads": 2, "num_kv_heads": 2, "head_dim": 16, "rotary_dim": 8,
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), 128),
    **dict.fromkeys(
        ("sliding_window", "attention_chunk_size", "sliding_window_size", "window_size",
         "local_attention", "attention_window_size", "index_topk"), WINDOW,
    ),
    **dict.fromkeys(
        ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4
    ),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_k", "num_selected_experts"), 2),
    "n_group": 1, "topk_group": 1, "n_shared_experts": 1, "first_k_dense_replace": 1,
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8,
    "v_head_dim": 16, "qk_head_dim": 24, "index_n_heads": 2, "index_head_dim": 16,
    "state_size": 8, "mamba_d_state": 8, "mamba_expand": 2, "mamba_n_heads": 4, "mamba_d_head": 32,
    "n_mamba_heads": 4, "mamba_num_heads": 4, "mamba_head_dim": 32, "mamba_n_groups": 1,
    "n_groups": 1, "time_step_rank": 4, "lru_width": 64, "conv_kernel": 4, "mamba_ngroups": 1,
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16,
    "linear_value_head_dim": 16, "vocab_size_per_layer_input": VOCABULARY,
    "hidden_size_per_layer_input": 8, "num_kv_shared_layers": 0, "chunk_size": 8,
    "is_decoder": True, "use_cache": True, "type_vocab_size": 2,
    "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0,
}  # fmt: skip
SPECIAL: dict[str, dict[str, Any]] = {
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "zamba2": {
        "layers_block_type": ["mamba", "mamba", "hybrid", "mamba"],
        "num_mem_blocks": 1, "adapter_rank": 4, "mamba_headdim": 32, "n_mamba_heads": 4,
        "attention_hidden_size": 128, "attention_head_dim": 32,
    },
    "llama4_text": {"floor_scale": 40},
    "mamba2": {"num_heads": 8, "head_dim": 16, "n_groups": 1},
    "falcon_h1": {"mamba_d_ssm": 128},
    "bamba": {"attn_layer_indices": [1]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv", "conv"]},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 10000.0}},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "granitemoehybrid": {"layer_types": ["mamba", "attention", "mamba", "mamba"]},
    "lfm2": {"layer_types": ["conv", "full_attention", "conv", "conv"]},
    "plbart": {"encoder_attention_heads": 4, "decoder_attention_heads": 4},
    "whisper": {"encoder_attention_heads": 4, "decoder_attention_heads": 4},
}  # fmt: skip


def small_config(transformers: Any, kind: str) -> Any:
    """A tiny configuration of a model type: what it has of `SMALL`, else its own defaults."""
    cls = transformers.CONFIG_MAPPING[kind]
    default = cls()
    text = default.get_text_config(decoder=True)
    names = {**vars(text), **{name: None for name in getattr(text, "attribute_map", {})}}
    given = {name: value for name, value in SMALL.items() if name in names}
    if "kv_lora_rank" in names:  # latent attention: one key per head, turned over its own width
        given |= {"num_key_value_heads": 4, "head_dim": 8}
    given |= SPECIAL.get(kind, {})
    for attempt in (given, {k: v for k, v in given.items() if k != "head_dim"}):
        try:
            return type(text)(**attempt)
        except Exception as error:
            failure = error
    raise failure


def build(transformers: Any, kind: str) -> Any:
    """A tiny model of the type with weights that make its attention matter."""
    names = transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    config = small_config(transformers, kind)
    cls = getattr(transformers, names[kind])
    with torch.device("meta"):
        size = sum(p.numel() for p in cls(config).parameters())
    if size > PARAMETERS:
        raise MemoryError(f"no tiny configuration: {size:,} parameters")
    torch.manual_seed(0)
    model = cls(config).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim == 2 and "A_log" not in name and min(p.shape) > 1:
                p.normal_(0, 1.5 / p.shape[-1] ** 0.5)
    model = model.float()
    with torch.no_grad():
        model(input_ids=torch.zeros(1, 1 + TOKENS[0], dtype=torch.long), use_cache=False)
    return model


def compare(model: Any) -> tuple[Any, float]:
    """The adapter, and the largest difference of log-probabilities from the model's own forward."""
    outputs = int(model.get_output_embeddings().weight.shape[0])
    vocab = [None, None, *[b"x"] * (outputs - 2)]
    lm: Any = token_lm(model, vocab, eos_ids={1}, start_ids=[2])
    generator = torch.Generator().manual_seed(1)
    top = min(outputs, VOCABULARY)
    limit = getattr(lm, "limit", None) or 1000
    lengths = [min(n, limit - 1) for n in TOKENS]
    texts = [torch.randint(3, top, (n,), generator=generator).tolist() for n in lengths]
    found: list[list[Tensor]] = [[], []]
    caches = [lm.open() for _ in texts]
    nodes = [lm.root(cache)[0] for cache in caches]
    for low, high in ((0, 5), (5, 28), (28, TOKENS[0])):
        requests, fork = [], []
        for i, text in enumerate(texts):
            tokens = text[low:high]
            rows: list[Any] = [
                (PendingParent(j - 1) if j else nodes[i], t) for j, t in enumerate(tokens)
            ]
            fork.append(len(rows))
            requests.append((caches[i], [*rows, (nodes[i], 3)]))  # a sibling nobody continues
        for i, (new, logprobs) in enumerate(extend_trees(lm, requests)):
            if fork[i]:
                nodes[i] = new[fork[i] - 1]
            found[i] += list(logprobs[: fork[i]])
    worst = 0.0
    for text, rows_ in zip(texts, found, strict=True):
        with torch.no_grad():
            own = model(input_ids=torch.tensor([[2, *text]]), use_cache=False).logits[0, 1:]
        difference = (torch.stack(rows_) - own.float().log_softmax(-1)).abs().max()
        worst = max(worst, float(difference.nan_to_num(torch.inf)))
    return lm, worst


def judge(transformers: Any, kind: str) -> dict[str, Any]:
    """The entry of one type."""
    try:
        model = build(transformers, kind)
    except Exception as error:
        return {"status": "not built", "reason": _first_line(error)}
    try:
        lm, worst = compare(model)
    except BytelmError as error:
        return {"status": "refused", "reason": _first_line(error)}
    except TimeoutError:
        return {"status": "not built", "reason": f"slower than {SECONDS} s"}
    except Exception as error:
        return {"status": "wrong", "reason": f"{type(error).__name__}: {_first_line(error)}"}
    reader = "tree" if isinstance(lm, HuggingFaceLM) else "state"
    status = "exact" if worst < 1e-3 else "wrong"
    limit = getattr(lm, "limit", None)
    return {"status": status, "reader": reader, "difference": worst, "limit": limit}


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300]


def table(results: dict[str, dict[str, Any]]) -> str:
    """The results as the table of docs/exact.md."""
    kinds: dict[str, list[str]] = {}
    for kind, entry in sorted(results.items()):
        name = entry["status"] + (f", by {entry['reader']}" if entry["status"] == "exact" else "")
        kinds.setdefault(name, []).append(kind)
    lines = ["| result | types | model types |", "|---|---|---|"]
    for name in sorted(kinds):
        lines.append(f"| {name} | {len(kinds[name])} | {', '.join(kinds[name])} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--only", nargs="*", help="these types, also if they are known already")
    parser.add_argument("--table", action="store_true", help="only write the table into docs")
    arguments = parser.parse_args()
    import transformers

    warnings.simplefilter("ignore")
    transformers.utils.logging.set_verbosity_error()
    names = transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    stored = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    key = {"version": transformers.__version__, "tokens": list(TOKENS)}
    results = stored.get("types", {}) if stored.items() >= key.items() else {}
    signal.signal(signal.SIGALRM, _too_slow)
    end = time.process_time() + 60 * arguments.minutes
    todo = arguments.only or [kind for kind in names if kind not in results]
    for kind in [] if arguments.table else todo:
        if time.process_time() > end:
            break
        signal.alarm(SECONDS)
        try:
            results[kind] = judge(transformers, kind)
        except TimeoutError:
            results[kind] = {"status": "not built", "reason": f"slower than {SECONDS} s"}
        finally:
            signal.alarm(0)
        print(kind, results[kind], flush=True)
        ordered = dict(sorted(results.items()))
        whole = {**key, "of": len(names), "types": ordered}
        write_text(RESULTS, json.dumps(whole, indent=1) + "\n")
    _write_docs(results, transformers.__version__, len(names))
    print(table(results))


def _too_slow(*_: object) -> None:
    raise TimeoutError


def _write_docs(results: dict[str, dict[str, Any]], version: str, of: int) -> None:
    """Put the table between its markers in docs/exact.md."""
    begin, end = "<!-- model types -->\n", "<!-- end of model types -->"
    text = DOCS.read_text()
    before, after = text.split(begin)[0], text.split(end)[1]
    head = f"transformers {version}: {len(results)} of {of} causal model types.\n\n"
    write_text(DOCS, before + begin + head + table(results) + "\n" + end + after)


if __name__ == "__main__":
    main()
