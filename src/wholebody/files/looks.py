"""What a file that is not what it should be probably is, and which file was probably meant."""

from __future__ import annotations

import difflib
from pathlib import Path


def looks_like(head: bytes) -> str:
    """What the first bytes of a file belong to, of what people save by mistake in place of a download; "" if nothing
    that is known."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    lower = text[:200].lower()
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, a few lines that stand for the file (get it with: git lfs pull)"
    if lower.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<body", b"<script", b"<!--")):
        return "a web page (of a login, a virus warning or an error), not the file itself"
    if lower.startswith((b"{\"error", b"{\"message", b"access denied", b"not found", b"too many requests")):
        return "a server's error message, not the file itself"
    if text.startswith(b"%PDF"):
        return "a PDF file"
    if text.startswith((b"Rar!", b"7z\xbc\xaf", b"\x1f\x8b", b"BZh", b"\xfd7zXZ")):
        return "a packed archive; unpack it first"
    return ""


def meant(path: Path) -> str:
    """" (did you mean NAME?)" with the neighbours of a missing file whose names are near to its own, or nothing."""
    try:
        names = {other.name.casefold(): other.name for other in path.parent.iterdir()}
    except OSError:
        return ""
    near = difflib.get_close_matches(path.name.casefold(), names, n=3, cutoff=0.75)
    return f" (did you mean {' or '.join(str(path.with_name(names[name])) for name in near)}?)" if near else ""
