"""Functions composed in Java from methods of Java and Lucene (method handles), so that loops run there.

A call from Python to Java costs microseconds and Python's lock. A composed function that takes and gives one text is
called once for a whole batch instead, and does not come back to Python in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ctxner.retrieval.lucene.jvm import java_class

STRING = "java.lang.String"
_OBJECT = "java.lang.Object"


def constructor(owner: str, *arguments: str) -> Any:
    """A method handle of a public constructor."""
    return _lookup().findConstructor(java_type(owner), _signature("void", arguments))


def method(owner: str, name: str, result: str, *arguments: str) -> Any:
    """A method handle of a public method, whose first argument is the object. An array's name begins with `[`."""
    return _lookup().findVirtual(java_type(owner), name, _signature(result, arguments))


def static_method(owner: str, name: str, result: str, *arguments: str) -> Any:
    """A method handle of a public static method."""
    return _lookup().findStatic(java_type(owner), name, _signature(result, arguments))


def getter(owner: str, name: str, kind: str) -> Any:
    """A method handle that reads a public field."""
    return _lookup().findGetter(java_type(owner), name, java_type(kind))


def bound(handle: Any, position: int, *values: Any) -> Any:
    """The handle with arguments fixed from `position` on; numbers must be `java_class("java.lang.Integer")(n)`."""
    for value in values:  # one by one: given together, pyjnius wants them all of one class
        handle = handles().insertArguments(handle, position, value)
    return handle


def chain(first: Any, *others: Any) -> Any:
    """Handles in sequence: the result of each is the argument of the next."""
    for other in others:
        first = handles().filterReturnValue(first, other)
    return first


def as_type(handle: Any, result: str, *arguments: str) -> Any:
    """The handle with its result and arguments cast."""
    return handle.asType(_signature(result, arguments))


def as_interface(name: str, handle: Any) -> Any:
    """A Java object that implements a functional interface by the handle."""
    import jnius

    instance = java_class("java.lang.invoke.MethodHandleProxies").asInterfaceInstance(java_type(name), handle)
    return jnius.cast(name, instance)


def for_each(handle: Any, separator: str) -> Any:
    """A handle String -> String of one String -> String: applied to each of the parts, whose results are joined."""
    stream, function, collector = "java.util.stream.Stream", "java.util.function.Function", "java.util.stream.Collector"
    all_parts = java_class("java.lang.Integer")(-1)  # keep empty parts at the end
    parts = bound(method(STRING, "split", "[" + STRING, STRING, "int"), 1, separator, all_parts)
    as_stream = as_type(static_method("java.util.Arrays", "stream", stream, "[" + _OBJECT), stream, "[" + STRING)
    apply = bound(method(stream, "map", stream, function), 1, as_interface(function, handle))
    joining = java_class("java.util.stream.Collectors").joining(characters(separator))
    collect = bound(as_type(method(stream, "collect", _OBJECT, collector), STRING, stream, collector), 1, joining)
    return chain(parts, as_stream, apply, collect)


def handles() -> Any:
    """Java's MethodHandles."""
    return java_class("java.lang.invoke.MethodHandles")


def java_type(name: str) -> Any:
    """Java's Class of a name; an array's begins with `[`."""
    return java_class("java.lang.Class").forName(_descriptor(name).replace("/", ".") if name.startswith("[") else name)


def characters(text: str) -> Any:
    """A Java CharSequence; from bytes, as pyjnius would take the string for an array of 16-bit characters."""
    import jnius

    return jnius.cast("java.lang.CharSequence", java_class(STRING)(text.encode(), "UTF-8"))


def _lookup() -> Any:
    return handles().publicLookup()


def _signature(result: str, arguments: Sequence[str]) -> Any:
    descriptor = f"({''.join(map(_descriptor, arguments))}){_descriptor(result)}"
    return java_class("java.lang.invoke.MethodType").fromMethodDescriptorString(descriptor, None)


def _descriptor(name: str) -> str:
    if name.startswith("["):
        return "[" + _descriptor(name[1:])
    return {"void": "V", "int": "I", "boolean": "Z"}.get(name, f"L{name.replace('.', '/')};")
