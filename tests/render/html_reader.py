"""Reading an HTML page of ours as a browser would, and reports with an error at a known place."""

import re
import struct
import zlib
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
from builders import PROBES, report
from example_numbers import comparison, picture

from manual_bp.render import html
from manual_bp.report import Check, Report

VOID = {"meta", "link", "img", "input", "br", "wbr", "hr", "path", "rect", "use", "image"}


class Page(HTMLParser):
    """Every element with its attributes, every text, and whether what is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.unbalanced: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.words.append("" if tag == "wbr" else " ")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if self.open and self.open[-1] == tag:
            self.open.pop()
        else:
            self.unbalanced.append(tag)

    def handle_data(self, data):
        inside = self.open[-1] if self.open else ""
        {"script": self.scripts, "style": self.styles}.get(inside, self.words).append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))


def page_of(report: Report) -> Page:
    return Page(html.render(report))


def quantity(name: str, candidate, reference, *, probe: str = "digits", **changes) -> Check:
    """One quantity with its comparison and picture; wrong where it differs."""
    found = comparison(candidate, reference)
    check = Check(
        probe=probe, name=name, kind="gradient", step="z1", shape=np.shape(candidate), dtype="float64",
        status="wrong" if found.mismatched else "pass", isolated=found, end_to_end=found,
        picture=picture(candidate, reference),
    )  # fmt: skip  # the record's own order
    return replace(check, **changes)


def pixels(uri: str) -> np.ndarray:
    """Height x width x 3 of one of our own images (stored deflate, indexed colours)."""
    data, chunks = b64decode(uri.removeprefix("data:image/png;base64,")), {}
    at = 8
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        assert struct.unpack(">I", data[at + 8 + size : at + 12 + size])[0] == zlib.crc32(kind + body)
        chunks[kind] = body
        at += 12 + size
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, width + 1)
    assert not lines[:, 0].any()
    return np.frombuffer(chunks[b"PLTE"], np.uint8).reshape(-1, 3)[lines[:, 1:]]


def planted(at=(1, 0, 4, 2), shape=(2, 1, 6, 5), size=0.5) -> Report:
    reference = np.random.default_rng(2).normal(size=shape)
    candidate = reference.copy()
    candidate[at] += size
    return report([quantity("x.grad", candidate, reference)], probes=PROBES[:1])


def maps_of(page: Page) -> list[str]:
    return [a["src"] or "" for a in page.all("img")]
