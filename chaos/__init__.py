"""What the platform promises, held against real servers while something breaks them."""
