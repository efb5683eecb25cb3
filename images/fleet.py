"""The fleet in containers, as `deploy/compose/compose.yaml` has it."""
