"""What is true of every OpenRPC document, and schemas taken out of one."""

from __future__ import annotations

import functools
import json
from pathlib import Path

from jsonschema import Draft7Validator
from referencing import Registry
from referencing.jsonschema import DRAFT7

SCHEMAS = Path(__file__).parent / "schemas"


@functools.cache
def meta_schema() -> Draft7Validator:
    openrpc, inner = (
        json.loads((SCHEMAS / name).read_text()) for name in ("openrpc-1.4.json", "json-schema-tools.json")
    )
    resources = [(url, DRAFT7.create_resource(inner)) for url in ("https://meta.json-schema.tools", inner["$id"])]
    return Draft7Validator(openrpc, registry=Registry().with_resources(resources))


def validate(document: dict) -> dict:
    """Return the document, which is valid OpenRPC, with draft-07 schemas all of whose references lead somewhere."""
    meta_schema().validate(document)
    components = document["components"]["schemas"]
    for schema in [*schemas(document), *components.values()]:
        Draft7Validator.check_schema(schema)
    for reference in references(document):
        place = document
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]
    for method in document["methods"]:
        names = [param["name"] for param in method["params"]]
        assert len(names) == len(set(names))
        required = [param["required"] for param in method["params"]]
        assert required == sorted(required, reverse=True), "the required ones come first"
    return document


def schemas(document: dict) -> list[dict]:
    return [
        described["schema"] for method in document["methods"] for described in (*method["params"], method["result"])
    ]


def references(value: object) -> list[str]:
    if isinstance(value, list):
        return [found for each in value for found in references(each)]
    if not isinstance(value, dict):
        return []
    own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
    return own + [found for each in value.values() for found in references(each)]


def method_of(document: dict, name: str) -> dict:
    (found,) = [method for method in document["methods"] if method["name"] == name]
    return found


def accepts(document: dict, schema: dict, value: object) -> bool:
    """Whether a schema of this document takes the value."""
    return Draft7Validator({**schema, "components": document["components"]}).is_valid(value)
