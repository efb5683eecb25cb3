"""Pure: state and rules of tenants and of erasures."""
