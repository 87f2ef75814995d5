"""What answers prompts of pairs by weights that were trained."""
