"""The page on bringing a model up to date, from the result files of the replays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.replay.run import options_of
from benchmarks.rows import changed_options

from docs.foldin import items_folded_in, users_folded_in, users_given_anew
from docs.performance import measured_before, rows, table

SYSTEMS = {
    "frozen": "frozen: nothing is taken in",
    "events": "events: histories grow with every event",
    "updated": "updated: and `attrec update` every twentieth of the replay",
    "retrained": "retrained: and a new training every quarter of it",
    "recent popularity": "recent popularity, as new as the update",
}
Found = Mapping[str, Any]


def updating_page() -> str:
    """Make the page."""
    found = rows("replay")
    parts = [_head(), _reading(found), _replays(), *(_replay(row) for row in found), _foldin()]
    return "\n\n".join("\n".join(part).strip() for part in parts if part)


def _head() -> list[str]:
    return [
        "# Keeping a model up to date",
        "",
        "```bash",
        "attrec train events.csv --out model --max-epochs 2",
        "attrec update model new.csv              # writes model.updated; model stays whole",
        "attrec update model new.csv --out model  # in place, switched in one step",
        "```",
        "",
        "```python",
        "import attrec",
        "",
        'recommender = attrec.load("model")',
        'found = attrec.update(recommender, "new.csv")  # a path, a frame or a log',
        "print(found.summary)  # who and what came in",
        "recommender = found.recommender",
        "```",
        "",
        "Nothing is trained. What happens:",
        "",
        "- **Events** go into the histories where their time says, late ones too. An event equal "
        "in user, item and time to one that is there does not come in again, so a whole log that "
        "has grown may be given. Without times nobody can tell an event from its repetition: "
        "events go behind, and recognised are only the same file as a whole, or a whole log that "
        "begins, for everybody, with what the model has. A k-core that the training log was cut to "
        "is not asked of new events.",
        "- **Users** who are new need nothing more: the intent is made of the history. The paper's "
        "presets fold their long-term factor in, the mean of their items' V.",
        "- **Items** that are new get their vectors from the intents (and, with the paper's "
        "presets, the users) that took them: ridge regression for the default preset, a mean "
        "pushed away from everybody for the paper's. Only trained rows are read, so that a new "
        "user and a new item never define each other. They are given at most as much room in the "
        "lists as they have taken of the events since they came, or as `--room SHARE` says; with "
        "the paper's presets it may be far less ([measured](#items)), or more, where no push tried "
        "is strong enough. An item that only users "
        "without a known history took is in no list yet. `--items FILE` gives new items their "
        "titles and, where the model has learnt from attributes, what these say; it may hold the "
        "new items alone. With `--untaken` and `--room` items of it that nobody has taken at all "
        "come in too. What an update was told of new items and of their room stays, until it is "
        "told otherwise.",
        "- **The popularity of the moment**, where validation chose one "
        "([how it works](how-it-works.md#the-popularity-of-the-moment)), is reckoned anew.",
        "",
        "What it does not do: an item's trained vector stays as it was, so tastes that change "
        "need a training. The replays below say what that costs.",
        "",
        "One event at a time, in Python: `recommender.observe(user, item, time)` puts it into the "
        "history, and the next list knows it. Events one by one make the histories that one update "
        "with the same log makes, late ones too; the model's `repeats` and `duplicates` hold. "
        "Threads may observe at once, beside those that ask. An "
        "event of an item the model lacks waits (`recommender.waiting`): `save` keeps it, and the "
        "next update takes it in, whatever it is given besides; "
        "`attrec.update(recommender, recommender.waiting)` takes in nothing else.",
    ]


def _replays() -> list[str]:
    return [
        "## Replays",
        "",
        "The last tenth of a log, event by event, as a service would have met it: each event asks "
        "for the list its user would have got just before, from a model trained on the first nine "
        "tenths. Stars: the 95 % interval of the paired difference from the line before excludes "
        "zero. Again: `make bench-replay`.",
    ]


def _foldin() -> list[str]:
    return [
        "## Folding in, measured",
        "",
        "Why it is done as it is: [decision 17](decisions/017-fold-in.md). Again: "
        "`make bench-foldin`.",
        "",
        "### Users of the accurate preset",
        "",
        "Its network has no row for anybody: a list depends on the history alone.",
        "",
        *users_given_anew(),
        "### Users of the paper's presets",
        "",
        *users_folded_in(),
        "### Items",
        "",
        *items_folded_in(),
    ]


def _replay(row: Found) -> list[str]:
    data, metrics = row["data"], row["metrics"]
    body = []
    before = None
    for name, words in SYSTEMS.items():
        hit, gain = metrics[name]["hit_rate@10"], metrics[name]["ndcg@10"]
        quarters = " ".join(f"{value:.3f}" for value in hit["by_quarter"])
        new = f"{row['share_of_places_with_new_items'][name]:.1%}"
        body.append([words, _figure(hit, before), _figure(gain, before), quarters, new])
        before = name
    return [
        f"### {row['row']}",
        "",
        f"{data['events']:,} events of {data['users']:,} users, {data['new_users']:,} of them new; "
        f"{row['share_of_events_on_new_items']:.1%} of the events take items that the training "
        f"never saw. {row['protocol'][0].upper()}{row['protocol'][1:]}.",
        "",
        *table(["", "HR@10", "NDCG@10", "HR@10 by quarter", "new items, of all places"], body),
        *_cost(row["cost"]),
        "",
        measured_before(changed_options(row, options_of(row["row"]))),
    ]


def _cost(cost: Found) -> list[str]:
    if "observe_cpu_seconds" not in cost:
        return []
    return [
        "",
        f"One event taken in: {cost['observe_cpu_seconds'] * 1e6:.0f} µs; the list after it: "
        f"{cost['recommend_cpu_seconds'] * 1e3:.1f} ms (medians of a thousand, time of one "
        "processor).",
    ]


def _figure(found: Found, before: str | None) -> str:
    difference = found.get(f"less {before}")
    star = difference is not None and (difference["low"] > 0 or difference["high"] < 0)
    return f"{found['mean']:.4f}{' *' if star else ''}"


def _reading(found: list[dict[str, Any]]) -> list[str]:
    """Say what the replays come to."""
    lines = [
        "## How often to train again",
        "",
        "Take every event in at once: where tastes are read from histories, that is most of it. "
        "Update as often as new items matter to you: with the default preset it gains where many "
        "come, with the paper's it may lose. Train again when a new training gains more than it "
        "costs; with the paper's presets, whose training takes seconds on logs like these, train "
        "in place of updating. Four replays, told further down:",
        "",
    ]
    body = []
    for row in found:
        means = {name: row["metrics"][name]["hit_rate@10"] for name in SYSTEMS}
        frozen, events, updated, again = (
            means[name]["mean"] for name in ("frozen", "events", "updated", "retrained")
        )
        late, more = means["updated"]["less events"], means["retrained"]["less updated"]
        cost = row["cost"]
        body.append(
            [
                row["row"],
                f"{frozen:.3f}",
                f"{events - frozen:+.3f}",
                f"{updated - events:+.3f} {_interval(late)}",
                _seconds(cost.get("update_cpu_seconds")),
                f"{again - updated:+.3f} {_interval(more)}",
                _seconds(cost.get("training_cpu_seconds")),
            ]
        )
    header = ["HR@10 of the replays below", "frozen model", "every event taken in",
              "updates on top", "one costs", "new trainings on top", "one costs"]  # fmt: skip
    return [*lines, *(table(header, body) if found else ["Not measured yet."]), *_on_your_own()]


def _on_your_own() -> list[str]:
    return [
        "",
        "Costs are seconds of one processor (medians); brackets are 95 % intervals.",
        "",
        "On a log of your own, let the model that was updated since its training, and one that is "
        "trained anew on the same events, predict what came after both:",
        "",
        "```bash",
        "attrec train known.csv --out again",
        "attrec recommend again --log known.csv --k 50 --out again.csv",
        "attrec evaluate model.updated known.csv --test newest.csv --compare again.csv",
        "```",
        "",
        "The line `again.csv` is the new training; its stars say where the difference from "
        "`model.updated`, in pairs of users, is sure. As long as there are none, keep updating.",
    ]


def _interval(found: Found) -> str:
    return f"[{found['low']:+.3f}, {found['high']:+.3f}]"


def _seconds(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.1f} s"
