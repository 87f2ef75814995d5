"""The pages' templates and where they lie."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from kshot.show import words

PAGES = Path(__file__).parent / "page"


def templates() -> Environment:
    """Every text is escaped, and a name that a template does not get is an error."""
    environment = Environment(
        loader=FileSystemLoader(PAGES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["dash"] = words.DASH
    return environment
