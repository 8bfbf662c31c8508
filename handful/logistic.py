"""Logistic regression with a Gaussian prior around given weights."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# The best of 2 to 30 on the sessions of benchmarks/teach.py; choosing it for each recording, by rounds, was no better.
PENALTY = 5.0
GRADIENT = 1e-3  # of the cross-entropy of all samples, in nats
STEPS, MEMORY = 200, 10  # of L-BFGS


class Problem(NamedTuple):
    """A logistic regression: N samples, C outputs.

    Attributes:
        features: (N, 113) float64, the last one constant.
        allowed: (N, C) bool, the outputs that are true of a sample; several are alternatives; none: it is not learned
            from.
        folds: (N,) int, which samples are predicted together by weights that were fitted on the others.
        prior: (C, 113), the weights and biases that the penalty keeps near.
    """

    features: np.ndarray
    allowed: np.ndarray
    folds: np.ndarray
    prior: np.ndarray


def predict_folds(problem: Problem) -> np.ndarray:
    """Return the logits (N, C) of each fold by weights that were fitted on the others."""
    logits = np.empty(problem.allowed.shape)
    for fold in np.unique(problem.folds):
        rows = problem.folds == fold
        others = problem._replace(allowed=problem.allowed & ~rows[:, None])
        logits[rows] = problem.features[rows] @ solve(others).T
    return logits


def solve(problem: Problem) -> np.ndarray:
    """Return the most probable weights (C, 113): the least cross-entropy plus half the penalty on what changes."""
    used = problem.allowed.any(1)
    features, allowed = problem.features[used], problem.allowed[used]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        change = flat.reshape(problem.prior.shape) - problem.prior
        logits = features @ (problem.prior + change).T
        # Of several alternatives, each is as true as it is probable among them.
        total, among = log_sum_exp(logits), log_sum_exp(np.where(allowed, logits, -np.inf))
        residual = np.exp(logits - total) - np.exp(np.where(allowed, logits - among, -np.inf))
        value = (total - among).sum() + PENALTY / 2 * (change**2).sum()
        return float(value), (residual.T @ features + PENALTY * change).ravel()

    return minimize(loss, problem.prior.ravel()).reshape(problem.prior.shape)


def cross_entropy(logits: np.ndarray, allowed: np.ndarray) -> float:
    """Return the cross-entropy of logits (N, C) where any output is allowed."""
    used = allowed.any(1)
    logits, allowed = logits[used], allowed[used]
    return float((log_sum_exp(logits) - log_sum_exp(np.where(allowed, logits, -np.inf))).sum())


def log_sum_exp(logits: np.ndarray) -> np.ndarray:
    """Return the logarithm of the sum of exponentials of each row, (N, 1)."""
    highest = logits.max(1, keepdims=True)
    return highest + np.log(np.exp(logits - highest).sum(1, keepdims=True))


def minimize(loss: Callable[[np.ndarray], tuple[float, np.ndarray]], x: np.ndarray) -> np.ndarray:
    """Minimize a smooth function that returns its value and gradient: L-BFGS (Liu and Nocedal, 1989).

    It is deterministic, and stops where no component of the gradient is above `GRADIENT`.
    """
    value, gradient = loss(x)
    pairs: list[tuple[np.ndarray, np.ndarray]] = []  # differences of points and gradients, the newest last
    for _ in range(STEPS):
        if np.abs(gradient).max() < GRADIENT:
            break
        direction, coefficients = -gradient, []
        for s, y in reversed(pairs):
            coefficients.append((s @ direction) / (s @ y))
            direction = direction - coefficients[-1] * y
        if pairs:
            s, y = pairs[-1]
            direction = direction * (s @ y) / (y @ y)
        else:
            direction = direction / np.abs(gradient).sum()
        for (s, y), coefficient in zip(pairs, reversed(coefficients), strict=True):
            direction = direction + s * (coefficient - (y @ direction) / (s @ y))
        slope, step = float(gradient @ direction), 1.0
        while (trial := loss(x + step * direction))[0] > value + 1e-4 * step * slope:
            step /= 2
            if step < 1e-8:  # as near as floats allow
                return x
        s, y = step * direction, trial[1] - gradient
        x, (value, gradient) = x + s, trial
        if s @ y > 1e-12:  # where it is convex
            pairs = [*pairs, (s, y)][-MEMORY:]
    return x
