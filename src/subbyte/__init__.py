"""Train Keras models with 1 to 8-bit weights, pack them into TFLite and run them in the stock interpreter.

    from subbyte import keras_layers    # train; needs the extra "train"
    from subbyte import converter       # Keras or .tflite to packed .tflite; needs the extra "convert"
    from subbyte import kernels         # run; needs the extra "run"

The folders of the packages stand at the top of the repository. Beside this file are links to them, so that the wheel,
an editor, a type checker and the tests see one and the same package. Nothing is imported before it is asked for.
"""

__version__ = "0.1.0"
