"""Copies a service's committed events into its JetStream stream, exactly. Read `relay.py` first."""
