"""What a stored Keras model may be made of: literal lists of layers, activations and parts, all of them Keras' own.

Loading a model builds every object that its configuration names; Lambda layers and registered objects then run code from
the file or from whatever module it names (tf_keras even in safe mode). So names that are not here are never built.
"""

from __future__ import annotations

import re

MODELS = frozenset({"Functional", "Model", "Sequential"})
LAYERS = frozenset({
    *("InputLayer", "Rescaling"),
    *("Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Conv2DTranspose", "Dense", "BatchNormalization"),
    *("Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax"),
    *("MaxPooling2D", "AveragePooling2D", "GlobalAveragePooling2D", "GlobalMaxPooling2D"),
    *("ZeroPadding2D", "Cropping2D", "UpSampling2D", "Reshape", "Permute", "Flatten"),
    *("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate"),
    *("Dropout", "SpatialDropout2D"),
})  # fmt: skip
ACTIVATIONS = frozenset({
    *("linear", "relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "silu", "swish", "mish"),
    *("sigmoid", "hard_sigmoid", "tanh", "softmax", "softplus", "softsign", "exponential"),
})  # fmt: skip
ACTIVATION_LAYERS = frozenset({"ReLU", "LeakyReLU", "ELU", "Softmax"})
PARTS = frozenset({
    *("Zeros", "Ones", "Constant", "RandomNormal", "RandomUniform", "TruncatedNormal", "VarianceScaling"),
    *("GlorotNormal", "GlorotUniform", "HeNormal", "HeUniform", "LecunNormal", "LecunUniform", "Orthogonal"),
    *("L1", "L2", "L1L2", "MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm"),
    *("DTypePolicy", "Policy", "__keras_tensor__", "__tuple__"),
})  # fmt: skip
RUNS_CODE = frozenset({"Lambda", "TFOpLambda", "SlicingOpLambda", "function", "__lambda__"})
KERAS_MODULE = re.compile(r"(tf_)?keras(\.[A-Za-z_0-9]+)*")
