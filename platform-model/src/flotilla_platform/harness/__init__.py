"""The harness: who owns which path, who may write where, and which gates a change must pass."""
