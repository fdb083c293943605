"""A messy export, and the way from it to recommendations by following only what is said."""

from __future__ import annotations

import contextlib
import random
import re
import shlex
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

from tests.command_line import run_cli

START = 1_700_000_000


def write_export(folder: Path) -> None:
    """Write a shop's export: an old file, this year's folder, and a database of the web shop."""
    rng = random.Random(7)
    rows = []
    for user in range(120):
        place = rng.randrange(40)
        for step in range(rng.randrange(3, 14)):
            rows.append((f"c{user:03}", f"p{place:02}", START + 86_400 * step + user, "buy"))
            place = (place + rng.choice((1, 2, -1))) % 40
    old, new, web = rows[::3], rows[1::3], rows[2::3]

    def iso(seconds: int) -> str:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    lines = [f"{u};{i};{iso(t) if n % 2 else t};{e}" for n, (u, i, t, e) in enumerate(old)]
    lines[3:3] = [lines[2]] * 2  # sent twice
    lines[10] = lines[10].replace(";p", ";;p", 1)  # a cell too many
    lines[20] = ";" + lines[20].split(";", 1)[1]  # no user
    lines[30] = ";".join(lines[30].split(";")[:2]) + ";yesterday;buy"
    lines[40] = '"' + lines[40]  # a quotation mark that is never closed
    lines[50] = lines[50].replace(";buy", "")  # a cell too few
    (folder / "old.csv").write_text(
        "customer;product;bought_at;event\n" + "\n".join(lines) + "\n", encoding="utf-8"
    )
    for month in ("01", "02"):
        part = folder / "new" / f"month={month}"
        part.mkdir(parents=True)
        mine = new[: len(new) // 2] if month == "01" else new[len(new) // 2 :]
        (part / "events.csv").write_text(
            "customer,product,bought_at,event\n"
            + "".join(f"{u},{i},{1000 * t},{'view' if n % 9 == 0 else e}\n"
                      for n, (u, i, t, e) in enumerate(mine))
        )  # fmt: skip
    with contextlib.closing(sqlite3.connect(folder / "web.db")) as db, db:
        db.execute("CREATE TABLE orders (customer TEXT, product TEXT, at INTEGER)")
        db.executemany("INSERT INTO orders VALUES (?, ?, ?)", [(u, i, t) for u, i, t, _ in web])


def run(folder: Path, command: str) -> tuple[int, str]:
    """Run a command line in ``folder``; return its exit code and what it printed."""
    code, text = run_cli(folder, shlex.split(command)[1:], columns=100)
    text = "\n".join(line.rstrip() for line in text.splitlines())
    # What a model says differs in its last digits, and then in more, from machine to machine.
    for varies, stands in (
        (r"(?m)^(?:re)?training +epoch.*\n?", ""),
        (r"(?m)^attention:.*\n?", ""),
        (r"(?m)^(\d) +p\d\d .*$", r"\1  p…"),
        (r"\b\d\.\d{4}\b", "…"),
        (r"… ±…[* ]*", "… ±…  "),
        (r" {2,}…", "  …"),
        (r" {2,}(hit_rate|ndcg|mrr)", r"  \1"),  # a column is as wide as its marks
        (r"best epoch \d+ of \d+", "best epoch … of …"),
    ):
        text = re.sub(varies, stands, text)
    return code, "\n".join(line.rstrip() for line in text.splitlines()).strip()


COMMANDS = (
    ("What is in the old file?", "attrec data inspect old.csv"),
    ("A row is broken. Leave such rows out, and look again.",
     "attrec data inspect old.csv --on-bad-row skip"),
    ("A mark that takes half of the file with it is not left out silently. In this export marks "
     "are plain text.",
     "attrec data inspect old.csv --on-bad-row skip --no-quotes"),
    ("This year's folder is written otherwise: times in milliseconds, and views beside purchases.",
     "attrec data inspect new --where \"event = 'buy'\""),
    ("The web shop's orders lie in a database.",
     "attrec data inspect sqlite:///web.db"),
    ("It wants a query.",
     "attrec data inspect sqlite:///web.db --query "
     "'SELECT customer, product, at AS time FROM orders'"),
    ("Train on the old file, as the last line about it said; a few epochs are enough for a look.",
     "attrec train old.csv --on-bad-row skip --no-quotes --max-epochs 8 --out shop"),
    ("And ask.", "attrec recommend shop c003 -k 3"),
    ("Everybody, for a spreadsheet.",
     "attrec recommend shop --all -k 3 --out lists.csv --for-spreadsheets"),
)  # fmt: skip
"""What is asked next, and why, each following what the one before said."""


def transcript(folder: Path) -> list[tuple[str, str, int, str]]:
    """Go the whole way: (why, command, exit code, what was printed) of each step."""
    write_export(folder)
    return [(why, command, *run(folder, command)) for why, command in COMMANDS]
