"""Counters: the smallest service with the whole chain. Read `domain/counter.py` first."""
