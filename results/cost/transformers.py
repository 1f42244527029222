"""Vision Transformers of what their packages bring, as step files with room for their sizes."""

VIT_EQUINOX = '''\
"""A small Vision Transformer of Equinox's own layers, as in its examples."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

PATCH, HEADS = 4, 4
LAYERS, WIDTH, BATCH = {layers}, {width}, {batch}


class Block(eqx.Module):
    norm1: eqx.nn.LayerNorm
    norm2: eqx.nn.LayerNorm
    attention: eqx.nn.MultiheadAttention
    linear1: eqx.nn.Linear
    linear2: eqx.nn.Linear
    dropout1: eqx.nn.Dropout
    dropout2: eqx.nn.Dropout

    def __init__(self, key):
        keys = jax.random.split(key, 3)
        self.norm1, self.norm2 = eqx.nn.LayerNorm(WIDTH), eqx.nn.LayerNorm(WIDTH)
        self.attention = eqx.nn.MultiheadAttention(HEADS, WIDTH, key=keys[0])
        self.linear1 = eqx.nn.Linear(WIDTH, 2 * WIDTH, key=keys[1])
        self.linear2 = eqx.nn.Linear(2 * WIDTH, WIDTH, key=keys[2])
        self.dropout1, self.dropout2 = eqx.nn.Dropout(0.1), eqx.nn.Dropout(0.1)

    def __call__(self, x, key):
        keys = jax.random.split(key)
        y = jax.vmap(self.norm1)(x)
        x = x + self.attention(y, y, y)
        y = jax.nn.gelu(jax.vmap(self.linear1)(jax.vmap(self.norm2)(x)))
        y = jax.vmap(self.linear2)(self.dropout1(y, key=keys[0]))
        return x + self.dropout2(y, key=keys[1])


class ViT(eqx.Module):
    patches: eqx.nn.Linear
    positions: jax.Array
    first: jax.Array
    blocks: list
    dropout: eqx.nn.Dropout
    head: eqx.nn.Sequential

    def __init__(self, key):
        keys = jax.random.split(key, 4 + LAYERS)
        self.patches = eqx.nn.Linear(PATCH * PATCH * 3, WIDTH, key=keys[0])
        self.positions = jax.random.normal(keys[1], (65, WIDTH))
        self.first = jax.random.normal(keys[2], (1, WIDTH))
        self.blocks = [Block(key) for key in keys[4:]]
        self.dropout = eqx.nn.Dropout(0.1)
        norm, readout = eqx.nn.LayerNorm(WIDTH), eqx.nn.Linear(WIDTH, 10, key=keys[3])
        self.head = eqx.nn.Sequential([norm, readout])

    def __call__(self, image, key):
        x = image.reshape(3, 8, PATCH, 8, PATCH).transpose(1, 3, 0, 2, 4).reshape(64, -1)
        x = jnp.concatenate([self.first, jax.vmap(self.patches)(x)]) + self.positions
        keys = jax.random.split(key, 1 + LAYERS)
        x = self.dropout(x, key=keys[0])
        for block, of_block in zip(self.blocks, keys[1:], strict=True):
            x = block(x, of_block)
        return self.head(x[0])


def make_model():
    return ViT(jax.random.key(0))


def make_batch():
    return jax.random.normal(jax.random.key(1), (BATCH, 3, 32, 32)), jnp.arange(BATCH) % 10


def loss(model, batch, *, key):
    images, labels = batch
    logits = jax.vmap(model)(images, jax.random.split(key, images.shape[0]))
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


optimiser = optax.adamw(1e-3)
'''
VIT_NNX = '''\
"""A small Vision Transformer of NNX's own layers, as in Flax's guide to them."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

HEADS, RATE = 4, 0.1
LAYERS, WIDTH, BATCH = {layers}, {width}, {batch}


class Encoder(nnx.Module):
    def __init__(self, rngs):
        self.norm1, self.norm2 = nnx.LayerNorm(WIDTH, rngs=rngs), nnx.LayerNorm(WIDTH, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(
            num_heads=HEADS,
            in_features=WIDTH,
            dropout_rate=RATE,
            broadcast_dropout=False,
            decode=False,
            deterministic=False,
            rngs=rngs,
        )
        self.mlp = nnx.Sequential(
            nnx.Linear(WIDTH, 2 * WIDTH, rngs=rngs),
            nnx.gelu,
            nnx.Dropout(RATE, rngs=rngs),
            nnx.Linear(2 * WIDTH, WIDTH, rngs=rngs),
            nnx.Dropout(RATE, rngs=rngs),
        )

    def __call__(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nnx.Module):
    def __init__(self, rngs):
        self.patches = nnx.Conv(3, WIDTH, (4, 4), (4, 4), padding="VALID", rngs=rngs)
        self.positions = nnx.Param(jax.random.normal(rngs.params(), (1, 65, WIDTH)) * 0.02)
        self.dropout = nnx.Dropout(RATE, rngs=rngs)
        self.first = nnx.Param(jnp.zeros((1, 1, WIDTH)))
        self.encoder = nnx.Sequential(*[Encoder(rngs) for _ in range(LAYERS)])
        self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.head = nnx.Linear(WIDTH, 10, rngs=rngs)

    def __call__(self, images):
        x = self.patches(images)
        x = x.reshape(x.shape[0], -1, WIDTH)
        first = jnp.tile(self.first[...], (x.shape[0], 1, 1))
        x = self.dropout(jnp.concatenate([first, x], 1) + self.positions[...])
        return self.head(self.norm(self.encoder(x))[:, 0])


def make_model():
    return ViT(nnx.Rngs(0))


def make_batch():
    return jax.random.normal(jax.random.key(1), (BATCH, 32, 32, 3)), jnp.arange(BATCH) % 10


def loss(model, batch):
    images, labels = batch
    return optax.softmax_cross_entropy_with_integer_labels(model(images), labels).mean()


optimiser = optax.sgd(1e-3, momentum=0.9, nesterov=True)
'''
