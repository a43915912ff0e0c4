"""A model whose chunks are given: trained from a recipe, loaded, and decoded by its byte rule."""

import torch

import bytelm
from tests.training.runs import TEXT, tiny_recipe

GIVEN = (
    'model={arch="hnet",layout=["m1",["T1"],"m1"],d_model=[16,16],d_intermediate=[0,32],'
    'num_heads=[1,1],head_dim=8,d_state=4,boundaries=["given"],given_after=[32]}'
)


def test_a_given_model_trains_from_a_recipe_and_decodes_as_it_scores(tmp_path):
    run = bytelm.train(tiny_recipe(tmp_path, GIVEN), run_dir=tmp_path / "run")
    lm = bytelm.load(run)
    text = TEXT[:14]
    starts = lm.chunk_boundaries(text)[0].tolist()
    assert starts == [i > 0 and text[i - 1] == 32 for i in range(len(text))]
    state, stepped = lm.start(), []
    for byte in text:
        stepped.append(float(state.logprobs()[byte]))
        state = state.feed(bytes([byte]))
    assert (torch.tensor(stepped) - lm.score(text)).abs().max() < 1e-4
    assert len(bytelm.generate(lm, b"99 bottles ", max_bytes=30, seed=0)) <= 30
