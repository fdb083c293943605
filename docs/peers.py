"""The page that shows AttRec beside other libraries, and its pictures, from the result files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.peers.rows import Row, published, read_rows
from benchmarks.peers.run import ENOUGH, beside_another, not_retrained, seconds_to

from docs.performance import rows, table

METRICS = ("hit_rate@10", "ndcg@10", "hit_rate@50", "ndcg@50", "mrr@10")
ATTREC = ("attrec", "attrec, not retrained")
ALONE = ("attrec, its network alone", "attrec, its network alone, not retrained")
"""AttRec without a popularity of the moment."""
FLOORS = ("popularity", "recent popularity", "Markov, first order")
TARGET = "ndcg@10"
SHOWN = {"hit_rate@10": "HR@10", TARGET: "NDCG@10"}
"""The metrics whose differences from AttRec are shown."""
LIMITS = (1 / 3, 1 / 10)
"""AttRec's shares of a peer's time to the same validation score: what must be, and the aim."""
ELSEWHERE = "†"
"""Marks a verdict on seconds of two machines."""
BY_THE_MOMENT = "‡"
"""Marks seconds to a score that AttRec's network does not reach without a popularity."""

HEAD = ("", *METRICS, *(f"AttRec − it, {name}" for name in SHOWN.values()), "marks")

Found = Mapping[str, Any]


def peers_page() -> str:
    """Make the page."""
    declared = read_rows()
    measured = {row["row"]: row for row in rows("peers")}
    splits = dict.fromkeys(row.split for row in declared.values())
    of_split = {split: [row for row in declared.values() if row.split == split] for split in splits}
    found = {
        split: {row.peer: measured[row.name] for row in of if row.name in measured}
        for split, of in of_split.items()
    }
    parts = [_head(), _verdict(found), _how()]
    parts += [_split(split, of_split[split], found[split]) for split in splits]
    return "\n\n".join("\n".join(part).strip() for part in parts if part)


def best_peer(split: str) -> Found | None:
    """Return the row of a split's best peer, the floors left out; None where none is measured."""
    return _best_learner(row for row in rows("peers") if row["row"].rsplit(".", 1)[0] == split)


def _best_learner(found: Iterable[Found]) -> Found | None:
    learners = (row for row in found if not row["peer"]["floor"])
    return max(learners, key=lambda row: _mean(row, row["peer"]["name"]), default=None)


def draw(folder: Path) -> None:
    """Draw validation NDCG@10 against wall time, a picture for each split."""
    by_split: dict[str, list[Found]] = {}
    for row in rows("peers"):
        by_split.setdefault(row["row"].rsplit(".", 1)[0], []).append(row)
    for split, found in by_split.items():
        if _has_picture(found):
            folder.mkdir(exist_ok=True)
            _draw(split, found, folder / f"{split}.svg")


def _head() -> list[str]:
    return [
        "# Beside other libraries",
        "",
        "Each library in an environment of its own, with settings from its own documentation and "
        "nothing tuned here; one split, one scorer, one CPU thread. First the verdict, then "
        "[how it was measured](#how-it-was-measured), then each log. "
        "`make bench-peers` measures what is missing.",
    ]


def _how() -> list[str]:
    return [
        "## How it was measured",
        "",
        "- **Settings** are named in benchmarks/peers/rows.toml with their sources. One seed for "
        "a peer, three for AttRec.",
        "- **Data**: all get the same split; a peer's worker sees no test target.",
        "- **Epoch**: chosen on validation NDCG@10, full ranking, seen items left out; training "
        "stops after 10 epochs without a better one. A long epoch is judged several times, hence "
        "epochs such as 13.7.",
        "- **Retraining**: then everything is trained again from the start on train + validation, "
        "for as many epochs as were best. “Not retrained” is without that.",
        "- **Cap**: each training of a peer ends at its cap, AttRec's do not. “Cut” says that the "
        "first one did, in which epoch, and whether the peer was still improving, so that more "
        "time would have made it better; “retraining cut” that the second did.",
        "- **Differences** are tested in pairs of users, like with like: retrained with "
        "retrained, not retrained with not retrained. A star: the 95 % interval excludes zero. "
        "The intervals are over users: what another seed would change, of AttRec or of the peer's "
        "one, is not in them, and nothing is corrected for the number of comparisons.",
        f"- **Not reproduced**: a peer that reaches less than {ENOUGH:.0%} of a figure published "
        "of its model; nothing is claimed over it. Of a peer without a published figure it cannot "
        "be told whether it was run as it should be.",
        "- **Published** figures are marked as published; whether their trainings saw the "
        "validation events is their authors' choice, so hold them against “not retrained” too.",
        "- **Baselines** are popularity, the first-order Markov chain, EASE in closed form and "
        "item-kNN: nothing there is trained by gradients.",
        "- **Seconds** are of the clock, the judging of the epochs among them, on a machine that "
        "others use too; the share without the judging stands beside. The project's aim is at "
        "most a third, better a tenth, of a neural peer's time to its own best validation score; "
        f"FPMC is a factorisation. {ELSEWHERE}: the peer's seconds are of another machine than "
        f"AttRec's, so the verdict is only likely, of a tenth least. {BY_THE_MOMENT}: AttRec's "
        "network does not reach this score; it does once the popularity of the moment, chosen "
        "after the training, is added.",
        "",
        "Why so, and what is unfair to whom: "
        "[decision 22](decisions/022-beside-other-libraries.md).",
    ]


def _verdict(by_split: Mapping[str, Mapping[str, Found]]) -> list[str]:
    """Put the best peer of each log beside AttRec."""
    body = []
    for split, found in by_split.items():
        row = _best_learner(found.values())
        if row is None:
            continue
        name = row["peer"]["name"]
        alone, best = not_retrained(name), best_published(split)
        body.append(
            [
                split,
                *(
                    f"{pair(row['systems'][system])}{_by_itself(split, system)}"
                    for system in ATTREC
                ),
                ", ".join([name, *marks(row)]),
                *(pair(row["systems"][system]) for system in (name, alone)),
                *(claimed(row, system) or "nothing is claimed" for system in (name, alone)),
                f"{best['name']}: {pair(best)}" if best else "",
            ]
        )
    head = ["HR@10 / NDCG@10", "AttRec", "not retrained", "best peer", "it", "it, not retrained",
            "AttRec − it, NDCG@10", "neither retrained", "best published"]  # fmt: skip
    return table(head, body) if body else []


def _by_itself(split: str, system: str) -> str:
    alone = network_alone(split)
    return f" (its network alone {pair(alone['systems'][system])})" if alone else ""


def best_published(split: str) -> Found | None:
    """Return the highest of the figures published of a split; None where there is none."""
    return max(published(split), key=lambda one: one[TARGET], default=None)


def pair(figures: Mapping[str, Any]) -> str:
    """Write HR@10 / NDCG@10, of results or as published."""
    both = (figures[metric] for metric in SHOWN)
    values = (one["mean"] if isinstance(one, Mapping) else one for one in both)
    return " / ".join(f"{value:.4f}" for value in values)


def _split(split: str, declared: list[Row], found: Mapping[str, Found]) -> list[str]:
    lines = [f"## {split}", ""]
    absent = [row.peer for row in declared if row.peer not in found]
    if absent:
        lines += [f"Not measured yet: {', '.join(absent)}.", ""]
    if found:
        any_row = _of_attrec(found)
        lines += [f"{any_row['protocol']}.", ""]
        if any_row["attrec"] is None:
            lines += [f"AttRec's row {declared[0].attrec} is not measured yet.", ""]
        lines += [*_best(found), ""]
        lines += _figures(split, found, None)
        if any_row["new_users"]:
            lines += ["", "Users without a trained row, by fold-in:", ""]
            lines += _figures(split, found, "new_users")
        lines += ["", *_times(found)]
        if _has_picture(found.values()):
            lines += [
                "", f"![Validation NDCG@10 against wall time, {split}](peers/{split}.svg)"
            ]  # fmt: skip
    elif published(split):
        lines += _published(split)
    return lines


def _figures(split: str, found: Mapping[str, Found], part: str | None) -> list[str]:
    def of(row: Found) -> Found:
        return {**(row[part] if part else row), "reproduced": row["reproduced"]}

    any_row = {**of(_of_attrec(found)), "reproduced": None}
    body = [_line(name, any_row) for name in ATTREC if name in any_row["systems"]]
    alone = network_alone(split) if part is None else None
    if alone:
        body += [
            _line(shown, {"systems": {shown: alone["systems"][name]}, "differences": {}})
            for name, shown in zip(ATTREC, ALONE, strict=True)
        ]
    for peer, row in found.items():
        said = marks(row)
        if row["reproduced"] is None and not row["peer"]["floor"]:
            said.append("no published figure")
        body.append(_line(peer, of(row), ", ".join(said)))
        body.append(_line(not_retrained(peer), of(row)))
    body += [_line(name, any_row) for name in FLOORS]
    if part is None:
        body += [_published_line(one) for one in published(split)]
    return table(HEAD, body)


def network_alone(split: str) -> Found | None:
    """Return AttRec's row without a popularity of the moment, of a split that has one."""
    return next(iter(rows("accuracy", f"{split}.network-alone")), None)


def _of_attrec(found: Mapping[str, Found]) -> Found:
    """Return a row that tells of AttRec and the baselines: one of today's options if there is."""
    return next((row for row in found.values() if not _is_behind(row)), next(iter(found.values())))


def _is_behind(row: Found) -> bool:
    return beside_another(read_rows()[row["row"]], row)


def _line(name: str, row: Found, marked: str = "") -> list[str]:
    figures = row["systems"][name]
    cells = [
        f"{figures[m]['mean']:.4f} [{figures[m]['low']:.4f}, {figures[m]['high']:.4f}]"
        for m in METRICS
    ]
    return [name, *cells, *(claimed(row, name, metric) for metric in SHOWN), marked]


def _published(split: str) -> list[str]:
    body = [_published_line(one) for one in published(split)]
    return table(HEAD, body)


def _published_line(one: Found) -> list[str]:
    cells = [f"{one[m]:.4f}" if m in one else "" for m in METRICS]
    return [one["name"], *cells, *("" for _ in SHOWN), f"published: {one['source']}"]


def marks(row: Found) -> list[str]:
    """Say what a reader must know of a peer's row."""
    minutes = f"{row['peer']['cap_seconds'] / 60:.0f} min"
    said = []
    if row["capped"]:
        last = row["curve"][-1]["epoch"]
        improving = " and still improving" if row["best"]["epoch"] == last else ""
        said.append(
            f"cut at {minutes} in epoch {last:.3g} of {row['peer']['max_epochs']}{improving}"
        )
    if row["retraining_capped"]:
        said.append(f"retraining cut at {minutes}")
    if row["reproduced"] is False:
        said.append("not reproduced")
    if _is_behind(row):
        said.append("beside an AttRec of other options than today's")
    return said


def signed(difference: Found) -> str:
    """Write a difference with its interval, and a star where that excludes zero."""
    star = r" **\***" if difference["excludes_zero"] else ""
    return f"{difference['mean']:+.4f} [{difference['low']:+.4f}, {difference['high']:+.4f}]{star}"


def claimed(row: Found, name: str, metric: str = TARGET) -> str:
    """Write AttRec's difference from a system; a lead over what was not reproduced is none."""
    difference = row["differences"].get(name, {}).get(metric)
    if not difference or (row.get("reproduced") is False and difference["mean"] > 0):
        return ""
    return signed(difference)


def _best(found: Mapping[str, Found]) -> list[str]:
    """Name the best peer and the best baseline of the run, and what may be said of them."""
    any_row = _of_attrec(found)
    learners = {peer: (row, peer) for peer, row in found.items() if not row["peer"]["floor"]}
    floors = {peer: (row, peer) for peer, row in found.items() if row["peer"]["floor"]}
    floors |= {name: (any_row, name) for name in FLOORS}
    lines = []
    for kind, of_kind in (("peer", learners), ("baseline", floors)):
        if not of_kind:
            continue
        row, name = max(of_kind.values(), key=lambda one: _mean(*one))
        words = f"Best {kind} of this run: {name}, NDCG@10 {_mean(row, name):.4f}"
        said = claimed(row if name in found else {**row, "reproduced": None}, name)
        if said:
            without = claimed(row, not_retrained(name)) if kind == "peer" else ""
            without = f"; neither retrained: {without}" if without else ""
            words += f"; AttRec − it: {said}{without}{_seed_by_seed(row, name)}"
        lines.append(f"- {words}.")
    lines += _of_the_moment(learners)
    for peer, row in found.items():
        if row["reproduced"] is False:
            of = row["published"]
            lines.append(
                f"- Nothing is claimed over {peer}: not retrained it reaches "
                f"{pair(row['systems'][not_retrained(peer)])} of the published {pair(of)} "
                f"({of['source']})."
            )
    without = [(row, not_retrained(peer)) for peer, row in found.items()]
    for row, name in (*learners.values(), *floors.values(), *without):
        leads = ahead(row, name)
        if leads:
            lines.append(f"- AttRec is behind {name}: {', '.join(leads)}.")
    return lines


def _of_the_moment(learners: Mapping[str, tuple[Found, str]]) -> list[str]:
    """Say where a part of AttRec's lead is no network's."""
    if not learners:
        return []
    row, name = max(learners.values(), key=lambda one: one[0]["best"][TARGET])
    curves = row["attrec"]["curves"] if row["attrec"] else []
    alone = [of_the_network(curve) for curve in curves]
    chosen = sum(len(one) < len(curve) for one, curve in zip(alone, curves, strict=True))
    if not chosen:
        return []
    with_it, without = (
        ", ".join(f"{max(point[TARGET] for point in curve):.4f}" for curve in each)
        for each in (curves, alone)
    )
    return [
        f"- Validation chose a popularity of the moment after {chosen} of {len(curves)} trainings "
        f"of AttRec; no peer has one, and none was given it. Validation NDCG@10 with it {with_it}, "
        f"of the network alone {without}, of {name} {row['best'][TARGET]:.4f}."
    ]


def _seed_by_seed(row: Found, name: str) -> str:
    """Write AttRec's differences from a system for each of its seeds, where it has several."""
    said = []
    for metric, shown in SHOWN.items():
        ours = row["systems"][ATTREC[0]][metric]["values"]
        theirs = row["systems"][name][metric]["mean"]
        if len(ours) > 1:
            said.append(f"{shown} {', '.join(f'{one - theirs:+.4f}' for one in ours)}")
    return f"; seed by seed: {'; '.join(said)}" if said else ""


def ahead(row: Found, name: str) -> list[str]:
    """Name the metrics, TARGET or another, in which a system leads AttRec beyond chance."""
    of = row["differences"].get(name, {})
    return [
        f"{metric} {signed(of[metric])}"
        for metric in METRICS
        if metric in of and of[metric]["excludes_zero"] and of[metric]["mean"] < 0
    ]


def _mean(row: Found, system: str) -> float:
    return float(row["systems"][system][TARGET]["mean"])


def _times(found: Mapping[str, Found]) -> list[str]:
    attrec = _of_attrec(found)["attrec"]
    cost_of_attrec = _cost_of_attrec(attrec)
    machines_of_attrec = _machines(cost_of_attrec["trained"]) if cost_of_attrec else {}
    body = _times_of_attrec(attrec, cost_of_attrec)
    for peer, row in found.items():
        best, cost = row["best"], row["cost"]
        curves = [] if row["attrec"] is None else row["attrec"]["curves"]
        by_network = [of_the_network(curve) for curve in curves]
        clock, training = (
            _to_the_same(
                seconds_to(best[TARGET], curves, name),
                seconds_to(best[TARGET], by_network, name),
                best[name],
                row["peer"]["floor"],
                row["reproduced"],
                not machines_of_attrec
                or _machines([row["trained"]]).keys() == machines_of_attrec.keys(),
            )
            for name in ("wall_seconds", "seconds")
        )
        body.append(
            [
                peer,
                f"{best[TARGET]:.4f}",
                f"{best['epoch']:.3g}",
                f"{best['wall_seconds']:,.0f}",
                *clock,
                training[1],
                f"{cost['train_seconds'] + cost['validation_seconds']:,.0f}",
                f"{cost['retraining_seconds']:,.0f}",
                f"{cost['peak_memory_bytes'] / 1e6:,.0f}",
            ]
        )
    any_row = next(iter(found.values()))
    machines = "; ".join(
        f"{name} ({', '.join(sorted(whens))})"
        for name, whens in _machines(row["trained"] for row in found.values()).items()
    )
    names = " and ".join(sorted(machines_of_attrec))
    return [
        *table(
            ("peer", "its best validation NDCG@10", "epoch", "seconds to it",
             "AttRec's seconds to that score, each seed", "share",
             *(f"at most {limit:.2f}" for limit in LIMITS), "share without judging",
             "whole first training, s", "retraining, s", "peak memory, MB"),
            body,
        ),
        "",
        f"Peers on {any_row['cost']['threads']} thread of {machines}"
        f"{f', AttRec on one of {names}' if names else ''}. "
        f"Again: `make bench-peers ROW=\"--again {any_row['row'].rsplit('.', 1)[0]}\"`.",
    ]  # fmt: skip


def _machines(trained: Iterable[Found]) -> dict[str, set[str]]:
    """Return the processors of some trainings, each with when it was."""
    machines: dict[str, set[str]] = {}
    for one in trained:
        when = f"{one['date']}, commit `{one['commit']}`"
        machines.setdefault(one["machine"]["processor"], set()).add(when)
    return machines


def _times_of_attrec(of: Found | None, cost: Found | None) -> list[list[str]]:
    """Write AttRec's own line, the mean over its seeds."""
    if of is None or cost is None:
        return []
    best = [max(curve, key=lambda point: point[TARGET]) for curve in of["curves"]]
    first = [curve[-1]["wall_seconds"] for curve in of["curves"]]
    # The choice of a popularity of the moment is no part of either training.
    trained = [of_the_network(curve)[-1]["wall_seconds"] for curve in of["curves"]]
    return [
        [
            f"attrec, mean of {len(best)} seeds",
            f"{fmean(point[TARGET] for point in best):.4f}",
            f"{fmean(cost['epochs']):.3g}",
            f"{fmean(point['wall_seconds'] for point in best):,.0f}",
            "", "", *("" for _ in LIMITS), "",
            f"{fmean(first):,.0f}",
            f"{cost['train_seconds'] - fmean(trained):,.0f}",
            f"{cost['peak_memory_bytes'] / 1e6:,.0f}",
        ]
    ]  # fmt: skip


def of_the_network(curve: list[dict[str, float]]) -> list[dict[str, float]]:
    """Leave out the point behind the last epoch: a popularity of the moment was chosen there."""
    chosen = len(curve) > 1 and curve[-1]["epoch"] == curve[-2]["epoch"]
    return curve[:-1] if chosen else curve


def _cost_of_attrec(of: Found | None) -> Found | None:
    """Return what the AttRec beside a peer cost, where that is the one of the accuracy page."""
    for row in rows("accuracy"):
        if of and row["row"] == of["row"]:
            same = row["config"] == of["config"] and row["curve"] == of["curves"]
            return row["cost"] if same else None
    return None


def _to_the_same(
    seconds: list[float | None],
    by_network: list[float | None],
    peers: float,
    floor: bool,
    reproduced: bool | None,
    on_one_machine: bool = True,
) -> list[str]:
    """Write AttRec's seconds to the peer's best score, their mean share of it, and the verdicts."""
    if not seconds:
        return ["not measured yet", "", *("" for _ in LIMITS)]
    words = ", ".join(
        "not reached" if one is None else f"{one:,.0f}{'' if one == alone else f' {BY_THE_MOMENT}'}"
        for one, alone in zip(seconds, by_network, strict=True)
    )
    reached = [one for one in seconds if one is not None]
    if floor or len(reached) < len(seconds):
        return [words, "", *("" if floor else "no" for _ in LIMITS)]
    share = sum(reached) / len(reached) / peers
    if reproduced is False:
        return [words, f"{share:.2f}", *("not reproduced" for _ in LIMITS)]
    elsewhere = "" if on_one_machine else f" {ELSEWHERE}"
    return [
        words,
        f"{share:.2f}",
        *(("yes" if share <= limit else "no") + elsewhere for limit in LIMITS),
    ]


def _has_picture(found: Any) -> bool:
    return any(not row["peer"]["floor"] for row in found)


def _draw(split: str, found: list[Found], path: Path) -> None:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    colours = mpl.colormaps["tab10"]
    # A peer has one colour in all pictures.
    of_peer = list(dict.fromkeys(row.peer for row in read_rows().values()))
    with mpl.rc_context({"svg.hashsalt": split, "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(7.2, 4.0), layout="constrained")
        axes = figure.subplots()
        attrec = next((row["attrec"] for row in found if row["attrec"]), None)
        for number, curve in enumerate(attrec["curves"] if attrec else []):
            if curve:
                _curve(axes, curve, "black", "AttRec" if number == 0 else None)
        for row in (row for row in found if not row["peer"]["floor"]):
            name = row["peer"]["name"]
            shown = name + (" (cut)" if row["capped"] else "")
            _curve(axes, row["curve"], colours(of_peer.index(name)), shown)
        for place, row in enumerate(row for row in found if row["peer"]["floor"]):
            axes.axhline(row["best"][TARGET], color="grey", linewidth=0.8,
                         linestyle=(":", "--")[place % 2], label=row["peer"]["name"])  # fmt: skip
        axes.set(xscale="log", xlabel="seconds of the clock, training and judging",
                 ylabel="validation NDCG@10", title=split)  # fmt: skip
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
        figure.savefig(path, metadata={"Date": None})


def _curve(axes: Any, curve: list[dict[str, float]], colour: Any, name: str | None) -> None:
    seconds = [point["wall_seconds"] for point in curve]
    axes.plot(seconds, [point[TARGET] for point in curve], color=colour, label=name,
              linewidth=1.2, marker="o", markersize=2)  # fmt: skip
