"""Orders in which a sum of products may be taken, all in the working precision, and all of them right."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from manual_bp.nn import Array

#: ``order(terms)``: the sum of (K, ...) terms over the first axis.
Order = Callable[[Array], Array]


def sequential(terms: Array) -> Array:
    """One after the other, as a loop does it."""
    total = np.zeros(terms.shape[1:], terms.dtype)
    for term in terms:
        total = total + term
    return total


def backwards(terms: Array) -> Array:
    return sequential(terms[::-1])


def shuffled(terms: Array) -> Array:
    return sequential(terms[np.random.default_rng(len(terms)).permutation(len(terms))])


def pairwise(terms: Array) -> Array:
    """A tree of sums."""
    while len(terms) > 1:
        odd = terms[len(terms) // 2 * 2 :]
        terms = np.concatenate([terms[0 : len(terms) // 2 * 2 : 2] + terms[1::2], odd])
    return terms[0] if len(terms) else np.zeros(terms.shape[1:], terms.dtype)


def blocked(terms: Array) -> Array:
    """Four partial sums, as a loop unrolled four times does it."""
    return sequential(np.stack([sequential(terms[i::4]) for i in range(4)]))


def library(terms: Array) -> Array:
    return np.asarray(terms.sum(axis=0))


ORDERS: dict[str, Order] = {
    "sequential": sequential,
    "reversed": backwards,
    "shuffled": shuffled,
    "pairwise": pairwise,
    "blocked": blocked,
    "numpy": library,
}


def matmul(a: Array, b: Array) -> Array:
    return a @ b


def einsum(a: Array, b: Array) -> Array:
    return np.asarray(np.einsum("ik,kj->ij", a, b))


def loops(a: Array, b: Array) -> Array:
    """Three nested loops over Python scalars of the working precision."""
    out = np.zeros((a.shape[0], b.shape[1]), a.dtype)
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            for k in range(a.shape[1]):
                out[i, j] = out[i, j] + a[i, k] * b[k, j]
    return out


def ordered(order: Order) -> Callable[[Array, Array], Array]:
    """A matrix product whose sums are taken in that order."""
    return lambda a, b: order(a.T[:, :, None] * b[:, None, :]).astype(a.dtype)


#: ``product(a, b)``: (I, K) by (K, J). Loops are for small matrices only.
PRODUCTS: dict[str, Callable[[Array, Array], Array]] = {
    "matmul": matmul,
    "einsum": einsum,
    **{name: ordered(order) for name, order in ORDERS.items()},
}
