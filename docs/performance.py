"""The page of speed and memory, made from the result files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
STAR = r" **\***"
"""Where the interval of a difference excludes zero."""
Row = Mapping[str, Any]


def rows(benchmark: str, beginning: str = "") -> list[dict[str, Any]]:
    """Read the result files of a benchmark whose row begins like that."""
    paths = sorted((RESULTS / benchmark).glob(f"{beginning}*.json"))
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def measured_before(changed: Mapping[str, tuple[Any, Any]]) -> str:
    """Tell of a row that was measured before its options became what they are."""
    if not changed:
        return ""
    told = ", ".join(f"`{name}` {then} (now {now})" for name, (then, now) in changed.items())
    return f"Measured before the options were what they are: {told}. "


def performance_page() -> str:
    """Make the page."""
    parts = [_head(), _roofline(), _steps(), _epochs(), _tables(), _softmax(), _softmax_step(),
             _ranking(), _indexes(), _gpu(), _agreement(), _volume()]  # fmt: skip
    return "\n\n".join("\n".join(part) for part in parts if part)


def table(head: Iterable[str], body: Iterable[Iterable[str]]) -> list[str]:
    """Lay out a Markdown table."""
    names = list(head)
    lines = [f"| {' | '.join(names)} |", "| --- |" + " --- |" * (len(names) - 1)]
    return [*lines, *(f"| {' | '.join(cells)} |" for cells in body)]


def ratio(found: Row) -> str:
    """Write a ratio with its spread."""
    return f"{found['median']:.2f} ({found['low']:.2f} – {found['high']:.2f})"


def again(*names: str) -> str:
    """Say how a row is measured again."""
    return f"Again: `make bench-speed ROW={names[0]}`."


def _head() -> list[str]:
    any_row = rows("speed", "step")[0]
    machine = any_row["machine"]
    return [
        "# Performance",
        "",
        "What is shipped, beside what it is held against, in alternating processes: ratios within "
        "a run count, times do not travel. Measured on "
        f"{machine['processor']}, {machine['cpus']} CPUs that others use too, PyTorch "
        f"{any_row['versions']['torch']}; each row's file under benchmarks/results/speed tells "
        "date, commit, threads, and how busy the machine was. All again: `make bench-speed`. Why "
        "it is as it is: [the compiled kernels](decisions/012-compiled-kernels.md), [the softmax "
        "over distances](decisions/013-softmax-over-distances.md). Of your own training: "
        "[profiling](profiling.md).",
    ]


def _roofline() -> list[str]:
    lines = ["## Where a step's time goes, and what bounds it"]
    for row in rows("speed", "roofline"):
        found, data = row["metrics"], row["data"]
        whole, limits, floors = found["seconds"], found["limits"], found["floors"]
        products, windows, touched = (1000 * seconds for seconds in floors.values())
        lines += [
            "",
            f"**{row['row']}**: {data['users']:,} users, {data['items']:,} items, batches of 1,000 "
            f"windows, d = 100; {row['protocol']}. A batch projects {found['items_projected']:,} "
            f"distinct items and touches {found['rows_touched']:,} rows.",
            "",
            *table(
                ("part", "ms", "share"),
                [
                    (name, f"{1000 * seconds:.2f}", f"{seconds / whole:.0%}")
                    for name, seconds in found["phases"].items()
                ],
            ),
            "",
            f"The floor here: the products' arithmetic {products:.2f} ms at "
            f"{limits['product_gflops']:.0f} GFLOP/s (measured on products of that size), the "
            f"windows' {windows:.2f} ms at the same rate "
            f"({found['operations_of_a_window'] / 1000:.0f} kFLOP each), and {touched:.2f} ms for "
            "the rows touched, weight and state, read and written once, at the "
            f"{limits['memory_gbytes']:.0f} GB/s of a copy that no cache holds: together "
            f"{products + windows + touched:.2f} of {1000 * whole:.2f} ms.",
        ]
    lines += [
        "",
        "At ML-1M's size tables and state fit into the caches; what is left above the floor is "
        "taken to be latency within the windows (rows of 100 numbers, five at a time), which no "
        "counter was read for. At a million items each row touched is a random place of a table "
        "that no cache holds: large pages and lines asked for ahead are what helped.",
    ]
    return lines


def _steps() -> list[str]:
    body = []
    for row in rows("speed", "step"):
        found = row["metrics"]
        shipped = found["windows_per_second"]["shipped"]["median"]
        for other in ("eager", "sparse"):
            if f"ratio_to_{other}" not in found:
                continue
            theirs = found["windows_per_second"][other]["median"]
            body.append(
                (
                    row["row"], other, f"{theirs:,.0f}", f"{shipped:,.0f}",
                    ratio(found[f"ratio_to_{other}"]), f"{found[f'memory_ratio_to_{other}']:.2f}",
                )
            )  # fmt: skip
    return [
        "## The paper's step",
        "",
        "Windows a second, beside a step as a PyTorch user writes it "
        "([benchmarks/speed/eager.py](../benchmarks/speed/eager.py)): dense tables, autograd, "
        "`torch.optim.Adagrad`; and with PyTorch's own sparse gradients. " + again("step"),
        "",
        *table(
            ("row", "beside", "theirs", "shipped", "times as fast (pairs)",
             "memory, shipped / theirs"),
            body,
        ),
    ]  # fmt: skip


def _epochs() -> list[str]:
    found = {row["row"]: row for row in rows("speed", "epoch")}
    if not found:
        return []
    seconds = {name: row["metrics"]["epoch_seconds"] for name, row in found.items()}
    first = next(iter(found.values()))
    one, two = (seconds[f"epoch.ml-1m.threads-{count}"]["median"] for count in (1, 2))
    return [
        "## An epoch of ML-1M",
        "",
        f"{first['data']['windows']:,} windows, preset paper-sparse, batches and all, by "
        f"{first['metrics']['step']}. From one thread to two: {one / two:.2f} times as fast. "
        + again("epoch"),
        "",
        *table(
            ("row", "seconds (lowest – highest)"),
            [(name, ratio(each)) for name, each in seconds.items()],
        ),
    ]


def _tables() -> list[str]:
    found = sorted(rows("speed", "tables"), key=lambda row: row["data"]["items"])
    if not found:
        return []
    return [
        "## Cost follows the rows touched, not the table",
        "",
        f"{found[0]['protocol']}; ten events of each item, so that each catalogue can be learnt as "
        "well as the next. " + again("tables"),
        "",
        *table(
            ("items", "users", "tables, MB", "peak memory, MB", "rows touched a step", "ms a step",
             "ns a row", "HR@10 (best possible .9)"),
            [
                (
                    f"{row['data']['items']:,}", f"{row['data']['users']:,}",
                    f"{row['metrics']['table_bytes'] / 1e6:,.0f}",
                    f"{row['metrics']['peak_memory_bytes'] / 1e6:,.0f}",
                    f"{row['metrics']['rows_touched_per_step']:,.0f}",
                    f"{row['metrics']['milliseconds_per_step']:.1f}",
                    f"{row['metrics']['nanoseconds_per_row']:,.0f}",
                    f"{row['metrics']['hit_rate@10']:.3f}",
                )
                for row in found
            ],
        ),
    ]  # fmt: skip


def _softmax() -> list[str]:
    lines = [
        "## The softmax over distances",
        "",
        "Loss and all gradients over the whole catalogue (`attrec.model.softmax`), beside the form "
        "with all logits at hand, and beside its three matrix products alone: over whole matrices, "
        "and in blocks. " + again("softmax-loss"),
    ]
    for row in rows("speed", "softmax-loss"):
        found = row["metrics"]
        lines += [
            "",
            f"**{row['row']}**: {row['protocol']}. All logits would take "
            f"{found['logits_bytes'] / 1e6:,.0f} MB.",
            "",
            *table(
                ("way", "ms", "times the fused (pairs)", "memory beside the inputs, MB"),
                [
                    (
                        way.replace("_", " "),
                        f"{1000 * found['seconds'][way]['median']:,.0f}",
                        ratio(found["times_as_long_as_fused"][way]),
                        f"{found['above_inputs_bytes'][way]['median'] / 1e6:.0f}",
                    )
                    for way in found["seconds"]
                ],
            ),
        ]
    return lines


def _softmax_step() -> list[str]:
    found = rows("speed", "softmax-step")
    if not found:
        return []
    return [
        "## A whole step of the additive network",
        "",
        "Network, loss, gradient and AdamW: histories packed and the loss fused, beside histories "
        "padded to the window and all logits at hand "
        f"([benchmarks/speed/softmax_step.py](../benchmarks/speed/softmax_step.py)). "
        f"{found[0]['protocol']}, d = {found[0]['config']['model']['embedding_dim']}. "
        + again("softmax-step"),
        "",
        *table(
            ("row", "plain, positions/s", "shipped, positions/s", "times as fast (pairs)",
             "peak memory, MB: plain, shipped"),
            [
                (
                    row["row"],
                    f"{row['metrics']['positions_per_second']['plain']['median']:,.0f}",
                    f"{row['metrics']['positions_per_second']['shipped']['median']:,.0f}",
                    ratio(row["metrics"]["ratio_to_plain"]),
                    ", ".join(
                        f"{row['metrics']['peak_memory_bytes'][way]['median'] / 1e6:,.0f}"
                        for way in ("plain", "shipped")
                    ),
                )
                for row in found
            ],
        ),
    ]  # fmt: skip


def _ranking() -> list[str]:
    found = [row for row in rows("speed") if "ratio_to_product" in row["metrics"]]
    if not found:
        return []
    return [
        "## Ranking",
        "",
        "Every user against every item, seen items left out, beside the bare `torch.mm` of that "
        f"very size ([benchmarks/speed/ranking.py](../benchmarks/speed/ranking.py)). "
        f"{found[0]['protocol']}. “Queries computed” counts the attention as well, which the "
        "product does not. Memory is what the calls add to the process before them. "
        + again("ranking"),
        "",
        *table(
            ("row", "users × items × numbers", "what", "bare product, s", "ours, s",
             "ratio (processes)", "memory, MB"),
            [
                (
                    row["row"],
                    "{users:,} × {items:,} × {width}".format(**row["config"]),
                    what,
                    f"{row['metrics']['seconds']['bare product']:.3f}",
                    f"{row['metrics']['seconds'][what]:.3f}",
                    ratio(each),
                    f"{row['metrics']['added_peak_bytes'] / 1e6:.0f}",
                )
                for row in found
                for what, each in row["metrics"]["ratio_to_product"].items()
            ],
        ),
    ]  # fmt: skip


def _indexes() -> list[str]:
    measured = rows("index")
    if not measured:
        return []
    order = {"exact": 0, "faiss-flat": 1, "ivf": 2, "hnsw": 3}
    data = measured[0]["data"]
    measured.sort(key=lambda row: (row["data"]["items"], order[row["config"]["kind"]]))
    lines = [
        "## Nearest keys",
        "",
        "The exact index beside FAISS behind the same contract ([vectors](vectors.md)), vectors of "
        f"{data['width']} numbers: {data['name']}. {measured[0]['protocol']}. "
        "Memory is what the index adds to the keys, which all of them keep. The machine was shared:"
        " beside the time that passed stands the processor's. Again: `make bench-index ROW=100k`.",
        "",
        *table(
            ("row", "chosen", "build, s (CPU)", "memory, MB", "recall@10", "recall@50",
             "one query, k = 10: ms (p99)", "of it CPU, ms (p99)", "k = 50: CPU, ms"),
            [
                (
                    row["row"],
                    ", ".join(f"{k} {v}" for k, v in row["metrics"].get("parameters", {}).items()),
                    _build_seconds(row["metrics"]),
                    f"{row['metrics']['added_bytes'] / 1e6:.0f}",
                    f"{row['metrics']['recall@10']:.4f}",
                    f"{row['metrics']['recall@50']:.4f}",
                    "{median:.2f} ({p99:.2f})".format(**row["metrics"]["single_ms@10"]),
                    "{cpu_median:.2f} ({cpu_p99:.2f})".format(**row["metrics"]["single_ms@10"]),
                    f"{row['metrics']['single_ms@50']['cpu_median']:.2f}",
                )
                for row in measured
            ],
        ),
    ]  # fmt: skip
    for row in measured:
        for name, queries in (("one", "one query"), ("batch", "256 queries at once")):
            found = row["metrics"].get(name)
            if found:
                alone, both = found["ratio_to_product"], found["ratio_to_product_and_topk"]
                lines += [
                    "",
                    f"{row['row']}, {queries}, k = {found['k']}: exact search takes {ratio(alone)} "
                    f"times the bare `torch.mm` of that size in the same process "
                    f"({alone['bare_seconds']:.4f} s), and {ratio(both)} times the bare `torch.mm` "
                    "with PyTorch's `topk`, which find the items but not their order to the bit.",
                ]
        if "target_missed" in row["metrics"]:
            lines += ["", f"{row['row']} missed its recall: {row['metrics']['target_missed']}."]
    return lines


def _build_seconds(found: Row) -> str:
    """Write the time that passed; a row may be older than its processor's time."""
    busy = found.get("build_cpu_seconds")
    return f"{found['build_seconds']:.1f}" + ("" if busy is None else f" ({busy:.1f})")


def _gpu() -> list[str]:
    lines = ["## On a GPU", ""]
    found = rows("gpu")
    if not found:
        return [*lines, "`make bench-gpu` measures step, epoch and ranking on the card that is "
                "there, beside eager PyTorch and the floor of its memory. No card could be had "
                "when this page was made."]  # fmt: skip
    return [
        *lines,
        *table(
            ("row", "card", "step, ms", "times eager", "times the memory's floor", "epoch, s"),
            [
                (
                    row["row"], row["device"],
                    f"{1000 * min(row['metrics']['seconds_per_step']['shipped']):.3f}",
                    f"{row['metrics']['ratio_to_eager']:.2f}",
                    f"{row['metrics']['times_the_floor']:.1f}",
                    f"{row['metrics']['epoch_seconds']:.1f}",
                )
                for row in found
            ],
        ),
    ]  # fmt: skip


def _agreement() -> list[str]:
    (row,) = rows("speed", "agreement")
    return [
        "## Do the fast steps learn the same?",
        "",
        f"{row['protocol']}. In float64 they agree step by step; in float32 no two orders of "
        "summation do ([why](decisions/003-fused-step.md)). " + again("agreement"),
        "",
        *table(
            ("what", "largest relative difference"),
            [(name.replace("_", " "), f"{value:.1e}") for name, value in row["metrics"].items()],
        ),
    ]


def _volume() -> list[str]:
    lines = ["## Ten million rows"]
    for row in rows("volume"):
        found = row["metrics"]["ratio_to_duckdb"]
        lines += [
            "",
            f"{row['row']}: {row['protocol']}. AttRec takes {ratio(found)} times what bare DuckDB "
            f"takes. Again: `make bench-data ROW={row['row']}`.",
            "",
            *table(
                ("way", "seconds", "peak memory, GB", "by stage"),
                [
                    (
                        way,
                        f"{each['seconds']:.1f}",
                        f"{each['peak_bytes'] / 1e9:.2f}",
                        ", ".join(f"{name} {value:.1f}" for name, value in each["stages"].items()),
                    )
                    for way, each in row["metrics"]["ways"].items()
                ],
            ),
        ]
    return lines
