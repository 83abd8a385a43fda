"""Tests the transformer against float64 NumPy, and what its docstring promises."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import pure
from models.transformer import Transformer

WIDTH, DEPTH, HEADS, LENGTH = 12, 3, 2, 5


@pytest.fixture(scope="module")
def model():
    model = pure(partial(Transformer, vocabulary=7, context=8, width=WIDTH, depth=DEPTH, heads=HEADS))
    params, state = model.init(jax.random.key(0))
    assert not jax.tree.leaves(state)
    return params, jax.jit(lambda params, tokens: model.apply(params, state, tokens, train=True)[0])


def norm(x, params):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * params["scale"] + params["bias"]


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def gelu(x):
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def forward(params, tokens):
    """Returns the logits of one sequence."""
    params = jax.tree.map(lambda w: np.asarray(w, np.float64), params)
    table = params["embedding"]["embedding"]
    x = table[tokens] + params["position"]["embedding"][: len(tokens)]
    for i in range(DEPTH):
        block = jax.tree.map(lambda w, i=i: w[i], params["blocks"])
        y = norm(x, block["attention_norm"])
        q, k, v = (
            np.einsum("td,dhe->hte", y, block["attention"][n]["kernel"]) for n in ("query", "key", "value")
        )
        scores = np.einsum("hte,hse->hts", q, k) / np.sqrt(WIDTH // HEADS)
        scores[:, np.triu_indices(len(tokens), 1)[0], np.triu_indices(len(tokens), 1)[1]] = -np.inf
        x = x + np.einsum("hts,hse,hed->td", softmax(scores), v, block["attention"]["out"]["kernel"])
        x = x + gelu(norm(x, block["mlp_norm"]) @ block["up"]["kernel"]) @ block["down"]["kernel"]
    x = norm(x, params["norm"])
    return (x + x @ params["head"]["kernel"]) @ table.T


def test_forward_pass(model):
    params, apply = model
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda w: w + 0.1 * rng.normal(size=w.shape).astype(np.float32), params)
    tokens = rng.integers(0, 7, size=(2, LENGTH))
    expected = np.stack([forward(params, sequence) for sequence in tokens])
    np.testing.assert_allclose(apply(params, jnp.asarray(tokens)), expected, rtol=1e-4, atol=1e-4)


def test_leaves(model):
    params, _ = model
    assert not params["head"]["kernel"].any()
    for leaf in jax.tree.leaves(params["blocks"]):
        assert leaf.shape[0] == DEPTH
    up = params["blocks"]["up"]["kernel"]
    assert not np.array_equal(up[0], up[1])
    block = 4 * WIDTH**2 + 8 * WIDTH**2 + 4 * WIDTH
    single = 7 * WIDTH + 8 * WIDTH + 2 * WIDTH + WIDTH**2
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == DEPTH * block + single
