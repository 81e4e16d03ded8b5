"""What every report is: one HTML file with the same looks, and nothing from elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from html import escape

_STYLE = """
body { font: 15px/1.45 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; color: #1b1b1b; background: #fff;
  max-width: 1080px; margin: 2em auto; padding: 0 1.5em; }
h1 { font-size: 1.7em; margin: 0 0 .2em; }
h2 { font-size: 1.2em; margin: 2.2em 0 .6em; padding-bottom: .2em; border-bottom: 1px solid #ccc; }
h3 { font-size: 1em; margin: 1.6em 0 .4em; }
p { max-width: 54em; margin: .4em 0; }
.quiet { color: #555; font-size: .88em; }
table { border-collapse: collapse; font-size: .86em; font-variant-numeric: tabular-nums; margin: .6em 0; }
th, td { padding: .22em .8em; text-align: right; white-space: nowrap; }
th { font-weight: 600; }
thead tr:first-child th { border-top: 2px solid #333; }
thead tr:last-child th { border-bottom: 1px solid #333; }
tbody:last-child tr:last-child > * { border-bottom: 2px solid #333; }
th[scope=row], thead th:first-child { text-align: left; font-weight: 400; }
th[scope=rowgroup] { text-align: left; padding-top: .7em; }
th[colspan] { text-align: center; }
th.split { border-bottom: 1px solid #999; }
tbody tr:hover > * { background: #f6f6f6; }
.wide { overflow-x: auto; }
figure { margin: 1em 0 1.8em; break-inside: avoid; }
figure img { width: 100%; height: auto; display: block; }
figcaption { font-size: .88em; color: #555; margin-top: .3em; }
code { font-size: .92em; overflow-wrap: anywhere; }
@media print { body { max-width: none; margin: 0; } h2 { break-after: avoid; } }
"""


def page(title: str, parts: Iterable[str], style: str = "") -> bytes:
    """Returns a report as the bytes of an HTML file.

    Args:
        title: Plain text.
        parts: What the body consists of, as HTML.
        style: CSS beyond what all reports have.
    """
    text = "\n".join(
        [
            f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>',
            f"<style>{_STYLE}{style}</style>\n</head>\n<body>",
            *parts,
            "</body>\n</html>\n",
        ]
    )
    # An id or a name may hold halves of characters, which no file can.
    return text.encode("utf-8", "backslashreplace")


def figure(picture: bytes, caption: str, kind: str = "png", width: float = 1.0) -> str:
    """Returns a picture with its caption, as HTML.

    Args:
        picture: A file's content.
        caption: Plain text.
        kind: The file's type, `png` or `svg+xml`. Default `png`.
        width: Fraction of the page's width. Default 1.
    """
    source, text = base64.b64encode(picture).decode(), escape(caption)
    style = "" if width == 1 else f' style="width:{100 * width:.4g}%"'
    image = f'<img alt="{text}"{style} src="data:image/{kind};base64,{source}">'
    return f"<figure>{image}\n<figcaption>{text}</figcaption></figure>"
