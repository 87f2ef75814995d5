"""What all training shares: how weights are moved, and where training stands on disk."""
