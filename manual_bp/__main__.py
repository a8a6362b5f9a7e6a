"""``python -m manual_bp`` is ``manual-bp``."""

from manual_bp.cli import main

main()
