"""The torch side: builds, loads, records, replays and bounds; `manual_bp` reaches it through one door."""
