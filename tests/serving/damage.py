"""Damages one file of a model's and an index's folder in many ways, and tries what is left as a reload does.

`python -m tests.serving.damage MODEL INDEX` prints a line of JSON per damage: its name, the damaged file, and why the
trial refused it, or null. One process, so that Python, PyTorch and Java start once.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

Damage = Callable[[Path], None]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def scrambled(path: Path) -> None:
    path.write_bytes(bytes(byte ^ 0x5A for byte in path.read_bytes()))


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def deep(path: Path) -> None:
    path.write_text("[" * 100_000)


_PICKLE = b"cos\n_exit\n(I3\ntR."  # loading it ends the process, and so the test


def a_pickle(path: Path) -> None:
    path.write_bytes(_PICKLE)


def a_pickle_beside(path: Path) -> None:
    path.unlink()
    (path.parent / "pytorch_model.bin").write_bytes(_PICKLE)


def an_array_of_objects(path: Path) -> None:
    head = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + _PICKLE)


def in_brackets(path: Path) -> None:
    path.write_text("v000001[/red]\n")


def gone(path: Path) -> None:
    shutil.rmtree(path)


def with_field(name: str, value: Any) -> Damage:
    """A JSON file whose field, dotted, has another value."""

    def change(path: Path) -> None:
        tree = json.loads(path.read_text())
        *sections, last = name.split(".")
        part = tree
        for section in sections:
            part = part[section]
        part[last] = value
        path.write_text(json.dumps(tree))

    change.__name__ = f"{name}={json.dumps(value)[:24]}"
    return change


FILES: tuple[Damage, ...] = (cut, emptied, scrambled, a_folder, a_pipe, endless)
MODEL: dict[str, tuple[Damage, ...]] = {
    "config.json": (
        *FILES,
        deep,
        with_field("types", None),
        with_field("types", "person"),
        with_field("types", ["person", "place", "extra"]),
        with_field("types", ["person", 7]),
        with_field("types", [f"t{number}" for number in range(50_000)]),
        with_field("encoder", None),
        with_field("encoder", [1]),
        with_field("encoder.vocab_size", 10**12),
        with_field("encoder.num_hidden_layers", 10**9),
        with_field("encoder.hidden_size", 10**9),
        with_field("encoder.hidden_size", "wide"),
        with_field("encoder.hidden_size", None),
        with_field("encoder.hidden_act", "[/nothing]"),
        with_field("encoder.model_type", "[/none]"),
        with_field("encoder.num_attention_heads", 0),
        with_field("max_pieces", 10**12),
        with_field("max_pieces", None),
        with_field("dropout", "much"),
        with_field("attn_implementation", "somebody/kernels"),
        with_field("encoder._attn_implementation", {"": "flash_attention_2"}),
        with_field("auto_map", {"AutoConfig": "code.Config"}),
        with_field("encoder.auto_map", {"AutoModel": "code.Model"}),
        with_field("quantization_config", {"quant_method": "bitsandbytes"}),
    ),
    "model.safetensors": (*FILES, a_pickle, a_pickle_beside),
    "tokenizer.json": (*FILES, deep, with_field("model", None), with_field("model.vocab", [])),
    "tokenizer_config.json": (*FILES, with_field("auto_map", {"AutoTokenizer": ["code.T", None]})),
    "calibration.json": (
        *FILES,
        deep,
        with_field("weights_sha256", "0" * 64),
        with_field("confidence", None),
        with_field("confidence.plain.slope", 0),
        with_field("confidence.plain.intercept", 1e300),
        with_field("threshold", "[/low]"),
        with_field("found", []),
    ),
}
INDEX: dict[str, tuple[Damage, ...]] = {
    "CURRENT": (*FILES, in_brackets),
    "v000001/manifest.json": (
        *FILES,
        deep,
        with_field("num_shards", 10**9),
        with_field("num_shards", None),
        with_field("num_shards", 2),
        with_field("shard_documents", [10**12]),
        with_field("num_documents", -1),
        with_field("language", "[/xx]"),
        with_field("format_version", 99),
        with_field("version", "v000002"),
    ),
    "v000001/names/hashes.npy": (*FILES, a_pickle, an_array_of_objects),
    "v000001/names/places.npy": (cut, a_folder),
    "v000001/shard-000": (gone,),
}


def lucene_files(index: Path) -> dict[str, tuple[Damage, ...]]:
    """Damages of every file of the first shard but the lock."""
    files = sorted((index / "v000001" / "shard-000").iterdir())
    return {str(path.relative_to(index)): (cut, emptied, a_folder) for path in files if path.name != "write.lock"}


def damaged(good: Path, plan: dict[str, tuple[Damage, ...]]) -> Iterator[tuple[str, str, Path]]:
    """Copies of a folder, each with another damage: its name, the damaged file, and the copy."""
    for name, damages in plan.items():
        for damage in damages:
            with tempfile.TemporaryDirectory() as folder:
                copy = Path(folder, "it")
                shutil.copytree(good, copy)
                damage(copy / name)
                yield f"{name}: {damage.__name__}", name, copy


def main(model: Path, index: Path) -> None:
    from serving.settings import ServeSettings
    from serving.trial import explained, limit, try_index, try_model

    limit({"memory_gib": 4, "seconds": 900})
    retrieval = {"rerank": False}
    for kind, good, plan in (("model", model, MODEL), ("index", index, INDEX | lucene_files(index))):
        for what, name, folder in chain([("undamaged", "", good)], damaged(good, plan)):
            started, reason, steps = time.perf_counter(), None, ["starting"]
            try:
                if kind == "model":
                    try_model(str(folder), ServeSettings(model=str(folder)), steps.append)
                else:
                    try_index(ServeSettings(model="", index=folder, retrieval=retrieval), steps.append)
            except Exception as error:
                reason = explained(error, steps[-1])
            seconds = round(time.perf_counter() - started, 2)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
            row = {"what": what, "file": name, "reason": reason, "seconds": seconds, "kind": kind, "peak_mib": peak}
            print(json.dumps(row), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
