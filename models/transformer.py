"""A small transformer decoder over bytes, with every kind of leaf that language models have."""

import jax
import jax.numpy as jnp
from flax import nnx


class Block(nnx.Module):
    """Causal self-attention and a two-layer perceptron, each behind a layer norm and added to its input."""

    def __init__(self, rngs: nnx.Rngs, *, width: int, heads: int) -> None:
        self.attention_norm = nnx.LayerNorm(width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(
            heads, width, use_bias=False, decode=False, deterministic=True, rngs=rngs
        )
        self.mlp_norm = nnx.LayerNorm(width, rngs=rngs)
        self.up = nnx.Linear(width, 4 * width, use_bias=False, rngs=rngs)
        self.down = nnx.Linear(4 * width, width, use_bias=False, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        causal = nnx.make_causal_mask(x[..., 0])
        x = x + self.attention(self.attention_norm(x), mask=causal)
        return x + self.down(nnx.gelu(self.up(self.mlp_norm(x))))


class Transformer(nnx.Module):
    """Next-byte logits: embedding, `depth` scanned blocks, norm, head, and the embedding again.

    The blocks' parameters are stacked along a first axis and the blocks run in one `scan`. The embedding is
    tied: it turns bytes into vectors, and vectors into logits. Between, `head` is added to the identity and
    starts at zero, so that at first the output space is the input space: `logits = (x + head(x)) E^T`.

    Args:
      rngs: source of the initial weights.
      vocabulary: number of tokens; 256 for bytes.
      context: longest sequence; there is one learned vector for each position.
      width: entries of a token's vector.
      depth: number of blocks.
      heads: attention heads of a block; divides `width`.
    """

    def __init__(
        self,
        rngs: nnx.Rngs,
        *,
        vocabulary: int = 256,
        context: int = 64,
        width: int = 64,
        depth: int = 3,
        heads: int = 4,
    ) -> None:
        @nnx.split_rngs(splits=depth)
        @nnx.vmap
        def stacked(rngs: nnx.Rngs) -> Block:
            return Block(rngs, width=width, heads=heads)

        self.embedding = nnx.Embed(vocabulary, width, rngs=rngs)
        self.position = nnx.Embed(context, width, rngs=rngs)
        self.blocks = stacked(rngs)
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.head = nnx.Linear(
            width, width, use_bias=False, kernel_init=nnx.initializers.zeros_init(), rngs=rngs
        )

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Logits `(batch, length, vocabulary)` of the byte after each of `tokens`, `(batch, length)`."""

        @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
        def run(block: Block, x: jax.Array) -> jax.Array:
            return block(x)

        x = self.embedding(tokens) + self.position(jnp.arange(tokens.shape[1]))[None]
        x = self.norm(run(self.blocks, x))
        return self.embedding.attend(x + self.head(x))
