"""Forms of memories, with the limits that hold for memories of the API."""

from datetime import datetime
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib.admin.widgets import AdminSplitDateTime, AdminTextareaWidget, AdminTextInputWidget
from django.contrib.auth import get_user_model
from django.utils import timezone

from chat.access import usage
from chat.access.callers import Caller
from chat.access.owners import LOCAL
from chat.errors import TooManyRequests
from chat.rag.limits import MAX_TEXT_CHARS
from chat.rag.models import SHARED, Note, Transcript
from chat.rag.records import MAX_NAME_CHARS
from chat.rag.search.hybrid import MAX_QUERY_CHARS
from chat.schemas.dates import YEARS
from inference.text_forms import is_visible

if TYPE_CHECKING:
    NoteModelForm = forms.ModelForm[Note]
    TranscriptModelForm = forms.ModelForm[Transcript]
else:
    NoteModelForm = TranscriptModelForm = forms.ModelForm  # takes no type arguments at run time

OWNER_HELP = "The name of a user. Empty: shared memories, which every caller may read. local: callers without a login."


class MemoryTextField(forms.CharField):
    widget = AdminTextareaWidget

    def __init__(self, **options: Any) -> None:  # noqa: ANN401  those of the base
        super().__init__(max_length=MAX_TEXT_CHARS, label="Text", **options)

    def clean(self, value: object) -> str:
        text: str = super().clean(value)
        if not is_visible(text):
            raise forms.ValidationError("The text has no visible character.", code="invisible")
        return text


class MomentField(forms.SplitDateTimeField):
    widget = AdminSplitDateTime

    def clean(self, value: object) -> datetime:
        moment: datetime = super().clean(value)
        if moment.year not in YEARS:
            raise forms.ValidationError(f"The year must be from {YEARS[0]} to {YEARS[-1]}.", code="year")
        return moment


class OwnerField(forms.CharField):
    """A name of a user, whose value is the identity of its owner; None stands for shared memories."""

    widget = AdminTextInputWidget

    def __init__(self) -> None:
        super().__init__(max_length=150, required=False, label="Owner", help_text=OWNER_HELP)

    def clean(self, value: object) -> Caller | None:
        name = str(super().clean(value))
        if not name:
            return None
        users = get_user_model()
        user = users._default_manager.filter(**{users.USERNAME_FIELD: name}).first()
        if user is not None:
            return Caller.of_user(user)
        if name == LOCAL:
            return Caller.local()
        raise forms.ValidationError("There is no user of this name.", code="unknown_user")


class NoteForm(NoteModelForm):
    body = MemoryTextField()
    created_at = MomentField(label="Date", initial=timezone.now)

    class Meta:
        model = Note
        fields = ("title", "created_at", "body")


class NewNoteForm(NoteForm):
    owner_name = OwnerField()

    def clean(self) -> dict[str, Any]:
        """Check that the owner may store a further memory, as the API does for memories that they add."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        caller = cleaned.get("owner_name")
        if caller is not None:
            try:
                usage.check_memories(caller, n_more=1)
            except TooManyRequests as error:
                raise forms.ValidationError("This owner has as many memories as the limit allows.") from error
        return cleaned

    @property
    def owner(self) -> str:
        """Owner key of a valid form."""
        caller = self.cleaned_data["owner_name"]
        return caller.key if caller else SHARED


class TranscriptForm(TranscriptModelForm):
    created_at = MomentField(label="Recorded", help_text="The times of all lines move with it.")

    class Meta:
        model = Transcript
        fields = ("title", "created_at")


class LineForm(forms.Form):
    text = MemoryTextField()
    speaker = forms.CharField(max_length=MAX_NAME_CHARS, required=False, widget=AdminTextInputWidget)
    said_at = MomentField(label="Date")


class TrialForm(forms.Form):
    question = forms.CharField(max_length=MAX_QUERY_CHARS, widget=AdminTextareaWidget(attrs={"rows": 2}))
    owner = OwnerField()
