"""Words that say the same as a label word, the contrary, or something near it."""

from collections.abc import Mapping
from typing import Literal

Relation = Literal["synonym", "antonym", "keyword"]

_BAD = ("bad", "dark", "dire", "sorrow", "harm", "down", "dim", "bitter", "sad", "blue")
_GOOD = ("good", "bright", "happy", "cheer", "benefit", "fortune", "helpful", "joy", "help", "favorite")

WORDS: Mapping[Relation, Mapping[str, tuple[str, ...]]] = {
    "synonym": {"negative": _BAD, "positive": _GOOD},
    "antonym": {"negative": _GOOD, "positive": _BAD},
    "keyword": {
        "negative": (
            "poor", "terrible", "worse", "bad", "awful", "fault", "inferior", "problem", "regret", "disappoint",
        ),
        "positive": (
            "excellent", "perfect", "best", "satisfied", "loved", "favorite", "awesome", "superior", "pleasant",
            "recommend",
        ),
        "world": (
            "conflict", "election", "global", "crisis", "politics", "war", "peace", "regime", "protest", "climate",
        ),
        "sports": ("win", "team", "game", "player", "score", "season", "championship", "coach", "injury", "fans"),
        "business": (
            "market", "company", "stock", "profit", "loss", "growth", "trade", "startup", "shares", "industry",
        ),
        "science": (
            "data", "technology", "species", "experiment", "research", "discovery", "theory", "study", "energy",
            "physics",
        ),
        "entertainment": (
            "film", "music", "actor", "singer", "album", "award", "comedy", "drama", "celebrity", "television",
        ),
        "politics": (
            "government", "minister", "election", "party", "vote", "parliament", "policy", "campaign", "tax",
            "president",
        ),
        "sport": ("win", "team", "game", "player", "score", "season", "championship", "coach", "injury", "fans"),
        "technology": (
            "computer", "software", "internet", "phone", "digital", "online", "network", "device", "video", "web",
        ),
    },
}  # fmt: skip
"""By the label's word in small letters; the lists of Li et al. 2024 (released code), and from entertainment on ours, for the
sections of the BBC."""
