"""Which column of a table holds users, items and times."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from attrec.errors import DataError

KNOWN_NAMES: dict[str, tuple[tuple[str, ...], ...]] = {
    "user": (
        ("userid", "user", "uid"),
        ("customerid", "customer", "visitorid", "visitor", "accountid", "memberid", "clientid"),
        ("username", "reviewerid"),
    ),
    "session": (("sessionid", "session", "sid"),),
    "item": (
        ("itemid", "item", "iid"),
        (
            "movieid", "movie", "productid", "product", "articleid", "article", "trackid", "track",
            "songid", "song", "bookid", "book", "asin", "parentasin", "sku", "contentid",
        ),
    ),
    "time": (
        ("timestamp", "time", "ts", "datetime", "eventtime", "unixtime", "unixreviewtime"),
        ("createdat", "boughtat", "purchasedat", "viewedat", "clickedat", "occurredat", "date"),
        ("position",),
    ),
    "rating": (("rating", "stars", "score", "overall"),),
}  # fmt: skip
"""Names that are recognised, in tiers, the surest first; compared by `plain`."""

BY_POSITION: dict[int, dict[str, int]] = {
    2: {"user": 0, "item": 1},
    3: {"user": 0, "item": 1, "time": 2},
    4: {"user": 0, "item": 1, "time": 3, "rating": 2},
}
"""What the columns of a table without a header are, by their number; 4: the third is a rating."""

Wanted = dict[str, str | int | None]
"""For each of `ROLES`: the name or 1-based position asked for, or None."""

ROLES = ("user", "item", "time", "rating")

NO_TIME = "no time column: the order of the rows is the order in time"


@dataclass(frozen=True)
class Roles:
    """Positions (from 0) of the columns; None where there is none."""

    user: int
    item: int
    time: int | None
    rating: int | None
    notes: tuple[str, ...]


def plain(name: str) -> str:
    """Reduce a column name to what is compared.

    Examples
    --------
    >>> plain("userId"), plain("user_id:token"), plain(" Product-ID ")
    ('userid', 'userid', 'productid')
    """
    kept = name.split(":", 1)[0].strip().lower()
    return kept.replace("_", "").replace("-", "").replace(" ", "")


def is_header(cells: Sequence[str], wanted: Wanted) -> bool:
    """Tell whether a first row names columns: by a known name, or by one that was asked for.

    Examples
    --------
    >>> nothing = {"user": None, "item": None, "time": None}
    >>> is_header(["user_id", "what"], nothing), is_header(["7", "9"], nothing)
    (True, False)
    """
    known = {name for tiers in KNOWN_NAMES.values() for names in tiers for name in names}
    if any(plain(cell) in known for cell in cells):
        return True
    asked = [name for name in wanted.values() if isinstance(name, str) and not name.isdigit()]
    return any(_same(cell, name) for cell in cells for name in asked)


def roles_by_name(names: Sequence[str], wanted: Wanted, place: str) -> Roles:
    """Find the columns of a table that has names.

    Raises
    ------
    DataError
        A column that was asked for is not there, or no user or item column is recognised.
    """
    notes: list[str] = []
    found = _all_asked(names, wanted, place)
    guessed = []
    for role in ROLES:
        if found[role] is None:
            found[role] = _known(names, role, taken=found.values(), place=place)
            if found[role] is not None and role != "rating":
                guessed.append(role)
    if found["user"] is None:
        session = _known(names, "session", taken=found.values(), place=place)
        if session is not None:
            found["user"] = session
            notes.append(f"no user column: each {names[session]!r} is a user")
    user, item = (_required(found[role], role, names, place) for role in ("user", "item"))
    if guessed:
        said = (f"{role} = {names[found[role] or 0]}" for role in guessed)
        notes.insert(0, f"columns by their names: {', '.join(said)}")
    return _roles(user, item, found, notes, place)


def roles_by_position(count: int, wanted: Wanted, place: str) -> Roles:
    """Assign the columns of a table without a header.

    Raises
    ------
    DataError
        A name was asked for, a position is not there, or ``count`` columns say too little.
    """
    names = [f"column {position + 1}" for position in range(count)]
    found = _all_asked(names, wanted, place)
    for role, position in BY_POSITION.get(count, {}).items():
        if found[role] is None and position not in found.values():
            found[role] = position
    user, item = (_required(found[role], role, names, place) for role in ("user", "item"))
    time = found["time"]
    said = f"column {user + 1} = user, column {item + 1} = item"
    said += "" if time is None else f", column {time + 1} = time"
    return _roles(user, item, found, [f"no header: {said}"], place)


def _roles(
    user: int, item: int, found: dict[str, int | None], notes: list[str], place: str
) -> Roles:
    if user == item:
        raise DataError(
            f"{place}: column {user + 1} cannot hold both users and items; "
            "name two columns with user= and item="
        )
    if found["time"] is None:
        notes.append(NO_TIME)
    return Roles(user, item, found["time"], found["rating"], tuple(notes))


def _same(cell: str, name: str) -> bool:
    return name in (cell.strip(), cell.strip().split(":", 1)[0])


def _all_asked(names: Sequence[str], wanted: Wanted, place: str) -> dict[str, int | None]:
    return {role: _asked(names, wanted.get(role), role, place) for role in ROLES}


def _asked(names: Sequence[str], wanted: str | int | None, role: str, place: str) -> int | None:
    if wanted is None:
        return None
    for position, name in enumerate(names):
        if _same(name, str(wanted)):
            return position
    if str(wanted).isdigit():
        if 1 <= int(wanted) <= len(names):
            return int(wanted) - 1
        raise DataError(
            f"{place}: {role}={wanted} is not a column; positions run from 1 to {len(names)}"
        )
    near = difflib.get_close_matches(str(wanted), list(names), n=1, cutoff=0.4)
    meant = f"did you mean {near[0]!r}? " if near else ""
    raise DataError(
        f"{place}: there is no column {wanted!r}; {meant}the columns are {', '.join(names)}"
    )


def _known(names: Sequence[str], role: str, taken: Iterable[int | None], place: str) -> int | None:
    """Find the column of the surest tier; two of one tier are for the user to choose from."""
    reduced = [plain(name) for name in names]
    used = set(taken)
    for tier in KNOWN_NAMES[role]:
        found = [at for at, name in enumerate(reduced) if name in tier and at not in used]
        if len(found) > 1 and role != "rating":
            said = " and ".join(repr(names[at]) for at in found)
            raise DataError(
                f"{place}: the columns {said} may each hold the {role}s; "
                f"pass {role}= (--{role}) with the name of one"
            )
        if found:
            return found[0]
    return None


def _required(position: int | None, role: str, names: Sequence[str], place: str) -> int:
    if position is None:
        raise DataError(
            f"{place}: no column is known to hold the {role}s among {', '.join(names)}; "
            f"pass {role}= with its name or position"
        )
    return position
