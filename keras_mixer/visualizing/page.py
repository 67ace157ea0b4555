"""One HTML page that needs no other file, no script and no network.

Each function returns HTML as a string. All texts are escaped here, so callers
pass plain text. Pictures are part of the page, as `data:` URIs.
"""

import base64
import html
import io

STYLE = """
:root { color-scheme: light dark; --back: #fff; --text: #1b1b1f;
  --soft: #5a5a66; --line: #d9d9e0; --bar: #2a6fbb; --box: #f5f5f8; }
@media (prefers-color-scheme: dark) { :root { --back: #15161a; --text: #e8e8ec;
  --soft: #a6a6b3; --line: #3a3b44; --bar: #6ea8e6; --box: #1f2026; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 66rem; padding: 1rem; background: var(--back);
  color: var(--text); font: 1rem/1.5 system-ui, sans-serif;
  overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
p, figcaption { max-width: 46rem; }
code { background: var(--box); padding: 0 .2em; }
table { border-collapse: collapse; }
th { padding: .2rem 1rem .2rem 0; text-align: left; vertical-align: top;
  font-weight: normal; color: var(--soft); overflow-wrap: break-word; }
td { padding: .2rem 0; vertical-align: top; }
.note, figcaption { color: var(--soft); font-size: .9rem; }
.gallery { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 14rem), 1fr)); }
figure { margin: 0; }
figcaption { margin-top: .4rem; }
img { display: block; width: 100%; height: auto; }
img.paper { width: auto; max-width: 100%; background: #fff; padding: .5rem; }
.bars { width: 100%; table-layout: fixed; margin: 1rem 0; max-width: 46rem; }
.bars th { width: 38%; color: var(--text); overflow-wrap: anywhere; }
.bars td:last-child { width: 4.5rem; text-align: right; }
.bars span { display: block; height: 1rem; margin-top: .25rem;
  min-width: 1px; background: var(--bar); border-radius: 2px; }
"""

# Browsers refuse all requests of the page, even if something was overlooked.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def document(title, *parts):
    """Returns a whole page.

    Args:
        title: Text of the heading and of the window.
        *parts: HTML, from the functions below.
    """
    title = html.escape(title)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>{title}</h1>
{_joined(parts)}
</main>
</body>
</html>
"""


def section(title, *parts):
    """Returns a section with a heading."""
    return (
        f"<section>\n<h2>{html.escape(title)}</h2>\n{_joined(parts)}</section>"
    )


def article(title, *parts):
    """Returns a part of a section, with a smaller heading."""
    return (
        f"<article>\n<h3>{html.escape(title)}</h3>\n{_joined(parts)}</article>"
    )


def paragraph(text):
    return f"<p>{html.escape(text)}</p>"


def note(text, command=None):
    """Returns a remark in small print, which may end in a command to run."""
    code = f" <code>{html.escape(command)}</code>" if command else ""
    return f'<p class="note">{html.escape(text)}{code}</p>'


def table(rows):
    """Returns a table of `(name, value)`."""
    return f"<table>\n{_joined(map(_row, rows))}</table>"


def _row(row):
    name, value = (html.escape(str(cell)) for cell in row)
    return f'<tr><th scope="row">{name}</th><td>{value}</td></tr>'


def bars(rows):
    """Returns horizontal bars for `(name, fraction)`."""
    return f'<table class="bars">\n{_joined(map(_bar, rows))}</table>'


def _bar(row):
    name, fraction = row
    percent = f"{100 * fraction:.1f}"
    return (
        f'<tr><th scope="row">{html.escape(name)}</th>'
        f'<td><span style="width: {percent}%"></span></td>'
        f"<td>{percent} %</td></tr>"
    )


def picture(png, alt, caption="", paper=False):
    """Returns a picture with a text below.

    Args:
        png: `bytes`, a PNG file.
        alt: Text that says what the picture shows.
        caption: Text below the picture.
        paper: Whether the picture has text on a white ground. It is then not
            enlarged.
    """
    data = base64.b64encode(png).decode("ascii")
    style = ' class="paper"' if paper else ""
    below = f"<figcaption>{html.escape(caption)}</figcaption>" * bool(caption)
    return (
        f'<figure><img{style} alt="{html.escape(alt)}" '
        f'src="data:image/png;base64,{data}">{below}</figure>'
    )


def gallery(pictures):
    """Returns pictures side by side, as many as there is room for."""
    return f'<div class="gallery">\n{_joined(pictures)}</div>'


def _joined(parts):
    return "".join(f"{part}\n" for part in parts)


def png_of(axes, dpi=100):
    """Returns the figure of Matplotlib axes as a PNG file."""
    file = io.BytesIO()
    # By default the file has the address of Matplotlib's site in it.
    axes.figure.savefig(
        file, format="png", dpi=dpi, metadata={"Software": None}
    )
    return file.getvalue()
