"""Least squares between bounds: what has a solution gets one, whatever the rows' sizes."""

from __future__ import annotations

import numpy as np

from manual_bp_torch.bounded import components, least_squares


def test_what_can_be_made_is_made() -> None:
    for seed in range(400):
        rng = np.random.default_rng(seed)
        rows, columns = (int(n) for n in rng.integers(1, 12, 2))
        a = rng.integers(-2, 3, (rows, columns)) * (10.0 ** rng.uniform(12, 14, rows))[:, None]
        low = np.where(rng.random(columns) < 0.5, -1.0, 0.0)
        share = np.where(rng.random(columns) < 0.5, rng.random(columns), rng.integers(0, 2, columns))
        wanted = a @ (low + share) + 0.1 * rng.uniform(-1, 1, rows)
        x = least_squares(a, wanted, low, low + 1)
        assert np.abs(a @ x - wanted).max() <= 1.0, seed
        assert ((low <= x) & (x <= low + 1)).all()


def test_what_cannot_be_made_is_not() -> None:
    a = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]) * 1e6
    x = least_squares(a, np.array([0.0, 1.0, 2.0]) * 1e6, np.zeros(2), np.ones(2))
    assert np.abs(a @ x - np.array([0.0, 1.0, 2.0]) * 1e6).max() > 1.0
    assert np.allclose(x, [0.5, 1.0])


def test_what_has_nothing_to_do_with_each_other_is_told_apart() -> None:
    a = np.array([[1.0, 0.0, 2.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    found = [(rows.tolist(), columns.tolist()) for rows, columns in components(a)]
    assert found == [([0], [0, 2]), ([1], [1])]
