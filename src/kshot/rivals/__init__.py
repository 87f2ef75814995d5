"""Rival explanations: what answers the same prompts without being a language model."""
