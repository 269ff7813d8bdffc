"""The context of the front page, as far as the operator may see it."""

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.http import HttpRequest

from chat.admin.front_page.panels import charts, tiles
from chat.admin.front_page.rankings import RankedLine, cited_sources, unanswered, users
from chat.models import RollupProgress
from chat.services.rollups.collecting import RETRIEVALS
from chat.services.rollups.reading import Period, PeriodSums, sums_of
from inference.models import Generation

Ranking = tuple[str, str, str, list[RankedLine]]  # title, heads of the two columns, lines


def front_page_context(request: HttpRequest) -> dict[str, object]:
    """Return charts and lists of the chosen period; nothing for an operator who may not see conversations."""
    if not request.user.has_perm("chat.view_conversation"):
        return {}
    period = next((one for one in Period if one.value == request.GET.get("period")), Period.DAY)
    sums = sums_of(period)
    return {
        "periods": [(one.value, one.division.title, one is period) for one in Period],
        "summed_until": RollupProgress.objects.values_list("until", flat=True).first(),
        "may_see_generations": request.user.has_perm("inference.view_generation"),
        "n_running": Generation.objects.running().count(),
        "n_waiting": Generation.objects.waiting().count(),
        "tiles": tiles(sums),
        "charts": charts(sums),
        "rankings": [ranking for ranking in _rankings(request.user, sums) if ranking[3]],
    }


def _rankings(user: AbstractBaseUser | AnonymousUser, sums: PeriodSums) -> list[Ranking]:
    retrievals = sums.totals[RETRIEVALS]
    rankings: list[Ranking] = []
    if user.has_perms(["memory.view_transcript", "memory.view_note"]):  # type: ignore[union-attr]
        cited = cited_sources(retrievals.get("sources", {}))
        rankings += [
            ("Most cited sources", "source", "cited", cited.titles),
            ("Most cited speakers", "speaker", "cited", cited.speakers),
        ]
    if user.has_perm("chat.view_retrieval"):  # type: ignore[union-attr]
        empty = unanswered(retrievals.get("empty_ids", {}))
        rankings.append(("Questions for which nothing was found", "searched for", "when", empty))
    if user.has_perm("inference.view_dailyusage"):  # type: ignore[union-attr]
        rankings.append(("Tokens by user", "user", "tokens", users(sums)))
    return rankings
