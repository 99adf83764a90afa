"""Writes HTML: a page that needs nothing but itself, and what can be on it.

All text is escaped here.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Whatever gets onto the page, it can neither run nor load anything.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(title: str, lead: str, sections: Sequence[tuple[str, str]]) -> str:
    """Writes a page.

    Args:
        title (str): Its title.
        lead (str): What it begins with, HTML.
        sections (sequence of tuple): Headings and contents, HTML; an empty content
            leaves the section out.
    """
    sections = [(heading, content) for heading, content in sections if content]
    links = [f'<a href="#{_id(h)}">{escape(h)}</a>' for h, _ in sections]
    parts = [
        f'<section id="{_id(h)}">\n<h2>{escape(h)}</h2>\n{content}</section>\n'
        for h, content in sections
    ]
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    return f"""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
{lead}<nav aria-label="Sections">{" ".join(links)}</nav>
</header>
<main>
{"".join(parts)}</main>
</body>
</html>
"""


def paragraph(text: str) -> str:
    """Writes a paragraph."""
    return f"<p>{escape(text)}</p>\n"


def bullets(lines: Sequence[str], kind: str) -> str:
    """Writes a list of a class of the style sheet, nothing if it is empty."""
    items = "".join(f"<li>{escape(line)}</li>\n" for line in lines)
    return f'<ul class="{kind}">\n{items}</ul>\n' if items else ""


def code(text: str) -> str:
    """Writes what is typed into a shell."""
    return f"<pre><code>{escape(text)}</code></pre>\n"


def table(
    caption: str, headings: Sequence[str], rows: Sequence[Sequence[str]], kind: str = ""
) -> str:
    """Writes a table that scrolls by itself where the page is narrow.

    Args:
        caption (str): What it shows.
        headings (sequence of str): One a column.
        rows (sequence of sequence of str): The cells. The first of each row heads it.
        kind (str): A class of the style sheet: ``"words"`` for cells of text that may
            be broken into lines, ``"facts"`` for such that may not. The default is
            numbers.
    """
    head = "".join(f'<th scope="col">{escape(h)}</th>' for h in headings)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + "</tr>\n"
        for first, *cells in rows
    )
    caption = escape(caption)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{caption}">\n'
        f'<table class="{kind}">\n<caption><span>{caption}</span></caption>\n'
        f"<thead>\n<tr>{head}</tr>\n</thead>\n<tbody>\n{body}</tbody>\n</table>\n"
        "</div>\n"
    )


def legend(entries: Sequence[tuple[str, dict[str, str]]]) -> str:
    """Writes what the lines of figures stand for.

    Args:
        entries (sequence of tuple): Names, and Matplotlib's colour and marker.
    """
    signs = {"": "", "o": "●", "s": "■", "^": "▲"}
    items = []
    for name, style in entries:
        color = style["color"].replace("#000000", "currentColor")
        sign = f"━{signs[style['marker']]}━"
        items.append(
            f'<li><span style="color:{color}" aria-hidden="true">{sign}</span> '
            f"{escape(name)}</li>\n"
        )
    return f'<ul class="legend">\n{"".join(items)}</ul>\n'


def figures(items: Sequence[str]) -> str:
    """Writes figures, side by side where there is room."""
    return f'<div class="figures">\n{"".join(items)}</div>\n' if items else ""


def drawing(figure: Figure, name: str) -> str:
    """Writes a Matplotlib figure as SVG whose black takes the colour of the text.

    Args:
        figure (matplotlib.figure.Figure): The figure. Text in it is not the user's.
        name (str): What it shows, for those who do not see it.
    """
    import matplotlib

    stream = io.StringIO()
    # Text as text, and names that no other figure on the page has.
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    svg = stream.getvalue()
    box = re.findall(r'viewBox="[^"]*"', svg)[0]
    svg = svg[svg.index(">", svg.index("<svg")) + 1 :]
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg).replace("#000000", "currentColor")
    return f'<figure><svg {box} role="img" aria-label="{escape(name)}">{svg}</figure>\n'


def picture(png: bytes, name: str) -> str:
    """Writes a PNG picture with its name below."""
    width, height = (int.from_bytes(png[i : i + 4], "big") for i in (16, 20))
    data = base64.b64encode(png).decode()
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{escape(name)}" '
        f'width="{width}" height="{height}"><figcaption>{escape(name)}</figcaption>'
        "</figure>\n"
    )


def _id(heading: str) -> str:
    return heading.lower().replace(" ", "-")
