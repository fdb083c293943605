"""The page as a whole: one HTML file that asks nobody for anything."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from attrec.errors import RequestError
from attrec.evaluation.evaluate import Evaluation
from attrec.files import write_whole
from attrec.page.catalogue import catalogue_section
from attrec.page.figures import figures_section, in_short, judged_of
from attrec.page.making import data_section, item_counts, settings_section, training_section
from attrec.page.markup import Html, count, figure, tag, together
from attrec.page.people import chosen_users, people_section
from attrec.page.sight import attention_section
from attrec.page.slider import slider_section
from attrec.recommender import Recommender

_HTML, _HEAD = re.compile(rb"\s*(<!doctype html|<html|$)", re.IGNORECASE), 1024
"""How a page begins, or an empty file, and how many bytes are looked at."""
_NETWORKS = {"paper": "The paper’s network", "additive": "The additive network"}


def write_page(
    recommender: Recommender,
    path: str | Path,
    *,
    name: str = "model",
    manifest: Mapping[str, Any] | None = None,
) -> Path:
    """Write the page of a model; it appears whole or not at all.

    Parameters
    ----------
    recommender : Recommender
    path : path
        Of the HTML file.
    name : str
        What the page calls the model.
    manifest : mapping, optional
        The saved model's, see `attrec.artifact.read_manifest`: when it was saved, and its files.

    Raises
    ------
    RequestError
        The file cannot be written, or it is there and holds no HTML.
    """
    _check_replaceable(Path(path))
    text = page_of(recommender, name=name, manifest=manifest)
    return write_whole(path, lambda file: file.write_text(text, encoding="utf-8"))


def _check_replaceable(path: Path) -> None:
    try:
        with path.open("rb") as file:
            is_page = _HTML.match(file.read(_HEAD)) is not None
    except OSError:  # nothing is there to lose, or the writing says what is wrong
        return
    if not is_page:
        raise RequestError(f"{path}: holds something that is not HTML; name another file")


def page_of(
    recommender: Recommender, *, name: str = "model", manifest: Mapping[str, Any] | None = None
) -> str:
    """Return the page of a model as HTML; parameters as for `write_page`.

    All is in it: style, script, pictures. Its content policy forbids the browser every request,
    and every script but its own.
    """
    counts, users = item_counts(recommender), chosen_users(recommender)
    judged = judged_of(recommender.record)
    metric = recommender.options.train.selection_metric
    weight = recommender.options.model.architecture == "paper"
    sections = [
        ("data", "What it learnt from", data_section(recommender, counts)),
        ("training", "How it was trained", training_section(recommender)),
        ("figures", "How good it is", figures_section(judged, metric)),
        ("attention", "What it looks at", attention_section(recommender)),
        ("catalogue", "The catalogue as it sees it", catalogue_section(recommender, counts)),
        ("people", "What it recommends, and why", people_section(recommender, users)),
        ("weigh", "Turn the weight yourself" if weight else "Weigh two people yourself",
         slider_section(recommender, users)),
        ("settings", "Protocol and settings", settings_section(recommender, manifest)),
    ]  # fmt: skip
    links = (tag("li", tag("a", title, href=f"#{key}")) for key, title, _ in sections)
    body = [
        tag("a", "To the content", href="#content", class_="skip"),
        _header(recommender, name, judged, metric),
        tag(
            "div",
            tag("nav", tag("ol", *links), aria_label="Parts of this page"),
            tag("main", *(_section(*each) for each in sections), id="content"),
            class_="frame",
        ),
        tag("footer", "Made by attrec report. This file is complete in itself: it asks no server."),
    ]
    return _document(f"{name} – an AttRec model", body)


def _section(key: str, title: str, content: Html) -> Html:
    return tag("section", tag("h2", title, id=f"{key}-title"), content, id=key,
               aria_labelledby=f"{key}-title")  # fmt: skip


def _header(recommender: Recommender, name: str, judged: Evaluation | None, metric: str) -> Html:
    vocabulary = recommender.vocabulary
    tiles = [
        ("users", count(vocabulary.num_users)),
        ("items", count(vocabulary.num_items)),
        ("events", count(recommender.histories.num_events)),
    ]
    words = (
        f"{_NETWORKS[recommender.options.model.architecture]}, preset {recommender.options.preset}."
    )
    if judged is not None:
        first = next(iter(judged.systems.values())).metrics
        shown = metric if metric in first else judged.main_metrics()[0]
        tiles.append((f"test {shown}", figure(first[shown]["mean"])))
        words += f" On the test part: {in_short(judged, shown)}"
    return tag(
        "header",
        tag("p", "AttRec model", class_="eyebrow"),
        tag("h1", name),
        tag("p", words, class_="lead"),
        tag("dl", *(tag("div", tag("dt", what), tag("dd", value)) for what, value in tiles),
            class_="tiles"),
    )  # fmt: skip


def _document(title: str, body: list[Html]) -> str:
    style, script = _resource("page.css"), _resource("page.js")
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name_="color-scheme", content="light dark"),
        tag("meta", name_="referrer", content="no-referrer"),
        tag("title", title),
        tag("link", rel="icon", href="data:,"),
        Html(f"<style>{style}</style>"),
    ]
    whole = tag(
        "html",
        tag("head", *head),
        tag("body", *body, Html(f"<script>{script}</script>")),
        lang="en",
    )
    return f"<!DOCTYPE html>\n{together([whole])}\n"


def _resource(name: str) -> str:
    return files("attrec.page").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """Return what a content policy allows this very text by."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
