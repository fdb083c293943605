"""How a network learns: negatives, the step, the optimiser and the loop."""
