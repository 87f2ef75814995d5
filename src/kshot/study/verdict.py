"""Which way of teaching beats which, size by size, and which one to take."""

from collections.abc import Mapping, Sequence
from typing import Any

from kshot.measure.intervals import holm
from kshot.study.cells import NOISY_TIMES
from kshot.study.summary import accuracy, arm, called, differing, grouped, noisy, over_all_seeds, together

Row = dict[str, Any]
Line = Mapping[str, Any]
Group = Sequence[Line]

# The usual bound for calling two methods different.
LEVEL = 0.05

# How far below the most accurate a cheaper way may lie and still be taken in its place.
MARGIN = 0.03

PROMPTED = ("zero-shot", "in-context")

# Nothing is gained from keeping the commonest label as an artefact: it is what others have to beat.
_BASELINES = ("majority",)

RULE = (
    "Recommended is the most accurate way of teaching at any number of examples, or in its place a cheaper one "
    f"that lies at most {100 * MARGIN:.0f} points below it and that the paired test cannot tell from it (p of {LEVEL} or more, "
    "uncorrected): one without training before one with, then fewer tokens a query, then fewer bytes."
)


def paired(lines: Sequence[Line]) -> list[Row]:
    """Every row of every task against in-context and zero-shot, size by size, on the same queries over all seeds.

    ``against`` says what for: ``in-context`` at the same number of shots, ``zero-shot``, ``best`` (the most accurate row
    of all sizes against the others that may be recommended), and ``clean`` (``a`` has wrong labels on purpose, ``b`` is the
    same method with a quarter as many clean examples). ``difference`` is a's accuracy less b's over queries of all seeds; ``n``,
    ``better``, ``worse`` and ``p`` as ``paired_permutation`` says; ``p_holm`` is corrected for the methods of that task,
    size and reference, and ``verdict`` (``better``, ``worse`` or ``undecided``) is at 0.05 of it. Rows that came to no
    result take no part.
    """
    found: list[Row] = []
    for task in dict.fromkeys(line["task"] for line in lines):
        groups = grouped([line for line in lines if line["task"] == task])
        apart = differing([group[0] for group in groups])
        scored = [group for group in groups if accuracy(group) is not None]
        clean = [group for group in scored if not noisy(group[0])]
        families = [*_families(clean), *_noise_families(scored, clean)]
        for against, pairs in families:
            rows = [_pair(a, b, apart, against) for a, b in pairs]
            found += _corrected([row for row in rows if row is not None])
    return found


def _families(groups: Sequence[Group]) -> list[tuple[str, list[tuple[Group, Group]]]]:
    families: list[tuple[str, list[tuple[Group, Group]]]] = []
    bare = [group for group in groups if group[0]["method"] == "zero-shot"]
    for shots in sorted({group[0]["shots"] for group in groups if group[0]["shots"]}):
        here = [group for group in groups if group[0]["shots"] == shots]
        shown = [group for group in here if group[0]["method"] == "in-context"]
        for against, rivals in (("in-context", shown), ("zero-shot", bare)):
            own = [(group, _nearest(group, rivals)) for group in here if rivals]
            families.append((against, [(a, b) for a, b in own if a is not b]))
    candidates = [group for group in groups if _may_be_taken(group[0])]
    if candidates:
        best = max(candidates, key=lambda group: accuracy(group) or 0.0)
        families.append(("best", [(best, group) for group in candidates if group is not best]))
    return families


def _noise_families(scored: Sequence[Group], clean: Sequence[Group]) -> list[tuple[str, list[tuple[Group, Group]]]]:
    """Four times as many examples, some of them wrong, against the clean ones of the same method, size by size."""
    pairs: dict[tuple[int, Any], list[tuple[Group, Group]]] = {}
    for group in scored:
        if not noisy(group[0]) or group[0]["shots"] % NOISY_TIMES:
            continue
        few, share = group[0]["shots"] // NOISY_TIMES, group[0]["params"]["noise"]
        same = [g for g in clean if (g[0]["method"], g[0]["shots"]) == (group[0]["method"], few)]
        if same:
            pairs.setdefault((few, share), []).append((group, _nearest(group, same)))
    return [("clean", own) for own in pairs.values()]


def _may_be_taken(row: Line) -> bool:
    """Whether one artefact holds it: an ensemble is several, and the commonest label is none."""
    return row["method"] not in _BASELINES and "ensemble" not in (row.get("params") or {})


def _nearest(group: Group, rivals: Sequence[Group]) -> Group:
    """The rival with the most params in common, the plainest of those; the first of equals."""
    own = group[0].get("params") or {}

    def likeness(rival: Group) -> tuple[int, int]:
        params = rival[0].get("params") or {}
        return sum(own.get(key) == value for key, value in params.items()), -len(params)

    plain = [rival for rival in rivals if "ensemble" not in (rival[0].get("params") or {})]
    return max(plain or rivals, key=likeness)


def _pair(a: Group, b: Group, apart: Sequence[tuple[str, str, str]], against: str) -> Row | None:
    lines = together(a, b)
    test = over_all_seeds(lines)
    if test is None:
        return None
    return {
        "task": a[0]["task"],
        "shots": b[0]["shots"] if against == "clean" else a[0]["shots"],
        "against": against,
        "method": a[0]["method"],
        "name": called(b[0] if against == "clean" else a[0], apart),
        "a": arm(a[0], apart),
        "b": arm(b[0], apart),
        "seeds": len(lines),
        **{key: test[key] for key in ("n", "better", "worse", "difference", "p")},
        **({"noise": a[0]["params"]["noise"]} if against == "clean" else {}),
    }


def _corrected(rows: Sequence[Row]) -> list[Row]:
    adjusted = holm([row["p"] for row in rows])
    found = []
    for row, p in zip(rows, adjusted, strict=True):
        side = "undecided" if p >= LEVEL or not row["difference"] else "better" if row["difference"] > 0 else "worse"
        found.append({**row, "p_holm": p, "verdict": side})
    return found


def learned(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether anything but prompting took part."""
    return any(row["method"] not in PROMPTED for row in rows)


def recommend(rows: Sequence[Mapping[str, Any]], pairs: Sequence[Mapping[str, Any]]) -> dict[str, Row]:
    """What to take for each task, from its summary rows and what ``paired`` says: ``{task: {method, params, shots, seed,
    accuracy, directory, why}}``.

    The rule is ``RULE``. ``seed`` is the first that came to a result, not the one that did best on the test queries;
    ``directory`` is None until somebody has saved it. A task without any accuracy has no entry.
    """
    found: dict[str, Row] = {}
    for task in dict.fromkeys(row["task"] for row in rows):
        own = [row for row in rows if row["task"] == task]
        apart = differing(own)
        scored = [row for row in own if row["accuracy"] is not None and not noisy(row)]
        candidates = [row for row in scored if _may_be_taken(row)]
        if not candidates:
            continue
        best = max(candidates, key=lambda row: row["accuracy"])
        ps = {pair["b"]: pair["p"] for pair in pairs if pair["task"] == task and pair["against"] == "best"}
        alike = [
            row
            for row in candidates
            if row is best
            or (ps.get(arm(row, apart), 0.0) >= LEVEL and row["accuracy"] >= best["accuracy"] - MARGIN - 1e-9)
        ]
        # Of what costs the same, the more accurate, and then what needs fewer examples.
        taken = min(alike, key=lambda row: (_price(row), -row["accuracy"], row["shots"]))
        found[task] = {
            **{key: taken[key] for key in ("method", "params", "shots")},
            "seed": taken["seeds"][0],
            "accuracy": taken["accuracy"],
            "directory": None,
            "why": _why(taken, best, scored, ps, apart),
        }
    return found


def _price(row: Mapping[str, Any]) -> tuple[bool, float, float]:
    """What counts as cheap, of figures that are the same in every run: clocks are not."""
    trained = bool(row.get("trainable_parameters")) or row.get("flops") is not None
    return trained, (row["tokens"] or 0) / max(row["n"], 1), row.get("artefact_bytes") or 0


def _why(
    taken: Mapping[str, Any],
    best: Mapping[str, Any],
    scored: Sequence[Mapping[str, Any]],
    ps: Mapping[str, float],
    apart: Sequence[tuple[str, str, str]],
) -> str:
    if taken is best:
        beaten = any(row["accuracy"] > best["accuracy"] for row in scored)
        return "the most accurate that can be kept as an artefact" if beaten else "the most accurate"
    if _price(taken) == _price(best):
        cheaper = "needs fewer examples"
    elif not _price(taken)[0] and _price(best)[0]:
        cheaper = "cheaper: nothing is trained"
    else:
        cheaper = "cheaper: it reads or stores less"
    below = 100 * (best["accuracy"] - taken["accuracy"])
    if below < 0.05:
        return f"as accurate as {arm(best, apart)}, and {cheaper}"
    return (
        f"{below:.1f} points below {arm(best, apart)}, not distinguishable from it "
        f"(p = {ps[arm(taken, apart)]:.2g}), and {cheaper}"
    )


def said(pairs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the paired tests of one task come to, in a sentence or two that stay short with many methods and sizes."""
    shown = [pair for pair in pairs if pair["against"] == "in-context" and pair["method"] != "zero-shot"]
    bare = [pair for pair in pairs if pair["against"] == "zero-shot"]
    if shown:
        sentences = _against("in-context learning", shown)
    elif bare:
        sentences = _against("zero-shot", bare)
    else:
        return []
    sizes = sorted({pair["shots"] for pair in bare})
    never = [name for name, won in _sizes(bare, "better").items() if not won]
    if shown and never:
        some = "at any size" if len(sizes) > 1 else _with(sizes)
        sentences.append(f"Not clearly above zero-shot {some}: {_names(never)}.")
    return sentences


def said_of_noise(pairs: Sequence[Mapping[str, Any]]) -> str:
    """What more but noisier examples come to, in one sentence; nothing where none were run."""
    own = [pair for pair in pairs if pair["against"] == "clean"]
    if not own:
        return ""
    words = {"better": "helps", "worse": "harms", "undecided": "makes no clear difference to"}
    sizes = sorted({pair["shots"] for pair in own})
    parts = []
    for verdict, verb in words.items():
        by_name = {name: at for name, at in _sizes(own, verdict).items() if at}
        if by_name:
            parts.append(f"{verb} {_by_sizes(by_name, sizes)}")
    shares = _and([f"{100 * share:g} %" for share in sorted({pair["noise"] for pair in own})])
    head = f"Taking {NOISY_TIMES} times as many examples with {shares} of the labels wrong in place of clean ones"
    return f"{head} {'; it '.join(parts)}."


def _against(rival: str, pairs: Sequence[Mapping[str, Any]]) -> list[str]:
    sizes = sorted({pair["shots"] for pair in pairs})
    wins = {name: at for name, at in _sizes(pairs, "better").items() if at}
    losses = {name: at for name, at in _sizes(pairs, "worse").items() if at}
    barren = [size for size in sizes if not any(size in at for at in wins.values())]
    if not wins:
        head = f"Nothing beats {rival} {_with(sizes)}" if len(sizes) == 1 else f"Nothing beats {rival} at any size"
        return [f"{head}; it beats {_by_sizes(losses, sizes)}." if losses else f"{head}, and nothing is clearly worse."]
    ps = [pair["p_holm"] for pair in pairs if pair["verdict"] == "better"]
    sentence = f"{_capital(rival)} is beaten by {_by_sizes(wins, sizes)} ({_at_most(max(ps))})"
    sentence += f"; {_with(barren)} nothing beats it" if barren else ""
    return [f"{sentence}.", *([f"Worse than it: {_by_sizes(losses, sizes)}."] if losses else [])]


def _sizes(pairs: Sequence[Mapping[str, Any]], verdict: str) -> dict[str, tuple[int, ...]]:
    """At which sizes each method has this verdict."""
    found: dict[str, list[int]] = {}
    for pair in pairs:
        found.setdefault(pair["name"], []).extend([pair["shots"]] if pair["verdict"] == verdict else [])
    return {name: tuple(sorted(at)) for name, at in found.items()}


def _by_sizes(at: Mapping[str, tuple[int, ...]], sizes: Sequence[int]) -> str:
    """Methods with the same sizes together, those with the most sizes first."""
    groups: dict[tuple[int, ...], list[str]] = {}
    for name, own in at.items():
        groups.setdefault(own, []).append(name)
    ranked = sorted(groups.items(), key=lambda item: -len(item[0]))
    every = len(sizes) > 1
    parts = [
        f"{_names(names)} {'at every size' if every and len(own) == len(sizes) else _with(own)}"
        for own, names in ranked
    ]
    return _and(parts)


def _with(sizes: Sequence[int]) -> str:
    return f"with {_and([str(size) for size in sizes])} example{'s' if tuple(sizes) != (1,) else ''}"


def _names(names: Sequence[str]) -> str:
    return _and([*names[:4], f"{len(names) - 4} more"] if len(names) > 5 else names)


def _and(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _at_most(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p at most {p:.2g}"
