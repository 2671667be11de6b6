"""The losses in NumPy float64, written from the papers, to compare with; nothing is shared with ppcls."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def softmax(z: Array) -> Array:
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def log_softmax(z: Array) -> Array:
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def one_hot(y: NDArray[np.int64], classes: int) -> Array:
    return np.eye(classes)[y]


def ce(z: Array, q: Array, weights: Array | None = None) -> float:
    """Weighted mean of -log p over a population in which class c of sample n has mass q_nc."""
    mass = q if weights is None else q * weights
    return float(-(mass * log_softmax(z)).sum() / mass.sum())


def kl(p: Array, q: Array) -> Array:
    return (p * (np.log(p) - np.log(q))).sum(-1)


def kd(s: Array, t: Array, temperature: float) -> float:
    return float(kl(softmax(t / temperature), softmax(s / temperature)).mean() * temperature**2)


def dml(s: Array, t: Array) -> float:
    p, q = softmax(s), softmax(t)
    return float((kl(p, q) + kl(q, p)).mean() / 2)


def dml_sigmoid(s: Array, t: Array) -> float:
    p, q = 1 / (1 + np.exp(-s)), 1 / (1 + np.exp(-t))
    return float((kl(p, q) + kl(q, p)).mean() / 2)


def soft_ce(s: Array, t: Array) -> float:
    return float(-(softmax(t) * np.log(softmax(s))).sum(-1).mean())


def dkd(s: Array, t: Array, y: NDArray[np.int64], alpha: float, beta: float, temperature: float) -> float:
    total = 0.0
    for zs, zt, target in zip(s / temperature, t / temperature, y, strict=True):
        ps, pt = softmax(zs), softmax(zt)
        binary_s, binary_t = (np.array([p[target], 1 - p[target]]) for p in (ps, pt))
        others_s, others_t = (np.delete(p, target) / (1 - p[target]) for p in (ps, pt))
        total += alpha * kl(binary_t, binary_s) + beta * kl(others_t, others_s)
    return float(total / len(s) * temperature**2)


def standardized(z: Array) -> Array:
    return (z - z.mean(-1, keepdims=True)) / (1e-7 + z.std(-1, ddof=1, keepdims=True))


def nkd(s: Array, t: Array, y: NDArray[np.int64], temperature: float, gamma: float) -> float:
    total = 0.0
    for zs, zt, target in zip(s, t, y, strict=True):
        others_s, others_t = (softmax(np.delete(z, target) / temperature) for z in (zs, zt))
        total -= softmax(zt)[target] * np.log(softmax(zs)[target])
        total -= gamma * temperature**2 * (others_t * np.log(others_s)).sum()
    return float(total / len(s))


def ttm(s: Array, t: Array, power: float, weighted: bool) -> float:
    total = 0.0
    for zs, zt in zip(s, t, strict=True):
        raised = softmax(zt) ** power
        total += kl(raised / raised.sum(), softmax(zs)) * (raised.sum() if weighted else 1)
    return float(total / len(s))


def rld(
    s: Array,
    t: Array,
    y: NDArray[np.int64],
    alpha: float,
    beta: float,
    temperature: float,
    alpha_temperature: float,
) -> float:
    total = 0.0
    for zs, zt, target in zip(s, t, y, strict=True):
        own, confidence = softmax(zs / alpha_temperature)[target], softmax(zt / alpha_temperature).max()
        binary_s, binary_t = np.array([own, 1 - own]), np.array([confidence, 1 - confidence])
        total += alpha * alpha_temperature**2 * kl(binary_t, binary_s)
        below = zt < zt[target]
        if below.any():
            total += beta * temperature**2 * kl(*(softmax(z[below] / temperature) for z in (zt, zs)))
    return float(total / len(s))


def hard(s: Array, t: Array) -> float:
    return float(-log_softmax(s)[np.arange(len(s)), t.argmax(-1)].mean())


def ofa(s: Array, t: Array, y: NDArray[np.int64], eps: float) -> float:
    total = 0.0
    for zs, zt, target in zip(s, t, y, strict=True):
        weights = softmax(zt) ** eps
        weights[target] = (softmax(zt)[target] + 1) ** eps - 1
        total -= (weights * log_softmax(zs)).sum()
    return float(total / len(s))


def wkd_logits(
    s: Array,
    t: Array,
    y: NDArray[np.int64],
    distances: Array,
    temperature: float,
    gamma: float,
    sharpness: float,
) -> float:
    """Sinkhorn's algorithm on the classes that are not the target, sample by sample."""
    total = 0.0
    for zs, zt, target in zip(s, t, y, strict=True):
        p, q = (softmax(np.delete(z, target) / temperature) for z in (zs, zt))
        cost = np.delete(np.delete(distances, target, 0), target, 1)
        cost = np.maximum(1 - np.exp(-sharpness * cost), 0) + 1e-8
        kernel = np.exp(-cost / 0.05)
        u = np.full(len(p), 1 / len(p))
        for _ in range(10):
            v = q / (kernel.T @ u + 1e-8)
            u = p / (kernel @ v + 1e-8)
        plan = u[:, None] * kernel * v[None, :]
        total += gamma * (plan * cost).sum() - softmax(zt)[target] * np.log(softmax(zs)[target])
    return float(total / len(s))


def pearson(a: Array, b: Array) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def dist(s: Array, t: Array, beta: float, gamma: float, tau: float) -> float:
    p, q = softmax(s / tau), softmax(t / tau)
    inter = np.mean([1 - pearson(a, b) for a, b in zip(p, q, strict=True)])
    intra = np.mean([1 - pearson(a, b) for a, b in zip(p.T, q.T, strict=True)])
    return float(tau**2 * (beta * inter + gamma * intra))


def wsl(s: Array, t: Array, q: Array, temperature: float, frozen: Array | None = None) -> tuple[float, Array]:
    """Return the loss and the weights; `frozen` weights are used instead of computing them."""
    ratio = -(q * log_softmax(s)).sum(-1) / -(q * log_softmax(t)).sum(-1)
    weights = 1 - np.exp(-ratio) if frozen is None else frozen
    soft = -(softmax(t / temperature) * log_softmax(s / temperature)).sum(-1)
    return float((weights * soft).mean() * temperature**2), weights


def skd(s: Array, t: Array, q: Array, temperature: float, multiplier: float, alpha: float) -> float:
    def normalise(z: Array) -> Array:
        return multiplier * (z - z.mean(-1, keepdims=True)) / z.std(-1, keepdims=True)

    s, t = normalise(s), normalise(t)
    soft = -(softmax(t / temperature) * log_softmax(s / temperature)).sum(-1).mean()
    return float(alpha * temperature**2 * soft + (1 - alpha) * -(q * log_softmax(s)).sum(-1).mean())


def huber(x: Array) -> Array:
    return np.where(np.abs(x) <= 1, 0.5 * x**2, np.abs(x) - 0.5)


def rkd(s: Array, t: Array) -> tuple[float, float]:
    """Return angle and distance loss by loops over triples and pairs."""

    def angles(x: Array) -> Array:
        n = len(x)
        found = np.zeros((n, n, n))
        for i in range(n):
            for j in range(n):
                for k in range(n):
                    a, b = x[j] - x[i], x[k] - x[i]
                    length = np.linalg.norm(a) * np.linalg.norm(b)
                    found[i, j, k] = a @ b / length if length > 0 else 0.0
        return found

    def distances(x: Array) -> Array:
        found = np.array([[np.linalg.norm(a - b) for b in x] for a in x])
        mean = found[~np.eye(len(x), dtype=bool)].mean()
        return found / mean

    return (
        float(huber(angles(s) - angles(t)).mean()),
        float(huber(distances(s) - distances(t)).mean()),
    )


def conv(x: Array, weight: Array, bias: Array) -> Array:
    """Convolution with zero padding that keeps the size, [N, C, H, W]."""
    k = weight.shape[2]
    pad = k // 2
    h, w = x.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    out = np.zeros((x.shape[0], weight.shape[0], h, w))
    for i in range(k):
        for j in range(k):
            window = padded[:, :, i : i + h, j : j + w]
            out += np.einsum("nchw,oc->nohw", window, weight[:, :, i, j])
    return out + bias[None, :, None, None]


def mgd(s: Array, t: Array, weights: dict[str, Array], alpha: float) -> float:
    if "align.weight" in weights:
        s = conv(s, weights["align.weight"], weights["align.bias"])
    hidden = np.maximum(conv(s, weights["generation.0.weight"], weights["generation.0.bias"]), 0)
    generated = conv(hidden, weights["generation.2.weight"], weights["generation.2.bias"])
    return float(alpha * ((generated - t) ** 2).mean())


def pefd(s: Array, t: Array, projectors: list[tuple[Array, Array]]) -> float:
    projected = np.mean([np.maximum(s @ w + b, 0) for w, b in projectors], axis=0)
    cosines = (projected * t).sum(-1) / (np.linalg.norm(projected, axis=-1) * np.linalg.norm(t, axis=-1))
    return float((1 - cosines).mean())


def mean_below_zero(scale: float, shift: float) -> float:
    """E[x | x < 0] of x ~ N(shift, scale^2), integrated numerically."""
    x = np.linspace(min(shift, 0) - 12 * scale, 0, 200_001)
    density = np.exp(-0.5 * ((x - shift) / scale) ** 2)
    density[[0, -1]] /= 2  # trapezoids
    return float((x * density).sum() / density.sum())


def ofd(s: Array, t: Array, margin: Array) -> float:
    total = 0.0
    for n, c, h, w in np.ndindex(*s.shape):
        target = max(t[n, c, h, w], margin[c])
        if target > 0 or s[n, c, h, w] > target:
            total += (s[n, c, h, w] - target) ** 2
    return total


def afd(
    key: Array, query: Array, p_s: Array, p_t: Array, student: list[Array], teacher: list[Array]
) -> float:
    n, n_s, n_t, dim = key.shape
    total = 0.0
    for b in range(n):
        for t in range(n_t):
            logits = [(key[b, s, t] @ query[b, t] + p_s[s] @ p_t[t]) / math.sqrt(dim) for s in range(n_s)]
            share = softmax(np.array(logits))
            for s in range(n_s):
                total += share[s] * ((student[t][b, s] - teacher[t][b]) ** 2).mean()
    return float(total / n)


def pool(x: Array, height: int, width: int) -> Array:
    """Means over the cells of an adaptive pooling, [N, C, height, width]."""
    found = np.zeros((*x.shape[:2], height, width))
    for i, j in np.ndindex(height, width):
        top, bottom = i * x.shape[2] // height, -(-(i + 1) * x.shape[2] // height)
        left, right = j * x.shape[3] // width, -(-(j + 1) * x.shape[3] // width)
        found[:, :, i, j] = x[:, :, top:bottom, left:right].mean((2, 3))
    return found


def at(s: Array, t: Array) -> float:
    height, width = min(s.shape[2], t.shape[2]), min(s.shape[3], t.shape[3])
    maps = []
    for x in (s, t):
        strength = (pool(x, height, width) ** 2).mean(1).reshape(len(x), -1)
        maps.append(strength / np.linalg.norm(strength, axis=1, keepdims=True))
    return float(((maps[0] - maps[1]) ** 2).mean())


def batch_norm(x: Array, eps: float) -> Array:
    """By the statistics of the batch, over all axes but the second."""
    axes = tuple(i for i in range(x.ndim) if i != 1)
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) / np.sqrt(variance + eps)


def srd(s: Array, t: Array, weight: Array, bias: Array) -> float:
    difference = batch_norm(s @ weight + bias, 1e-4) - batch_norm(t, 1e-4)
    return float(np.log((difference**4).sum()))


def wkd_feature(s: Array, t: Array, ratio: float) -> float:
    total = 0.0
    for n, c in np.ndindex(*s.shape[:2]):
        own, theirs = s[n, c].ravel(), t[n, c].ravel()
        deviations = [np.sqrt(x.var(ddof=1) + 1e-5) for x in (own, theirs)]
        total += ratio * (own.mean() - theirs.mean()) ** 2 + (deviations[0] - deviations[1]) ** 2
    return float(total / len(s))


def hcl(s: Array, t: Array) -> float:
    sides = [side for side in (4, 2, 1) if side < s.shape[2]]
    parts = [((s - t) ** 2).mean()]
    parts += [((pool(s, side, side) - pool(t, side, side)) ** 2).mean() for side in sides]
    weights = 0.5 ** np.arange(len(parts))
    return float((weights * parts).sum() / weights.sum())


def nearest(x: Array, height: int, width: int) -> Array:
    rows, columns = np.arange(height) * x.shape[2] // height, np.arange(width) * x.shape[3] // width
    return x[:, :, rows][:, :, :, columns]


def reviewkd(student: list[Array], teacher: list[Array], weights: dict[str, Array]) -> float:
    """Knowledge review with BatchNorms of scale 1 and shift 0.

    `weights` holds convolutions by level: reduce.<i>, gates.<i>, gates_bias.<i>, expand.<i>.
    """
    total, deeper = 0.0, None
    for i in reversed(range(len(student))):
        width = len(weights[f"reduce.{i}"])
        x = batch_norm(conv(student[i], weights[f"reduce.{i}"], np.zeros(width)), 1e-5)
        if deeper is not None:
            deeper = nearest(deeper, *x.shape[2:])
            both = np.concatenate([x, deeper], 1)
            gates = 1 / (1 + np.exp(-conv(both, weights[f"gates.{i}"], weights[f"gates_bias.{i}"])))
            x = x * gates[:, :1] + deeper * gates[:, 1:]
        deeper = nearest(x, *teacher[i].shape[2:])
        expand = weights[f"expand.{i}"]
        total += hcl(batch_norm(conv(deeper, expand, np.zeros(len(expand))), 1e-5), teacher[i])
    return total
