"""Published layouts, each against one example written out by hand; the texts are made up."""

import os
from pathlib import Path

import pytest

from kshot.data.files import file_task
from kshot.data.published import DAI_2023, published
from kshot.data.task import Example, Task
from kshot.errors import DataError

NEWS = "Classify the news articles into the categories of World, Sports, Business, and Technology."
TEXT = {"text": "the lake froze early ."}
PAIR = {"premise": "The lake froze early.", "hypothesis": "the lake was frozen"}

# task, label, example with its answer as in the paper, as in the released code
WRITTEN = [
    ("sst2", "negative", "Sentence: the lake froze early .\nLabel: Negative", "Sentence: the lake froze early . Label: Negative"),
    ("sst2", "positive", "Sentence: the lake froze early .\nLabel: Positive", "Sentence: the lake froze early . Label: Positive"),
    ("sst5", "very negative", "Sentence: the lake froze early .\nLabel: terrible", "Sentence: the lake froze early . Label: terrible"),
    ("sst5", "negative", "Sentence: the lake froze early .\nLabel: bad", "Sentence: the lake froze early . Label: bad"),
    ("sst5", "neutral", "Sentence: the lake froze early .\nLabel: neutral", "Sentence: the lake froze early . Label: neutral"),
    ("sst5", "positive", "Sentence: the lake froze early .\nLabel: good", "Sentence: the lake froze early . Label: good"),
    ("sst5", "very positive", "Sentence: the lake froze early .\nLabel: great", "Sentence: the lake froze early . Label: great"),
    ("mr", "negative", "Review: the lake froze early .\nSentiment: Negative", "Review: the lake froze early . Sentiment: Negative"),
    ("mr", "positive", "Review: the lake froze early .\nSentiment: Positive", "Review: the lake froze early . Sentiment: Positive"),
    ("subj", "objective", "Input: the lake froze early .\nType: objective", "Input: the lake froze early . Type: objective"),
    ("subj", "subjective", "Input: the lake froze early .\nType: subjective", "Input: the lake froze early . Type: subjective"),
    ("agnews", "World", f"{NEWS}\nNews: the lake froze early .\nType: World", f"{NEWS} Article: the lake froze early . Answer: World"),
    ("agnews", "Sports", f"{NEWS}\nNews: the lake froze early .\nType: Sports", f"{NEWS} Article: the lake froze early . Answer: Sports"),
    ("agnews", "Business", f"{NEWS}\nNews: the lake froze early .\nType: Business", f"{NEWS} Article: the lake froze early . Answer: Business"),
    ("agnews", "Sci/Tech", f"{NEWS}\nNews: the lake froze early .\nType: Technology", f"{NEWS} Article: the lake froze early . Answer: Technology"),
    ("cb", "entailment", "The lake froze early.\nQuestion: the lake was frozen True, False, or Neither?\nAnswer: True",
        "The lake froze early. Question: the lake was frozen. True, False, or Neither? Answer: True"),
    ("cb", "contradiction", "The lake froze early.\nQuestion: the lake was frozen True, False, or Neither?\nAnswer: False",
        "The lake froze early. Question: the lake was frozen. True, False, or Neither? Answer: False"),
    ("cb", "neutral", "The lake froze early.\nQuestion: the lake was frozen True, False, or Neither?\nAnswer: Neither",
        "The lake froze early. Question: the lake was frozen. True, False, or Neither? Answer: Neither"),
]  # fmt: skip


def made(name: str, labels: tuple[str, ...]) -> Task:
    example = Example(id="1", fields=PAIR if name == "cb" else TEXT, label=labels[0] if labels else None)
    template = DAI_2023["sst2"].template
    return Task(name=name, kind="classification", labels=labels, train=(example,), test=(example,), template=template)


@pytest.mark.parametrize(("name", "label", "paper", "code"), WRITTEN)
def test_an_example_with_its_answer(name: str, label: str, paper: str, code: str) -> None:
    found, fields = DAI_2023[name], PAIR if name == "cb" else TEXT
    assert found.template.demonstration(fields, label) == paper
    assert found.one_line.demonstration(fields, label) == code
    assert "\n" not in found.one_line.input


def test_every_label_of_every_task_is_written_out_above() -> None:
    assert {(name, label) for name, label, _, _ in WRITTEN} == {
        (name, label) for name, one in DAI_2023.items() for label in one.template.words
    }


def test_demonstrations_stand_one_after_the_other() -> None:
    mr = DAI_2023["mr"].template
    shown = [mr.demonstration({"text": "dull ."}, "negative"), mr.demonstration({"text": "a joy ."}, "positive")]
    assert mr.preamble(shown) + mr.render({"text": "warm ."}) == (
        "Review: dull .\nSentiment: Negative\nReview: a joy .\nSentiment: Positive\nReview: warm .\nSentiment:"
    )


def test_numbers_of_demonstrations() -> None:
    assert {name: one.shots for name, one in DAI_2023.items()} == {
        "sst2": 32,
        "sst5": 32,
        "mr": 32,
        "subj": 32,
        "agnews": 22,
        "cb": 19,
    }


@pytest.mark.parametrize("name", DAI_2023)
def test_the_order_of_the_labels_does_not_matter(name: str) -> None:
    labels = tuple(sorted(DAI_2023[name].template.words))
    assert published(made(name, labels)) is DAI_2023[name]
    assert published(made(name, labels[::-1])) is DAI_2023[name]


def test_a_task_that_was_not_published() -> None:
    with pytest.raises(DataError) as caught:
        published(made("capitals", ("a", "b")))
    assert str(caught.value) == (
        "task 'capitals' is none that Dai et al. 2023 published a layout of; those are agnews, cb, mr, sst2, sst5, subj"
    )


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (("0", "1"), "'0', '1'"),
        (("negative", "neutral", "positive"), "'negative', 'neutral', 'positive'"),
        (("negative",), "'negative'"),
        ((), "none"),
    ],
)
def test_other_labels(labels: tuple[str, ...], words: str) -> None:
    with pytest.raises(DataError) as caught:
        published(made("mr", labels))
    assert str(caught.value) == (
        f"task 'mr' has the labels {words}, and the published layout puts 'negative', 'positive'; rename the labels "
        "(known tasks: agnews, cb, mr, sst2, sst5, subj)"
    )


@pytest.mark.shared_data
@pytest.mark.parametrize("name", DAI_2023)
def test_the_data_sets_fit(name: str) -> None:
    root = os.environ.get("KSHOT_TEST_DATA")
    if not root or not (Path(root) / name).is_dir():
        pytest.skip("KSHOT_TEST_DATA does not name the folder that holds sst2 and the like")
    folder = Path(root) / name
    layout = DAI_2023[name].template
    task = file_task(folder / "train.jsonl", test_path=folder / "test.jsonl", template=layout)
    assert published(task).template == layout
    assert all(published(task).one_line.render(example.fields) for example in task.test[:20])
