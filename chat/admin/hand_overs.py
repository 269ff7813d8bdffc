"""Admin pages of hand-overs: arrival on the GPU, use, and the reason of the end. Read-only; newest first."""

from django.contrib import admin
from django.utils.timezone import localtime

from chat.admin.common.read_only import ReadOnlyAdmin
from inference.engine.config import MEBIBYTE
from inference.models.gpu import HandOver

GROUPS = {
    "To the GPU": ("when", "way", "waited", "loaded", "moved", "moved_in", "lease"),
    "On the GPU": ("held", "served", "taken"),
    "Back to the CPU": ("outcome", "gave_back"),
}


@admin.register(HandOver)
class HandOverAdmin(ReadOnlyAdmin):
    """The list has the main figures of each GPU session; its page has all of them in three groups."""

    list_display = ("when", "outcome", "way", "ready_after", "held", "served", "moved", "gave_back")
    list_display_links = ("when",)
    list_filter = ("device_to", "coordinator", "is_simulated", "started_at")
    search_fields = ("ended_because",)
    date_hierarchy = "started_at"
    fieldsets = [(title, {"fields": names}) for title, names in GROUPS.items()]
    readonly_fields = tuple(name for names in GROUPS.values() for name in names)

    @admin.display(description="requested at", ordering="started_at")
    def when(self, row: HandOver) -> str:
        at = localtime(row.started_at)
        return f"{at:%Y-%m-%d %H:%M:%S}"

    # Second, so that it is visible on a phone without scrolling.
    @admin.display(description="ended because", ordering="ended_because")
    def outcome(self, row: HandOver) -> str:
        return row.ended_because

    @admin.display(description="answers", ordering="n_served")
    def served(self, row: HandOver) -> int:
        return row.n_served

    @admin.display(description="from, to", ordering="device_to")
    def way(self, row: HandOver) -> str:
        way = f"{row.device_from} → {row.device_to}" if row.loaded_ms is not None else "not reached"
        simulated = "(simulated)" if row.is_simulated else ""
        return f"{way} {simulated}".rstrip()

    @admin.display(description="waited, loaded")
    def ready_after(self, row: HandOver) -> str:
        return f"{self.waited(row)} + {self.loaded(row)}".replace(" ", "\N{NO-BREAK SPACE}")

    @admin.display(description="waited for the lease", ordering="waited_ms")
    def waited(self, row: HandOver) -> str:
        return _duration(row.waited_ms)

    @admin.display(description="loaded in", ordering="loaded_ms")
    def loaded(self, row: HandOver) -> str:
        return _duration(row.loaded_ms)

    @admin.display(description="answers moved", ordering="moved_bytes")
    def moved(self, row: HandOver) -> str:
        if not row.n_sequences and not row.n_snapshots:
            return "none"
        saved = f" + {row.n_snapshots} saved" if row.n_snapshots else ""
        return f"{row.n_sequences}{saved}, {row.moved_bytes / MEBIBYTE:.1f}\N{NO-BREAK SPACE}MB"

    @admin.display(description="moved in", ordering="moved_ms")
    def moved_in(self, row: HandOver) -> str:
        return _duration(row.moved_ms)

    @admin.display(description="held", ordering="held_secs")
    def held(self, row: HandOver) -> str:
        return _duration(row.held_secs * 1000)

    @admin.display(description="withheld from others", ordering="taken_secs")
    def taken(self, row: HandOver) -> str:
        return _duration(row.taken_secs * 1000)

    @admin.display(description="left within", ordering="yield_ms")
    def gave_back(self, row: HandOver) -> str:
        return _duration(row.yield_ms)

    @admin.display(description="lease")
    def lease(self, row: HandOver) -> str:
        number = f"number {row.lease_epoch}" if row.lease_epoch else "without a number"
        return f"{number}, coordinator: {row.coordinator or 'none'}"


def _duration(ms: float | None) -> str:
    """Format a duration for people, without a line break: ms below a second, then seconds, then minutes."""
    if ms is None:
        return "–"
    secs = ms / 1000
    text = f"{ms:.0f} ms" if secs < 1 else f"{secs:.1f} s" if secs < 60 else f"{secs // 60:.0f} min {secs % 60:.0f} s"
    return text.replace(" ", "\N{NO-BREAK SPACE}")
