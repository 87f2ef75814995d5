"""Learn a task from a dozen examples, keep what was learned as a folder, and ask it.

    python examples/teach_and_serve.py [MODEL]

The prefix begins as its examples in the prompt, so before the first step it is in-context learning; a part of the
examples says whether training makes it better. A model reads the folder back without any of the examples.
"""

import sys
import tempfile

import kshot

TEXTS = {
    "question": ["Where is the key?", "Who wrote this?", "Is it raining?", "When do we eat?", "Why is it blue?", "Can I go?"],
    "statement": ["It is raining.", "The key is here.", "We eat at six.", "He left early.", "The sky is blue.", "I can go."],
}  # fmt: skip


def main(model: str) -> None:
    lm = kshot.load_model(model)
    examples = tuple(
        kshot.Example(id=text, fields={"text": text}, label=label) for label, texts in TEXTS.items() for text in texts
    )
    task = kshot.Task(
        name="sentences",
        kind="classification",
        labels=tuple(TEXTS),
        train=examples,
        test=(),
        template=kshot.Template(input="{{text}} This is a"),
    )
    course = kshot.Course(budget="20steps", grid=(3e-4, 3e-3))
    adapted = kshot.PrefixTuning(shots=12, course=course).fit(lm, task, examples, seed=0)
    training = adapted.training
    assert training is not None, "a prefix is trained"
    print(f"{training.validation}; learning rate {training.chosen['learning_rate']:g}, {training.steps} steps")
    print(f"loss before the first step: {training.start:.3f} nats per token")
    with tempfile.TemporaryDirectory() as folder:
        adapted.save(f"{folder}/sentences", compiled=True)
        served = kshot.load_adapted(lm, f"{folder}/sentences")
        for text, said in zip(asked := ["What is that?", "That is a lamp."], served.predict(asked), strict=True):
            print(f"{text:<16} {said.label} ({said.probability:.2f})")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "smollm2-135m")
