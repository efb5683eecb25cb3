"""Schedules: what has to happen later, once. Read `domain/schedule.py` first."""
