"""Full ranking over the catalogue, and what the ranks say. One path for every scorer."""
