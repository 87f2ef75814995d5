"""What the page of ``kshot explain`` says of one task: curves over layers, weight changes, demonstrations, orders."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from kshot.show import explain_plots, words
from kshot.show.explain_rows import (
    AS_PUBLISHED,
    CORRECTED,
    EFFECTS,
    NO_CHANGE,
    SIMILARITIES,
    by_variant,
    distance,
    facets,
    how,
    named,
    number,
    of_one_seed,
)
from kshot.show.svg import svg
from kshot.show.words import Row

RIVAL_NAMES = {
    "before": "before fine-tuning",
    "layer-causal": "layer-causal gradient descent",
    "untrained": "untrained model",
    "trained embeddings": "trained embeddings only",
    "another task": "demonstrations of another task",
    "shuffled labels": "demonstrations with shuffled labels",
}
# Measures of the weight change by layer, each a panel.
_INNER = ("lambda", "relaxed_cosine", "relaxed_r2", "effective_rank")
# Of which pass the query text of the relaxed form is; the second stands beside the first.
_PASSES = ("in-context W_ZSL", "zero-shot W_ZSL")
_MORE = 12
_GLYPHS = {"x": "×", "v": "▼", "s": "■", "^": "▲", "D": "◆", "P": "✚"}


def explain_task(kshot: Row, name: str, anchor: str) -> dict[str, Any]:
    """The values of one task's section; ``anchor`` is its id in the page and begins the ids of its figures."""
    facts: Row = (kshot.get("tasks") or {}).get(name) or {}
    rows = [row for row in kshot.get("measures") or () if row.get("task") == name]
    pictures: Row = (kshot.get("pictures") or {}).get(name) or {}
    key = anchor.replace("-", "")
    curves = _curves(rows, name, key)
    strip = _strip(pictures.get("strip"))
    return {
        "name": name,
        "anchor": anchor,
        "caption": _caption(facts),
        "description": str(facts.get("description") or ""),
        **curves,
        "inner": _inner(rows, name, key),
        "heads": _heads(pictures.get("lambda_heads"), name, key),
        "growth": _growth(pictures.get("update_norm"), name, key),
        "ranks": _growth(pictures.get("effective_rank"), name, f"{key}rank", "Effective rank"),
        "norms": by_variant(
            [row for row in rows if row.get("layer") is None], [name], ("update_norm", "effective_rank")
        ),
        "strip": strip,
        "lang": words.language(" ".join([str(facts.get("labels")), str(pictures.get("strip"))])),
        "orders": _orders(pictures.get("orders") or [], name, key),
        "template": facts.get("template"),
    }


def _caption(facts: Row) -> str:
    labels, shots, queries = facts.get("labels") or [], facts.get("shots"), facts.get("queries")
    parts = [
        f"{words.count(shots)} demonstrations" if isinstance(shots, int) else "",
        f"{words.count(queries)} queries" if isinstance(queries, int) else "",
        f"{len(labels)} labels: {words.listed(labels, 12)}" if labels else "",
    ]
    return "; ".join(part for part in parts if part)


def _curves(rows: Sequence[Row], name: str, key: str) -> dict[str, Any]:
    """Panels over layers: of each measure the one nearest to the published variant and the one nearest to the corrected,
    and ``more`` measured otherwise."""
    first: list[dict[str, Any]] = []
    more: list[dict[str, Any]] = []
    seen: set[str] = set()
    for measure in (*SIMILARITIES, "example_kendall", "top_k_recall"):
        lines = layered(rows, measure)
        mains = [(far, v) for v in lines if (far := distance(v, AS_PUBLISHED)) is not None]
        corrected = min((v for _, v in mains), key=lambda v: _otherwise(v, CORRECTED), default=None)
        for place, (_, variant) in enumerate(sorted(mains, key=lambda one: one[0])):
            beside = _rivals(lines, variant)
            figure = svg(
                explain_plots.over_layers(lines[variant], named(measure), beside),
                key=f"{key}{measure.replace('_', '')}{place}",
                title=f"{named(measure)} by layer, {name}" + (f" ({how(variant)})" if how(variant) else ""),
                description=_told(lines[variant]),
            )
            kept = place == 0 or variant == corrected
            (first if kept else more).append({"figure": figure, "how": how(variant)})
            seen |= set(beside) if kept or len(more) <= _MORE else set()
    return {
        "curves": first,
        "more_curves": more[:_MORE],
        "left_out": max(0, len(more) - _MORE),
        "rivals": [(RIVAL_NAMES[rival], *stroke(rival)) for rival in RIVAL_NAMES if rival in seen],
    }


def _otherwise(variant: str, want: Mapping[str, str]) -> float:
    far = distance(variant, want)
    return math.inf if far is None else float(far)


def stroke(rival: str) -> tuple[str, str, str]:
    """Colour, dashes and mark of a line, as the key of the page draws them."""
    role, dashes, marker = explain_plots.RIVALS[rival]
    return role, " ".join(f"{2 * dash:g}" for dash in dashes), _GLYPHS[marker]


def layered(rows: Sequence[Row], measure: str) -> dict[str, list[Row]]:
    """The rows of each layer by variant, of variants with a value somewhere."""
    found: dict[str, list[Row]] = {}
    for row in of_one_seed([r for r in rows if r.get("measure") == measure and r.get("layer") is not None]):
        found.setdefault(row.get("variant") or "", []).append(row)
    return {variant: own for variant, own in found.items() if any(row.get("value") is not None for row in own)}


def _rivals(lines: Mapping[str, list[Row]], variant: str) -> dict[str, list[Row]]:
    """Lines measured in the same way of something else, by what else it is."""
    own = facets(variant)
    found = {}
    for other, rows in lines.items():
        theirs = facets(other)
        apart = [
            facet
            for facet in {**own, **theirs}
            if theirs.get(facet, AS_PUBLISHED.get(facet)) != own.get(facet, AS_PUBLISHED.get(facet))
        ]
        if len(apart) == 1 and theirs.get(apart[0]) in RIVAL_NAMES:
            found[theirs[apart[0]]] = rows
    return {rival: found[rival] for rival in RIVAL_NAMES if rival in found}


def _told(rows: Sequence[Row]) -> str:
    return "; ".join(
        f"layer {row['layer']}: {number(row, row.get('value'))}"
        + (f" (null {number(row, row['null'])})" if row.get("null") is not None else "")
        for row in sorted(rows, key=lambda row: row["layer"])
    )


def _inner(rows: Sequence[Row], name: str, key: str) -> list[Markup]:
    """Panels of the split, of the relaxed form, of the rank and of the angles, by layer."""
    figures = []
    for measure in _INNER:
        for place, (variant, own, beside) in enumerate(_by_pass(layered(rows, measure))):
            title = named(measure) + (f": {variant}" if variant and not beside else "")
            said = [_told(own), *(f"{word}: {_told(other)}" for word, other in beside.items())]
            figures.append(
                svg(
                    explain_plots.over_layers(own, title, beside),
                    key=f"{key}{measure.replace('_', '')}{place}",
                    title=f"{title} by layer, {name}",
                    description=". ".join(said),
                )
            )
    same, different = layered(rows, "angle_same"), layered(rows, "angle_different")
    for place, variant in enumerate([*same, *(v for v in different if v not in same)]):
        own, other = same.get(variant, []), different.get(variant, [])
        title = "angles of meta-gradients" + (f": {variant}" if variant else "")
        unit = next((row["unit"] for row in own or other if row.get("unit")), "")
        figure = explain_plots.over_layers(own or other, title, {"different": other} if own and other else {})
        text = f"same label: {_told(own)}. Different labels: {_told(other)}."
        what = f"Meta-gradients of the same label and of different ones{f', {unit}' if unit else ''}, {name}"
        figures.append(svg(figure, key=f"{key}angles{place}", title=what, description=text))
    return figures


def _by_pass(lines: Mapping[str, list[Row]]) -> list[tuple[str, list[Row], dict[str, list[Row]]]]:
    """Variants with their rows, and beside them those that differ in the pass of the query text alone."""
    found = []
    for variant, own in lines.items():
        here, there = (variant.replace(_PASSES[i], _PASSES[1 - i]) for i in (1, 0))
        if here == variant or here not in lines:
            found.append((variant, own, {_PASSES[1]: lines[there]} if there != variant and there in lines else {}))
    return found


def _heads(heads: Sequence[Sequence[Any]] | None, name: str, key: str) -> Markup | None:
    if not heads or not any(heads):
        return None
    known = [value for row in heads for value in row if value is not None]
    text = f"{len(heads)} layers by {max(map(len, heads))} heads"
    if known:
        text += f", from {words.decimals(min(known))} to {words.decimals(max(known))}"
    title = f"λ of every head, {name}"
    return svg(explain_plots.head_map(heads), key=f"{key}heads", title=title, description=text)


def _growth(found: Row | None, name: str, key: str, what: str = "Norm") -> Markup | None:
    """Norms, or ranks, as demonstrations are added."""
    sizes, layers = (found or {}).get("x") or [], (found or {}).get("layers") or []
    if not sizes or not any(layers):
        return None
    told = "; ".join(
        f"layer {i}: {words.decimals(values[0], 2)} to {words.decimals(values[-1], 2)}"
        for i, values in enumerate(layers)
        if values
    )
    figure = explain_plots.growth(sizes, layers)
    return svg(figure, key=f"{key}growth", title=f"{what} of ΔW as demonstrations are added, {name}", description=told)


def _strip(strip: Row | None) -> dict[str, Any] | None:
    """The prompt of one query, each demonstration with what it did; None where the record holds none."""
    shown = (strip or {}).get("demonstrations") or []
    if strip is None or not shown:
        return None
    # What is no change of the answer says neither helped nor hurt.
    changes = [effect for effect in EFFECTS if effect not in NO_CHANGE]
    main = next((effect for effect in changes if any(one.get(effect) is not None for one in shown)), None)
    values = [one.get(main) for one in shown] if main else [None] * len(shown)
    most = max((abs(value) for value in values if value is not None), default=0.0) or 1.0
    others = [effect for effect in EFFECTS if effect != main and any(one.get(effect) is not None for one in shown)]
    return {
        "query": strip.get("query") or "",
        "gold": strip.get("gold"),
        "main": EFFECTS[main] if main else "",
        "boxes": [
            {
                "place": place,
                "text": str(one.get("text") or ""),
                "label": one.get("label"),
                **_effect(value, most, one.get("shapley_error") if main == "shapley" else None),
                "others": [(EFFECTS[effect], _beside(effect, one.get(effect))) for effect in others],
            }
            for place, (one, value) in enumerate(zip(shown, values, strict=True), 1)
        ],
    }


def _effect(value: Any, most: words.Number, error: Any) -> dict[str, Any]:
    """The mark, the number and the strength of the tint; what is undefined has no tint."""
    kind = "none" if value is None else "helps" if value > 0 else "hurts" if value < 0 else "nothing"
    return {
        "kind": kind,
        "mark": {"helps": "▲", "hurts": "▼", "nothing": "=", "none": ""}[kind],
        "value": signed(value),
        "error": words.decimals(error) if error is not None and value is not None else "",
        "tint": 0 if value is None else round(8 + 42 * abs(value) / most) if value else 0,
    }


def _beside(effect: str, value: Any) -> str:
    return words.decimals(value) if effect == "attention_mass" else signed(value)


def signed(value: Any) -> str:
    """A number that always has its sign.

    >>> signed(0.25), signed(-0.5), signed(None)
    ('+0.250', '−0.500', '—')
    """
    return ("+" if value is not None and value > 0 else "") + words.decimals(value)


def _orders(rows: Sequence[Row], name: str, key: str) -> dict[str, Any] | None:
    """Dot plots of accuracy and of the gold label's log-probability, and the first and last orders in words."""
    if not rows:
        return None
    size = max((len(row.get("order") or ()) for row in rows), default=0)
    shown = next((list(row["order"]) for row in rows if list(row.get("order") or ()) == list(range(size))), None)
    figures, said = [], []
    for place, (field, label) in enumerate(
        (("accuracy", "accuracy"), ("gold_logprob", "log-probability of the gold label, nats"))
    ):
        known = sorted((row for row in rows if row.get(field) is not None), key=lambda row: row[field])
        if not known:
            continue
        own = next((row for row in known if shown is not None and list(row["order"]) == shown), None)
        text = f"{len(known)} orders, from {words.decimals(known[0][field])} to {words.decimals(known[-1][field])}"
        text += f"; as shown {words.decimals(own[field])}" if own else ""
        figure = explain_plots.orders(known, field, label, shown)
        figures.append(svg(figure, key=f"{key}order{place}", title=f"{label}, {name}", description=text))
        said.append(f"{label.capitalize()}: {text}")
        if field == "accuracy" and len(known) > 1 and size <= 16:
            said.append(f"Worst order {_order(known[0])}; best order {_order(known[-1])}")
    return {"figures": figures, "said": said, "shown": shown is not None} if figures else None


def _order(row: Row) -> str:
    return " ".join(str(place + 1) for place in row.get("order") or ())
