"""The paper's networks and a small transformer; `pure` turns a module into pure functions."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
from flax import nnx


class Apply(Protocol):
    def __call__(
        self, params: Any, model_state: Any, images: jax.Array, *, train: bool
    ) -> tuple[jax.Array, Any]: ...


class PureModel(NamedTuple):
    """The pure functions of a network.

    `init(key)` returns `params, model_state`; `apply(params, model_state, images, train=...)` returns
    `logits, model_state`. The model state holds batch-norm's running statistics and dropout's keys and
    counters, which alone determine what is dropped. With `train=False` it is returned unchanged.
    """

    init: Callable[[jax.Array], tuple[Any, Any]]
    apply: Apply


def pure(build: Callable[[nnx.Rngs], nnx.Module]) -> PureModel:
    """Makes pure functions of a module: `params` are its `nnx.Param`s, `model_state` all other variables."""
    graphdef, _, _ = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(0))), nnx.Param, ...)

    @jax.jit  # outside jit, each initialiser would be compiled separately, which takes seconds
    def init(key: jax.Array) -> tuple[Any, Any]:
        _, params, model_state = nnx.split(build(nnx.Rngs(key)), nnx.Param, ...)
        return nnx.to_pure_dict(params), nnx.to_pure_dict(model_state)

    def apply(params: Any, model_state: Any, images: jax.Array, *, train: bool) -> tuple[jax.Array, Any]:
        # Without copy, batch-norm would update variables of an outer trace, which NNX refuses.
        model = nnx.merge(graphdef, params, model_state, copy=True)
        model.train() if train else model.eval()
        logits = model(images)
        return logits, nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param)))

    return PureModel(init, apply)
