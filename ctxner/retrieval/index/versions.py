"""The versions of an index folder: one current, one before it, and never half of one.

    folder/CURRENT               names the current version; replaced atomically, once that version is complete
    folder/v000002/manifest.json what the version is
    folder/v000002/shard-000/    Lucene's files
    folder/v000002/names/        names of entries (`ctxner.retrieval.index.names`)
    folder/v000001/              the version before, for searchers that have it open
    folder/.v000003.*.aside/     a version being written, or left by a writer that was killed
    folder/.lock                 locked by the one process that may write

A writer killed at any point leaves the current version as it was; the next writer removes its leftovers. The content
of a version is written by `ctxner.retrieval.index.build`.
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
from typing import Annotated, Any

from annotated_types import Ge, Le, Len

from ctxner.files.atomic import aside_of, put_in_place, remove, target_of, write_text
from ctxner.files.bounded import read_bounded
from ctxner.files.locks import exclusive
from ctxner.retrieval.corpus.reader import Unit

FORMAT_VERSION = 3
TEXT_RULES = 2
_CURRENT = "CURRENT"
_MANIFEST = "manifest.json"
MAX_BYTES = 1 << 20  # of CURRENT and of a manifest
_MAX_SHARDS = 10_000
_LOCK = ".lock"
VERSION = re.compile(r"v\d{6,}")
_FORMAT_1 = re.compile(r"manifest\.json(\.new)?|lucene-\w+")  # replaced by the next build
_OLD_RUBBLE = re.compile(r"building-\w+|CURRENT\.new")  # names that killed writers of former releases left


_Count = Annotated[int, Ge(0), Le(1 << 40)]
_Text = Annotated[str, Len(0, 100)]


@dataclass(frozen=True, slots=True)
class IndexManifest:
    """Description of a version of an index; saved as `manifest.json`. Types and bounds are checked when it is read.

    Attributes:
        format_version: Layout of the folder and of the stored passages; this code reads `FORMAT_VERSION`.
        version: Name of the version's folder.
        parent: Version that passages were added to or deleted from; None when built from a corpus.
        lucene_version: Version of Lucene that wrote the files.
        anserini_version: Version of Anserini whose analyzer and document layout are used.
        language: Language of the analyzer, for passages and queries alike.
        unit: Passage unit of MediaWiki dumps in the corpus.
        num_documents: Number of passages.
        num_shards: Number of Lucene indexes; they are searched as one.
        shard_documents: Number of passages in each of them.
        num_texts: Number of passages that are searched as texts; the others are found by name only.
        num_names: Number of names of entries, aliases included.
        corpus_sha256: Sum of the hashes of all passages (all their fields). It does not depend on their order, the
            shards, or the format and compression of the files.
        corpus_files: Names of the corpus files, those added later included.
        created_at: Time in UTC, ISO 8601.
        seconds: Duration of the build or change.
        text_rules: Rules by which text was folded and cut when it was indexed; `TEXT_RULES` are those of queries.
            Manifests of former releases lack it.
    """

    format_version: int
    version: _Text
    parent: _Text | None
    lucene_version: _Text
    anserini_version: _Text
    language: _Text
    unit: Unit
    num_documents: _Count
    num_shards: Annotated[int, Ge(1), Le(_MAX_SHARDS)]
    shard_documents: Annotated[tuple[_Count, ...], Len(1, _MAX_SHARDS)]
    num_texts: _Count
    num_names: _Count
    corpus_sha256: _Text
    corpus_files: tuple[str, ...]
    created_at: _Text
    seconds: float
    text_rules: int = 1

    @property
    def is_asked_by_other_rules(self) -> bool:
        """Whether queries are prepared otherwise than this index; English texts were the same but for rare letters."""
        return self.language != "en" and self.text_rules != TEXT_RULES

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
    manifest = parse_manifest(read_bounded(path, MAX_BYTES), str(path), version)
    for shard in manifest.shard_folders(folder):
        if not shard.is_dir():
            raise FileNotFoundError(f"{shard}: the index's files are gone; build it again")
    return manifest


def parse_manifest(text: bytes, where: str, version: str) -> IndexManifest:
    """A manifest from its file's content.

    Args:
        text: Content of the file.
        where: Name of the file in errors.
        version: Version that it must describe.

    Raises:
        ValueError: Damaged, of another format, or of another version.
    """
    try:
        fields = json.loads(text)
        format_version = fields["format_version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{where}: damaged manifest ({error!r}); build the index again") from error
    if format_version != FORMAT_VERSION:
        raise ValueError(
            f"{where}: index format {format_version!r:.40}, this version reads {FORMAT_VERSION}; build the index again"
        )
    manifest = _checked(fields, where)
    if manifest.version != version:
        raise ValueError(f"{where}: is of version {manifest.version!r}, wanted {version!r}; build the index again")
    return manifest


def _checked(fields: Any, where: str) -> IndexManifest:
    """The manifest with these fields; no number is used before its type and size are checked."""
    from pydantic import TypeAdapter, ValidationError

    try:
        manifest = TypeAdapter(IndexManifest).validate_json(json.dumps(fields), strict=True, extra="forbid")
    except (ValidationError, ValueError) as error:
        reason = str(error)
        if isinstance(error, ValidationError):
            first = error.errors(include_input=False, include_url=False)[0]
            reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise ValueError(f"{where}: damaged manifest ({reason}); build the index again") from error
    documents, shards = sum(manifest.shard_documents), len(manifest.shard_documents)
    if (documents, shards) != (manifest.num_documents, manifest.num_shards):
        raise ValueError(
            f"{where}: damaged manifest (shard_documents has {shards} shards of {documents} passages, num_shards is "
            f"{manifest.num_shards} and num_documents {manifest.num_documents}); build the index again"
        )
    return manifest


def parse_current(text: bytes, where: str, names: Iterable[str]) -> str:
    """The version that the content of CURRENT names.

    Args:
        text: Content of the file.
        where: Name of the file in errors.
        names: Names of the files and folders beside CURRENT; errors list the versions among them.

    Raises:
        ValueError: The content is not the name of a version.
    """
    name = text.decode("utf-8", "replace").strip()
    if not VERSION.fullmatch(name):
        versions = ", ".join(sorted(filter(VERSION.fullmatch, names))) or "none"
        raise ValueError(f"{where}: names {name[:40]!r}, wanted a version (there are: {versions}); write one into it")
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
        folder: Index folder.
        building: Folder to write to; empty at first.
        name: Name of the version once it is published.
    """

    folder: Path
    building: Path
    name: str

    def publish(self, manifest: IndexManifest) -> None:
        """Make this the current version, then delete all others but the one before."""
        text = json.dumps(dataclasses.asdict(manifest), indent=2) + "\n"
        (self.building / _MANIFEST).write_text(text, encoding="utf-8")
        put_in_place(self.building, self.folder / self.name)
        write_current(self.folder, self.name)
        _clear(self.folder, self.name)


@contextmanager
def new_version(folder: Path) -> Iterator[NewVersion]:
    """Lock the folder, remove leftovers of killed writers, and give a folder to write the next version to.

    When the block fails or ends without publishing, everything written is deleted, also an index folder made here.

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
    versions = sorted((path.name for path in folder.iterdir() if VERSION.fullmatch(path.name)), key=_number)
    needed = {current, *[name for name in versions if current and _number(name) < _number(current)][-1:]}
    for path in folder.iterdir():
        is_old_version = VERSION.fullmatch(path.name) and path.name not in needed
        if is_old_version or _is_rubble(path.name) or (current and _FORMAT_1.fullmatch(path.name)):
            remove(path)


def _is_rubble(name: str) -> bool:
    return target_of(name) is not None or bool(_OLD_RUBBLE.fullmatch(name))


def _current_version(folder: Path) -> str | None:
    """What CURRENT names, or None when there is no CURRENT."""
    path = folder / _CURRENT
    try:
        text = read_bounded(path, MAX_BYTES)
    except FileNotFoundError:
        return None
    return parse_current(text, str(path), (entry.name for entry in folder.iterdir()))


def _refuse_format_1(folder: Path) -> None:
    if (folder / _MANIFEST).is_file():
        raise ValueError(f"{folder}: index format 1, this version reads {FORMAT_VERSION}; build the index again")


def _is_ours(name: str) -> bool:
    return name in (_CURRENT, _LOCK) or _is_rubble(name) or bool(VERSION.fullmatch(name) or _FORMAT_1.fullmatch(name))


def _number(version: str) -> int:
    return int(version[1:])
