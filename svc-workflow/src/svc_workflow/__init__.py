"""Workflows: any number of replicas move them; none of them owns one. Read `main.py` first."""
