"""An edit from the facts to the delta: checked, planned, solved in batches, resumable."""

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from torch import Tensor

from perdure.content import digest_json
from perdure.deltas import Delta, load_delta, save_delta
from perdure.editing.method import Progressed, Surroundings, edit_in_batches
from perdure.editing.presets import preset_settings
from perdure.editing.statistics import Moments
from perdure.editing.subjects import sample_contexts
from perdure.errors import IntegrityError, RequestError, SettingError
from perdure.models.tokens import encode, join, positions_of
from perdure.progress import Progress
from perdure.registry import Method, editors, restraints
from perdure.requests import Fact, FactFile
from perdure.settings import said_of
from perdure.workspace.layer_choice import AskedLayers, LayerChoice
from perdure.workspace.updates import Restraint

TOKEN_LIMIT = 512
AUTO = "auto"
_MANY = 100  # facts from which on a restraint has something to do on SmolLM2-135M, and its strength matters


@dataclass(frozen=True)
class Again:
    """What is known about an edit that is done once more, without some of its facts.

    Attributes:
        name: The version that it was, its place there, and what is taken out, as one hash.
        batches: How many facts are solved together, batch by batch: as they were, less those taken out.
        values: From a fact's id to the state and shift of its target value (`Delta.values`), as far as kept.
    """

    name: str
    batches: tuple[int, ...]
    values: Mapping[str, Tensor]


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
        preset: The published settings that `config` started from, if any.
        layers: How the layers in `config` were chosen.
        choose: Whether the strength of the restraint is chosen when the facts are solved.
        each_batch: Whether the restraint works after every batch, so that later ones are solved on what it left.
        rescore: After how many facts all earlier ones are asked again; 0 for never.
        stop_at_limit: Whether the edit ends where a limit of the policy on weights is passed.
        again: What is known where the edit is done once more, without some of its facts.
    """

    parent: str
    facts: tuple[Fact, ...]
    method: Method
    config: BaseModel
    restraint: Method
    restraint_config: BaseModel
    batch_size: int
    text_id: str
    preset: str | None = None
    layers: Mapping[str, Any] = field(default_factory=dict)
    choose: bool = False
    each_batch: bool = False
    rescore: int = 0
    stop_at_limit: bool = False
    again: Again | None = None

    def recipe(self) -> dict[str, Any]:
        """The plan as JSON, for the manifest; the facts themselves lie with the solved delta."""
        return {
            "kind": "edit",
            "editor": self.method.name,
            "paper": self.method.paper,
            "preset": self.preset,
            "config": self.config.model_dump(mode="json"),
            "layers": dict(self.layers),
            "restraint": self.restraint.name,
            "restraint_config": self.restraint_config.model_dump(mode="json"),
            "restraint_chosen": "on the measured curve" if self.choose else "as asked",
            "restraint_after": "each batch" if self.each_batch else "the last batch",
            "batch_size": self.batch_size,
            **({"batches": list(self.again.batches)} if self.again else {}),
            "facts": {"count": len(self.facts), "digest": digest_json([fact.id for fact in self.facts])},
            "moments_text": self.text_id,
        }

    @property
    def restrained_by(self) -> Restraint:
        """The restraint and its settings."""
        return self.restraint.name, self.restraint_config.model_dump(mode="json")

    @property
    def digest(self) -> str:
        """What names this plan's unfinished work: all that decides what it gives, whole facts and where it ends."""
        again = {"again": self.again.name} if self.again else {}
        asked = {
            "asked": [fact.model_dump(mode="json", exclude={"source"}) for fact in self.facts],
            "stop_at_limit": self.stop_at_limit,
        }
        return digest_json({"parent": self.parent, **self.recipe(), **asked, **again})


@dataclass(frozen=True)
class Settings:
    """What a user may choose about an edit.

    Attributes:
        editor: A registered editor.
        config: Its settings, where they differ from the preset or else the defaults.
        restraint: A registered restraint, or `auto`: PRUNE, as strong as a measured curve says. When not given: `auto`
            where the model will carry 100 facts or more, else `prune`.
        restraint_config: Its settings, where they differ.
        batch_size: Facts solved together.
        texts: Text for second moments; the built-in passages when not given.
        preset: The model whose published settings of the editor are the ground that `config` stands on.
        layers: `traced`, `depth` or numbers, in place of the setting in `config`.
        each_batch: Restrain after every batch, not only the last.
        rescore: Ask all earlier facts again after so many; 0 for never.
        stop_at_limit: End the edit where a limit of the policy on weights is passed; else it is only told.
    """

    editor: str = "memit"
    config: Mapping[str, Any] = field(default_factory=dict)
    restraint: str | None = None
    restraint_config: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int = 100
    texts: Sequence[str] | None = None
    preset: str | None = None
    layers: AskedLayers = None
    each_batch: bool = False
    rescore: int = 0
    stop_at_limit: bool = False


def plan_edit(parent: str, asked: FactFile, settings: Settings, layers: LayerChoice, *, carried: int = 0) -> EditPlan:
    """The plan of an edit, every setting resolved and checked.

    Args:
        parent: The id of the version to edit.
        asked: The facts.
        settings: What the user chose.
        layers: The layers, as chosen.
        carried: How many facts of earlier edits the model carries.

    Raises:
        UnknownNameError: No such editor, restraint or preset.
        SettingError: A setting that does not exist or is out of range (the allowed ones are listed), or a preset
            that says nothing about the editor.
        RequestError: No fact to edit.
    """
    if not asked.facts:
        raise RequestError("there is no fact to edit")
    if settings.batch_size < 1:
        raise SettingError(f"the batch size must be at least 1; given {settings.batch_size}")
    if settings.rescore < 0:
        raise SettingError(
            f"earlier facts are asked again after a number of facts, or 0 for never; given {settings.rescore}"
        )
    named = settings.restraint or _usual_restraint(settings, carried + len(asked.facts))
    choose = named == AUTO
    if choose and (settings.restraint_config or settings.each_batch):
        raise SettingError(
            "--restraint auto chooses the settings itself, once, at the end; leave out the restraint's settings and "
            "the restraint after each batch, or name a restraint"
        )
    method, restraint = editors.get(settings.editor), restraints.get("prune" if choose else named)
    published = preset_settings(settings.preset, method.name) if settings.preset else {}
    return EditPlan(
        parent=parent,
        facts=asked.facts,
        method=method,
        config=resolve_config(method, _on_top(published, {**settings.config, **layers.setting})),
        restraint=restraint,
        restraint_config=resolve_config(restraint, settings.restraint_config),
        batch_size=settings.batch_size,
        text_id=text_id_of(settings.texts),
        preset=settings.preset or None,
        layers=layers.record,
        choose=choose,
        each_batch=settings.each_batch,
        rescore=settings.rescore,
        stop_at_limit=settings.stop_at_limit,
    )


def _usual_restraint(settings: Settings, facts: int) -> str:
    return AUTO if facts >= _MANY and not (settings.restraint_config or settings.each_batch) else "prune"


def _on_top(below: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings below with the given ones in their place, also inside groups of settings."""
    merged = dict(below)
    for name, value in given.items():
        inner = merged.get(name)
        merged[name] = _on_top(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return merged


def text_id_of(texts: Sequence[str] | None) -> str:
    """The hash of a text for second moments; of the built-in passages when none is given."""
    return Moments(_no_model, texts).text_id


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
        wrong = "; ".join(
            f"{'.'.join(map(str, part['loc'])) or 'settings'}: {said_of(part)}" for part in error.errors()
        )
        allowed = ", ".join(name for name in method.config.model_fields if name != "kind") or "none"
        raise SettingError(f"{method.kind} {method.name}: {wrong}. Settings: {allowed}") from error


def check_lengths(model: Any, tokenizer: Any, facts: Sequence[Fact], prefixes: Sequence[str] = ("",)) -> None:
    """Refuse facts that are too long for the model, all at once.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        facts: The facts.
        prefixes: What the editor puts before the prompts.

    Raises:
        RequestError: Lists each fact whose prompt and answer exceed 512 tokens or, after the longest of the prefixes,
            the model's positions.
    """
    before = max(prefixes, key=lambda prefix: len(encode(tokenizer, prefix)))
    positions = positions_of(model) or math.inf
    _refuse_long(tokenizer, facts, "", TOKEN_LIMIT, "tokens with their answer")
    _refuse_long(tokenizer, facts, before, positions, "positions of the model, with their answer and a sentence before")


def _refuse_long(tokenizer: Any, facts: Sequence[Fact], before: str, limit: float, what: str) -> None:
    lengths = [len(encode(tokenizer, join(before + fact.prompt, fact.target_new))) for fact in facts]
    long = [
        f"{fact.source or fact.short_id}: {length} tokens"
        for fact, length in zip(facts, lengths, strict=True)
        if length > limit
    ]
    if long:
        raise RequestError(
            f"{len(long)} facts are longer than {limit} {what}: {'; '.join(long[:20])}. Shorten the prompts"
        )


def _prefixes(config: BaseModel) -> Sequence[str]:
    """What an editor of these settings puts before the prompts, besides nothing."""
    settings = config.model_dump()
    return sample_contexts(settings["contexts"], settings["seed"]).prefixes if "contexts" in settings else ("",)


def solve(
    model: Any,
    tokenizer: Any,
    plan: EditPlan,
    *,
    moments: Moments,
    previous: Delta,
    work: Path,
    progress: Progress,
    restrain: Callable[[Delta], Delta] | None = None,
    watch: Callable[[Progressed], bool] = lambda _now: False,
    earlier: Sequence[Fact] = (),
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
        restrain: What a restraint after every batch makes of what was solved so far.
        watch: Told where the edit stands after each batch, with the model as it is then, also after those that were
            solved before an interruption; true ends the edit.
        earlier: Facts of earlier edits that the model carries, in order.
    """
    check_lengths(model, tokenizer, plan.facts, _prefixes(plan.config))
    folder, again = work / plan.digest, plan.again

    def after(now: Progressed) -> bool:
        if not now.known:
            save_delta(now.batch, _batch_file(folder, len(now.total.notes["batches"]) - 1))
            progress("editing batches", now.done, len(plan.facts))
        return watch(now)

    # One batch is done or not; the steps of a removal come one after another, and each is kept till the last is done.
    several = again or len(plan.facts) > plan.batch_size
    return edit_in_batches(
        model,
        tokenizer,
        plan.facts,
        plan.method,
        plan.config,
        batch_size=again.batches if again else plan.batch_size,
        around=Surroundings(
            previous_keys=previous.keys,
            moments=moments,
            progress=progress,
            values=again.values if again else {},
            earlier=earlier,
            carried=len(earlier) + len(plan.facts),
        ),
        start=_unfinished(folder),
        restrain=restrain,
        on_batch=after if several else watch,
    )


def forget_work(plan: EditPlan, work: Path) -> None:
    """Remove the unfinished work of a plan that was committed."""
    shutil.rmtree(work / plan.digest, ignore_errors=True)


def _batch_file(folder: Path, number: int) -> Path:
    return folder / f"batch-{number:06}.safetensors"


def _unfinished(folder: Path) -> list[Delta]:
    """What each of the first batches solved, up to the first that is missing or damaged."""
    found: list[Delta] = []
    with suppress(IntegrityError):
        while (file := _batch_file(folder, len(found))).is_file():
            found.append(load_delta(file))
    return found
