"""From what somebody asked for to a job in the queue: facts to teach, a task to learn."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from perdure.errors import RefusedError
from perdure.registry import editors, restraints
from perdure.requests import Fact, Task
from perdure.settings import checked
from perdure.web.server.jobs import Job
from perdure.web.server.naming import VERSION
from perdure.web.server.services import Services
from perdure.web.server.told import told
from perdure.web.server.words import _, ngettext
from perdure.workspace import Settings, Version
from perdure.workspace.removing import plan_removal
from perdure.workspace.runs import AUTO
from perdure.workspace.teachings import Lineage

USUAL_EDITOR = "memit"
NOTE_LIMIT = 2000


class How(BaseModel):
    """How a change shall be made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    editor: str = Field(USUAL_EDITOR, max_length=60, description="For facts: a registered editor")
    restraint: str = Field("", max_length=60, description="For facts: a registered restraint, auto or none; or usual")
    on: str = Field("", pattern=f"^$|{VERSION}", description="The version to change; the newest not rejected")
    note: str = Field("", max_length=NOTE_LIMIT, description="Why; it becomes a comment on the version")


def how_of(**given: str) -> How:
    """How a change shall be made, as a form says it.

    Raises:
        SettingError: Something that no change can have.
    """
    return checked(How, given, "request")


def choices() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The editors and the restraints that can be chosen, with what they are."""
    found = [(method.name, f"{method.name} – {told(method.summary)}") for method in editors]
    held = [(method.name, f"{method.name} – {told(method.summary)}") for method in restraints if method.name != "none"]
    usual = [("", _("the usual one")), (AUTO, _("auto – as strong as a measured curve says")), *held]
    return found, [*usual, ("none", _("none"))]


def parent_of(services: Services, how: How) -> Version:
    """The version that a change would stand on.

    Raises:
        RefusedError: It stands on one that was rejected.
    """
    shop = services.shop
    chosen = shop.version(how.on) if how.on else shop.newest()
    rejected = shop.rejected(chosen)
    if rejected is not None:
        words = _("{version} stands on {rejected}, which was rejected; choose another one.")
        raise RefusedError(words.format(version=chosen.name, rejected=rejected.name))
    return chosen


def request_facts(services: Services, facts: Sequence[Fact], how: How, requester: str) -> Job:
    """Put facts to teach into the queue, after a plan showed that they can be taught.

    Raises:
        RequestError: A fact does not fit the model.
        SettingError: An editor or restraint that does not exist.
    """
    parent = parent_of(services, how)
    rows = [fact.model_dump(mode="json") for fact in facts]
    services.shop.plan(rows, settings_of(how), on=parent)
    title = ngettext("Teach {count} fact: {first}", "Teach {count} facts: {first} …", len(facts))
    said = title.format(count=len(facts), first=f"{facts[0].prompt} {facts[0].target_new}")
    payload: dict[str, Any] = {"facts": rows, "how": how.model_dump(), "on": parent.id}
    return services.jobs.add("facts", payload, requester=requester, title=said)


def request_task(services: Services, task: Task, name: str, data: bytes, how: How, requester: str) -> Job:
    """Put a task to learn into the queue, as the file that it came in, after a plan showed that it can be learnt."""
    from perdure.tuning.defaults import usual_settings

    parent = parent_of(services, how)
    services.shop.plan_tuning(task, usual_settings(), on=parent)
    payload = {"task": task.name, "file": name, "rows": len(task.train), "how": how.model_dump(), "on": parent.id}
    title = _("Learn the task {name}").format(name=task.name)
    return services.jobs.add("task", payload, requester=requester, title=title, data=data)


def request_removal(services: Services, fact: str, on: str, note: str, requester: str) -> Job:
    """Put the removal of a fact into the queue, after a plan showed that it can be taken out.

    Args:
        services: Of the server.
        fact: Its id.
        on: The version to take it out of; the newest that holds it and was not rejected when empty.
        note: Why; it becomes a comment on the version.
        requester: Who asks.

    Raises:
        RefusedError: It is a task, lives in no version, or cannot be taken out of this one.
    """
    found = services.shop.lineage_of(fact)
    if found.kind != "fact":
        raise RefusedError(_("A task cannot be taken out of a version; go back to one that did not learn it."))
    origin = services.shop.version(on) if on else _holding(services, found)
    if origin.name not in found.lives_in:
        raise RefusedError(_("{version} does not hold this fact.").format(version=origin.name))
    plan_removal(services.shop, [found.id], on=origin)
    said = f"{found.shown.get('prompt', '')} {found.shown.get('target_new', '')}"
    title = _("Take out: {fact}").format(fact=said.strip())
    payload = {"fact": found.id, "shown": dict(found.shown), "on": origin.id, "note": note[:NOTE_LIMIT]}
    return services.jobs.add("removal", payload, requester=requester, title=title)


def _holding(services: Services, found: Lineage) -> Version:
    """The newest version that holds a fact and does not stand on a rejected one."""
    held = (services.shop.version(name) for name in reversed(found.lives_in))
    chosen = next((version for version in held if services.shop.rejected(version) is None), None)
    if chosen is None:
        raise RefusedError(_("No version that may be built on holds this fact."))
    return chosen


def settings_of(how: How) -> Settings:
    """What was chosen, as the workspace takes it."""
    return Settings(how.editor, {}, how.restraint or None)
