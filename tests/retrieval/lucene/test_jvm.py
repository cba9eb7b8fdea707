"""Starting Java: once, with the packaged runtime, and with a clear error when it cannot."""

import os
import subprocess
import sys

from ctxner.retrieval.lucene.jvm import anserini_version, java_class, start_jvm


def python(script, **environment):
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


def test_starting_twice_is_harmless_and_java_is_the_packaged_one():
    start_jvm()
    start_jvm(heap_mib=128)
    assert java_class("java.lang.System").getProperty("java.version").startswith("21.")


def test_a_foreign_java_home_and_class_path_are_not_trusted():
    script = (
        "from ctxner.retrieval.lucene.jvm import java_class as j; "
        "print(j('org.apache.lucene.util.Version').LATEST.major)"
    )
    done = python(script, JAVA_HOME="/nonexistent", CLASSPATH="/nonexistent")
    assert (done.returncode, done.stdout.strip()) == (0, "9"), done.stderr


def test_pyserini_itself_is_never_imported():
    script = (
        "import sys; from ctxner.retrieval.lucene.jvm import start_jvm; start_jvm(); print('pyserini' in sys.modules)"
    )
    assert python(script).stdout.strip() == "False"


def test_a_heap_that_cannot_be_is_a_clear_error():
    done = python("from ctxner.retrieval.lucene.jvm import start_jvm; start_jvm(heap_mib=1)")
    assert "ValueError: heap_mib is 1;" in done.stderr
    done = python("from ctxner.retrieval.lucene.jvm import start_jvm; start_jvm(heap_mib=10**9)")
    assert done.returncode != 0
    assert "object heap" in done.stdout + done.stderr


def test_the_version_is_read_off_the_jar():
    assert anserini_version()[0].isdigit()
