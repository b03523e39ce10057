"""The target distribution of the latent weights."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from . import numerics


@tf.keras.utils.register_keras_serializable(package="subbyte")
class TargetDistribution(tf.keras.regularizers.Regularizer):
    """lambda_sigma * (std(P) - sigma)^2 + lambda_mu * mean(P)^2 for a latent kernel P.

    arXiv 2207.06920, section 4.2: keeps P near N(0, sigma^2), so that tanh(P) stays nearly uniform. The paper does not
    report the values; sigma = 0.85 brings tanh(P) closest to uniform.

    Args:
        sigma: target standard deviation.
        lambda_sigma, lambda_mu: weights of the two terms.
    """

    def __init__(self, sigma: float = 0.85, lambda_sigma: float = 0.1, lambda_mu: float = 0.1) -> None:
        if not sigma > 0 or lambda_sigma < 0 or lambda_mu < 0:
            raise ValueError(
                f"TargetDistribution needs sigma > 0 and weights >= 0, not {sigma!r}, {lambda_sigma!r}, {lambda_mu!r}"
            )
        self.sigma, self.lambda_sigma, self.lambda_mu = float(sigma), float(lambda_sigma), float(lambda_mu)

    def __call__(self, latent: tf.Tensor) -> tf.Tensor:
        mean, variance = numerics.moments(tf.reshape(latent, [-1]), axes=[0])
        deviation = tf.sqrt(variance + 1e-12) - self.sigma
        return self.lambda_sigma * tf.square(deviation) + self.lambda_mu * tf.square(mean)

    def get_config(self) -> dict[str, Any]:
        return {"sigma": self.sigma, "lambda_sigma": self.lambda_sigma, "lambda_mu": self.lambda_mu}
