"""Campaigns: long runs that print the figures which the project stands for. Run with ``python -m tests.campaigns``."""
