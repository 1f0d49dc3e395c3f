"""The workspace as one request sees it: each thing read once."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from perdure.errors import PerdureError
from perdure.web.server.words import _, ngettext
from perdure.workspace import Version, Workspace
from perdure.workspace.releases import Canary
from perdure.workspace.rulings import Emergency


class Sight:
    """Versions, aliases and names, read when first asked for and then kept for the rest of the request."""

    def __init__(self, shop: Workspace) -> None:
        self.shop = shop

    @cached_property
    def versions(self) -> list[Version]:
        """Every version, oldest first."""
        return self.shop.archive.versions()

    @cached_property
    def by_id(self) -> Mapping[str, Version]:
        """Every version by its id."""
        return {version.id: version for version in self.versions}

    @cached_property
    def aliases(self) -> Mapping[str, Version]:
        """What each alias holds."""
        return self.shop.archive.aliases()

    @cached_property
    def canaries(self) -> Sequence[Canary]:
        """The canaries that run now."""
        return [canary for canary in self.shop.canaries() if canary.running]

    @cached_property
    def emergencies(self) -> Sequence[Emergency]:
        """Emergencies that nobody reviewed."""
        return self.shop.emergencies(unreviewed=True)

    def name(self, version: str | None) -> str:
        """What people call the version of an id; empty for none."""
        found = self.by_id.get(version or "")
        return found.name if found else ""

    def pointing(self, version: Version) -> list[str]:
        """The aliases that hold a version."""
        return [alias for alias, held in self.aliases.items() if held.id == version.id]

    def open(self) -> list[Version]:
        """Candidates on which nobody has decided, the newest first."""
        return [version for version in reversed(self.versions) if version.status == "candidate"]


def made_with(version: Version) -> str:
    """How a version was made, in a few plain words."""
    try:
        recipe = version.manifest.recipe
    except PerdureError:
        return _("its manifest is damaged")
    return words_of_recipe(recipe)


def words_of_recipe(recipe: Mapping[str, Any]) -> str:
    """How something was made, in a few plain words."""
    facts = recipe.get("facts") if isinstance(recipe.get("facts"), Mapping) else {}
    count = int(facts.get("count", 0)) if isinstance(facts, Mapping) else 0
    if "removed" in recipe:
        gone = int(recipe["removed"].get("count", 0))
        return ngettext("{count} fact taken out", "{count} facts taken out", gone).format(count=gone)
    if "editor" in recipe:
        return ngettext("{count} fact taught", "{count} facts taught", count).format(count=count)
    task = recipe.get("task")
    if isinstance(task, Mapping):
        return _("task learnt: {name}").format(name=task.get("name", ""))
    if recipe.get("action") == "import":
        return _("the original model")
    return str(recipe.get("kind", ""))
