"""Write the pages that are made, never typed: CLI and API reference, options, figures.

python -m docs.generate            writes them
A test holds that what lies in the repository is what this writes.
"""

from __future__ import annotations

import inspect
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click
import typer
from benchmarks.ablations import run as ablations
from benchmarks.accuracy import run as accuracy
from benchmarks.peers.rows import published
from benchmarks.rows import changed_options
from tests.bad_inputs import CASES, run
from tests.messy import transcript

import attrec
from attrec.cli import app
from attrec.config import PRESETS, Architecture, option_specs
from docs import peers, reuse, updating
from docs.cold_items import cold_items
from docs.independent import same_figures
from docs.performance import STAR, measured_before, performance_page, rows, table

DOCS = Path(__file__).parent
ARCHITECTURES = get_args(Architecture)
README = DOCS.parent / "README.md"
BEGIN, END = "<!-- figures: made by docs/generate.py -->", "<!-- end of figures -->"
MADE = "<!-- made by docs/generate.py: do not edit -->\n\n"


def cli_page() -> str:
    """Make the reference of the command line from its own help."""
    lines = [
        "# Command line",
        "",
        "Every command prints its help with `--help`; with `--json` it prints JSON. A mistake in "
        "the input gets one sentence and exit code 2.",
        "",
    ]
    root = typer.main.get_command(app)
    for path, command in _commands(root, ["attrec"]):
        lines += [f"## {' '.join(path)}", "", (command.help or "").strip(), ""]
        context = click.Context(command, info_name=" ".join(path))
        usage = command.get_usage(context).removeprefix("Usage: ")
        lines += ["```text", " ".join(usage.split()), "```", ""]
        arguments = [_parameter(p, context) for p in command.params if p.name != "help"]
        lines += ["| argument | meaning |", "| --- | --- |", *arguments, ""] if arguments else []
    return "\n".join(lines)


def options_page() -> str:
    """Make the table of options from their declarations."""
    lines = [
        "# Options", "",
        "Declared once in `attrec.config`; each is a flag of `attrec train` (`--window-length`), a "
        "key of the TOML file given with `--config`, and an argument of `attrec.fit`. Flags and "
        "arguments override the file, the file overrides the preset.", "",
        "| option | table | default | meaning |", "| --- | --- | --- | --- |",
    ]  # fmt: skip
    lines += [
        f"| `{s.name}` | `[{s.section}]` | `{_plain(s.default)}` | {_cell(s.doc)} |"
        for s in option_specs()
    ]
    lines += [
        "", "Where `attrec tune` looks, declared beside each option; a space is widened to hold "
        "the value that the search begins with:", "",
        "| option | paper | additive |", "| --- | --- | --- |",
    ]  # fmt: skip
    for s in (s for s in option_specs() if s.search):
        spaces = [f"`{s.search[name]}`" if name in s.search else "" for name in ARCHITECTURES]
        lines.append(f"| `{s.name}` | {' | '.join(spaces)} |")
    others = ", ".join(f"`{s.name}`" for s in option_specs() if s.searchable and not s.search)
    lines += ["", f"Searched only where `--search` gives them a space: {others}."]
    lines += ["", "Presets:", "", "| preset | sets |", "| --- | --- |"]
    for name, values in PRESETS.items():
        lines.append(
            f"| `{name}` | {', '.join(f'`{k} = {_plain(v)}`' for k, v in values.items())} |"
        )
    example = 'preset = "paper-sparse"\n\n[model]\nwindow_length = 9\n\n[train]\nseed = 1\n\n'
    example += '[protocol]\nsplit = "global-time"'
    return "\n".join([*lines, "", "A file for `--config`:", "", "```toml", example, "```", ""])


def api_page() -> str:
    """Make the reference of the public names from their docstrings."""
    lines = [
        "# Python",
        "",
        "The names of `attrec` itself. Besides them, [vectors](vectors.md) and the "
        "[report](report.md) have doors of their own, told on their pages.",
        "",
    ]
    for name in attrec.__all__:
        thing = getattr(attrec, name)
        lines += [f"## {name}", ""]
        if not inspect.isclass(thing):
            lines += ["```python", f"attrec.{name}{_signature(thing)}", "```", ""]
        lines += ["```text", inspect.getdoc(thing) or "", "```", ""]
        if inspect.isclass(thing):
            for member, value in inspect.getmembers(thing):
                public = not member.startswith("_") and callable(value)
                if public and member in vars(thing) and inspect.getdoc(value):
                    lines += [f"### {name}.{member}", "", "```python",
                              f"{member}{_signature(value)}", "```", "",
                              "```text", inspect.getdoc(value) or "", "```", ""]  # fmt: skip
    return "\n".join(lines)


def accuracy_page() -> str:
    """Make the accuracy page from the result files."""
    lines = ["# Accuracy", "", _intro("accuracy.md"), ""]
    found = sorted(rows("accuracy"), key=lambda row: not row["row"].endswith(".accurate"))
    lines += _accuracy_summary(found)
    lines += [*same_figures(), *cold_items()]
    lines += [(DOCS / "accuracy.words.md").read_text(encoding="utf-8"), "## Row by row", ""]
    for row in found:
        cost, data = row["cost"], row["data"]
        lines += [f"### {row['row']}", "", f"{row['protocol']}.", ""]
        lines += _systems_table(row["systems"], row["differences"])
        lines += ["", *_slices_table(row["slices"])]
        if row.get("new_users"):
            lines += ["", "Users without a trained row, by fold-in:", ""]
            lines += _systems_table(row["new_users"]["systems"], row["new_users"]["differences"])
        lines += [
            "",
            f"{data['users']:,} users, {data['items']:,} items, {data['events']:,} events; "
            f"seeds {', '.join(map(str, row['seeds']))}, "
            f"best epochs {', '.join(map(str, cost['epochs']))}{_moments(row)}; "
            f"{cost['train_seconds']:.0f} s a seed for both trainings on {cost['threads']} thread "
            f"of {row['machine']['processor']}; {row['date']}, commit `{row['commit']}`. "
            f"{measured_before(_changed(row))}"
            f"Again: `make bench-accuracy ROW=\"--again {row['row']}\"`.",
            "",
        ]  # fmt: skip
    return "\n".join(lines)


def _moments(row: dict[str, Any]) -> str:
    """Say after how many trainings validation chose a popularity of the moment."""
    if not any(row.get("recent_popularity", [])):
        return ""
    chosen = sum(len(peers.of_the_network(curve)) < len(curve) for curve in row["curve"])
    return f"; a popularity of the moment chosen after {chosen} of {len(row['curve'])} trainings"


def _given(row: str) -> str:
    """Name the options of a row that differ from its preset's, those of the protocol left out."""
    given = accuracy.read_rows()[row].get("options", {})
    sections = {spec.name: spec.section for spec in option_specs()}
    return "".join(
        f", {name} {value}" for name, value in given.items() if sections[name] != "protocol"
    )


def _changed(row: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return changed_options(row, accuracy.options_of(accuracy.read_rows()[row["row"]]))


def _accuracy_summary(found: list[dict[str, Any]]) -> list[str]:
    """Put the first figures of all rows, and those that others published, into one table."""
    lines = [
        "| data, split | preset, seeds | HR@10 | NDCG@10 | not retrained: HR@10 | NDCG@10 |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in found:
        split = row["row"].rsplit(".", 1)[0]
        cells = [
            "{mean:.4f} [{low:.4f}, {high:.4f}]".format_map(row["systems"][system][metric])
            for system in ("attrec", "attrec, not retrained")
            for metric in ("hit_rate@10", "ndcg@10")
        ]
        behind = "".join(f", {name} {then}" for name, (then, _) in _changed(row).items())
        what = f"{row['config']['preset']}, {len(row['seeds'])}{_given(row['row'])}{behind}"
        lines.append(f"| {split} | {what} | {' | '.join(cells)} |")
    for split in dict.fromkeys(row["row"].rsplit(".", 1)[0] for row in found):
        for each in published(split):
            figures = f"{each['hit_rate@10']:.4f} | {each['ndcg@10']:.4f}"
            lines.append(f"| {split} | *published*: {each['name']} | | | {figures} |")
    return [*lines, "", "Where the published figures are from: [peers](peers.md).", "",
            *_of_the_author(found)]  # fmt: skip


def _of_the_author(found: list[dict[str, Any]]) -> list[str]:
    """Put the figures that the paper's author publishes of his own split beside ours."""
    ours = [
        f"{row['config']['preset']} {row['systems']['attrec']['hit_rate@50']['mean']:.4f} and "
        f"{row['systems']['attrec']['mrr']['mean']:.4f}"
        for row in found
        if row["row"].startswith("ml-100k.author-split.")
    ]
    if not ours:
        return []
    return [
        "On his own split of MovieLens 100K the paper's author publishes HR@50 0.5313 and MRR "
        f"0.0911, of an epoch chosen on the test part; chosen on validation {', '.join(ours)}.",
        "",
    ]


def _slices_table(slices: dict[str, Any]) -> list[str]:
    """Show the first system by history length and popularity."""
    lines = ["| users | | HR@10 | NDCG@10 |", "| --- | --- | --- | --- |"]
    for name, found in slices.items():
        figures = found["attrec"]
        lines.append(
            f"| {name} | {found['users']:,} | {figures['hit_rate@10']:.4f} | "
            f"{figures['ndcg@10']:.4f} |"
        )
    return [*lines, ""]


def ablations_page() -> str:
    """Make the ablations page: figures from the result files, words from ablations.words.md."""
    words = (DOCS / "ablations.words.md").read_text(encoding="utf-8")
    lines = ["# Ablations", "", _intro("ablations.md"), "", words, ""]
    metrics = ("hit_rate@10", "hit_rate@50", "ndcg@10", "mrr")
    tables: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in sorted(rows("ablations"), key=lambda row: row["family"] != "paper"):
        tables.setdefault((row["family"], row["row"].split(".")[0]), []).append(row)
    for (family, data), variants in tables.items():
        variants.sort(
            key=lambda r: (not r["row"].endswith(f".{family}"), -r["metrics"]["mrr"]["mean"])
        )
        title = {
            "paper": "the paper's model",
            "accurate": "the accurate preset",
            "retraining": "the accurate preset's retraining",
            "moment": "the accurate preset's popularity of the moment",
        }[family]
        lines += [f"## {data}, {title}", "", f"{variants[0]['protocol']}.", ""]
        before: dict[str, list[str]] = {}
        for row in variants:
            before.setdefault(measured_before(_changed_variant(row)), []).append(row["row"])
        shown = next(told for told, names in before.items() if variants[0]["row"] in names)
        for told, names in before.items():
            if told:
                which = ", ".join(name.split(".", 1)[1] for name in names)
                without = "" if told == shown else " The preset of then is no longer shown, nor "
                without += "are the differences from it." if without else ""
                lines += [f"{told}So was: {which}.{without}", ""]
        lines += ["| variant | what is changed | " + " | ".join(metrics) + " | best epoch |",
                  "| --- |" + " --- |" * (len(metrics) + 2)]  # fmt: skip
        for row in variants:
            cells = []
            beside = row["row"] in before[shown]
            for metric in metrics:
                difference = row["minus_preset"].get(metric) if beside else None
                cell = f"{row['metrics'][metric]['mean']:.4f}"
                if difference:
                    star = STAR if difference["excludes_zero"] else ""
                    cell += f" ({difference['mean']:+.4f}{star})"
                cells.append(cell)
            name = row["row"].split(".", 1)[1]
            what = _what_is_changed(_family(family), name)
            lines.append(f"| {name} | {what} | {' | '.join(cells)} | {row['cost']['best_epoch']} |")
        lines += [""]
        there = {row["row"].split(".", 1)[1] for row in variants}
        absent = [name for name in _family(family).rows if name not in there]
        if absent:
            lines += [f"Not measured yet: {', '.join(absent)}.", ""]
    return "\n".join(lines)


def _what_is_changed(family: ablations.Family, name: str) -> str:
    """Say it by the first sentence of the variant's network and by its options."""
    network = family.networks.get(name)
    said = [(inspect.getdoc(network) or "").split("\n", 1)[0]] if network else []
    given = family.variants.get(name, {})
    return " ".join([*said, ", ".join(f"`{key} = {_plain(v)}`" for key, v in given.items())])


def _changed_variant(row: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    log, name = row["row"].split(".", 1)
    return changed_options(row, ablations.options_of(_family(row["family"]), log, name))


def _family(name: str) -> ablations.Family:
    return next(one for one in ablations.FAMILIES if one.name == name)


def errors_page() -> str:
    """Make the table of what goes wrong by making it go wrong."""
    lines = ["# What goes wrong, and what is said", "", _intro("errors.md"), ""]
    lines += ["| what | exit code | what is said |", "| --- | --- | --- |"]
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            outcome = run(case, Path(folder))
        said = _cell(outcome.sentence.removeprefix("attrec: "))
        lines.append(f"| {case.name} | {outcome.code} | {said} |")
    tree = inspect.getdoc(attrec.errors) or ""
    return "\n".join([*lines, "", "In Python each is an exception of one tree:", "", "```text",
                      tree.split("::", 1)[1].strip("\n").split("\n\n")[0], "```", ""])  # fmt: skip


def messy_page() -> str:
    """Make the tutorial by going its way."""
    lines = ["# From a messy export to recommendations", "", _intro("messy-log.md"), ""]
    with tempfile.TemporaryDirectory() as folder:
        for why, command, code, text in transcript(Path(folder)):
            lines += [why, "", "```console", f"$ {command}", text, "```", ""]
            lines += [f"(exit code {code})", ""] if code else []
    return "\n".join(lines)


PAGES: dict[str, Callable[[], str]] = {
    "cli.md": cli_page,
    "options.md": options_page,
    "errors.md": errors_page,
    "messy-log.md": messy_page,
    "api.md": api_page,
    "accuracy.md": accuracy_page,
    "ablations.md": ablations_page,
    "performance.md": performance_page,
    "peers.md": peers.peers_page,
    "updating.md": updating.updating_page,
    "certified-reuse.md": reuse.reuse_page,
}


def page(name: str) -> str:
    """Return the whole text of a made page."""
    text = PAGES[name]()
    return MADE + "\n".join(line.rstrip() for line in text.splitlines()).rstrip() + "\n"


def readme() -> str:
    """Return the README with the figures of the result files between its two marks."""
    before, rest = README.read_text(encoding="utf-8").split(BEGIN)
    return f"{before}{BEGIN}\n{_short_figures()}{END}{rest.split(END)[1]}"


def _short_figures() -> str:
    head = ["HR@10 / NDCG@10", "AttRec", "trained without the validation events",
            "best other library measured here", "Markov chain", "recent popularity",
            "published"]  # fmt: skip
    body = []
    for row in rows("accuracy"):
        if not row["row"].endswith(".accurate"):
            continue
        data, protocol, _ = row["row"].split(".")
        before = ", of options before today's" if _changed(row) else ""
        peer, told = peers.best_peer(f"{data}.{protocol}"), ""
        if peer:
            name = peer["peer"]["name"]
            told = f"{peers.pair(peer['systems'][name])} ({', '.join([name, *peers.marks(peer)])})"
        others = sorted(published(f"{data}.{protocol}"), key=lambda one: -one[peers.TARGET])
        of_sasrec = [one for one in others if one["name"].startswith("SASRec")]
        named = {
            one["name"]: f"{one['name']} {peers.pair(one)}" for one in others[:2] + of_sasrec[:1]
        }
        systems = row["systems"]
        body.append(
            [
                f"**{data}**, {protocol}{before}",
                f"**{peers.pair(systems['attrec'])}**",
                peers.pair(systems["attrec, not retrained"]),
                told,
                *(
                    peers.pair(systems[name])
                    for name in ("Markov, first order", "recent popularity")
                ),
                "; ".join(named.values()),
            ]
        )
    lines = [
        *table(head, body),
        "",
        "The other libraries run with the settings of their own documentation on one CPU thread, "
        "for at most 20 or 40 minutes: “cut” and “still improving” say where that was too short, "
        "“not reproduced” that one stayed below 90 % of its own published figure, so that no lead "
        "over it is claimed. Published figures have preparations of their own.",
    ]
    speed = {row["row"]: row["metrics"] for row in rows("speed")}
    if not speed:
        return "\n".join([*lines, ""])
    small, large = speed["step.ml-1m.threads-1"], speed["step.1m-items.threads-1"]
    lines += [
        "",
        "With the paper's presets a training step handles "
        f"{small['windows_per_second']['shipped']['median'] / 1000:,.0f} thousand windows a "
        "second on one CPU thread, "
        f"{small['ratio_to_eager']['median']:.1f} times plain eager PyTorch; at a million items "
        f"{large['ratio_to_sparse']['median']:.1f} times PyTorch with sparse gradients "
        f"({large['ratio_to_eager']['median']:.0f} times with dense ones). {_default_step()}",
        "",
    ]
    return "\n".join(lines)


def _default_step() -> str:
    """Tell the speed of the default's network, and with which options it was measured."""
    (row,) = rows("speed", "softmax-step.ml-1m.threads-1")
    model, found = row["config"]["model"], row["metrics"]
    return (
        f"The default's network, here with d {model['embedding_dim']}, {model['window_length']} "
        f"events and {model['blocks']} blocks: "
        f"{found['positions_per_second']['shipped']['median'] / 1000:,.0f} thousand positions a "
        f"second, {found['ratio_to_plain']['median']:.1f} times the same step in plain PyTorch "
        "([performance](docs/performance.md))."
    )


def _intro(name: str) -> str:
    return {
        "messy-log.md": "A shop's export, as they are: an old file with seconds and ISO dates in "
        "one column, rows sent twice and five kinds of broken rows; this year's in a partitioned "
        "folder, in milliseconds, with views among the purchases; the web shop's orders in a "
        "database ([tests/messy.py](../tests/messy.py) writes it). Every step does what the one "
        "before said. The tests go this way; figures that differ from machine to machine are "
        "shown as ….",
        "errors.md": "Each row was made to happen, and this is what the command line answered: one "
        "sentence with place, value, expectation and remedy, nothing lost, nothing half-written. "
        "Made by `make docs` from tests/bad_inputs.py; the tests hold every row.",
        "accuracy.md": "What the presets reach, with 95 % intervals over users: a summary, "
        "[the same figures from files](#the-same-figures-from-files), [items never trained "
        "on](#items-that-were-never-trained-on), [what did not work](#what-did-not-work), and "
        "[row by row](#row-by-row) the baselines, slices, coverage and novelty, how long a row "
        "takes and how it is made again. Options were chosen on validation; [decision "
        "16](decisions/016-accurate-preset.md) tells of the looks at the test part. A row is "
        "measured anew when an option changes, and its older figures are in the history of its "
        "file. A row that was broken off goes on without `--again`, which begins anew. The "
        "intervals are over users, of the mean over the seeds; what other seeds would change is "
        "not in them. “not retrained” is trained on the training part alone: the one to compare "
        "with published figures whose training saw no validation events (their authors seldom "
        "say; HSTU's code trains on them). A star: the paired difference of the first row from "
        "this one excludes zero. What earns each part of the accurate preset: "
        "[ablations](ablations.md) and decision 16; of the paper's: the same page, [decision "
        "4](decisions/004-presets.md).",
        "ablations.md": "A preset with one thing changed, one seed. In parentheses the paired "
        "difference from the preset; a star where its 95 % interval over users excludes zero. "
        "Another seed of the same options can get a star as well: the rows “another-seed” and "
        "“a-third-seed” show how far. The paper's model is judged on the test part, to be held "
        "against what the paper says. The accurate preset is judged on the validation part, where "
        "its options were chosen: each one was free to win, so the preset's own figure is "
        "flattered a little. Its retraining and the popularity of the moment are judged without "
        "the test part too, on a second cut of what is left.",
    }[name]


def _systems_table(systems: dict[str, Any], differences: dict[str, Any]) -> list[str]:
    first = next(iter(systems.values()))
    wanted = [m for m in first if m.startswith(("hit_rate", "ndcg"))]
    metrics = [*wanted, "mrr", *[m for m in first if m.startswith(("coverage", "novelty"))]]
    lines = [f"| | {' | '.join(metrics)} |", "| --- |" + " --- |" * len(metrics)]
    for name, figures in systems.items():
        cells = []
        for metric in metrics:
            figure = figures[metric]
            cell = f"{figure['mean']:.4f}"
            if "low" in figure:
                star = (
                    STAR if differences.get(name, {}).get(metric, {}).get("excludes_zero") else ""
                )
                cell += f" [{figure['low']:.4f}, {figure['high']:.4f}]{star}"
            cells.append(cell)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _commands(command: Any, path: list[str]) -> list[tuple[list[str], Any]]:
    if not hasattr(command, "commands"):
        return [(path, command)]
    return [
        found for name, sub in command.commands.items() for found in _commands(sub, [*path, name])
    ]


def _parameter(parameter: Any, context: Any) -> str:
    if parameter.param_type_name == "argument":
        name = parameter.metavar or parameter.name.upper()
    else:
        name = parameter.get_help_record(context)[0]
    return f"| `{_cell(' '.join(name.split()))}` | {_cell(_unmarked(parameter.help or ''))} |"


def _unmarked(text: str) -> str:
    return re.sub(r"\[/?dim\]", "", text).replace("\\[", "[")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _plain(value: Any) -> str:
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def _signature(thing: Any) -> str:
    text = str(inspect.signature(thing))
    return re.sub(r"<[^<>]*>", "…", text)


def main() -> None:
    """Write all pages and their pictures."""
    peers.draw(DOCS / "peers")
    for name in PAGES:
        (DOCS / name).write_text(page(name), encoding="utf-8")
    README.write_text(readme(), encoding="utf-8")


if __name__ == "__main__":
    main()
