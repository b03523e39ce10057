"""The three ways in which TensorFlow runs a function."""

import functools

import tensorflow as tf

MODES = {
    "eager": lambda function: function,
    "graph": functools.partial(tf.function, autograph=False),
    "xla": functools.partial(tf.function, autograph=False, jit_compile=True),
}
