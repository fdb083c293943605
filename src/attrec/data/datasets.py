"""Public data sets by name: fetched from wherever they can be had, verified, cached."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pooch
import requests

from attrec.errors import FetchError
from attrec.files import write_whole

OFFLINE_VARIABLE = "ATTREC_OFFLINE_DATA"
"""Names a folder with the files in the layout of `Source.offline`; asked first."""
CACHE_VARIABLE = "ATTREC_CACHE"
"""Names the folder that fetched files are kept in; the user's cache folder by default."""
CONNECT_SECONDS = 5
READ_SECONDS = 60
WHEEL = "recbole==1.2.1"
WHEEL_FOLDER = "recbole/dataset_example/ml-100k"

GROUPLENS = (
    "MovieLens: for research, no redistribution (grouplens.org/datasets/movielens). Cite: F. M. "
    "Harper and J. A. Konstan, The MovieLens Datasets: History and Context, ACM TiiS 5(4), 2015."
)
MOVIETWEETINGS = (
    "MovieTweetings: MIT licence. Cite: S. Dooms, T. De Pessemier and L. Martens, MovieTweetings: "
    "a Movie Rating Dataset Collected From Twitter, CrowdRec at RecSys 2013."
)
AMAZON = (
    "Amazon reviews: for research. Cite: J. McAuley, C. Targett, Q. Shi and A. van den Hengel, "
    "Image-based Recommendations on Styles and Substitutes, SIGIR 2015."
)

Tell = Callable[[str], object]


@dataclass(frozen=True)
class File:
    """One file of a data set.

    Attributes
    ----------
    name : str
        In the cache.
    offline : str
        Path under the offline folder.
    url : str
        Official address; of a zip archive where ``member`` is given.
    sha256 : str or None
        None where the sources hold different files of the same use, and only the archive's other
        file can be verified.
    member : str or None
        Path inside the archive.
    wheel_member : str or None
        Path inside the wheel, for the data set that the package index carries.
    """

    name: str
    offline: str
    url: str
    sha256: str | None
    member: str | None = None
    wheel_member: str | None = None


@dataclass(frozen=True)
class Registered:
    """A data set of the registry."""

    terms: str
    interactions: File
    items: File | None = None


@dataclass(frozen=True)
class Dataset:
    """A data set on this machine.

    Attributes
    ----------
    name : str
    interactions : Path
        For `read_interactions`.
    items : Path or None
        For `read_item_titles`.
    sha256 : str
        Of the interactions.
    """

    name: str
    interactions: Path
    items: Path | None
    sha256: str


_RAW = "https://raw.githubusercontent.com"
_ML_100K = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
_TWEETS = f"{_RAW}/sidooms/MovieTweetings/master/snapshots/100K"

REGISTRY: dict[str, Registered] = {
    "ml-100k": Registered(
        GROUPLENS,
        File(
            "u.data",
            "ml-100k/u.data",
            _ML_100K,
            "06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490",
            "ml-100k/u.data",
            f"{WHEEL_FOLDER}/ml-100k.inter",
        ),
        File(
            "ml-100k.item",
            "ml-100k/ml-100k.item",
            _ML_100K,
            None,
            "ml-100k/u.item",
            f"{WHEEL_FOLDER}/ml-100k.item",
        ),
    ),
    "ml-1m": Registered(
        GROUPLENS,
        File(
            "ml-1m.txt",
            "ml-1m/ml-1m.txt",
            f"{_RAW}/kang205/SASRec/master/data/ml-1m.txt",
            "b725f3acb3986fe3130bffd1e77a74d182a1f51799567a236dbd60270f95b0a2",
        ),
    ),
    "movietweetings-100k": Registered(
        MOVIETWEETINGS,
        File(
            "ratings.dat",
            "movietweetings/snapshot-100K/ratings.dat",
            f"{_TWEETS}/ratings.dat",
            "c0dd868c2632d10002ebc928ddc5345f33adeaa59eca52c2941c26a2c5e36fd6",
        ),
        File(
            "movies.dat",
            "movietweetings/snapshot-100K/movies.dat",
            f"{_TWEETS}/movies.dat",
            "e63fb84bc734e3c574f135634a40d3cbafab22b8f94f5fc0b80f80d1d2076efc",
        ),
    ),
    "amazon-beauty": Registered(
        AMAZON,
        File(
            "Beauty.txt",
            "amazon-beauty/Beauty.txt",
            f"{_RAW}/salesforce/ICLRec/master/data/Beauty.txt",
            "226cce9c3105299ca0db9615d7d3fb32b3175e90da43100ae352599f0f0107b8",
        ),
    ),
    "amazon-video-games": Registered(
        AMAZON,
        File(
            "Video_Games.txt",
            "amazon-video-games/Video_Games.txt",
            f"{_RAW}/KlaineWei/MoCo4SRec/master/data/Video_Games.txt",
            "929cd5d06b806927bcdc4374140b3840f07209ebababd5960e5d411ba7aa44f8",
        ),
    ),
}
NAMES = tuple(REGISTRY)


def cache_folder() -> Path:
    """Return the folder that this package keeps files in."""
    return Path(os.environ.get(CACHE_VARIABLE) or pooch.os_cache("attrec"))


def fetch(name: str, *, cache: str | Path | None = None, echo: Tell | None = None) -> Dataset:
    """Return a public data set, fetching it where it is not in the cache.

    Sources, in this order, each with 5 s to connect: the folder that ``ATTREC_OFFLINE_DATA`` names;
    the official address; for ``ml-100k`` the package index, whose wheel ``recbole==1.2.1`` carries
    the file (downloaded with pip, opened as an archive, never installed). What comes is verified by
    its SHA-256 before it is kept, but for MovieLens 100K's titles, which differ between the
    sources; a cached file that no longer fits is fetched again.

    Parameters
    ----------
    name : str
        One of `NAMES`.
    cache : path, optional
        Folder to keep files in; ``ATTREC_CACHE``, or the user's cache folder.
    echo : callable, optional
        Told the licence and citation at the first fetch, and the source.

    Returns
    -------
    Dataset

    Raises
    ------
    FetchError
        The name is unknown, or no source has the file; says which were tried and why each failed.
    """
    if name not in REGISTRY:
        raise FetchError(f"no data set {name!r}; known: {', '.join(NAMES)}")
    tell: Tell = echo or (lambda line: None)
    entry = REGISTRY[name]
    folder = (Path(cache) if cache else cache_folder()) / name
    files = [entry.interactions, *([entry.items] if entry.items else [])]
    if not all(_whole(folder / file.name, file) for file in files):
        _fetch_all(name, files, folder, tell)
        tell(entry.terms)
    digest = hashlib.sha256((folder / entry.interactions.name).read_bytes()).hexdigest()
    items = None if entry.items is None else folder / entry.items.name
    return Dataset(name, folder / entry.interactions.name, items, digest)


def _fetch_all(name: str, files: list[File], folder: Path, tell: Tell) -> None:
    """Take all files from the first source that has them, whole."""
    tried = []
    for source, contents in _sources(files):
        try:
            found = contents()
            for file, content in zip(files, found, strict=True):
                _verify(file, content)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            tried.append(f"{source} ({_reason(error)})")
            continue
        for file, content in zip(files, found, strict=True):
            write_whole(folder / file.name, partial(Path.write_bytes, data=content))
        tell(f"{name}: from {source}, checksum verified, kept in {folder}")
        return
    raise FetchError(
        f"{name}: cannot be had from any source: {'; '.join(tried)}; connect to one of them, or "
        f"put {', '.join(file.offline for file in files)} into a folder and name it in "
        f"{OFFLINE_VARIABLE}"
    )


def _sources(files: list[File]) -> Iterator[tuple[str, Callable[[], list[bytes]]]]:
    offline = os.environ.get(OFFLINE_VARIABLE)
    if offline:
        yield (
            f"the offline folder {offline}",
            lambda: [(Path(offline) / file.offline).read_bytes() for file in files],
        )
    yield files[0].url, lambda: _download(files)
    if files[0].wheel_member is not None:
        yield f"the package index ({WHEEL})", lambda: _from_wheel(files)


def _download(files: list[File]) -> list[bytes]:
    """Take the official files; an archive that holds several is downloaded once."""
    pooch.get_logger().setLevel("WARNING")
    with tempfile.TemporaryDirectory() as folder:
        fetched: dict[str, Path] = {}
        downloader = pooch.HTTPDownloader(timeout=(CONNECT_SECONDS, READ_SECONDS))
        for file in files:
            if file.url not in fetched:
                path = pooch.retrieve(file.url, known_hash=None, path=folder, downloader=downloader)
                fetched[file.url] = Path(path)
        return [
            fetched[file.url].read_bytes()
            if file.member is None
            else _member(fetched[file.url], file.member)
            for file in files
        ]


def _from_wheel(files: list[File]) -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--timeout",
            str(CONNECT_SECONDS), "--retries", "2", "--dest", folder, WHEEL,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            lines = done.stderr.strip().splitlines() or ["no wheel came"]
            raise OSError(f"pip download failed: {lines[-1]}")
        contents = [_member(wheels[0], file.wheel_member or "") for file in files]
    # The wheel's interactions carry a header line that the official file lacks.
    header, _, contents[0] = contents[0].partition(b"\n")
    if not header.startswith(b"user_id:"):
        raise ValueError("the wheel's file has another header")
    return contents


def _member(archive: Path, member: str) -> bytes:
    with zipfile.ZipFile(archive) as opened:
        return opened.read(member)


def _verify(file: File, content: bytes) -> None:
    found = hashlib.sha256(content).hexdigest()
    if file.sha256 is not None and found != file.sha256:
        raise ValueError(f"{file.name} has SHA-256 {found[:12]}…, expected {file.sha256[:12]}…")


def _whole(path: Path, file: File) -> bool:
    try:
        _verify(file, path.read_bytes())
    except (OSError, ValueError):
        return False
    return True


def _reason(error: Exception) -> str:
    if isinstance(error, requests.ConnectTimeout):
        return f"no connection within {CONNECT_SECONDS} s"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    if isinstance(error, FileNotFoundError):
        return f"no file {error.filename}"
    return str(error)
