"""One pass over batches: the one place that knows how a backend likes its loops."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def over_batches(step: Callable[..., Any], out_shardings: Any = None) -> Callable[..., Any]:
    """Turns `step(carry, rows, *args) -> carry` into `loop(carry, batches, *args) -> carry`.

    `batches` holds one array of row numbers for every step. What is compiled is kept between calls; `carry`
    is donated.
    """
    if jax.default_backend() == "cpu":
        # Inside a loop body XLA's CPU backend leaves backward convolutions in layouts that its fast path does
        # not take: a step in `lax.scan` takes about six times as long.
        one = jax.jit(
            lambda carry, batches, i, *args: step(carry, batches[i], *args),
            donate_argnums=0,
            out_shardings=out_shardings,
        )

        def loop(carry: Any, batches: jax.Array, *args: Any) -> Any:
            for i in range(len(batches)):
                carry = one(carry, batches, np.int32(i), *args)
            return carry

        return loop

    def scan(carry: Any, batches: jax.Array, *args: Any) -> Any:
        return jax.lax.scan(lambda carry, rows: (step(carry, rows, *args), None), carry, batches)[0]

    return jax.jit(scan, donate_argnums=0, out_shardings=out_shardings)


def shuffled(key: jax.Array, num_rows: int, batch_size: int) -> jax.Array:
    """Rows in random order, one batch a line; what does not fill a batch is left out."""
    steps = num_rows // batch_size
    return jax.random.permutation(key, num_rows)[: steps * batch_size].reshape(steps, batch_size)


def in_order(num_rows: int, batch_size: int) -> np.ndarray:
    """All rows, one batch a line, the last line filled up with -1."""
    steps = -(-num_rows // batch_size)
    rows = np.arange(steps * batch_size, dtype=np.int32)
    return np.where(rows < num_rows, rows, np.int32(-1)).reshape(steps, batch_size)
