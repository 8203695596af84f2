"""A contact sheet: all pictures of a folder on one page that any browser opens, without a server and offline.

    <folder>/index.html      beside metadata.json; the pictures stay files of their own

A box narrows the sheet down to the metrics whose names have what is typed; what is typed stands in the address after
`#`, so that it can be linked to. Without JavaScript everything is there, only not to be narrowed down.

Names are strangers' words: they are escaped, and the page forbids itself (Content-Security-Policy) any script and style
but its own two, known by their hashes, and anything from elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from html import escape as _escape_html
from pathlib import Path
from urllib.parse import quote

from ..terminal import printable
from .plan import PlotResult, natural
from .rendered import place

NAME = "index.html"


def write(folder: Path, results: Iterable[PlotResult], runs: Sequence[str]) -> Path:
    """Make the sheet of the pictures in a folder. Raises OSError."""
    results = list(results)
    pictures = {result.metric: result.path.relative_to(folder).as_posix() for result in results if result.path}
    missing = {result.metric: result.error or "" for result in results if not result.path}
    title = runs[0] if len(runs) == 1 else f"{len(runs)} runs"
    place(folder / NAME, page(title, runs, pictures, missing).encode(errors="replace"))
    return folder / NAME


def page(title: str, runs: Sequence[str], pictures: Mapping[str, str], missing: Mapping[str, str]) -> str:
    """The page. Metrics of one prefix (train/loss, train/acc) stand together."""
    sections: dict[str, list[str]] = {}
    for metric, path in sorted(pictures.items(), key=lambda one: natural(one[0])):
        prefix, slash, _ = metric.partition("/")
        sections.setdefault(prefix if slash else "", []).append(_figure(metric, path))
    parts = [
        f"<section><h2>{escape(prefix)}</h2>\n<div>\n{''.join(figures)}</div></section>\n"
        for prefix, figures in sorted(sections.items())
    ]
    listed = "".join(f"<li>{escape(name)}</li>" for name in runs)
    of = f"<details class=runs><summary>their names</summary><ul>{listed}</ul></details>" if len(runs) > 1 else ""
    gone = "".join(f"<li>{escape(reason or metric)}</li>" for metric, reason in missing.items())
    return _PAGE.format(
        policy=_policy(),
        title=escape(title),
        style=_STYLE,
        script=_SCRIPT,
        runs=of,
        count=f"{len(pictures)} metric{'s'[: len(pictures) != 1]}",
        sections="".join(parts),
        missing=f"<details><summary>{len(missing)} not drawn</summary><ul>{gone}</ul></details>" if gone else "",
    )


def escape(text: str) -> str:
    """Any text as it can stand between tags and in an attribute, without characters that turn what is beside it."""
    return _escape_html(printable(text), quote=True)


@cache
def _policy() -> str:
    """What the page may load: its pictures, and the script and style that stand in it, by what they are."""
    import base64
    import hashlib

    def known(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; img-src 'self' file:; style-src {known(_STYLE)}; script-src {known(_SCRIPT)}; "
        "base-uri 'none'; form-action 'none'"
    )


def _figure(metric: str, path: str) -> str:
    name, source = escape(metric), escape(quote(path, errors="replace"))
    # A browser shows a PDF on a page of its own only.
    shown = "PDF" if path.endswith(".pdf") else f'<img src="{source}" alt="{name}" loading=lazy>'
    return f'<figure data-metric="{name}"><a href="{source}">{shown}</a><figcaption>{name}</figcaption></figure>\n'


_PAGE = """<!doctype html>
<html lang=en>
<meta charset=utf-8>
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name=viewport content="width=device-width">
<meta name=color-scheme content="light dark">
<title>{title}</title>
<style>{style}</style>
<header><h1>{title}</h1>{runs}
<label><input type=search placeholder="Filter metrics" aria-label="Filter metrics" autofocus></label>
<output>{count}</output></header>
{sections}{missing}
<script>{script}</script>
</html>
"""
_STYLE = """
body { margin: 0; padding: 0 2rem 3rem; font: 15px/1.4 system-ui, sans-serif; background: Canvas; color: CanvasText }
header { position: sticky; top: 0; display: flex; gap: 1rem; align-items: baseline; flex-wrap: wrap; padding: 1rem 0;
  background: Canvas; border-bottom: 1px solid #8884; z-index: 1 }
h1 { font-size: 1.3rem; margin: 0 } h2 { font-size: 1rem; color: GrayText; margin: 1.5rem 0 .5rem }
.runs { color: GrayText } .runs ul { margin: .3rem 0; max-height: 40vh; overflow: auto; overflow-wrap: anywhere }
input { font: inherit; padding: .3rem .6rem; width: 16rem } output { color: GrayText }
section > div { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); gap: 1rem }
figure { margin: 0; border: 1px solid #8884; border-radius: 6px; overflow: hidden; background: #fff }
figure[hidden], section[hidden] { display: none }
img { display: block; width: 100%; height: auto }
figcaption { padding: .3rem .6rem; font-size: .85rem; overflow-wrap: anywhere; background: Canvas }
"""
_SCRIPT = """
const box = document.querySelector("input"), all = [...document.querySelectorAll("figure")]
function narrow() {
  const words = box.value.toLowerCase().split(/\\s+/).filter(Boolean)
  for (const one of all) one.hidden = !words.every(word => one.dataset.metric.toLowerCase().includes(word))
  for (const one of document.querySelectorAll("section")) one.hidden = !one.querySelector("figure:not([hidden])")
  const shown = all.filter(one => !one.hidden).length
  document.querySelector("output").value = words.length ? `${shown} of ${all.length} metrics` : `${all.length} metrics`
}
function recall() { box.value = decodeURIComponent(location.hash.slice(1)); narrow() }
box.addEventListener("input", () => { location.replace("#" + encodeURIComponent(box.value)); narrow() })
addEventListener("hashchange", recall)
recall()
"""
