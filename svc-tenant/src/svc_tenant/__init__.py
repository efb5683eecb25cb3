"""Tenants: who belongs to them, what they may do, and how much of it."""
