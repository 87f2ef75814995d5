"""The command line. Its options are the fields of ``Settings``; its errors are one line each.

Exit status: 0 done, 1 a fault of ours, 2 a fault of the input, 130 stopped by Ctrl-C.
"""

import errno
import io
import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter, UnknownCommandError, UnknownOptionError

from kshot.cli_generate import generate
from kshot.cli_list import describe_experiments, list_names
from kshot.cli_options import as_command, spelt, spoken, unknown, usage
from kshot.errors import DataError, KshotError, MethodError, UnknownName
from kshot.study.evaluate_settings import EvaluateSettings, make_evaluate_settings
from kshot.study.explain_settings import ExplainSettings, make_explain_settings
from kshot.study.hypotheses_settings import HypothesesSettings, make_hypotheses_settings
from kshot.study.pretrain_settings import PretrainSettings, make_pretrain_settings
from kshot.study.settings import Settings, make_settings
from kshot.study.synth_settings import SynthSettings, make_synth_settings

RESULTS_FOLDER = "kshot-results"


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command line and leave the process with its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show a label gets its number: nothing is lost at the end of a long run.
            stream.reconfigure(errors="backslashreplace")
    sys.exit(status(sys.argv[1:] if argv is None else argv))


def status(argv: Sequence[str]) -> int:
    """Run one command line; returns the exit status."""
    debug = bool(os.environ.get("KSHOT_DEBUG"))
    try:
        _readable(argv)
        with warnings.catch_warnings():
            if not debug:
                # those of libraries, which nobody at a command line can act on
                warnings.simplefilter("ignore")
            app = application()
            app(spelt(argv, app), exit_on_error=False, print_error=False, result_action="return_value")
            # What waits here to be written would be lost after the exit status is known.
            sys.stdout.flush()
        return 0
    except UnknownCommandError:
        return _fault(2, str(UnknownName("command", argv[0], COMMANDS)))
    except CycloptsError as error:
        own = f" {argv[0]}" if argv and argv[0] in COMMANDS else ""
        said = _one_line(error)
        if isinstance(error, UnknownOptionError) and own:
            said = unknown(argv[0], error.token.keyword or error.token.value, COMMANDS[argv[0]][1]) or said
        return _fault(2, f"{said} (see: kshot{own} --help)")
    except KshotError as error:
        return _fault(2, _one_line(error))
    except KeyboardInterrupt as stop:
        if argv[:1] in (["predict"], ["generate"]):
            return 130
        where = "; ".join(getattr(stop, "__notes__", ()))
        return _fault(130, f"stopped; {where + ', and ' if where else ''}the same command goes on from there")
    except BrokenPipeError:
        # Whoever read our output has had enough of it.
        _hush()
        return 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return _ours(error, debug)
        _hush()
        return _fault(2, f"cannot write: {error.strerror}; make room, or send the output elsewhere")
    except Exception as error:
        return _ours(error, debug)


def _readable(argv: Sequence[str]) -> None:
    """KshotError where a word is no text: bytes that are not UTF-8 could stand in no record of ours."""
    for word in argv:
        try:
            word.encode()
        except UnicodeEncodeError as error:
            raise KshotError(f"{word!a} is not UTF-8; what works is a name or a text in UTF-8") from error


def _hush() -> None:
    """No more output: Python would complain once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _ours(error: Exception, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    hint = "" if debug else "; KSHOT_DEBUG=1 shows where"
    return _fault(1, f"a fault of ours: {type(error).__name__}: {_one_line(error)}{hint}")


def application() -> App:
    """The commands; the options of those that measure are made from their settings."""
    about = "Teach frozen language models by their prompts, and find out what that teaching really is."
    app = App(name="kshot", help=about, version=_version, suppress_keyboard_interrupt=False)
    for name, (does, kind) in COMMANDS.items():
        if kind is None:
            app.command(does, name=name, usage=_USAGE.get(name))
        else:
            app.command(as_command(does, kind), name=name, usage=f"kshot {name} [OPTIONS] {usage(kind)}")
    return app


def run(*, json: bool = False, **options: Any) -> None:
    """Compare ways of teaching on tasks, and write a report. Without any TASK: plurals, country-continent and bbc-headlines.

    The records go to --output-path; a run that was stopped goes on from there with the same command. Lists are written
    with commas.
    """
    asked = make_settings(**options)
    _check_tasks(asked.tasks)
    # torch and transformers take seconds to import: a question for help or a mistyped name does not wait for them
    from kshot.show.plain import console
    from kshot.show.terminal import print_summary
    from kshot.study.run import run as measure

    def tell(results: dict[str, Any], page: Path) -> None:
        print_summary(results, console(), report=page)

    _reported(measure, asked, tell, json)


def explain(*, json: bool = False, **options: Any) -> None:
    """Measure what demonstrations do to a model: is it gradient descent, and what did each of them do? Writes a report.

    The records go to --output-path; an explanation that was stopped goes on from there with the same command.
    """
    asked = make_explain_settings(**options)
    _check_tasks(asked.tasks)
    # as above
    from kshot.show.explain import text
    from kshot.study.explaining import explain as find_out

    _reported(find_out, asked, _in_words(text), json)


def hypotheses(*, json: bool = False, **options: Any) -> None:
    """Test which account of in-context learning fits: task selection, meta-learning or composition. Writes a report.

    The records go to --output-path; a battery that was stopped goes on from there with the same command.
    """
    asked = make_hypotheses_settings(**options)
    _check_tasks(asked.tasks)
    # as above
    from kshot.show.hypotheses import text
    from kshot.study.hypothesizing import hypotheses as find_out

    _reported(find_out, asked, _in_words(text), json)


def synth(*, json: bool = False, **options: Any) -> None:
    """Train small models on data that is fully known, and test published claims about in-context learning. Writes a report.

    EXPERIMENT is a name, or list, which shows them; list and names show their parts and claims. The records go to
    --output-path; an experiment that was stopped goes on from there with the same command.
    """
    if options.get("tasks", ())[:1] == ("list",):
        describe_experiments(options["tasks"][1:])
        return
    asked = make_synth_settings(**options)
    # as above
    from kshot.show.synth import text
    from kshot.study.synthesizing import synthesize

    _reported(synthesize, asked, _in_words(text), json)


def evaluate_lm(*, json: bool = False, **options: Any) -> None:
    """Measure a model's perplexity and bits per byte on texts, at several lengths of context. Writes a report.

    The records go to --output-path; what was stopped goes on from there with the same command.
    """
    asked = make_evaluate_settings(**options)
    # as above
    from kshot.show.evaluate import text
    from kshot.study.evaluating import evaluate

    _reported(evaluate, asked, _in_words(text), json)


def pretrain(*, json: bool = False, **options: Any) -> None:
    """Train language models from scratch on texts, one for each kind of attention and seed, and compare them. Writes a report.

    The records and the models go to --output-path; training that was stopped goes on from there with the same command.
    """
    asked = make_pretrain_settings(**options)
    # as above
    from kshot.show.pretrain import text
    from kshot.study.pretrain.study import FLOOR
    from kshot.study.pretraining import pretrain as grow

    _reported(grow, asked, lambda results, page: _say(text(results["kshot"], page.parent), page), json, beside=FLOOR)


def _check_tasks(names: Sequence[str]) -> None:
    """What can be no task is said before anything that takes seconds to import."""
    # tables of files take half a second
    from kshot.data import check_task

    for name in names:
        check_task(name)


def _in_words(text: Callable[[dict[str, Any]], str]) -> Callable[[dict[str, Any], Path], None]:
    """Who tells what is on record, and where the report lies."""
    return lambda results, page: _say(text(results["kshot"]), page)


def _say(said: str, page: Path) -> None:
    print(said, f"Report: {page}", sep="\n")


def _reported(
    measure: Callable[..., Any],
    asked: Any,
    tell: Callable[[dict[str, Any], Path], None],
    json: bool,
    beside: str | None = None,
) -> None:
    """Measure what is asked, write the report, and tell what came: in words, or as results.json and nothing else.

    Of several processes the first does. MethodError in the end where all failed but the part that stands ``beside``.
    """
    # as above
    from kshot.show.report import write_report
    from kshot.show.terminal import progress
    from kshot.study.place import check_folder

    check_folder(asked.output_path, Path(RESULTS_FOLDER))
    with progress(show=not json) as on_progress, spoken():
        done = measure(asked, beneath=Path(RESULTS_FOLDER), on_progress=on_progress)
        if done.directory is None:
            return
        on_progress(0, None, "writing the report")
        page = write_report(done.directory)
    if json:
        sys.stdout.write((done.directory / "results.json").read_text(encoding="utf-8"))
    else:
        tell(done.results, page)
    asked_for = [cell for cell in done.results["kshot"]["cells"] if beside is None or cell.get("part") != beside]
    if asked_for and all(cell["failed"] for cell in asked_for):
        first = asked_for[0]
        what = first["part"] if "part" in first else f"{first['method']}@{first['shots']}"
        raise MethodError(f"nothing came to a result: {what}: {first['failed']}")


def predict(
    artefact: Annotated[str, Parameter(help="A folder that a run or adapted.save has written.")],
    file: Annotated[
        str,
        Parameter(
            help="Lines of text or of JSON objects, .jsonl or .csv; - is standard input.", allow_leading_hyphen=True
        ),
    ] = "-",
    /,
    *,
    model: Annotated[
        str | None, Parameter(help="The model it was taught to, where it is not found by its name.")
    ] = None,
    dtype: Literal["auto", "float32", "bfloat16", "float64"] = "auto",
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> None:
    """Answer the lines of a file, or of a pipe as they arrive: a JSON object on a line for each.

    Each has line (its number), label, probability and logprobs (nats). A line that is a JSON object gives the fields of
    an input by name; empty lines are skipped. A line that cannot be answered gets line and error instead, the others
    are answered all the same, and the exit status is 2.
    """
    # torch and transformers take seconds to import
    from kshot.model.lines import answer_stream, opened, served

    _given(ARTEFACT=artefact, FILE=file, **{"--model": model})
    with opened(file) as (stream, form):
        with spoken():
            taught = served(artefact, model, dtype=dtype, device=device)
        good = bad = 0
        for records in answer_stream(taught, stream, form):
            sys.stdout.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
            sys.stdout.flush()
            bad += sum("error" in record for record in records)
            good += sum("error" not in record for record in records)
    if bad:
        raise DataError(f"{bad} of {good + bad} lines could not be answered; each says why in its place")


def report(directory: Annotated[str, Parameter(help="The folder of a run, which holds its results.json.")], /) -> None:
    """Rebuild the page of a folder from its records."""
    # drawing takes seconds to import
    from kshot.show.report import write_report

    _given(DIRECTORY=directory)
    print(write_report(Path(directory)))


def _given(**texts: str | None) -> None:
    """KshotError where a text is empty: a shell's unset variable, which as a path would be the folder one stands in."""
    for name, text in texts.items():
        if text is not None and not text.strip():
            raise KshotError(f"{name} is an empty text; give it a value")


# Each with the settings that its options are made from, where it has some.
COMMANDS: dict[str, tuple[Callable[..., None], type | None]] = {
    "run": (run, Settings),
    "explain": (explain, ExplainSettings),
    "hypotheses": (hypotheses, HypothesesSettings),
    "synth": (synth, SynthSettings),
    "pretrain": (pretrain, PretrainSettings),
    "evaluate-lm": (evaluate_lm, EvaluateSettings),
    "predict": (predict, None),
    "generate": (generate, None),
    "list": (list_names, None),
    "report": (report, None),
}
_USAGE = {"predict": "kshot predict [OPTIONS] ARTEFACT [FILE]", "list": "kshot list KIND"}


def _fault(code: int, line: str) -> int:
    print(f"kshot: {line}", file=sys.stderr)
    return code


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _version() -> str:
    try:
        return version("kshot")
    except PackageNotFoundError:
        return "unknown"
