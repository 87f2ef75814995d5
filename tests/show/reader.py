"""A page as a reader sees it: its tags and text, words that no reader should see, and how wide it is on a phone."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

VOID = {"meta", "link", "br"}
PHONE = 390

needs_chromium = pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")


class Reader(HTMLParser):
    """Tags with their attributes, and the text of a page; fails where a tag is closed that is not the last one open."""

    def __init__(self, html: str) -> None:
        HTMLParser.__init__(self)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.said: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.said.append(data)


def check_sound(html: str) -> None:
    """Well-formed, its ids unique and its links known, and it reaches for nothing outside."""
    read = Reader(html)
    ids = [attributes["id"] for _, attributes in read.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    named = [attributes["href"] for tag, attributes in read.tags if tag in ("a", "use")]
    assert {str(name).removeprefix("#") for name in named} <= set(ids)
    assert "@import" not in html
    for tag, attributes in read.tags:
        assert tag not in {"script", "iframe", "img", "object", "embed", "base", "form"}
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in {"src", "href", "srcset", "action", "xlink:href", "data"}:
                assert str(value).startswith("#") or value == "data:,"
    assert all(target.startswith("#") for target in re.findall(r"url\(\s*['\"]?([^)]*)\)", html))


def undefined(html: str) -> list[str]:
    """Words of Python or of floating-point numbers that a reader would see, in text or in a drawing."""
    read = Reader(html)
    drawn = [str(value) for _, attributes in read.tags for name, value in attributes.items() if name != "class"]
    return re.findall(r"\b(?:nan|None|inf|null,|Undefined|True|False)\b", " ".join([*read.said, *drawn]))


def width_on_a_phone(html: str, folder: Path) -> int:
    """How wide the contents are in a frame of PHONE pixels: a script, in a copy only, writes it down."""
    probe = "<script>addEventListener('load', () => { document.title = 'wide ' + document.documentElement.scrollWidth })</script>"
    policy = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
    copy = policy.sub("", html).replace("</body>", f"{probe}</body>")
    held = copy.replace("&", "&amp;").replace('"', "&quot;")
    (folder / "frame.html").write_text(
        f"<body><iframe id=f style='width:{PHONE}px;height:800px;border:0' srcdoc=\"{held}\"></iframe>"
        "<script>addEventListener('load', () => { document.title = document.getElementById('f').contentDocument.title })</script>",
        encoding="utf-8",
    )
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update"
    command = ["chromium", *flags.split(), "--disable-sync", f"--user-data-dir={folder / 'user'}", "--dump-dom"]
    found = subprocess.run(
        [*command, f"file://{folder}/frame.html"], capture_output=True, text=True, timeout=120, check=False
    )
    title = re.search(r"<title>wide (\d+)</title>", found.stdout)
    assert title, found.stdout[:300] + found.stderr[-300:]
    return int(title[1])


class _Tables(HTMLParser):
    """Tables of a page by the label of their region: in each row the text under every heading, as it is seen."""

    def __init__(self) -> None:
        HTMLParser.__init__(self)
        self.found: dict[str, list[dict[str, str]]] = {}
        self.label = ""
        self.heads: list[str] = []
        self.cells: list[str] = []
        self.is_head = self.is_hidden = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        own = dict(attrs)
        if own.get("role") == "region":
            self.label = own.get("aria-label") or ""
        if tag == "table":
            self.heads = []
        elif tag == "tr":
            self.cells, self.is_head = [], False
        elif tag in ("th", "td"):
            self.cells.append("")
            self.is_head = self.is_head or own.get("scope") == "col"
        elif tag == "br" and self.cells:
            self.cells[-1] += " "
        self.is_hidden = self.is_hidden or own.get("class") == "sr"

    def handle_endtag(self, tag: str) -> None:
        if tag == "tr" and self.is_head:
            self.heads = [" ".join(text.split()) for text in self.cells]
        elif tag == "tr":
            row = dict(zip(self.heads, (text.strip() for text in self.cells), strict=True))
            self.found.setdefault(self.label, []).append(row)
        elif tag == "table":
            self.label = ""
        self.is_hidden = self.is_hidden and tag != "span"

    def handle_data(self, data: str) -> None:
        if self.cells and not self.is_hidden:
            self.cells[-1] += data


def tables(html: str) -> dict[str, list[dict[str, str]]]:
    """Tables of a page by the label of their region: in each row the text under every heading, as it is seen."""
    read = _Tables()
    read.feed(html)
    return read.found
