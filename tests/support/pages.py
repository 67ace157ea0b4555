"""Parses HTML pages strictly, and renders them with Chromium."""

import html.parser
import json
import pathlib
import shutil
import subprocess
import tempfile
import types

VOID = {"img", "link", "meta"}


class _Parser(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.images, self.attributes = [], [], set()
        self.names, self.texts = set(), []

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def parse(text):
    """Returns the images, the text and the names in a page.

    Fails if a tag is not closed, or closed in another order.
    """
    parser = _Parser()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    assert text.startswith("<!DOCTYPE html>") or not parser.names & {"html"}
    return types.SimpleNamespace(
        images=parser.images,
        text=" ".join(parser.texts),
        names=parser.names,
        attributes=parser.attributes,
    )


# Measures a page in a frame of a given width, and shows the result as text.
_FRAME = """
<iframe id="frame" style="border: 0; height: 900px; width: {width}px"
  src="{name}"></iframe>
<pre id="result"></pre>
<script>
window.onload = () => {{
  const page = document.getElementById("frame").contentDocument;
  const style = page.defaultView.getComputedStyle(page.body);
  document.getElementById("result").textContent = JSON.stringify({{
    width: page.documentElement.scrollWidth,
    images: [...page.images].map((image) => image.naturalWidth),
    background: style.backgroundColor,
    color: style.color,
  }});
}};
</script>
"""


def find_chromium():
    """Returns the path of Chromium, or `None`."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


def measure(path, width, dark=False):
    """Returns what Chromium measures of a page.

    Args:
        path: Path of the page.
        width: Width of the window in CSS pixels.
        dark: Whether the user prefers dark pages.

    Returns:
        A dict with the `width` of the content, the widths of the `images`, and
        the `background` and `color` of the text.
    """
    path = pathlib.Path(path)
    frame = path.with_name(f"frame_{width}.html")
    frame.write_text(_FRAME.format(width=width, name=path.name))
    with tempfile.TemporaryDirectory() as profile:
        result = subprocess.run(
            [
                find_chromium(),
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                # Without it, the frame is of another origin.
                "--allow-file-access-from-files",
                f"--blink-settings=preferredColorScheme={0 if dark else 1}",
                f"--user-data-dir={profile}",
                "--virtual-time-budget=5000",
                "--dump-dom",
                frame.as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
    found = result.stdout.partition('<pre id="result">')[2].partition("</pre>")
    return json.loads(found[0])
