"""The versions of an index folder: one current, one before it, and never half of one.

    folder/CURRENT               names the current version; replaced atomically, once that version is complete
    folder/v000002/manifest.json what the version is
    folder/v000002/shard-000/    Lucene's files
    folder/v000001/              the version before, for searchers that have it open
    folder/.v000003.*.aside/     a version being written, or the rubble of a writer that died
    folder/.lock                 held (flock) by the one process that may write

A writer that dies at any point leaves the current version as it was; the next one clears its rubble. What is in a
version is written by `ctxner.retrieval.index.build`.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ctxner.files.atomic import aside_of, put_in_place, remove, target_of, write_text
from ctxner.files.locks import exclusive
from ctxner.retrieval.corpus.reader import Unit

FORMAT_VERSION = 2
_CURRENT = "CURRENT"
_MANIFEST = "manifest.json"
_LOCK = ".lock"
_VERSION = re.compile(r"v\d{6,}")
_FORMAT_1 = re.compile(r"manifest\.json(\.new)?|lucene-\w+")  # replaced by the next build
_OLD_RUBBLE = re.compile(r"building-\w+|CURRENT\.new")  # of writers that died before the names were `.NAME.*.aside`


@dataclass(frozen=True, slots=True)
class IndexManifest:
    """What a version of an index holds.

    Attributes:
        format_version: Layout of the folder and of the stored passages; this code reads `FORMAT_VERSION`.
        version: The version's sub-folder.
        parent: The version that it was made from by adding or deleting passages; None when built from a corpus alone.
        lucene_version: Lucene that wrote it.
        anserini_version: Anserini whose analyzer and document layout it has.
        language: Analyzer's language; queries are analyzed with the same one.
        unit: What a passage of a MediaWiki dump was.
        num_documents: Passages.
        num_shards: Lucene indexes that it is made of; they are searched as one.
        corpus_sha256: Sum of the passages' hashes, of id, source, title and text: whatever their order, the shards,
            and the files' format and compression.
        corpus_files: Names of the corpus files, those added later included.
        created_at: UTC, ISO 8601.
        seconds: What writing it took.
    """

    format_version: int
    version: str
    parent: str | None
    lucene_version: str
    anserini_version: str
    language: str
    unit: Unit
    num_documents: int
    num_shards: int
    corpus_sha256: str
    corpus_files: tuple[str, ...]
    created_at: str
    seconds: float

    def shard_folders(self, folder: str | Path) -> list[Path]:
        """Folders of Lucene's files, given the index folder."""
        return shard_folders(Path(folder, self.version), self.num_shards)


def shard_folders(version_folder: Path, num_shards: int) -> list[Path]:
    """Folders of Lucene's files in the folder of a version."""
    return [version_folder / f"shard-{shard:03d}" for shard in range(num_shards)]


def read_manifest(folder: str | Path) -> IndexManifest:
    """The manifest of an index folder's current version.

    Raises:
        FileNotFoundError: No such folder, or no complete index in it.
        ValueError: The folder or its manifest is damaged or of another format version.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such index folder; build one with `ctxner index`")
    version = _current_version(folder)
    if version is None:
        _refuse_format_1(folder)
        raise FileNotFoundError(f"{folder}: no {_CURRENT}: not an index, or its build did not finish; build it again")
    path = folder / version / _MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"{path}: gone, though {_CURRENT} names this version; build the index again")
    manifest = parse_manifest(path.read_bytes(), str(path), version)
    for shard in manifest.shard_folders(folder):
        if not shard.is_dir():
            raise FileNotFoundError(f"{shard}: the index's files are gone; build it again")
    return manifest


def parse_manifest(text: bytes, where: str, version: str) -> IndexManifest:
    """A manifest from its file's content.

    Args:
        text: JSON.
        where: Named in errors.
        version: That it has to be of.

    Raises:
        ValueError: Damaged, of another format, or of another version.
    """
    try:
        fields = json.loads(text)
        found = fields["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{where}: damaged manifest ({error!r}); build the index again") from error
    if found != FORMAT_VERSION:
        raise ValueError(f"{where}: index format {found}, this version reads {FORMAT_VERSION}; build the index again")
    try:
        manifest = IndexManifest(**{**fields, "corpus_files": tuple(fields["corpus_files"])})
    except (KeyError, TypeError) as error:
        raise ValueError(f"{where}: damaged manifest ({error!r}); build the index again") from error
    if manifest.version != version:
        raise ValueError(f"{where}: is of version {manifest.version!r}, wanted {version!r}; build the index again")
    return manifest


def parse_current(text: bytes, where: str, names: Iterable[str]) -> str:
    """The version that the content of CURRENT names.

    Args:
        text: The content.
        where: Named in errors.
        names: What lies beside CURRENT; the versions among them are named in errors.

    Raises:
        ValueError: It names none.
    """
    name = text.decode("utf-8", "replace").strip()
    if not _VERSION.fullmatch(name):
        found = ", ".join(sorted(name for name in names if _VERSION.fullmatch(name))) or "none"
        raise ValueError(f"{where}: names {name[:40]!r}, wanted a version (there are: {found}); write one into it")
    return name


def write_current(folder: Path, version: str) -> None:
    """Make a complete version of the folder the current one, atomically."""
    write_text(folder / _CURRENT, f"{version}\n")


def now() -> str:
    """The time for a manifest: UTC, ISO 8601, in seconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True)
class NewVersion:
    """A version that is being written, by the process that holds the folder's lock.

    Attributes:
        folder: The index folder.
        building: Where to write; empty at first.
        name: What the version will be called.
    """

    folder: Path
    building: Path
    name: str

    def publish(self, manifest: IndexManifest) -> None:
        """Make it the current version, then delete all but it and the one before."""
        text = json.dumps(dataclasses.asdict(manifest), indent=2) + "\n"
        (self.building / _MANIFEST).write_text(text, encoding="utf-8")
        put_in_place(self.building, self.folder / self.name)
        write_current(self.folder, self.name)
        _clear(self.folder, self.name)


@contextmanager
def new_version(folder: Path) -> Iterator[NewVersion]:
    """Lock the folder, clear the rubble of writers that died, and give a place to write the next version.

    What was written is deleted when the block fails or ends without publishing; a folder made here as well.

    Raises:
        BlockingIOError: Another process is writing into the folder.
        ValueError: The folder holds other files, or CURRENT is damaged.
    """
    existed = folder.exists()
    foreign = sorted(path.name for path in folder.iterdir() if not _is_ours(path.name)) if existed else []
    if foreign:
        raise ValueError(f"{folder}: holds other files ({', '.join(foreign[:3])}); give an index its own folder")
    with ExitStack() as stack:
        try:
            stack.enter_context(exclusive(folder / _LOCK, wait=False))
        except BlockingIOError as error:
            raise BlockingIOError(f"{error}, which is writing into this index; wait until it is done") from None
        current = _current_version(folder)
        _clear(folder, current)
        name = f"v{int(current[1:]) + 1 if current else 1:06d}"
        building = aside_of(folder / name)
        building.mkdir()
        try:
            yield NewVersion(folder, building, name)
        finally:
            remove(building)
            if not existed and _current_version(folder) is None:
                (folder / _LOCK).unlink()
                folder.rmdir()


def _clear(folder: Path, current: str | None) -> None:
    """Delete everything but the current version and the highest one before it; only with the lock held."""
    versions = sorted((path.name for path in folder.iterdir() if _VERSION.fullmatch(path.name)), key=_number)
    kept = {current, *[name for name in versions if current and _number(name) < _number(current)][-1:]}
    for path in folder.iterdir():
        is_old_version = _VERSION.fullmatch(path.name) and path.name not in kept
        if is_old_version or _is_rubble(path.name) or (current and _FORMAT_1.fullmatch(path.name)):
            remove(path)


def _is_rubble(name: str) -> bool:
    return target_of(name) is not None or bool(_OLD_RUBBLE.fullmatch(name))


def _current_version(folder: Path) -> str | None:
    """What CURRENT names, or None when there is no CURRENT."""
    path = folder / _CURRENT
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    return parse_current(text, str(path), (path.name for path in folder.iterdir()))


def _refuse_format_1(folder: Path) -> None:
    if (folder / _MANIFEST).is_file():
        raise ValueError(f"{folder}: index format 1, this version reads {FORMAT_VERSION}; build the index again")


def _is_ours(name: str) -> bool:
    return name in (_CURRENT, _LOCK) or _is_rubble(name) or bool(_VERSION.fullmatch(name) or _FORMAT_1.fullmatch(name))


def _number(version: str) -> int:
    return int(version[1:])
