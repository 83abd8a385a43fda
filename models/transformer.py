"""A small byte-level transformer decoder, with every kind of leaf that language models have."""

import jax
import jax.numpy as jnp
from flax import nnx


class Block(nnx.Module):
    """Causal self-attention and a two-layer perceptron, both pre-norm and residual."""

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
    """Embedding, `depth` scanned blocks, layer norm, head and tied output embedding, for next-byte logits.

    The parameters of all blocks are stacked along axis 0, and one `scan` runs them. The output is
    `logits = (x + head(x)) E^T`, with the input's embedding `E`. `head` starts at zero, so that initially the
    embedding is used unchanged.

    Args:
      rngs: source of the initial weights.
      vocabulary: number of tokens; 256 for bytes.
      context: length of the longest sequence; each position has a learned vector.
      width: number of features per token.
      depth: number of blocks.
      heads: number of attention heads per block; must divide `width`.
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
        """Maps tokens `(batch, length)` to logits `(batch, length, vocabulary)` of each next byte."""

        @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
        def run(block: Block, x: jax.Array) -> jax.Array:
            return block(x)

        x = self.embedding(tokens) + self.position(jnp.arange(tokens.shape[1]))[None]
        x = self.norm(run(self.blocks, x))
        return self.embedding.attend(x + self.head(x))
