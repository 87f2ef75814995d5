"""Small models whose whole training is known: what they learn from, exact rivals, networks."""
