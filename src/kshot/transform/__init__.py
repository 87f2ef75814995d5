"""What is done to a task to see what a model takes from its demonstrations: transforms of token sequences."""

from collections.abc import Mapping

from kshot.transform.inputs import inputs_only, label_as_input, labels_only, out_of_domain, prompt_altered
from kshot.transform.mapping import constant_label, labels_as_often, permuted_labels, random_labels, right_share
from kshot.transform.responses import random_words, related, response_altered, synonyms
from kshot.transform.thesaurus import ORDERS
from kshot.transform.transform import IDENTITY, Transform

TRANSFORMS: Mapping[str, Transform] = {
    "original": IDENTITY,
    "response-altered": response_altered(),
    "response-altered-unscreened": response_altered(screened=False),
    "prompt-altered": prompt_altered(),
    "prompt-altered-layout-kept": prompt_altered(protected="layout"),
    **{f"prompt-altered-{share}": prompt_altered(share / 100) for share in (10, 25, 50, 75)},
    "memory-random": label_as_input().then(response_altered()),
    "memory-synonym": label_as_input().then(related("synonym")),
    "memory-antonym": label_as_input().then(related("antonym")),
    "memory-keyword": label_as_input().then(related("keyword")),
    **{f"synonym-order-{order}": synonyms(order) for order in range(1, ORDERS + 1)},
    "random-labels": random_labels(),
    **{f"right-{share}": right_share(share / 100) for share in (0, 25, 50, 75)},
    "true-distribution": labels_as_often(),
    "permuted-labels": permuted_labels(),
    "constant-label": constant_label(),
    "random-english-words": random_words(),
    "out-of-domain": out_of_domain(),
    "labels-only": labels_only(),
    "inputs-only": inputs_only(),
}
"""Every transform by its name."""
