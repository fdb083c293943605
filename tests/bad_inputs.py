"""What goes wrong, case by case: the command line of each, and the sentence that it gets.

The tests hold every case to the contract; docs/errors.md is made from them.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import http.server
import json
import os
import pickle
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import duckdb
import optuna
import torch

import attrec
from attrec.data import datasets
from attrec.errors import InterruptedTraining
from tests.command_line import run_cli

SMALL = [
    "--embedding-dim",
    "4",
    "--max-epochs",
    "1",
    "--architecture",
    "paper",
    "--init-std",
    "0.3",
]
GOOD = "user,item,time\n" + "".join(
    f"u{u},i{(u + s) % 7},{1_700_000_000 + 60 * s}\n" for u in range(8) for s in range(4)
)


@dataclass(frozen=True)
class Case:
    """One thing that goes wrong.

    ``make`` prepares a folder and returns the command line; ``said`` must be in the answer.
    """

    name: str
    make: Callable[[Path], list[str]]
    said: str
    code: int = 2
    around: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext


@dataclass(frozen=True)
class Outcome:
    """What a case got."""

    code: int
    sentence: str
    output: str
    left_over: list[str] = field(default_factory=list)


def log(
    text: str | bytes, *options: str, name: str = "log.csv", verb: str = "train"
) -> Callable[[Path], list[str]]:
    """Train on a file of this content."""

    def make(folder: Path) -> list[str]:
        content = text if isinstance(text, bytes) else text.encode()
        (folder / name).write_bytes(content)
        return [verb, str(folder / name), "--out", str(folder / "model"), *SMALL, *options]

    return make


def model(*arguments: str) -> Callable[[Path], list[str]]:
    """Ask a good model; ``MODEL`` stands for its folder."""

    def make(folder: Path) -> list[str]:
        saved(folder)
        return [str(folder / "model") if word == "MODEL" else word for word in arguments]

    return make


def saved(folder: Path, content: str = GOOD) -> Path:
    """Save a good model."""
    (folder / "good.csv").write_text(content)
    options = {"embedding_dim": 4, "max_epochs": 1, "architecture": "paper", "init_std": 0.3}
    attrec.fit(folder / "good.csv", **options).recommender.save(folder / "model")
    return folder / "model"


def with_commas(*arguments: str) -> Callable[[Path], list[str]]:
    """Ask a good model of which an item is called ``[b]a,1``."""

    def make(folder: Path) -> list[str]:
        saved(folder, GOOD.replace("i1", '"[b]a,1"'))
        return [str(folder / "model") if word == "MODEL" else word for word in arguments]

    return make


def log_of_users(text: str) -> Callable[[Path], list[str]]:
    """Ask a good model for all users of a log."""

    def make(folder: Path) -> list[str]:
        (folder / "log.csv").write_text(text)
        return ["recommend", str(saved(folder)), "--log", str(folder / "log.csv")]

    return make


def updated(text: str, *options: str) -> Callable[[Path], list[str]]:
    """Give a good model new events."""

    def make(folder: Path) -> list[str]:
        (folder / "new.csv").write_text(text)
        return ["update", str(saved(folder)), str(folder / "new.csv"), *options]

    return make


def changed(change: Callable[[Path], object], *arguments: str) -> Callable[[Path], list[str]]:
    """Ask a model after something happened to it."""

    def make(folder: Path) -> list[str]:
        change(saved(folder))
        return [str(folder / "model") if word == "MODEL" else word for word in arguments]

    return make


def flip(folder: Path) -> None:
    file = next(folder.glob("tables-*"))
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def newer(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest.update(format_version=99, attrec_version="9.0")
    (folder / "manifest.json").write_text(json.dumps(manifest))


def pickled(folder: Path) -> list[str]:
    (folder / "model.pkl").write_bytes(pickle.dumps({"weights": [1.0]}))
    return ["recommend", str(folder / "model.pkl"), "u1"]


def toml(text: str) -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        (folder / "options.toml").write_text(text)
        return [*log(GOOD)(folder), "--config", str(folder / "options.toml")]

    return make


def output_is_something_else(folder: Path) -> list[str]:
    arguments = log(GOOD)(folder)
    (folder / "model").mkdir()
    (folder / "model" / "thesis.txt").write_text("three years of work")
    return arguments


def unwritable(folder: Path) -> list[str]:
    arguments = log(GOOD)(folder)
    (folder / "file").write_text("")
    return [*arguments, "--out", str(folder / "file" / "model")]


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """A disk that is full when the model is saved, and not while checkpoints are."""
    save = attrec.recommender.save_artifact

    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def save_on_full_disk(*args: object, **kwargs: object) -> None:
        with mock.patch("os.fsync", no_space):
            save(*args, **kwargs)  # type: ignore[arg-type]

    with mock.patch("attrec.recommender.save_artifact", save_on_full_disk):
        yield


def other_checkpoint(folder: Path) -> list[str]:
    class Stop(attrec.Listener):
        def stop_requested(self) -> bool:
            return True

    other = attrec.simulate("mixed", num_users=20, num_items=20, events_per_user=6, seed=1)
    with contextlib.suppress(InterruptedTraining):
        attrec.fit(other, checkpoint=folder / "model.checkpoint", listener=Stop(), embedding_dim=4)
    return log(GOOD)(folder)


def known_test_file(folder: Path) -> list[str]:
    last = [line for line in GOOD.splitlines() if line.endswith("180")]
    (folder / "test.csv").write_text("\n".join(["user,item,time", *last]))
    return log(GOOD, "--test", str(folder / "test.csv"))(folder)


def lists_of_other_ids(folder: Path) -> list[str]:
    kept = saved(folder)
    lists = folder / "lists.csv"
    lists.write_text("user,item,rank\nu0,1.0,1\nu0,2.0,2\n")
    return ["evaluate", str(kept), str(folder / "good.csv"), "--compare", str(lists)]


def other_search(folder: Path) -> list[str]:
    other = attrec.simulate("mixed", num_users=20, num_items=20, events_per_user=6, seed=1)
    attrec.tune(other, folder=folder / "model", trials=1, search=["margin"], preset="paper-sparse",
                embedding_dim=4, max_epochs=1)  # fmt: skip
    return log(GOOD, "--search", "margin", verb="tune")(folder)


def study_of_somebody(folder: Path) -> list[str]:
    (folder / "model").mkdir()
    optuna.create_study(storage=f"sqlite:///{folder}/model/study.db", study_name="mine").ask()
    return log(GOOD, "--search", "margin", "--fresh", verb="tune")(folder)


def parquet(folder: Path) -> list[str]:
    path = folder / "log.parquet"
    duckdb.execute(f"COPY (SELECT i AS user_id, i AS item_id FROM range(99) t(i)) TO '{path}'")
    path.write_bytes(path.read_bytes()[:-40])
    return ["train", str(path)]


@contextlib.contextmanager
def no_module(name: str) -> Iterator[None]:
    with mock.patch.dict(sys.modules, {name: None}):
        yield


@contextlib.contextmanager
def served(content: bytes, announced: int) -> Iterator[None]:
    """A data set ``toy`` whose server sends ``content`` and announced so many bytes."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(announced))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    digest = hashlib.sha256(b"what was meant").hexdigest()
    address = f"http://127.0.0.1:{server.server_port}/toy.tsv"
    toy = datasets.Registered(
        "The terms.", datasets.File("toy.tsv", "toy/toy.tsv", address, digest, None, None), None
    )
    environment = {k: v for k, v in os.environ.items() if k != datasets.OFFLINE_VARIABLE}
    try:
        with (
            mock.patch.dict(datasets.REGISTRY, {"toy": toy}),
            mock.patch.dict(os.environ, environment, clear=True),
        ):
            yield
    finally:
        server.shutdown()
        server.server_close()


def fetch(folder: Path) -> list[str]:
    return ["data", "fetch", "toy"]


HEAD = "user,item,time\n"
CASES = [
    Case("missing file", lambda f: ["train", str(f / "nowhere.csv")], "there is no such file"),
    Case("empty file", log(""), "the file is empty"),
    Case("header only", log(HEAD), "there is a header and no row"),
    Case("no such column", log(GOOD, "--item", "itm"), "did you mean 'item'?"),
    Case("two candidates for a column", log("user_id,uid,item\n1,1,2\n"), "with the name of one"),
    Case("wrong separator", log(GOOD, "--format", "tsv"), "its first line is one column"),
    Case("ragged row", log(HEAD + "a,b,1\na,b\n"), "line 3: 2 columns where the first row has 3"),
    Case("unreadable encoding", log((HEAD + "é,b,1\n").encode("latin-1")), "is not UTF-8"),
    Case("NUL bytes", log(HEAD + "a,b,1\n\0\0,b,2\n"), "line 3: the user holds NUL bytes"),
    Case("two kinds of line ends",
         log(GOOD.replace("\n", "\r\n") + "u0,i6,1700009000\nu1,i6,1700009000\n"),
         "bring all rows to one form"),
    Case("new events without times", updated("user,item\nu1,i1\n"),
         "has no times, and the model's events have times"),
    Case("truncated gzip", log(gzip.compress(GOOD.encode())[:-20], name="log.csv.gz"), "cut off"),
    Case("truncated Parquet", parquet, "this is not a Parquet file that can be read"),
    Case("text in the time column", log(HEAD + "a,b,soon\n"), "timestamp 'soon' is not a number"),
    Case("time in the future", log(GOOD + "u0,i9,9000000000\n"), "lie in the future", 0),
    Case("time before 1970", log(GOOD + "u0,i9,-200000000\n"), "lie before 1970", 0),
    Case("seconds and milliseconds mixed", log(GOOD + "u0,i9,1700000000000\n"),
         "is in milliseconds where most are in seconds"),
    Case("empty id", log(HEAD + "a,b,1\n,b,2\n"), "line 3: the user is empty"),
    Case("NaN as an id", log(HEAD + "a,b,1\na,NaN,2\n"), "line 3: the item is empty"),
    Case("integer and string ids mixed",
         log('{"user": 1, "item": 2}\n{"user": "a", "item": 3}\n', name="log.jsonl"),
         "holds text and whole numbers"),
    Case("a user with one event", log(GOOD + "lonely,i1,1700000000\n"), "8 users judged", 0),
    Case("one user", log(HEAD + "".join(f"a,i{i},{i}\n" for i in range(9))), "1 users judged", 0),
    Case("one item", log(HEAD + "".join(f"{u},i,{t}\n" for u in "ab" for t in range(6))),
         "need at least 4 for a negative to exist"),
    Case("fewer items than T + 1", log(GOOD, "--num-targets", "9"), "lower num_targets"),
    Case("every item seen by a user",
         lambda f: [*model("recommend", "MODEL")(f), *_user_of_everything(f)],
         "every allowed item was seen"),
    Case("ratings that are text", log("user,item,rating\na,b,good\n", "--min-rating", "4"),
         "rating 'good' is not a number"),
    Case("a threshold that leaves nothing", log("user,item,rating\na,b,3\n", "--min-rating", "4"),
         "no row is left"),
    Case("a k-core that leaves nothing", log(GOOD, "--min-user-events", "99"),
         "no event is left when every user must have 99"),
    Case("a condition that leaves nothing", log(GOOD, "--where", "item = 'none'"),
         "no row is left where"),
    Case("a query that leaves nothing", lambda f: _sqlite(f, "SELECT * FROM events WHERE user < 0"),
         "there are no rows"),
    Case("a time cut that leaves nothing",
         log(HEAD + "a,x,1\nb,y,1\nc,z,1\nd,w,1\n", "--split", "global-time"),
         "leave 3 to train on and 0 for validation"),
    Case("a time cut through one moment",
         log(HEAD + "".join(f"u{n % 3},i{n},1\n" for n in range(12)), "--split", "global-time"),
         "one moment holds too many"),
    Case("a test file out of the log", known_test_file, "8 of its 8 events are in"),
    Case("lists of other ids to compare with",
         lists_of_other_ids, "the model has none of its 2 items, such as 1.0"),
    Case("unknown user", model("recommend", "MODEL", "nobody"), "user 'nobody' is not in"),
    Case("unknown item", model("explain", "MODEL", "nothing", "--user", "u1"), "item 'nothing'"),
    Case("all items of a history unknown", model("recommend", "MODEL", "--history", "x,y"),
         "none of them is known"),
    Case("an id that looks like markup", model("recommend", "MODEL", "[/bar]"), "user '[/bar]'"),
    Case("an id with a comma, without quotes",
         with_commas("recommend", "MODEL", "u1", "--deny", "[b]a,1"), "stands in double quotes"),
    Case("a list of ids that is no CSV", model("recommend", "MODEL", "u1", "--deny", '"i1,i2'),
         "its quotation marks are not as in CSV"),
    Case("some users of a log unknown", log_of_users(GOOD + "new,x,1700000000\n"),
         "1 of 9 users left out, 'new' first", 0),
    Case("all users of a log unknown", log_of_users("user,item\nnew,x\nolder,y\n"),
         "nobody is left of 2 users"),
    Case("k = 0", model("recommend", "MODEL", "u1", "-k", "0"), "ask for at least 1 item"),
    Case("weights of a group that cancel",
         model("recommend", "MODEL", "u1", "u2", "--together", "--weights", "1,-1"),
         "their sum must be above 0"),
    Case("less like an item, too strongly",
         model("recommend", "MODEL", "u1", "--unlike", "i1", "--strength", "2"),
         "it must stay below 1"),
    Case("k negative", model("recommend", "MODEL", "u1", "-k", "-3"), "ask for at least 1 item"),
    Case("k above the catalogue", model("recommend", "MODEL", "u1", "-k", "999", "--include-seen"),
         "i0", 0),
    Case("a deny-list that leaves nothing",
         model("recommend", "MODEL", "u1", "--deny", ",".join(f"i{i}" for i in range(7))),
         "leave no item"),
    Case("L = 0", log(GOOD, "--window-length", "0"), "window_length = 0: must be at least 1"),
    Case("ω outside 0–1", log(GOOD, "--long-term-weight", "1.5"), "at most 1"),
    Case("odd embedding_dim", log(GOOD, "--embedding-dim", "7"), "must be even"),
    Case("unknown option in TOML", toml("[train]\nmargn = 0.5\n"), "did you mean 'margin'?"),
    Case("wrong type in TOML", toml('[train]\nmargin = "wide"\n'), "expected a finite number"),
    Case("output folder that is something else", output_is_something_else,
         "holds something that is not an AttRec model (thesis.txt"),
    Case("output not writable", unwritable, "cannot be written"),
    Case("disk full while saving", log(GOOD), "No space left on device", around=full_disk),
    Case("artifact of a newer version", changed(newer, "info", "MODEL"), "was written by attrec 9"),
    Case("one flipped byte", changed(flip, "info", "MODEL"), "its SHA-256 is not the one"),
    Case("checkpoint of other data", other_checkpoint, "a training with other data"),
    Case("search of another data set", other_search, "a search with other data"),
    Case("folder of somebody else's study", study_of_somebody,
         "holds something that is no search (the study 'mine')"),
    Case("TensorBoard's folder below a file", log(GOOD, "--tensorboard", "log.csv/runs"),
         "log.csv/runs: cannot be written"),
    Case("MLflow's folder with a question mark", log(GOOD, "--mlflow", "what?"),
         "MLflow cannot keep anything in a folder with '?'"),
    Case("search of an option that is none", log(GOOD, "--search", "margn", verb="tune"),
         "did you mean 'margin'?"),
    Case("option given and searched", log(GOOD, "--margin", "1", "--search", "margin", verb="tune"),
         "margin is given a value too"),
    Case("a pickle offered as a model", pickled, "there is no saved model"),
    Case("a pickle offered as a log", log(pickle.dumps([1]), name="log.pkl"), "run any code"),
    Case("CUDA asked for and absent", log(GOOD, "--device", "cuda"), "sees no CUDA device",
         around=lambda: mock.patch.object(torch.cuda, "is_available", lambda: False)),
    Case("missing extra", lambda f: _sqlite(f, "SELECT * FROM events"),
         "pip install 'attrec[sql]'", around=lambda: no_module("adbc_driver_sqlite.dbapi")),
    Case("database down",
         lambda f: ["train", "postgresql://me:secret@127.0.0.1:9/shop", "--query", "SELECT 1"],
         "cannot be reached"),
    Case("interrupted download", fetch, "toy", around=lambda: served(b"what was", 14)),
    Case("checksum mismatch", fetch, "toy", around=lambda: served(b"something else", 14)),
]  # fmt: skip


def _sqlite(folder: Path, query: str) -> list[str]:
    import sqlite3

    with contextlib.closing(sqlite3.connect(folder / "shop.db")) as db, db:
        db.execute("CREATE TABLE events (user INTEGER, item INTEGER)")
        db.executemany("INSERT INTO events VALUES (?, ?)", [(1, 2), (1, 3)])
    return ["train", f"sqlite:///{folder}/shop.db", "--query", query]


def _user_of_everything(folder: Path) -> list[str]:
    everything = "".join(f"u9,i{i},{1_700_000_000 + i}\n" for i in range(7))
    (folder / "good.csv").write_text(GOOD + everything)
    shutil.rmtree(folder / "model")
    options = {"embedding_dim": 4, "max_epochs": 1, "architecture": "paper", "init_std": 0.3}
    attrec.fit(folder / "good.csv", **options).recommender.save(folder / "model")
    return ["u9"]


def run(case: Case, folder: Path) -> Outcome:
    """Run a case in an empty folder of its own."""
    arguments = case.make(folder)
    before = {path: _content(path) for path in folder.rglob("*")}
    with case.around():
        code, text = run_cli(folder, arguments, columns=500)
    lost = [str(path) for path, held in before.items() if _content(path) != held]
    after = {path for path in folder.rglob("*") if path not in before}
    after -= {path for path in after if ".checkpoint" in str(path) or path.name == "cache"}
    text = re.sub(r"127\.0\.0\.1:\d{4,}", "127.0.0.1:PORT", text)
    # What differs between machines and versions is no part of a sentence.
    for varies, stands in (
        (r"-[0-9a-f]{16}\.", "-…."),
        (r"\d\.\d{4}", "…"),
        (r"PyTorch \S+ sees", "PyTorch … sees"),
    ):
        text = re.sub(varies, stands, text)
    text = text.replace(f"{folder}/", "").replace(str(folder), ".")
    sentence = next((line for line in text.splitlines() if case.said in line), "")
    return Outcome(code, " ".join(sentence.split()), text, lost + [str(p) for p in sorted(after)])


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None
