"""GET /api/schema/ and /api/docs/: the OpenAPI document as JSON, and as a page that requests nothing else."""

import json
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.loader import render_to_string

from chat.api.openapi.document import document

Json = dict[str, Any]

# The page needs its own style sheet and nothing from any host.
CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True)
class FieldRow:
    """A field of a type, as the page shows it."""

    name: str
    type: str
    required: bool
    description: str


async def schema(request: HttpRequest) -> JsonResponse:
    return JsonResponse(document())


async def docs(request: HttpRequest) -> HttpResponse:
    described = document()
    rows: list[Json] = []
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            media = operation.get("requestBody", {}).get("content", {}).values()
            body = next((type_text(kind["schema"]) for kind in media), "")
            rows.append({"method": method.upper(), "path": path, **operation, "body": body})
    context = {
        "info": described["info"],
        "operations": rows,
        "types": [
            {
                "name": name,
                "description": kind.get("description", ""),
                "fields": field_rows(kind),
                "of": type_text(kind),
            }
            for name, kind in described["components"]["schemas"].items()
        ],
    }
    page = render_to_string("chat/api_docs.html", context)
    return HttpResponse(page, headers={"Content-Security-Policy": CONTENT_SECURITY_POLICY})


def field_rows(kind: Json) -> list[FieldRow]:
    required = kind.get("required", ())
    rows = []
    for name, field in kind.get("properties", {}).items():
        texts = [str(part["description"]) for part in (field, *field.get("anyOf", ())) if "description" in part]
        if field.get("default") not in (None, "", [], {}):
            texts.append(f"Default: {json.dumps(field['default'])}.")
        rows.append(FieldRow(name, type_text(field), name in required, " ".join(texts)))
    return rows


def type_text(schema: Json) -> str:
    """Return a schema in one line: ``list of MessageBody or null``."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(type_text(part) for part in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return " | ".join(json.dumps(value) for value in schema.get("enum", [schema.get("const")]))
    kind = str(schema.get("type", "any"))
    if "prefixItems" in schema:
        return f"list of {', '.join(map(type_text, schema['prefixItems']))}"
    if kind == "array":
        return f"list of {type_text(schema.get('items', {}))}{_bounds(schema, 'minItems', 'maxItems')}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {type_text(schema['additionalProperties'])}"
    return kind + _bounds(schema, "minimum", "maximum") + _bounds(schema, "minLength", "maxLength")


def _bounds(schema: Json, least: str, most: str) -> str:
    if least not in schema and most not in schema:
        return ""
    return f" ({schema.get(least, '')}..{schema.get(most, '')})"
