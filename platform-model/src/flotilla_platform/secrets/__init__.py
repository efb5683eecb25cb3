"""Secrets of deployables, as files in the SOPS format: encrypted in Git, plain only in a process."""
