"""Whole worlds from a seed: writers, relays, leases and projectors in a storm. See `world.py`."""
