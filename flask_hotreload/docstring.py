"""What a docstring says, in parts: of the whole, of each parameter, of the result.

Three usual forms of naming parameters are understood: Sphinx's fields (``:param name: …``), Google's indented blocks
(``Args:``) and NumPy's underlined sections (``Parameters``). All else is prose.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_FIELD = re.compile(r":(?:(param|parameter|arg|argument|key|keyword)\s+([^:]+)|(returns?)|(?:r?type\b[^:]*)):\s*(.*)")
_BLOCK = re.compile(r"(?:(Args|Arguments|Parameters|Keyword Args)|(Returns)):\s*")
_SECTION = re.compile(r"(?:(Parameters|Other Parameters)|(Returns))\s*")
_GOOGLE_ENTRY = re.compile(r"(\*{0,2}\w+)\s*(?:\([^)]*\))?:\s*(.*)")
_NUMPY_ENTRY = re.compile(r"(\*{0,2}\w+(?:\s*,\s*\*{0,2}\w+)*)\s*(?::.*)?")


@dataclass
class Docstring:
    """``summary`` is the first paragraph, ``description`` what follows it; each is empty if there is none."""

    summary: str = ""
    description: str = ""
    parameters: dict[str, str] = field(default_factory=dict)
    result: str = ""


def parse(text: str | None) -> Docstring:
    """The parts of a docstring as it stands in the source."""
    lines = inspect.cleandoc(_writable(text or "")).splitlines()
    read, prose, number = Docstring(), list[str](), 0
    while number < len(lines):
        end = _field(lines, number, read) or _block(lines, number, read) or _section(lines, number, read)
        if not end:
            prose.append(lines[number])
        number = end or number + 1
    paragraphs = "\n".join(prose).strip().split("\n\n", 1)
    read.summary = " ".join(paragraphs[0].split())
    read.description = paragraphs[1].strip() if len(paragraphs) > 1 else ""
    return read


def _field(lines: list[str], start: int, read: Docstring) -> int | None:
    """Read the Sphinx field that begins at ``start``; return the line after it, ``None`` if there is none."""
    match = _FIELD.fullmatch(lines[start])
    if match is None:
        return None
    end = start + 1
    while end < len(lines) and lines[end][:1].isspace():
        end += 1
    _, name, returns, first = match.groups()
    words = _joined([first, *lines[start + 1 : end]])
    if name is not None:
        read.parameters[name.split()[-1].lstrip("*")] = words  # ":param int size:" names a type before the name
    elif returns is not None:
        read.result = words
    return end


def _block(lines: list[str], start: int, read: Docstring) -> int | None:
    """The same for Google's block."""
    match = _BLOCK.fullmatch(lines[start])
    if match is None or not (start + 1 < len(lines) and lines[start + 1][:1].isspace()):
        return None
    end = start + 1
    while end < len(lines) and (not lines[end].strip() or lines[end][:1].isspace()):
        end += 1
    block = inspect.cleandoc("\n" + "\n".join(lines[start + 1 : end])).splitlines()
    if match[2]:
        read.result = _joined(block)
        return end
    for head, rest in _entries(block):
        entry = _GOOGLE_ENTRY.fullmatch(head)
        if entry is not None:
            read.parameters[entry[1].lstrip("*")] = _joined([entry[2], *rest])
    return end


def _section(lines: list[str], start: int, read: Docstring) -> int | None:
    """The same for NumPy's section."""
    match = _SECTION.fullmatch(lines[start])
    if match is None or not _is_underlined(lines, start):
        return None
    end = start + 2
    while end < len(lines) and not _is_underlined(lines, end):
        end += 1
    for head, rest in _entries(lines[start + 2 : end]):
        if match[2]:
            read.result = _joined(rest)
            continue
        entry = _NUMPY_ENTRY.fullmatch(head)
        for name in entry[1].split(",") if entry is not None else ():
            read.parameters[name.strip().lstrip("*")] = _joined(rest)
    return end


def _is_underlined(lines: list[str], number: int) -> bool:
    return number + 1 < len(lines) and bool(lines[number].strip()) and bool(re.fullmatch("-{3,}", lines[number + 1]))


def _entries(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Each line at the margin, with the indented ones that follow it."""
    starts = [number for number, line in enumerate(lines) if line.strip() and not line[:1].isspace()]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        yield lines[start], lines[start + 1 : end]


def _joined(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())


def _writable(text: str) -> str:
    """``text`` without lone surrogates, which UTF-8 cannot hold."""
    return text.encode("utf-8", "backslashreplace").decode()
