"""Ways to reach another service. For composition roots only."""
