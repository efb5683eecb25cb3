"""Whole worlds from a seed, in a storm: of writers, relays and projectors, and of workflows."""
