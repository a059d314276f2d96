"""The methods as their papers write them, in float64 NumPy.

Each is a rule for one array, `rule(g, x, t, s, ...)`: update or gradient `g`, parameter `x`, step `t = 1, 2, ...`, and a dict
`s` for its state, empty before the first step. It gives the transformed update. `follow` runs a row of rules and adds what
comes out to the parameters. Where Optax's or torch's definition is not the paper's, the rule says so.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

Array = np.ndarray
State = dict[str, Any]
Tree = dict[str, Array]


def follow(gradient: Callable[[Tree], Tree], params: Tree, steps: int, *rules: Any, before: Any = None) -> Tree:
    """The parameters after each step, stacked: `x += rules(gradient(x))`.

    Args:
      gradient: function of the parameters.
      params: start.
      steps: how many steps.
      *rules: applied to each leaf in this order.
      before: function of all gradients and all parameters, applied first, for rules that need the whole tree.
    """
    params, path = dict(params), []
    states: dict[Any, State] = {}
    for t in range(1, steps + 1):
        grads = gradient(params) if before is None else before(gradient(params), params)
        updates = {}
        for name, u in grads.items():
            for i, rule in enumerate(rules):
                u = rule(u, params[name], t, states.setdefault((name, i), {}))
            updates[name] = u
        params = {name: x + updates[name] for name, x in params.items()}
        path.append(params)
    return {name: np.stack([point[name] for point in path]) for name in params}


# Rates, momentum, averages ------------------------------------------------------------------------------------


def descend(g: Array, x: Array, t: int, s: State, lr: Any) -> Array:
    """Robbins and Monro 1951: `x -= lr * g`. A schedule is a function of the steps taken before this one."""
    rate: Any = lr(t - 1) if callable(lr) else lr
    return -rate * g


def rate(lr: Any) -> Any:
    """Descent at this rate: the last rule of most rows."""
    return partial(descend, lr=lr)


def falling(count: Any) -> Any:
    """A schedule for NumPy and for JAX."""
    return 0.2 / (1.0 + 0.3 * count)


def heavy_ball(g: Array, x: Array, t: int, s: State, beta: float) -> Array:
    """Polyak 1964: `m = beta * m + g`, a step along `m`. With the rate before it, `v = rho * v - alpha * g`: Sutskever et al. 2013,
    equations 1 and 2.
    """
    s["m"] = beta * s.get("m", 0) + g
    return s["m"]


def nesterov(g: Array, x: Array, t: int, s: State, beta: float) -> Array:
    """Sutskever et al. 2013, equations 3 and 4, in the shifted variable `x + beta * v`: a step along `g + beta * m`."""
    return g + beta * heavy_ball(g, x, t, s, beta)


def ema(g: Array, x: Array, t: int, s: State, beta: float, debias: bool) -> Array:
    """Kingma and Ba 2014, section 3: `m = beta * m + (1 - beta) * g`, divided by `1 - beta^t` to remove the bias of the start."""
    s["m"] = beta * s.get("m", 0) + (1 - beta) * g
    return s["m"] / (1 - beta**t) if debias else s["m"]


def sign(g: Array, x: Array, t: int, s: State) -> Array:
    """Bernstein et al. 2018, algorithm 1 (signSGD); after `ema` without bias correction, algorithm 2 (Signum)."""
    return np.sign(g)


def decay(g: Array, x: Array, t: int, s: State, weight_decay: Any) -> Array:
    """Loshchilov and Hutter 2017, algorithms 1 and 2: `u + weight_decay * x`. Before the method the violet term (an L2 penalty),
    after it the green one (decoupled).
    """
    rate: Any = weight_decay(t - 1) if callable(weight_decay) else weight_decay
    return g + rate * x


def lookahead(u: Array, x: Array, t: int, s: State, period: int, alpha: float) -> Array:
    """Zhang et al. 2019, algorithm 1, after the inner method: `phi += alpha * (theta - phi)`, `theta = phi` each `period` steps."""
    slow = s.setdefault("slow", x)
    if t % period:
        return u
    s["slow"] = slow + alpha * (x + u - slow)
    return s["slow"] - x


# Adam and its family ------------------------------------------------------------------------------------------


def _moments(g: Array, s: State, b1: float, b2: float) -> tuple[Array, Array]:
    s["m"] = b1 * s.get("m", 0) + (1 - b1) * g
    s["v"] = b2 * s.get("v", 0) + (1 - b2) * g**2
    return s["m"], s["v"]


def adam(
    g: Array, x: Array, t: int, s: State, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, eps_root: float = 0.0
) -> Array:
    """Kingma and Ba 2014, algorithm 1."""
    m, v = _moments(g, s, b1, b2)
    return m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t) + eps_root) + eps)


def nadam(g: Array, x: Array, t: int, s: State, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Array:
    """Dozat 2016, algorithm 2, with a constant `b1` and, as Optax has it, without the factor `b2` on the second moment."""
    m, v = _moments(g, s, b1, b2)
    m_hat = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
    return m_hat / (np.sqrt(v / (1 - b2**t)) + eps)


def adamax(g: Array, x: Array, t: int, s: State, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Array:
    """Kingma and Ba 2014, algorithm 2; `eps` is added to `|g|`, as in Optax and torch, where the paper has none."""
    s["m"] = b1 * s.get("m", 0) + (1 - b1) * g
    s["u"] = np.maximum(b2 * s.get("u", 0), np.abs(g) + eps)
    return s["m"] / (1 - b1**t) / s["u"]


def amsgrad(
    g: Array,
    x: Array,
    t: int,
    s: State,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    correct_m: bool = True,
    correct_v: bool = True,
) -> Array:
    """Reddi et al. 2018, algorithm 2, which corrects no bias; Optax corrects `v` before the maximum."""
    m, v = _moments(g, s, b1, b2)
    s["max"] = np.maximum(s.get("max", 0), v / (1 - b2**t) if correct_v else v)
    return m / (1 - b1**t if correct_m else 1) / (np.sqrt(s["max"] + eps_root) + eps)


def amsgrad_torch(g: Array, x: Array, t: int, s: State, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Array:
    """Torch's AMSGrad: the maximum over raw second moments, its bias corrected after."""
    m, v = _moments(g, s, b1, b2)
    s["max"] = np.maximum(s.get("max", 0), v)
    return m / (1 - b1**t) / (np.sqrt(s["max"] / (1 - b2**t)) + eps)


def radam_torch(g: Array, x: Array, t: int, s: State, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Array:
    """Liu et al. 2019, algorithm 2, with torch's threshold of 5, and its `eps` beside the root of the raw second moment."""
    m, v = _moments(g, s, b1, b2)
    last = 2 / (1 - b2) - 1
    rho = last - 2 * t * b2**t / (1 - b2**t)
    if rho <= 5:
        return m / (1 - b1**t)
    r = np.sqrt((rho - 4) * (rho - 2) * last / ((last - 4) * (last - 2) * rho))
    return r * m / (1 - b1**t) * np.sqrt(1 - b2**t) / (np.sqrt(v) + eps)


def lion(g: Array, x: Array, t: int, s: State, b1: float = 0.9, b2: float = 0.99) -> Array:
    """Chen et al. 2023, algorithm 2."""
    m = s.get("m", np.zeros_like(g))
    s["m"] = b2 * m + (1 - b2) * g
    return np.sign(b1 * m + (1 - b1) * g)


# Second moments alone -----------------------------------------------------------------------------------------


def rmsprop(
    g: Array,
    x: Array,
    t: int,
    s: State,
    beta: float = 0.9,
    eps: float = 1e-8,
    initial: float = 0.0,
    inside: bool = True,
    centered: bool = False,
    debias: bool = False,
) -> Array:
    """Tieleman and Hinton 2012, lecture 6.5; centered: Graves 2013, equations 38 to 45. `inside` has `eps` under the root."""
    s["v"] = beta * s.get("v", initial) + (1 - beta) * g**2
    s["m"] = beta * s.get("m", 0) + (1 - beta) * g
    correction = 1 - beta**t if debias else 1
    v = s["v"] / correction - ((s["m"] / correction) ** 2 if centered else 0)
    return g / np.sqrt(v + eps) if inside else g / (np.sqrt(v) + eps)


def adagrad(g: Array, x: Array, t: int, s: State, initial: float = 0.1, eps: float = 1e-7, inside: bool = True) -> Array:
    """Duchi et al. 2011, section 1.1, the diagonal form. Optax starts the sum at 0.1 and has `eps` under the root."""
    s["v"] = s.get("v", initial) + g**2
    return g / np.sqrt(s["v"] + eps) if inside else g / (np.sqrt(s["v"]) + eps)


# Norms and bounds ---------------------------------------------------------------------------------------------


def global_norm(grads: Tree) -> float:
    """Euclidean norm of all leaves together."""
    return float(np.sqrt(sum(np.sum(g**2) for g in grads.values())))


def clip_by_global_norm(grads: Tree, params: Tree, max_norm: float) -> Tree:
    """Pascanu et al. 2012, algorithm 1: `g * max_norm / |g|` where the norm of all gradients is too large."""
    ratio = min(1.0, max_norm / global_norm(grads))
    return {name: g * ratio for name, g in grads.items()}


def normalize_by_update_norm(grads: Tree, params: Tree, scale: float = 1.0, eps: float = 1e-6) -> Tree:
    """The norm of all gradients together becomes `scale` (Optax)."""
    norm = global_norm(grads) + eps
    return {name: scale * g / norm for name, g in grads.items()}


def clip(g: Array, x: Array, t: int, s: State, bound: float) -> Array:
    """Each element in `[-bound, bound]`."""
    return np.clip(g, -bound, bound)


def _rms(x: Array) -> float:
    return float(np.sqrt(np.mean(x**2)))


def _norm(x: Array) -> float:
    return float(np.sqrt(np.sum(x**2)))


def clip_by_block_rms(g: Array, x: Array, t: int, s: State, threshold: float) -> Array:
    """Shazeer and Stern 2018, section 6: `u / max(1, rms(u) / d)`."""
    return g / max(1.0, _rms(g) / threshold)


def adaptive_grad_clip(g: Array, x: Array, t: int, s: State, clipping: float, eps: float = 1e-3) -> Array:
    """Brock et al. 2021, equation 3: `lambda * |W_i| / |G_i| * G_i` where `|G_i| / |W_i|` exceeds lambda; `|W_i|` is at least eps.

    A unit is what one output reads: all axes of a vector; the first of two or three (input first, as Optax has it); all but
    the last of a convolution's kernel.
    """
    axes = tuple(range(g.ndim)) if g.ndim < 2 else (0,) if g.ndim < 4 else tuple(range(g.ndim - 1))
    norms = [np.sqrt(np.sum(a**2, axis=axes, keepdims=True)) for a in (g, x)]
    bound = clipping * np.maximum(norms[1], eps)
    return np.where(norms[0] > bound, g * bound / np.where(norms[0] > 0, norms[0], 1), g)


def centralize(g: Array, x: Array, t: int, s: State) -> Array:
    """Yong et al. 2020, equation 1: minus the mean over all axes but the first; vectors pass."""
    return g - g.mean(axis=tuple(range(1, g.ndim)), keepdims=True) if g.ndim > 1 else g


def trust_ratio(g: Array, x: Array, t: int, s: State, floor: float = 0.0, coefficient: float = 1.0, eps: float = 0.0) -> Array:
    """You et al. 2017, equation 6: `u * coefficient * |x| / |u|`, for a leaf with neither norm zero."""
    p, u = max(_norm(x), floor), max(_norm(g), floor)
    return g * coefficient * p / (u + eps) if p > 0 and u > 0 else g


def param_block_norm(g: Array, x: Array, t: int, s: State, floor: float = 1e-3) -> Array:
    """`u * max(|x|, floor)` (Optax)."""
    return g * max(_norm(x), floor)


def param_block_rms(g: Array, x: Array, t: int, s: State, floor: float = 1e-3) -> Array:
    """Shazeer and Stern 2018, section 8: `u * max(rms(x), floor)`."""
    return g * max(_rms(x), floor)


def stay_nonnegative(g: Array, x: Array, t: int, s: State) -> Array:
    """`max(u, -x)`: a step that would end below zero ends at zero."""
    return np.maximum(g, -x)
