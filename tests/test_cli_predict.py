"""``kshot predict``: lines in, JSON lines out, and what becomes of lines that cannot be answered."""

import io
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest

from kshot.adapt.prompting import InContext
from kshot.cli import status
from kshot.data.task import Example, Task
from kshot.data.template import Template
from kshot.model import tiny
from kshot.model.adapted import load_adapted
from kshot.model.load import load_model

TEMPLATE = Template(input="T: {{text}}\nL:")
POOL = tuple(Example(id=str(i), fields={"text": f"text {i}"}, label="xy"[i % 2]) for i in range(4))
TASK = Task(name="t", kind="classification", labels=("x", "y"), train=POOL, test=POOL[:1], template=TEMPLATE)


@pytest.fixture(scope="module")
def artefact(tiny_model_dir, tmp_path_factory):
    lm = load_model(str(tiny_model_dir), dtype="float32", device="cpu")
    return InContext(shots=2).fit(lm, TASK, POOL, 0).save(tmp_path_factory.mktemp("artefacts") / "a", compiled=True)


@pytest.fixture(scope="module")
def expected(artefact, tiny_model_dir):
    adapted = load_adapted(load_model(str(tiny_model_dir), dtype="float32", device="cpu"), artefact)
    return lambda *texts: [
        {"label": p.label, "probability": p.probability, "logprobs": dict(p.logprobs)} for p in adapted.predict(texts)
    ]


@pytest.fixture
def predict(artefact, capsys, monkeypatch):
    """predict(data, *words): the exit status, the records, and what stands on standard error."""

    def run(data=None, *words):
        if data is not None:
            monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
        code = status(["predict", str(artefact), *words, "--dtype", "float32", "--device", "cpu"])
        out, err = capsys.readouterr()
        return code, [json.loads(line) for line in out.splitlines()], err

    return run


def without_line(records):
    return [{k: v for k, v in record.items() if k not in ("line", "id")} for record in records]


def test_lines_of_text_and_of_json(predict, expected):
    code, records, err = predict('a film\n\n  \n{"text": "a fílm", "id": 7}\r\n[1]\n{ no json\nlast'.encode())
    assert (code, err) == (0, "")
    assert [r["line"] for r in records] == [1, 4, 5, 6, 7]
    assert records[1]["id"] == 7
    for record, own in zip(
        without_line(records), expected("a film", "a fílm", "[1]", "{ no json", "last"), strict=True
    ):
        assert record["label"] == own["label"]
        assert record["logprobs"] == pytest.approx(own["logprobs"], abs=1e-4)
        assert record["probability"] == pytest.approx(own["probability"], abs=1e-4)


def test_a_hyphen_is_standard_input(predict, expected):
    code, records, err = predict(b"a film\n", "-")
    assert (code, err) == (0, "")
    assert without_line(records) == expected("a film")


def test_nothing_in_nothing_out(predict):
    assert predict(b"") == (0, [], "")
    assert predict(b"\xef\xbb\xbf\n \n") == (0, [], "")


def test_a_bad_line_is_answered_in_its_place(predict):
    code, records, err = predict(b'good\n\xff\xfe\n{"words": "a"}\n' + b"x" * 5000 + b"\nfine\n")
    assert code == 2
    assert [("error" in r) for r in records] == [False, True, True, True, False]
    assert records[1] == {"line": 2, "error": "is not UTF-8: byte 0xff at 1"}
    assert records[2] == {"line": 3, "error": "the template reads the field 'text', and this has words"}
    assert "tokens with its prompt, and" in records[3]["error"]
    assert err == "kshot: 3 of 5 lines could not be answered; each says why in its place\n"


def test_files(predict, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\nno\n[2]\n')
    code, records, _ = predict(None, str(tmp_path / "a.jsonl"))
    assert code == 2
    assert [r.get("label") is None for r in records] == [False, True, True]
    assert records[1]["error"].startswith("is not JSON: ")
    assert records[2]["error"] == "is JSON and no object; give {field: value}"
    (tmp_path / "a.csv").write_text('id,text\n1,"two\nlines"\n\n2\n3,c\n')
    code, records, _ = predict(None, str(tmp_path / "a.csv"))
    assert code == 2
    assert [(r["line"], r.get("id"), r.get("error")) for r in records] == [
        (3, "1", None),
        (5, None, "has 1 cells, and the header names 2"),
        (6, "3", None),
    ]
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    code, records, err = predict(None, str(tmp_path / "a.txt"))
    assert (code, len(records), err) == (0, 2, "")


def test_many_lines_keep_their_order(predict, expected):
    texts = [f"number {n}" for n in range(150)]
    _, records, _ = predict("\n".join(texts).encode())
    assert [r["line"] for r in records] == list(range(1, 151))
    assert [r["label"] for r in records] == [own["label"] for own in expected(*texts)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{artefact}", "nothing.txt"], "kshot: 'nothing.txt' cannot be read: No such file or directory"),
        (["{artefact}", "{tmp}"], "cannot be read: Is a directory"),
        (["{tmp}/none"], "none': there is no such folder"),
        (["{tmp}"], "is no artefact: it holds neither kshot.json nor adapter_config.json (found nothing)"),
        (["{artefact}", "--model", "nothing-3"], "unknown model 'nothing-3'"),
        (["{artefact}", "--model", "{other}"], "was taught to the model"),
        (["{artefact}", "--dtype", "float3"], "float3"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(words, said, artefact, tmp_path, capsys, tmp_path_factory):
    other = tiny.save_tiny(tmp_path_factory.mktemp("other"), seed=1) if "{other}" in words else None
    code = status(["predict", *(w.format(artefact=artefact, tmp=tmp_path, other=other) for w in words)])
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_an_adapter_of_peft_is_pointed_elsewhere(tmp_path, capsys):
    (tmp_path / "adapter_config.json").write_text("{}")
    assert status(["predict", str(tmp_path)]) == 2
    assert "open it with kshot.load_adapted(lm, folder, template=..., labels=...)" in capsys.readouterr().err


def test_a_model_that_is_gone_is_asked_for(artefact, tmp_path, capsys):
    adapted = load_adapted(load_model(json.loads((artefact / "kshot.json").read_text())["model"]["name"]), artefact)
    moved = replace(adapted, lm=replace(adapted.lm, name=str(tmp_path / "gone")))
    assert status(["predict", str(moved.save(tmp_path / "b"))]) == 2
    assert "there is no such folder; --model says where that is" in capsys.readouterr().err


def test_a_slow_pipe_gets_its_answers_at_once_and_stops_quietly(artefact):
    words = [sys.executable, "-m", "kshot", "predict", str(artefact), "--device", "cpu"]
    pipe = subprocess.PIPE
    # Whoever starts the tests in the background has interrupts ignored in all that they start.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, env=one_thread, preexec_fn=heed) as run:
        for number, text in enumerate([b"one\n", b"two\n"], 1):
            run.stdin.write(text)
            run.stdin.flush()
            assert json.loads(run.stdout.readline())["line"] == number
        run.send_signal(signal.SIGINT)
        assert run.wait(timeout=60) == 130
        assert run.stderr.read() == b""


def test_who_has_read_enough_may_close_the_pipe(artefact, tmp_path):
    (tmp_path / "many.txt").write_text("line\n" * 3000)
    command = f"{sys.executable} -m kshot predict {artefact} {tmp_path}/many.txt --device cpu"
    script = f"set -o pipefail; {command} | head -1"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout.count("\n"), done.stderr) == (0, 1, "")
