"""The parts of an HTML page: texts are escaped, pictures are inside."""

import base64
import re

from keras_mixer.visualizing import page
from support.pages import parse

NASTY = "<img src=x onerror=alert(1)> & \"quoted\" 'name'"


def whole():
    return page.document(
        f"title {NASTY}",
        page.section(
            f"section {NASTY}",
            page.paragraph(f"paragraph {NASTY}"),
            page.table([(f"key {NASTY}", f"value {NASTY}")]),
            page.note(f"note {NASTY}", f"command {NASTY}"),
        ),
        page.article(
            f"article {NASTY}",
            page.bars([(f"bar {NASTY}", 0.125)]),
            page.gallery(
                [page.picture(b"png", f"alt {NASTY}", f"text {NASTY}")]
            ),
        ),
    )


def test_all_texts_are_escaped():
    parsed = parse(whole())
    (image,) = parsed.images
    assert image["alt"] == f"alt {NASTY}"
    for place in (
        "title",
        "section",
        "paragraph",
        "key",
        "value",
        "note",
        "command",
        "article",
        "bar",
        "text",
    ):
        assert f"{place} {NASTY}" in parsed.text
    assert parsed.attributes.isdisjoint({"onerror", "onload", "onclick"})


def test_pictures_are_inside_the_page():
    (image,) = parse(whole()).images
    kind, data = image["src"].split(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(data) == b"png"


def test_page_has_no_script_and_no_address():
    text = whole()
    assert not re.search(r"<script|https?:|url\(|@import|[\"'(=]//", text)
    assert "default-src 'none'" in text


def test_bars_have_the_width_of_their_value():
    text = page.bars([("cat", 0.125), ("dog", 1.0)])
    assert re.findall(r"width: ([\d.]+)%", text) == ["12.5", "100.0"]
    assert "12.5 %" in text


def test_picture_without_a_text_below_has_no_caption():
    assert "figcaption" not in page.picture(b"png", "alt")
