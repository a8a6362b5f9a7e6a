"""Numbers that are printed with a network's derivation."""

from __future__ import annotations

from manual_bp.network import Network
from manual_bp.nn import Array

PRINTED = "printed"


def has_printed(network: Network) -> bool:
    """Whether there are such numbers for this network; one that only bears the name has none."""
    if network.name != "kernel-gradient":
        return False
    params, x, _ = printed_numbers()
    shapes = {name: array.shape for name, array in params.items()}
    return shapes == network.parameter_shapes() and x.shape[1:] == network.input_shape


def printed_numbers() -> tuple[dict[str, Array], Array, Array]:
    """Parameters, input and target of `kernel-gradient` as printed, whatever the seed and the batch."""
    from manual_bp.networks import kernel_gradient  # there is one such network, and few commands need it

    return kernel_gradient.printed()
