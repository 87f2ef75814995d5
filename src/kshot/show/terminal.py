"""What a terminal shows: how far a run has come, and one table at its end."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

from kshot.show import words
from kshot.show.learning import largest, matrix, saved
from kshot.show.words import Row
from kshot.study.summary import arm, differing, noisy
from kshot.study.verdict import learned

OnProgress = Callable[[int, int | None, str], None]
"""``on_progress(done, total, what)``: so many of so many, doing what; ``total`` is None where nobody knows."""

# More rows of a task than this are read better as methods by sizes.
_MANY = 6
# A plus or minus before a figure would be read as its sign.
_PLAIN = {"▲": "^", "▼": "v"}
_EXPLAINED = {
    "test": "test: 95 % interval over test examples",
    "seeds": "seeds: 95 % interval over seeds",
    "orders": "orders: least and greatest",
}
_SIGNS = (
    "Accuracy by number of examples, mean over seeds. *: the best; ^ or v: better or worse than in-context with the same "
    "examples (paired test, corrected)."
)
_COSTS = " Costs: at the largest size."
_COSTLY = {
    "learning": lambda row: words.duration(row.get("fit_seconds")),
    "ms/query": lambda row: words.decimals(row.get("query_ms"), 1),
    "stored": lambda row: words.size(row.get("artefact_bytes")),
}
_COLUMNS = ("acc.", "test", "seeds", "orders", "log-loss", "ECE", "s/query")


def print_summary(results: Row, console: Console, *, report: Path | None = None) -> None:
    """The answer to each task in words and where what to take was saved, the rows of all tasks in a table (those of a task
    with many in a table of methods by sizes; columns that do not fit are left to the page), the notes, and where the page is.
    """
    ours = words.clean(results["kshot"])
    recommended = ours.get("recommended") or {}
    for task, sentence in (ours.get("answer") or {}).items():
        console.print(Text.assemble((f"{task}: ", "bold"), sentence))
        _print_taken(recommended.get(task), console)
    tasks = {task: [row for row in ours["summary"] if row["task"] == task] for task in _tasks(ours["summary"])}
    wide = [task for task, own in tasks.items() if len(own) > _MANY and learned(own)]
    costs = False
    for task in wide:
        pairs = [pair for pair in ours.get("paired") or () if pair["task"] == task]
        table = by_size(tasks[task], pairs, console.width)
        costs = costs or any(str(column.header) in _COSTLY for column in table.columns)
        console.print(table)
    if wide:
        console.print(Text(_SIGNS + _COSTS * costs, "dim"))
    # A task and what is asked elsewhere of its teaching were answered by turns.
    rest = [row for task, own in tasks.items() if task not in wide for row in own]
    if rest or not wide:
        table = _table(rest, console.width)
        console.print(table)
        told = [_EXPLAINED[str(column.header)] for column in table.columns if column.header in _EXPLAINED]
        console.print(Text("; ".join(["acc.: accuracy, mean over seeds", *told]) + ".", "dim"))
    for note in ours.get("notes") or ():
        console.print(Text(f"Note: {note}", "dim"))
    if report is not None:
        console.print(Text("Report: "), Text(str(report), "bold"), sep="", soft_wrap=True)


def _tasks(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["task"] for row in rows))


def _print_taken(taken: Row | None, console: Console) -> None:
    """What to take and why; where it was saved, the command that uses it, whole, to be copied."""
    if not taken or not taken.get("directory"):
        return
    size = f" with {taken['shots']} example{'s' * (taken['shots'] > 1)}" if taken["shots"] else ""
    console.print(Text(f"  Recommended: {taken['method']}{size}, {taken['why']}."))
    where = saved(taken)
    console.print(
        Text(f"  Saved: {where['directory']}; use it: "), Text(where["command"], "bold"), sep="", soft_wrap=True
    )


def by_size(rows: Sequence[Row], pairs: Sequence[Row], width: int) -> Table:
    """Accuracy of one task by method and number of shots, the best of each in bold with a star; then what the largest costs.

    ``^`` and ``v`` say what the paired test against in-context at the same size says. Costs that do not fit are left out.
    """
    apart = differing(rows)
    clean = [row for row in rows if not noisy(row)]
    found = matrix(clean, pairs, apart)
    last = largest(clean, apart)
    costs = {
        title: [value(last[line["name"]]) if line["name"] in last else "" for line in found["lines"]]
        for title, value in _COSTLY.items()
    }
    names = max(cell_len(line["name"]) for line in found["lines"]) + 1
    sizes = {title: max(cell_len(title), *map(cell_len, own)) for title, own in costs.items()}
    kept = _that_fit({"": names + 8 * len(found["shots"]) - 1} | sizes, width)[1:]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False, header_style="dim")
    # A name is no markup, whatever the console makes of other words.
    table.add_column(Text(rows[0]["task"]), overflow="fold")
    for shots in found["shots"]:
        table.add_column(str(shots) if shots else "none", justify="right", no_wrap=True)
    for title in kept:
        table.add_column(title, justify="right", no_wrap=True)
    for number, line in enumerate(found["lines"]):
        values = [Text(_accuracy(cell), "bold" if cell["best"] else "") for cell in line["cells"]]
        table.add_row(Text(line["name"]), *values, *(costs[title][number] for title in kept))
    return table


def _accuracy(cell: Row) -> str:
    if not cell["text"] or cell["text"] == words.DASH:
        return "failed" if cell["failed"] else cell["text"]
    return f"{'*' if cell['best'] else ''}{_PLAIN.get(cell['mark'], '')}{cell['text']}"


def _table(rows: Sequence[Row], width: int) -> Table:
    apart = differing(rows)
    arms = [f"  {arm(row, apart)}" for row in rows]
    lines = [_values(row) for row in rows]
    names = max((cell_len(name) for name in arms), default=0)
    sizes = {name: max(cell_len(name), *(len(line[name]) for line in lines), 0) for name in _COLUMNS}
    kept = _that_fit(sizes, width - names)
    roomy = names + sum(sizes[name] + 2 for name in kept) <= width
    table = Table(
        box=box.SIMPLE_HEAD, padding=(0, 1 if roomy else 0, 0, 0), show_edge=False, pad_edge=False, header_style="dim"
    )
    table.add_column("task", overflow="fold")
    for name in kept:
        table.add_column(name, justify="right", no_wrap=True)
    best = {
        row["task"]: row for row in sorted(rows, key=lambda row: -1 if row["accuracy"] is None else row["accuracy"])
    }
    before = None
    for row, name, line in zip(rows, arms, lines, strict=True):
        if row["task"] != before:
            before = row["task"]
            table.add_row(Text(before, "bold"))
        table.add_row(Text(name), *(line[column] for column in kept), style="bold" if row is best[before] else None)
    return table


def _that_fit(sizes: dict[str, int], room: int) -> list[str]:
    """The columns that fit beside the names, at one space each; the last of ``_COLUMNS`` go first, accuracy never."""
    kept = list(sizes)
    while len(kept) > 1 and sum(sizes[name] + 1 for name in kept) > room:
        kept.pop()
    return kept


def _values(row: Row) -> dict[str, str]:
    seconds = words.per_query(row)
    values = (
        words.decimals(row["accuracy"]),
        words.interval(row["test_low"], row["test_high"]),
        words.interval(row["seed_low"], row["seed_high"]),
        words.interval(row["order_low"], row["order_high"]),
        words.decimals(row["log_loss"]),
        words.decimals(row["ece"]),
        words.decimals(seconds, 3 if (seconds or 0) < 1 else 1),
    )
    return dict(zip(_COLUMNS, values, strict=True))


@contextmanager
def progress(*, show: bool = True, console: Console | None = None) -> Iterator[OnProgress]:
    """Gives the ``on_progress`` of one stretch of work; a bar with time left stands on stderr while it lasts, then goes.

    Nothing is shown where ``show`` is False (as under ``--json``) or the console is no terminal. Another ``what`` with
    another ``total``, or fewer done than before, begins another bar, whose time left counts from there.
    """
    console = console or Console(file=sys.stderr)
    if not show or not console.is_terminal:
        yield _silent
        return
    what = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False, table_column=what), BarColumn(24))
    with Progress(
        *columns,
        TextColumn("{task.fields[count]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        expand=True,
    ) as bars:
        yield _bar(bars)


def _silent(done: int, total: int | None, what: str) -> None:
    return None


def _bar(bars: Progress) -> OnProgress:
    current: dict[str, tuple[TaskID, int | None, int]] = {}

    def on_progress(done: int, total: int | None, what: str) -> None:
        bar, of, before = current.get("bar", (None, None, 0))
        if bar is None or of != total or done < before:
            if bar is not None:
                bars.remove_task(bar)
            bar = bars.add_task(words.clean(what), total=total, completed=done, count="")
        count = "" if total is None else f"{done}/{total}"
        bars.update(bar, completed=done, description=words.clean(what), count=count)
        current["bar"] = (bar, total, done)

    return on_progress
