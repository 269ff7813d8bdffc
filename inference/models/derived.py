"""Columns that are derived from another text column of the same row, for look-ups that every database answers alike.

They are computed whenever the row is saved. ``QuerySet.update`` of the source column has to set them, too, and so has
``save(update_fields=...)``.
"""

from typing import Any

from django.db import models

from inference.text_forms import answer_digest, folded


# The stubs are generic, the classes are not.
class DerivedField(models.Field):  # type: ignore[type-arg]
    """Base of the fields whose value is ``derive(source)``."""

    def __init__(self, *args: Any, source: str, **kwargs: Any) -> None:  # noqa: ANN401
        self.source = source
        options: dict[str, Any] = {"blank": True, "default": "", "editable": False}
        super().__init__(*args, **(options | kwargs))

    def deconstruct(self) -> tuple[str, str, Any, Any]:
        name, path, args, kwargs = super().deconstruct()
        return name, path, args, kwargs | {"source": self.source}

    def pre_save(self, model_instance: models.Model, add: bool) -> str:
        value = self.derive(getattr(model_instance, self.source))
        setattr(model_instance, self.attname, value)
        return value

    def derive(self, text: str) -> str:
        raise NotImplementedError


class FoldedField(DerivedField, models.TextField):  # type: ignore[type-arg]
    """The folded form of a text, in which searches look."""

    def derive(self, text: str) -> str:
        return folded(text)


class DigestField(DerivedField, models.CharField):  # type: ignore[type-arg]
    """The digest of a text as messages are compared; empty for a blank text."""

    def __init__(self, *args: Any, source: str, **kwargs: Any) -> None:  # noqa: ANN401
        options: dict[str, Any] = {"max_length": 64}
        super().__init__(*args, source=source, **(options | kwargs))

    def derive(self, text: str) -> str:
        return answer_digest(text)
