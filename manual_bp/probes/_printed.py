"""Numbers that are printed with a network's derivation."""

from __future__ import annotations

from manual_bp.network import Network
from manual_bp.networks import kernel_gradient
from manual_bp.nn import Array

PRINTED = "printed"

_NUMBERS = {"kernel-gradient": kernel_gradient.printed}


def has_printed(network: Network) -> bool:
    """Whether there are such numbers for this network; one that only bears the name has none."""
    if network.name not in _NUMBERS:
        return False
    params, x, _ = _NUMBERS[network.name]()
    shapes = {name: array.shape for name, array in params.items()}
    return shapes == network.parameter_shapes() and x.shape[1:] == network.input_shape


def printed_numbers(network: Network) -> tuple[dict[str, Array], Array, Array]:
    """Parameters, input and target as printed, whatever the seed and the batch."""
    return _NUMBERS[network.name]()
