"""`ctxner tag`: files of documents -> entities, on Ray Data; locally or on a cluster."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ctxner.batch.annotation_files import check_spacy
from ctxner.config import Config
from ctxner.files.documents import Document, DocumentKind, iter_documents
from jobs.cluster import connect, prepare
from jobs.console import console, progress

logger = logging.getLogger(__name__)

_REPORT_EVERY = 1000  # documents


def run(
    config: Config,
    model: str,
    sources: Sequence[str],
    out: str,
    *,
    kind: DocumentKind | None = None,
    formats: Sequence[str] = ("parquet",),
    skip_faulty: bool = False,
) -> dict[str, Any]:
    """Tag the documents of `sources` into the folder `out`; returns the manifest.

    Both may be paths or URIs that fsspec knows. Errors in the files are reported before Ray starts; with `skip_faulty`,
    files that have some are left out, and the result counts and names them.
    """
    if "spacy" in formats:
        check_spacy()
    skipped = list[dict[str, str]]()
    with ExitStack() as stack:
        documents = _documents(config, sources, kind, stack, skipped if skip_faulty else None)
        folder = _local_folder(config, out)
        prepare()
        from ctxner.batch.tag import tag

        bar = stack.enter_context(ExitStack())
        done, staged = bar.enter_context(progress("staging documents", None)), 0

        def staging() -> Iterator[Document]:
            nonlocal staged
            for staged, document in enumerate(documents, start=1):
                if staged % _REPORT_EVERY == 0:
                    done(staged)
                yield document

        def on_staged(num_parts: int) -> None:
            nonlocal done
            done(staged, staged)
            bar.close()
            connect()
            done = bar.enter_context(progress("tagging", num_parts))

        manifest = tag(
            staging(),
            config,
            model,
            folder,
            formats=formats,  # type: ignore[arg-type]
            on_staged=on_staged,
            on_progress=lambda number: done(number),
        )
        bar.close()
        if folder != Path(out):
            _upload(folder, out)
    rate = manifest["sentences"] / max(manifest["tagging_seconds"], 1e-9) if not manifest["resumed_from"] else None
    told = {"skipped_files": len(skipped), "skipped": skipped} if skip_faulty else {}
    return {"folder": out, **manifest, "sentences_per_second": rate and round(rate, 1), **told}


def plan(
    config: Config,
    model: str,
    sources: Sequence[str],
    out: str,
    *,
    kind: DocumentKind | None = None,
    formats: Sequence[str] = ("parquet",),
    skip_faulty: bool = False,
) -> dict[str, Any]:
    """What `run` would do; checks the documents, the model, the threshold and the index."""
    if "spacy" in formats:
        check_spacy()
    from ctxner.files.documents import cut
    from ctxner.model.tagger import saved_types

    prepare()
    from ctxner.batch.tag import settled

    skipped = list[dict[str, str]]()
    with ExitStack() as stack:
        documents = _documents(config, sources, kind, stack, skipped if skip_faulty else None)
        _, _, manifest = settled(config, model)
        types = list(saved_types(model))
        num_documents = num_parts = num_chars = 0
        with progress("counting documents", None) as done:
            for document in documents:
                num_documents, num_chars = num_documents + 1, num_chars + len(document.text)
                num_parts += 1 if document.words is not None else sum(1 for _ in cut(document.text))
                if num_documents % _REPORT_EVERY == 0:
                    done(num_documents)
            done(num_documents)
    if not num_documents:
        raise ValueError("no documents to tag in these files")
    result = {"documents": num_documents, "parts": num_parts, "characters": num_chars, "types": types}
    index = {"passages_in_index": manifest["index"]["num_documents"]} if "index" in manifest else {}
    view = {"view": config.tagging.view, "threshold": manifest["threshold"]}
    told = {"skipped_files": len(skipped), "skipped": skipped} if skip_faulty else {}
    return {**result, **view, **index, "formats": list(formats), "folder": out, **told}


def _documents(
    config: Config,
    sources: Sequence[str],
    kind: DocumentKind | None,
    stack: ExitStack,
    skipped: list[dict[str, str]] | None,
) -> Iterator[Document]:
    """The documents of paths and URIs; files behind URIs are first copied to this machine.

    With a list `skipped`, faulty files are left out and added to it.
    """

    def skip(file: Path, error: Exception) -> None:
        assert skipped is not None
        logger.warning("left out: %s", error)
        skipped.append({"file": str(file), "error": str(error)})

    remote = [source for source in sources if "://" in source]
    copies = stack.enter_context(_fetched(remote)) if remote else {}
    paths = [path for source in sources for path in copies.get(source, [Path(source)])]
    format = config.data.column_format(tagged=False)
    return iter_documents(paths, kind, format=format, on_error=None if skipped is None else skip)


@contextmanager
def _fetched(uris: Sequence[str]) -> Iterator[dict[str, list[Path]]]:
    """Local copies of the files behind each URI, in order; they are deleted when the block ends."""
    with tempfile.TemporaryDirectory(prefix="ctxner-tag-") as name:
        copies = dict[str, list[Path]]()
        for number, uri in enumerate(uris):
            files, path = _open(uri)
            names = sorted(files.find(path)) if files.isdir(path) else sorted(files.glob(path))
            if not names:
                raise FileNotFoundError(f"{uri}: no such file, folder or pattern")
            common = path.rstrip("/") if files.isdir(path) else path.split("*")[0].rsplit("/", 1)[0]
            copies[uri] = []
            for remote_path in names:
                local = Path(name) / str(number) / remote_path.removeprefix(common).lstrip("/")
                local.parent.mkdir(parents=True, exist_ok=True)
                files.get_file(remote_path, str(local))
                copies[uri].append(local)
        yield copies


def _local_folder(config: Config, out: str) -> Path:
    """Folder that the job works in: `out` itself, or for a URI always the same folder below `tagging.work`."""
    if "://" not in out:
        return Path(out)
    _open(out)
    import hashlib

    return config.tagging.work / hashlib.sha256(out.encode()).hexdigest()[:16]


def _upload(folder: Path, uri: str) -> None:
    """Copy the result's files to the URI, `_SUCCESS` last, then delete the local folder."""
    files, path = _open(uri)
    files.makedirs(path, exist_ok=True)
    for file in sorted(folder.iterdir(), key=lambda path: (path.name == "_SUCCESS", path.name)):
        if file.name.startswith("."):
            continue
        console.print(f"copying {file.name} to {uri}")
        target = f"{path.rstrip('/')}/{file.name}"
        if not file.is_dir():
            files.put_file(str(file), target)
            continue
        if files.exists(target):
            files.rm(target, recursive=True)  # or documents of an older result would stay in it
        files.put(str(file), target, recursive=True)
    shutil.rmtree(folder)


def _open(uri: str) -> tuple[Any, str]:
    import fsspec

    try:
        return fsspec.core.url_to_fs(uri)
    except (ImportError, ValueError) as error:
        raise ValueError(f"{uri}: {error}; wanted a path, or a URI that fsspec knows") from None
