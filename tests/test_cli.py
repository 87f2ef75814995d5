"""The command line: a real run on the small model, its options, its exit statuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kshot import cli, cli_list
from kshot.errors import KshotError


@pytest.fixture
def films(tmp_path: Path) -> Path:
    path = tmp_path / "films.jsonl"
    lines = [
        {"text": f"film {i} was {'a joy' if i % 2 else 'a bore'}", "label": "good" if i % 2 else "bad"}
        for i in range(24)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def _words(films: Path, model: Path, *more: str) -> list[str]:
    return [
        "run",
        str(films),
        "--model",
        str(model),
        "--dtype",
        "float32",
        "--num_fewshot",
        "0,2",
        "--seed",
        "0",
        "--orders",
        "2",
        *more,
    ]


def test_a_run_end_to_end(
    films: Path, tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert cli.status(_words(films, tiny_model_dir, "--output_path", str(out), "--log_samples")) == 0
    said = capsys.readouterr()
    assert said.err == ""
    for part in ("films", "zero-shot@0", "in-context@2", "report.html"):
        assert part in said.out
    assert sorted(path.name for path in out.iterdir()) == [
        "artefacts",
        "records.jsonl",
        "report.html",
        "results.json",
        "run.json",
        "samples.jsonl",
    ]
    ours = json.loads((out / "results.json").read_text(encoding="utf-8"))["kshot"]
    assert ours["argv"] == ["kshot", *_spelt(_words(films, tiny_model_dir)), "--output-path", str(out)]
    # the command it names asks the same question: nothing is left to do
    before = (out / "records.jsonl").read_bytes()
    assert cli.status(ours["argv"][1:]) == 0
    assert (out / "records.jsonl").read_bytes() == before


def _spelt(words: list[str]) -> list[str]:
    """In the order of the settings."""
    _, task, _, model, _, dtype, _, shots, _, seed, _, orders = words
    return ["run", task, "--model", model, "--num-fewshot", shots, "--seed", seed, "--orders", orders, "--dtype", dtype]


def test_json_is_all_that_stands_on_stdout(
    films: Path, tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert cli.status(_words(films, tiny_model_dir, "--output-path", str(out), "--json")) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out == (out / "results.json").read_text(encoding="utf-8")
    assert json.loads(said.out)["results"]["films"]["alias"] == "films"


def test_without_a_folder_the_records_lie_in_one_of_their_own(
    films: Path,
    tiny_model_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert cli.status(_words(films, tiny_model_dir)) == 0
    (folder,) = (tmp_path / "kshot-results").iterdir()
    assert folder.name.startswith("films-tiny-")
    assert cli.status(_words(films, tiny_model_dir, "--limit", "3")) == 0
    assert len(list((tmp_path / "kshot-results").iterdir())) == 2
    capsys.readouterr()
    assert cli.status(["report", str(folder)]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "report.html")


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_run_of_which_nothing_came_says_why_and_is_no_success(
    more: list[str], films: Path, tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = _words(films, tiny_model_dir, "--methods", "lora:targets=foo", "--output-path", str(tmp_path / "out"))
    assert cli.status([*words, *more]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("kshot: nothing came to a result: lora@2: unknown target module 'foo'")
    if more:
        assert json.loads(said.out)["kshot"]["cells"][0]["failed"]
    else:
        assert "Note: films, lora@2: unknown target module 'foo'" in said.out


def test_a_config_file_mirrors_the_options_and_the_command_line_wins(
    films: Path, tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        f"tasks: {films}\nmodel: {tiny_model_dir}\ndtype: float32\nnum_fewshot: [0, 2]\nseed: 0\norders: 1\nlimit: 5\nlog-samples: false\n"
    )
    out = tmp_path / "out"
    assert cli.status(["run", "--config", str(config), "--limit", "4", "--output-path", str(out)]) == 0
    capsys.readouterr()
    settings = json.loads((out / "results.json").read_text(encoding="utf-8"))["kshot"]["settings"]
    assert (settings["limit"], settings["num_fewshot"], settings["orders"]) == (4, [0, 2], 1)
    assert (settings["log_samples"], settings["tasks"]) == (False, [str(films)])


def test_a_template_from_a_file_and_from_the_command_line(
    films: Path, tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "template.yaml"
    file.write_text("input: 'Q: {{text}}'\nwords: {good: 'yes', bad: 'no'}\nseparator: \"\\n\"\n")
    for given, layout in ((str(file), "Q: {{text}}"), ("<{{text}}>", "<{{text}}>")):
        out = tmp_path / f"out{len(layout)}"
        assert cli.status(_words(films, tiny_model_dir, "--template", given, "--output-path", str(out))) == 0
        task = json.loads((out / "results.json").read_text(encoding="utf-8"))["kshot"]["tasks"]["films"]
        assert task["template"]["input"] == layout
        assert task["template"]["words"] == ({"good": "yes", "bad": "no"} if given == str(file) else {})
    capsys.readouterr()


@pytest.mark.parametrize("kind", ["tasks", "methods", "models", "measures"])
def test_lists_name_everything_there_is(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.status(["list", kind]) == 0
    known = {"tasks": "plurals", "methods": "in-context", "models": "smollm2-135m", "measures": "accuracy"}
    lines = capsys.readouterr().out.splitlines()
    assert known[kind] in [line.split()[0] for line in lines]
    assert all(len(line.split(None, 1)) == 2 for line in lines)


def test_a_report_of_a_file_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.status(["report", __file__]) == 2
    assert ": that is a file; give the folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "usage"),
    [
        ("run", "kshot run [OPTIONS] [TASK...]"),
        ("evaluate-lm", "kshot evaluate-lm [OPTIONS] MODEL TEXT..."),
        ("predict", "kshot predict [OPTIONS] ARTEFACT [FILE]"),
    ],
)
def test_usage_calls_things_as_help_does(command: str, usage: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.status([command, "--help"]) == 0
    assert usage in capsys.readouterr().out


def test_no_two_parts_are_told_alike(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.status(["list", "parts"]) == 0
    about = [line.split(None, 1)[1] for line in capsys.readouterr().out.splitlines()]
    assert len(set(about)) == len(about)
    assert cli.status(["list", "methods"]) == 0
    assert "``" not in capsys.readouterr().out


def test_the_help_of_list_names_every_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.status(["list", "--help"]) == 0
    said = capsys.readouterr().out.split("Arguments")[1]
    assert all(kind in said for kind in cli_list.KINDS)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["run", "--nm-fewshot", "3"],
            "kshot: Unknown option: --nm-fewshot. Did you mean --num-fewshot? (see: kshot run --help)",
        ),
        (
            ["rn"],
            "kshot: unknown command 'rn'; did you mean 'run'? known: evaluate-lm, explain, generate, hypotheses, list, "
            "predict, pretrain, report, run, synth",
        ),
        (
            ["run", "--num-fewshot", "0,x"],
            "kshot: --num-fewshot 0,x: what works is whole numbers with commas, as 0,4,16",
        ),
        (["run", "--num-fewshot", "-1,4"], "kshot: --num-fewshot -1: what works is a whole number from 0 to 100000"),
        (["run", "--seed=-1"], "kshot: --seed -1: what works is a whole number from 0"),
        (["run", "--limit", "-5"], "kshot: --limit -5: what works is a whole number from 1 to 100000000, or all"),
        (["run", "--limit", "few"], "kshot: --limit few: what works is a whole number, or all"),
        (["run", "--limit", "2.9"], "kshot: --limit 2.9: what works is a whole number, or all"),
        (["run", "--limit", "0x3"], "kshot: --limit 0x3: what works is a whole number, or all"),
        (["run", "--orders", "2.6"], "kshot: --orders 2.6: what works is a whole number"),
        (["explain", "--num-fewshot", "2.6"], "kshot: --num-fewshot 2.6: what works is a whole number"),
        (["run", "--noise", "-0.5"], "kshot: --noise -0.5: what works is a share from 0 to 1"),
        (["run", "plurals", "--budget", "-5steps"], "kshot: budget '-5steps': what works is a number of steps"),
        (["run", "plurals", "--budget", "foo"], "kshot: budget 'foo': what works is a number of steps"),
        (["run", "b\udcffd.csv"], "kshot: 'b\\udcffd.csv' is not UTF-8; what works is a name or a text in UTF-8"),
        (["run", ""], "kshot: a TASK is an empty text"),
        (["run", "--output-path", ""], "kshot: --output-path is an empty text"),
        (["predict", ""], "kshot: ARTEFACT is an empty text"),
        (["predict", "a", "--model", ""], "kshot: --model is an empty text"),
        (["report", ""], "kshot: DIRECTORY is an empty text"),
        (["run", "--orders", "0"], "kshot: --orders 0: what works is a whole number from 1 to 1000"),
        (["run", "--dtype", "float23"], 'kshot: Invalid value "float23" for --dtype. Choose from:'),
        (["run", "--model"], 'kshot: Command "run" parameter --model requires an argument.'),
        (
            ["list", "task"],
            "kshot: unknown kind of name 'task'; did you mean 'tasks'? known: experiments, measures, methods, models, parts, tasks",
        ),
        (
            ["run", "--model_args", "pretrained=a"],
            "kshot: --model-args is an option of lm-eval; what works here is --model",
        ),
        (["run", "--batch_size=8"], "kshot: --batch-size is an option of lm-eval; what works here is to leave it out"),
        (
            ["run", "--apply_chat_template"],
            "kshot: --apply-chat-template is an option of lm-eval; what works here is a",
        ),
        (["run", "--limit", "0.1"], "kshot: --limit 0.1: what works is a whole number, or all"),
        (["generate", "m", "--config", "c.yaml"], "kshot: kshot generate has no --config; give its options one by one"),
        (["list"], "kshot: list needs a kind of name: one of tasks, methods, models"),
        (["report", "nowhere"], "kshot: cannot read the records of 'nowhere': there is no results.json"),
    ],
)
def test_a_wrong_word_is_one_line_and_status_2(words: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.status(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err.startswith(line)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "nm-fewshot: 3",
            "config.yaml': 'nm-fewshot'; did you mean 'num-fewshot'? known: budget, device, draws, dtype",
        ),
        ("- 3", "must be a mapping of options to values"),
        ("a: [", "cannot be read as YAML"),
        ("limit: -3", "--limit -3: what works is"),
        ("limit: 2.5", "--limit 2.5: what works is a whole number, or all"),
        ("limit: 0x10", "--limit 0x10: what works is a whole number, or all"),
        ("save: maybe", "config.yaml': save: 'maybe': what works is true or false"),
        (
            "tasks: yes",
            "config.yaml': tasks: True: what works is text (in quotes, where YAML reads something else), or a list",
        ),
        ("tasks: [a, {b: 5}]", "config.yaml': tasks: ['a', {'b': '5'}]: what works is text"),
        ("tasks: [5]", "unknown task '5'"),
        ("dtype: true", "config.yaml': dtype: True: what works is text"),
        ("orders: [1]", "config.yaml': orders: ['1']: what works is a number"),
        ("seed: {a: 1}", "config.yaml': seed: {'a': '1'}: what works is a number, or a list of such"),
    ],
)
def test_a_config_that_is_wrong_is_refused(
    text: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(text)
    assert cli.status(["run", f"--config={config}"]) == 2
    said = capsys.readouterr()
    assert line in said.err
    assert said.err.count("\n") == 1
    assert cli.status(["run", "--config", str(tmp_path / "none.yaml")]) == 2
    assert "cannot be read as YAML: No such file or directory" in capsys.readouterr().err


def test_a_fault_of_ours_is_status_1_with_a_hint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> dict[str, str]:
        raise ZeroDivisionError("division by\nzero")

    monkeypatch.setitem(cli_list.KINDS, "tasks", fails)
    monkeypatch.delenv("KSHOT_DEBUG", raising=False)
    assert cli.status(["list", "tasks"]) == 1
    assert (
        capsys.readouterr().err
        == "kshot: a fault of ours: ZeroDivisionError: division by zero; KSHOT_DEBUG=1 shows where\n"
    )
    monkeypatch.setenv("KSHOT_DEBUG", "1")
    assert cli.status(["list", "tasks"]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_ctrl_c_is_status_130_and_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stops() -> dict[str, str]:
        stop = KeyboardInterrupt()
        stop.add_note("3 of 7 cells are finished in 'out'")
        raise stop

    monkeypatch.setitem(cli_list.KINDS, "tasks", stops)
    assert cli.status(["list", "tasks"]) == 130
    line = "kshot: stopped; 3 of 7 cells are finished in 'out', and the same command goes on from there\n"
    assert capsys.readouterr().err == line


def test_an_error_of_several_lines_is_printed_as_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> dict[str, str]:
        raise KshotError("two\n  lines")

    monkeypatch.setitem(cli_list.KINDS, "tasks", fails)
    assert cli.status(["list", "tasks"]) == 2
    assert capsys.readouterr().err == "kshot: two lines\n"


@pytest.mark.parametrize(
    "words", [["--help"], ["run", "--help"], ["--version"], ["run", "--nm-fewshot", "3"], ["run", "--limit", "-1"]]
)
def test_help_and_slips_wait_for_no_heavy_import(words: list[str]) -> None:
    code = (
        "import sys\nfrom kshot.cli import status\n"
        f"code = status({words!r})\n"
        "heavy = {'torch', 'transformers', 'pandas', 'matplotlib', 'scipy', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == (2 if "-1" in words or "--nm-fewshot" in words else 0), done.stderr


@pytest.mark.parametrize("command", ["run", "explain", "hypotheses"])
@pytest.mark.parametrize("name", ["plurls", "no/such.jsonl", "notes.txt"])
def test_what_can_be_no_task_waits_for_no_torch(command: str, name: str) -> None:
    code = (
        "import sys\nfrom kshot.cli import status\n"
        f"code = status([{command!r}, 'plurals', {name!r}])\n"
        "heavy = {'torch', 'transformers', 'pandas', 'matplotlib', 'scipy'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert name in done.stderr


def test_the_program_as_a_process(films: Path, tiny_model_dir: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    words = _words(films, tiny_model_dir, "--output-path", str(tmp_path / "out"), "--json")
    done = subprocess.run(
        [sys.executable, "-m", "kshot", *words], capture_output=True, text=True, env=environment, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["kshot"]["cells"]
    done = subprocess.run(
        [sys.executable, "-m", "kshot", "run", "plurls"], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("kshot: unknown task 'plurls'; did you mean 'plurals'")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_output_that_cannot_be_written_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "kshot", "--version"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr == "kshot: cannot write: No space left on device; make room, or send the output elsewhere\n"


def test_a_terminal_without_the_characters_gets_their_numbers() -> None:
    code = "from kshot import cli, cli_list; cli_list.KINDS['tasks'] = lambda: {'色': 'é'}; cli.main(['list', 'tasks'])"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout) == (0, "\\u8272  \\xe9\n")
