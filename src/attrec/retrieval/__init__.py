"""Ranking as one exact nearest-neighbour search: distance(u, i) = ‖q − k_i‖²."""
