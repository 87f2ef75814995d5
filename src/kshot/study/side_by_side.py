"""Cells answered side by side, each in a process of its own that is forked from the one with the model in memory.

The threads of one pass wait for one another at every product; processes of few threads do not. A process lasts as long
as its cell: it finds the model and what was answered before it in memory that nobody copies, and leaves nothing behind.
"""

import ctypes
import json
import logging
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any, NoReturn

import psutil
import torch

import kshot.errors
from kshot.devices import together
from kshot.errors import KshotError
from kshot.study.parts import Cell, Line, Say

log = logging.getLogger("kshot")

_PR_SET_PDEATHSIG = 1
# What a process takes beside a copy of the weights, which some controls draw anew.
_OWN_BYTES = 2 * 2**30


@dataclass(frozen=True, slots=True)
class Room:
    """How many processes answer at a time, and the threads of each."""

    processes: int
    threads: int


def room_for(weights: int, device: str, cells: Sequence[Cell]) -> Room:
    """What suits all cells of a run on this machine: the same whenever it is asked, so that a run gone on with keeps its bits.

    ``weights`` are the bytes of what answers. A process more than there are tasks and seeds, since one part may take half
    of the time of its task; one in all where the system cannot fork, nothing is on the CPU, or memory is short.
    """
    threads = torch.get_num_threads()
    if sys.platform != "linux" or device != "cpu" or together()[1] > 1:
        return Room(1, threads)
    fitting = (psutil.virtual_memory().total - weights) // (weights + _OWN_BYTES)
    groups = len({(cell.task, cell.seed) for cell in cells})
    processes = max(1, min(threads, len(cells), groups + 1, fitting))
    return Room(processes, threads // processes)


def answers(
    cells: Sequence[Cell], answer: Callable[[Cell, Say], Line], tell: Callable[[Cell, str], None], room: Room
) -> Generator[tuple[Cell, Line], None, None]:
    """Each cell and its line as soon as it is answered, of which ``tell`` tells; to be closed where it is left early.

    ``answer`` runs in a process of the cell, and in this one where there is room for one alone.
    """
    if room.processes > 1:
        yield from _side_by_side(cells, answer, tell, room)
    else:
        for cell in cells:
            tell(cell, "")
            yield cell, answer(cell, partial(tell, cell))


def _side_by_side(
    cells: Sequence[Cell], answer: Callable[[Cell, Say], Line], tell: Callable[[Cell, str], None], room: Room
) -> Generator[tuple[Cell, Line], None, None]:
    """The cells begin in their order, after what they need. What goes wrong in a process is raised here, with its class
    where it is ours; a process that is killed is a KshotError. Whatever happens, no process is left.
    """
    waiting = list(cells)
    begun: dict[Connection, _Begun] = {}
    try:
        while waiting or begun:
            under_way = [one.cell for one in begun.values()]
            while len(begun) < room.processes and (cell := _ready(waiting, under_way)):
                waiting.remove(cell)
                under_way.append(cell)
                tell(cell, "")
                own = _Begun(cell, answer, list(begun), room.threads)
                begun[own.end] = own
            for end in wait(list(begun)):
                assert isinstance(end, Connection)
                kind, said = _received(begun[end])
                if kind == "said":
                    tell(begun[end].cell, said)
                elif kind == "logged":
                    log.log(*said)
                elif kind == "failed":
                    _raise(*said)
                else:
                    own = begun.pop(end)
                    own.ended()
                    yield own.cell, said
    finally:
        for own in begun.values():
            own.process.kill()
            own.ended()


def _ready(waiting: Sequence[Cell], under_way: Sequence[Cell]) -> Cell | None:
    """The first that waits for nobody."""
    unanswered = {(cell.task, cell.seed, cell.part) for cell in (*waiting, *under_way)}
    return next((cell for cell in waiting if (cell.task, cell.seed, cell.needs) not in unanswered), None)


class _Begun:
    """A cell under way: its process, and the thread that this is forked from and dies with."""

    def __init__(
        self, cell: Cell, answer: Callable[[Cell, Say], Line], others: Sequence[Connection], threads: int
    ) -> None:
        self.cell = cell
        self.end, theirs = get_context("fork").Pipe(duplex=False)
        self.process = get_context("fork").Process(
            target=_work, args=(cell, answer, theirs, [self.end, *others], threads), daemon=True
        )
        self._started, self._over = threading.Event(), threading.Event()
        # A new thread has never had a team of OpenMP threads: in a process forked from one that has, the team is gone,
        # and the first pass of several threads would wait for it for ever.
        threading.Thread(target=self._fork, daemon=True).start()
        self._started.wait()
        theirs.close()

    def _fork(self) -> None:
        # Ctrl-C is for the process that was started by the user, which then stops these.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with warnings.catch_warnings():
                # Newer Pythons warn whoever forks beside other threads: none of ours holds a lock that a pass asks for.
                warnings.simplefilter("ignore", DeprecationWarning)
                self.process.start()
        finally:
            self._started.set()
        self._over.wait()

    def ended(self) -> None:
        """Wait for the process, which has nothing more to say."""
        self.process.join()
        self._over.set()
        self.end.close()


def _work(
    cell: Cell, answer: Callable[[Cell, Say], Line], end: Connection, others: Sequence[Connection], threads: int
) -> None:
    """All that a process does: answer its cell and tell what came."""
    # Linux: whoever kills the process that was started kills this one, too, which would hold its folder locked.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for other in others:
        # Were one left open here, the others would not notice that nobody listens any more.
        other.close()
    torch.set_num_threads(threads)
    log.handlers = [_Telling(end)]
    with suppress(BrokenPipeError):
        try:
            _send(end, "line", answer(cell, lambda what: _send(end, "said", what)))
        except BrokenPipeError:
            raise
        except Exception as error:
            _send(end, "failed", [type(error).__name__, str(error), traceback.format_exc()])


class _Telling(logging.Handler):
    """What is logged in a process is said by the one that was started by the user."""

    def __init__(self, end: Connection) -> None:
        logging.Handler.__init__(self)
        self.end = end

    def emit(self, record: logging.LogRecord) -> None:
        _send(self.end, "logged", [record.levelno, record.getMessage()])


def _send(end: Connection, kind: str, said: Any) -> None:
    end.send_bytes(json.dumps([kind, said]).encode())


def _received(own: _Begun) -> tuple[str, Any]:
    try:
        kind, said = json.loads(own.end.recv_bytes())
    except (EOFError, OSError):
        own.process.join()
        code = own.process.exitcode or 0
        how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        raise KshotError(
            f"the process that answered {own.cell.title!r} {how}, most often for lack of memory; what is finished is kept, "
            "and with OMP_NUM_THREADS=1 the same command goes on in a single process"
        ) from None
    return kind, said


def _raise(name: str, what: str, where: str) -> NoReturn:
    """What was raised in another process, as itself where it is one of ours."""
    kind = getattr(kshot.errors, name, None)
    if isinstance(kind, type) and issubclass(kind, KshotError):
        # made without its __init__, which would put its text together again
        raise kind.__new__(kind, what)
    error = RuntimeError(f"{name}: {what}")
    error.add_note(where)
    raise error
