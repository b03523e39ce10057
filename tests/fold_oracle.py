"""What stage 2 deploys, from a layer's latent weights: the formulas of the documentation in float64 numpy."""

import numpy as np


def power_of_two_above(x):
    return 2.0 ** np.ceil(np.log2(np.maximum(np.float32(x).astype(np.float64), 2.0**-20)))


def linear(vector, bits):
    """2^bits - 1 even steps up to the power of two above the largest entry."""
    levels = 2.0 ** (bits - 1)
    step = power_of_two_above(np.abs(vector).max()) / levels
    return step * np.clip(np.rint(vector / step), 1 - levels, levels - 1)


def batch_norm_vectors(mean, variance, gamma, beta, bits, scaling):
    """Equation 2: q(mu / C) C, q(var / C^2) C^2 (never code 0), q(gamma), q(beta)."""
    levels = 2.0**bits
    if scaling is None:
        mean_q, c_squared = linear(mean, bits), power_of_two_above(variance.max())
    else:
        c = power_of_two_above(np.maximum(np.abs(mean), np.sqrt(variance)))
        c = c if scaling == "channel" else c.max()
        mean_q = np.clip(np.rint(mean / c * levels / 2), 1 - levels / 2, levels / 2 - 1) * c * 2 / levels
        c_squared = c**2
    variance_q = np.clip(np.rint(variance / c_squared * levels), 1, levels - 1) * c_squared / levels
    return mean_q, variance_q, linear(gamma, bits), linear(beta, bits)


def normalization_affine(layer, stage):
    """(multiplier, offset) of a QuantBatchNormalization in inference."""
    mean, variance = (np.float64(v.numpy()) for v in (layer.moving_mean, layer.moving_variance))
    gamma = np.ones_like(mean) if layer.gamma is None else np.float64(layer.gamma.numpy())
    beta = np.zeros_like(mean) if layer.beta is None else np.float64(layer.beta.numpy())
    vectors = (mean, variance + layer.epsilon, gamma, beta)
    if stage == 2:
        vectors = batch_norm_vectors(*vectors, layer.bits, layer.scaling)
    mean, variance, gamma, beta = vectors
    return gamma / np.sqrt(variance), beta - gamma * mean / np.sqrt(variance)


def deployed(layer, codes, step):
    """(codes, S, k): a layer in stage 2 is (product(x, codes) + k / resolution) * S. codes [..., channels]."""
    gain = linear(np.float64(layer.gain.numpy()), layer.deployment.parameter_bits) if layer.gain is not None else 1.0
    bias = linear(np.float64(layer.bias.numpy()), layer.deployment.parameter_bits) if layer.bias is not None else 0.0
    scale, offset = (np.broadcast_to(vector, codes.shape[-1]) for vector in (gain * step, gain * bias))
    if layer.normalization is not None:
        multiplier, shift = normalization_affine(layer.normalization, 2)
        scale, offset = scale * multiplier, offset * multiplier + shift
    if layer.deployment.scale_bits == 8:  # the smallest scale that still holds the offset as an integer below 2^22
        smallest = np.abs(offset) * max(layer.deployment.bias_resolution, 1) / 2**22
    else:  # below half of what 16 bits have left
        smallest = np.abs(offset) * layer.deployment.bias_resolution / 2 ** (12 - layer.deployment.scale_bits)
    magnitude = np.maximum(np.abs(scale), np.maximum(smallest, 2.0**-30))
    if layer.deployment.scale_bits < 8:  # and not less than 3 binary orders below the largest
        magnitude = np.maximum(magnitude, 2.0 ** (np.floor(np.log2(magnitude.max())) - 3))
    sign = np.where(scale < 0, -1, 1)
    significand, exponent = np.frexp(magnitude)
    # 1, the free bits, and of what is left to 10 bits the first and the last.
    free = 2**layer.deployment.scale_bits
    rest = 0 if layer.deployment.scale_bits == 8 else 2 ** (8 - layer.deployment.scale_bits)
    ten_bits = np.floor(significand * 2 * free) * (512 // free) + rest + 1
    odd = np.ldexp(ten_bits, exponent - 10)
    return codes * sign, odd, np.rint(offset / odd * layer.deployment.bias_resolution)
