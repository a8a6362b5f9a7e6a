"""``verify_layer``: layers and networks of a from-scratch library beside the torch.nn modules they should equal."""

from manual_bp.layer_objects._verify import verify_layer

__all__ = ["verify_layer"]
