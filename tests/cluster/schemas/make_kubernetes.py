"""Makes kubernetes.json anew: JSON schemas of the Kubernetes types that the manifests in `cluster/` use.

They are read off the official Python client, whose classes are generated from Kubernetes' OpenAPI. It is not a package
of this project, so run this in another environment:

    pip install kubernetes==33.1.0  # generated from Kubernetes 1.33
    python tests/cluster/schemas/make_kubernetes.py

The schemas refuse unknown keys. To keep the file small, types in `LEFT_OUT` are missing: a manifest that uses one
fails, and then it belongs in here. `kuberay.json` and `prometheus.json` are written by hand, see their `$comment`.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
from pathlib import Path
from typing import Any

CLIENT = "kubernetes"
ROOTS = (
    "V1ConfigMap",
    "V1Namespace",
    "V1NetworkPolicy",
    "V1PersistentVolumeClaim",
    "V1PodDisruptionBudget",
    "V1PodTemplateSpec",
    "V1Service",
)
LEFT_OUT = re.compile(
    r"(?!V1(ConfigMap|Secret|EmptyDir|PersistentVolumeClaim)VolumeSource).*(VolumeSource|Status|ManagedFields\w*|Lifecycle|Affinity)$"
    r"|V1(EphemeralContainer|PodReadinessGate|PodResourceClaim|PodDNSConfig|SELinuxOptions|WindowsSecurityContextOptions)$"
)
# The client gives strings no pattern and calls a union `object`.
QUANTITY = {"anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^[0-9.]+([EPTGMk]i?|m)?$"}]}
INT_OR_STRING = {"type": ["integer", "string"]}
SIMPLE = {
    "bool": {"type": "boolean"},
    "bytearray": {"type": "string"},
    "datetime": {"type": "string"},
    "dict(str, bytearray)": {"type": "object", "additionalProperties": {"type": "string"}},
    "dict(str, str)": {"type": "object", "additionalProperties": {"type": "string"}},
    "float": {"type": "number"},
    "int": {"type": "integer"},
    "object": INT_OR_STRING,
    "str": {"type": "string"},
}
QUANTITIES = {("V1ResourceRequirements", "limits"), ("V1ResourceRequirements", "requests")} | {
    ("V1VolumeResourceRequirements", "limits"),
    ("V1VolumeResourceRequirements", "requests"),
}


def schemas(models: Any) -> dict[str, Any]:
    """The schema of each type that can be reached from `ROOTS`, by name."""
    made: dict[str, Any] = {}
    waiting = list(ROOTS)
    while waiting:
        name = waiting.pop()
        if name in made or not hasattr(models, name):
            continue
        model = getattr(models, name)
        properties = {}
        for field, kind in model.openapi_types.items():
            inner = re.sub(r"^(?:list\[|dict\(str, )(V\w+)[\])]$", r"\1", kind)
            if LEFT_OUT.match(inner):
                continue
            if inner.startswith(("V1", "V2")):
                waiting.append(inner)
            properties[model.attribute_map[field]] = _schema(name, field, kind)
        required = [model.attribute_map[field] for field in model.openapi_types if _is_required(model, field)]
        made[name] = {"type": "object", "additionalProperties": False, "properties": properties}
        if required:
            made[name]["required"] = required
    return dict(sorted(made.items()))


def _schema(name: str, field: str, kind: str) -> dict[str, Any]:
    if (name, field) in QUANTITIES:
        return {"type": "object", "additionalProperties": QUANTITY}
    if kind in SIMPLE:
        return SIMPLE[kind]
    if inner := re.fullmatch(r"list\[(.*)\]", kind):
        return {"type": "array", "items": _schema(name, "", inner[1])}
    return {"$ref": f"#/$defs/{kind}"}


def _is_required(model: Any, field: str) -> bool:
    """The client's setters refuse None for what OpenAPI requires."""
    return "must not be `None`" in inspect.getsource(getattr(model, field).fset)


def main() -> None:
    client = importlib.import_module(CLIENT)
    models = importlib.import_module(f"{CLIENT}.client.models")
    made = schemas(models)
    lines = ",\n".join(
        f"{json.dumps(name)}: {json.dumps(schema, separators=(',', ':'))}" for name, schema in made.items()
    )
    comment = f"made by make_kubernetes.py from the Python client {client.__version__}"
    path = Path(__file__).with_name("kubernetes.json")
    path.write_text(f'{{"$comment": {json.dumps(comment)}, "$defs": {{\n{lines}\n}}}}\n')
    print(f"{path.name}: {len(made)} types, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
