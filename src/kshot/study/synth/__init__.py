"""Experiments with small models whose whole training is known."""
