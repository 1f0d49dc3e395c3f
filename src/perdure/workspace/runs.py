"""An edit from the facts to the delta: checked, planned, solved in batches, resumable."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from perdure.content import digest_json
from perdure.deltas import Delta, load_delta, save_delta
from perdure.editing.method import Surroundings, edit_in_batches
from perdure.editing.statistics import Moments
from perdure.errors import IntegrityError, RequestError, SettingError
from perdure.models.tokens import encode, join
from perdure.progress import Progress
from perdure.registry import Method, editors, restraints
from perdure.requests import Fact, FactFile

TOKEN_LIMIT = 512


@dataclass(frozen=True)
class EditPlan:
    """Everything that decides what an edit gives; two equal plans give the same version.

    Attributes:
        parent: The id of the version to edit.
        facts: The facts, in order.
        method: The editor.
        config: Its resolved settings.
        restraint: The restraint of the accumulated update.
        restraint_config: Its resolved settings.
        batch_size: Facts solved together.
        text_id: The hash of the text of the second moments.
    """

    parent: str
    facts: tuple[Fact, ...]
    method: Method
    config: BaseModel
    restraint: Method
    restraint_config: BaseModel
    batch_size: int
    text_id: str

    def recipe(self) -> dict[str, Any]:
        """The plan as JSON, for the manifest; the facts themselves lie with the solved delta."""
        return {
            "kind": "edit",
            "editor": self.method.name,
            "paper": self.method.paper,
            "config": self.config.model_dump(mode="json"),
            "restraint": self.restraint.name,
            "restraint_config": self.restraint_config.model_dump(mode="json"),
            "batch_size": self.batch_size,
            "facts": {"count": len(self.facts), "digest": digest_json([fact.id for fact in self.facts])},
            "moments_text": self.text_id,
        }

    @property
    def digest(self) -> str:
        """What names this plan's unfinished work."""
        return digest_json({"parent": self.parent, **self.recipe()})


@dataclass(frozen=True)
class Settings:
    """What a user may choose about an edit.

    Attributes:
        editor: A registered editor.
        config: Its settings, where they differ from the defaults.
        restraint: A registered restraint.
        restraint_config: Its settings, where they differ.
        batch_size: Facts solved together.
        texts: Text for second moments; the built-in passages when not given.
    """

    editor: str = "memit"
    config: Mapping[str, Any] = field(default_factory=dict)
    restraint: str = "prune"
    restraint_config: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int = 100
    texts: Sequence[str] | None = None


def plan_edit(parent: str, asked: FactFile, settings: Settings) -> EditPlan:
    """The plan of an edit, every setting resolved and checked.

    Raises:
        UnknownNameError: No such editor or restraint.
        SettingError: A setting that does not exist or is out of range; the allowed ones are listed.
        RequestError: No fact to edit.
    """
    if not asked.facts:
        raise RequestError("there is no fact to edit")
    if settings.batch_size < 1:
        raise SettingError(f"the batch size must be at least 1; given {settings.batch_size}")
    method, restraint = editors.get(settings.editor), restraints.get(settings.restraint)
    return EditPlan(
        parent=parent,
        facts=asked.facts,
        method=method,
        config=resolve_config(method, settings.config),
        restraint=restraint,
        restraint_config=resolve_config(restraint, settings.restraint_config),
        batch_size=settings.batch_size,
        text_id=Moments(_no_model, settings.texts).text_id,
    )


def _no_model() -> tuple[Any, Any]:
    raise SettingError("a plan needs no model")


def resolve_config(method: Method, given: Mapping[str, Any]) -> BaseModel:
    """The settings of a method, with its defaults.

    Raises:
        SettingError: An unknown setting or a value out of range; the message lists what is allowed.
    """
    try:
        return method.config.model_validate(dict(given))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, part['loc'])) or 'settings'}: {part['msg']}" for part in error.errors())
        allowed = ", ".join(name for name in method.config.model_fields if name != "kind") or "none"
        raise SettingError(f"{method.kind} {method.name}: {wrong}. Settings: {allowed}") from error


def check_lengths(tokenizer: Any, facts: Sequence[Fact]) -> None:
    """Refuse facts that are too long for the model's tokenizer, all at once.

    Raises:
        RequestError: Lists each fact whose prompt and answer exceed 512 tokens.
    """
    long = []
    for fact in facts:
        tokens = len(encode(tokenizer, join(fact.prompt, fact.target_new)))
        if tokens > TOKEN_LIMIT:
            long.append(f"{fact.source or fact.short_id}: {tokens} tokens")
    if long:
        raise RequestError(
            f"{len(long)} facts are longer than {TOKEN_LIMIT} tokens with their answer: {'; '.join(long[:20])}. "
            "Shorten the prompts"
        )


def solve(
    model: Any, tokenizer: Any, plan: EditPlan, *, moments: Moments, previous: Delta, work: Path, progress: Progress
) -> Delta:
    """What the editor solves for all facts; unfinished work in `work` is taken up again.

    Args:
        model: The parent's model; it comes back as it was.
        tokenizer: Its tokenizer.
        plan: The plan.
        moments: Second moments of the base.
        previous: What was solved earlier in this lineage, for its keys.
        work: The folder of unfinished work.
        progress: Told how far the work is.
    """
    check_lengths(tokenizer, plan.facts)
    file = work / f"{plan.digest}.safetensors"

    def keep(done: int, total: Delta) -> None:
        save_delta(Delta(total.changes, total.keys, {**total.notes, "facts_done": done}), file)
        progress("editing batches", done, len(plan.facts))

    start = _unfinished(file)
    return edit_in_batches(
        model,
        tokenizer,
        plan.facts,
        plan.method,
        plan.config,
        batch_size=plan.batch_size,
        around=Surroundings(previous.keys, moments, progress),
        start=start,
        on_batch=keep if len(plan.facts) > plan.batch_size else None,
    )


def forget_work(plan: EditPlan, work: Path) -> None:
    """Remove the unfinished work of a plan that was committed."""
    (work / f"{plan.digest}.safetensors").unlink(missing_ok=True)


def _unfinished(file: Path) -> tuple[int, Delta]:
    """How many facts are done, and their delta; nothing if there is none or it is damaged."""
    if not file.is_file():
        return 0, Delta()
    try:
        found = load_delta(file)
        notes = {name: value for name, value in found.notes.items() if name != "facts_done"}
        return int(found.notes["facts_done"]), Delta(found.changes, found.keys, notes)
    except (IntegrityError, KeyError, ValueError):
        file.unlink(missing_ok=True)
        return 0, Delta()
