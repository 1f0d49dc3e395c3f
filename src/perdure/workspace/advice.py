"""Advice on tasks before they are trained, from what a lineage has learnt; only caches are written."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from perdure.content import digest_json
from perdure.errors import RefusedError
from perdure.measuring.advice import Advice, GroupAdvice
from perdure.measuring.outcomes import Outcomes, TaskReply
from perdure.measuring.shares import Share
from perdure.measuring.skill_comparison import built_in_functions
from perdure.measuring.statistics import share_of
from perdure.measuring.task_answers import answer_task
from perdure.measuring.tuning_probe import Probed, memory_at_hand, probe_tuning, shape_of
from perdure.measuring.tuning_proposals import Situation, advise_pool, cost_of, propose, settings_from
from perdure.models.tokens import positions_of
from perdure.requests.tasks import Task, length_report
from perdure.settings import checked
from perdure.tuning.config import TuningConfig
from perdure.tuning.defaults import usual_pool_settings, usual_settings
from perdure.tuning.encoding import Row, row_limit, row_of
from perdure.tuning.grouping import Groups
from perdure.tuning.reading import evenly
from perdure.tuning.similarity import TfidfEncoder
from perdure.workspace.imprints import Imprints, rank_risks
from perdure.workspace.learnt import Learnt, duplicates_with, instructions_of, learnt_by
from perdure.workspace.pools import has_pool, opened_pool
from perdure.workspace.records import Version
from perdure.workspace.remembering import labelled, once
from perdure.workspace.seeing import processor_for
from perdure.workspace.tuning import heads_of, surroundings_of

if TYPE_CHECKING:
    from perdure.workspace.workspace import Workspace

_ASKED = 20


class Advisor:
    """One version, read once for all tasks.

    Args:
        shop: The workspace.
        parent: The version that would be tuned.

    Attributes:
        earlier: What is learnt before the next task, the oldest first; grows with each task advised on.
        pooled: Whether the version answers with a pool of adapters.
        groups: The groups of its pool, or those that its tasks would make; they grow with each task, too.
        heads: Heads of the base that carry skills.
        imprints: What questions leave in the version.
    """

    def __init__(self, shop: "Workspace", parent: Version) -> None:
        self.shop, self.parent = shop, parent
        self.earlier = learnt_by(shop, parent)
        self.pooled = has_pool(parent)
        self.groups = self._groups()
        self.heads = heads_of(shop, shop.archive.lineage(parent)[0])
        self.imprints = Imprints(shop, parent, self.heads)
        self.model, self.tokenizer = shop.load(parent)  # held, so that it is loaded once

    def advise(self, task: Task, given: Mapping[str, Any], *, probe: bool) -> Advice:
        """What is known of a task before it is trained; the next one is advised on as if this one were learnt."""
        processor = processor_for(self.shop, self.parent, (example for part in task.parts.values() for example in part))
        rows = {
            part: [row_of(self.tokenizer, example, processor) for example in found]
            for part, found in task.parts.items()
        }
        group, already = self._group(task), self._already(task, processor)
        new = self.imprints.of_examples(task.name, task.train)
        risks, left_out = rank_risks(self.imprints, new, self.earlier, built_in_functions())
        duplicates = tuple(found for one in self.earlier if (found := duplicates_with(task, one)).rows)
        pool = advise_pool(group, duplicates, pooled=self.pooled, full=given.get("method") == "full")
        usual = usual_pool_settings() if pool.value else usual_settings()
        given = _on_top(usual, given)
        asked = checked(TuningConfig, {**usual, **given}, "tuning")
        limit = row_limit(asked.max_tokens, positions_of(self.model))
        known = self._situation(rows["train"], rows["validation"], asked, already)
        proposals = propose(known, given, usual)
        config = settings_from(proposals, given, usual)
        probed = self._probe(task, rows["train"], config) if probe else None
        self.earlier.append(Learnt(task.name, task.digest, instructions_of(task), task.test))
        counts = {
            id(example): len(row.ids)
            for part in rows
            for example, row in zip(task.parts[part], rows[part], strict=True)
        }
        return Advice(
            task=task.name,
            digest=task.digest,
            version=self.parent.name,
            rows={part: len(found) for part, found in rows.items()},
            notes=task.notes,
            lengths=length_report(task, lambda example: counts[id(example)], limit).parts,
            limit=limit,
            refused=_refused(task, counts, limit),
            group=group,
            already=already,
            risks=risks,
            left_out=left_out,
            duplicates=duplicates,
            pool=pool,
            proposals=proposals,
            settings=config.model_dump(mode="json"),
            cost=cost_of(known, config, probed),
        )

    def _groups(self) -> Groups:
        """Those of the version's pool, or of its tasks put together in their order."""
        if self.pooled:
            with opened_pool(self.shop, self.parent) as pool:
                return pool.groups
        groups = Groups(TfidfEncoder.fitted())
        for one in self.earlier:
            if one.instructions:
                groups.join(one.name, one.instructions, one.digest)
        return groups

    def _group(self, task: Task) -> GroupAdvice:
        """Where the task's instructions go."""
        instructions = instructions_of(task)
        if not instructions:
            return GroupAdvice(group="", reason="its rows say no instruction to be grouped by")
        before = {name: self.groups.members(name) for name in self.groups.names}
        joined = self.groups.join(task.name, instructions, task.digest)
        return GroupAdvice(group=joined.group, members=before.get(joined.group, ()), reason=joined.reason)

    def _already(self, task: Task, processor: Any | None) -> Share | None:
        """How many of a few held-out questions the version's weights answer rightly today; asked once."""
        asked = evenly((*task.validation, *task.test), _ASKED)
        if not asked:
            return None
        rows = [example.model_dump(mode="json", exclude={"source"}) for example in asked]

        def ask() -> Outcomes:
            stage, progress = f"asking {task.name}", labelled(self.shop, self.parent)
            found = answer_task(self.model, self.tokenizer, asked, processor=processor, progress=progress, stage=stage)
            replies = tuple(TaskReply(text=one.text, exact=one.exact, rouge=one.rouge) for one in found)
            return Outcomes(tasks={task.digest: replies})

        found = once(self.shop, [self.parent.id, "advice", task.digest, digest_json(rows)], ask)
        return share_of([reply.exact for reply in found.tasks[task.digest]])

    def _situation(
        self, train: Sequence[Row], validation: Sequence[Row], asked: TuningConfig, already: Share | None
    ) -> Situation:
        return Situation(
            lengths=[len(row.ids) for row in train],
            learnt=[sum(row.learns[1:]) for row in train],
            longest=max(len(row.ids) for row in (*train, *validation)),
            shape=shape_of(self.model, asked),
            positions=positions_of(self.model),
            memory=memory_at_hand(self.model),
            heads=bool(self.heads),
            already=already.value if already else None,
            earlier=len(self.earlier),
        )

    def _probe(self, task: Task, rows: Sequence[Row], config: TuningConfig) -> Probed | None:
        around = surroundings_of(self.shop, self.parent)
        limit = row_limit(config.max_tokens, positions_of(self.model))
        rows = [row for row in rows if len(row.ids) <= limit]
        progress = labelled(self.shop, self.parent)
        return probe_tuning(self.model, self.tokenizer, task, rows, config, around, progress=progress) if rows else None


def advise_tasks(
    shop: "Workspace", tasks: Sequence[Task], given: Mapping[str, Any], *, on: "str | Version" = "", probe: bool = True
) -> list[Advice]:
    """Advice on tasks that would be learnt in this order; nothing is trained, and only caches are written.

    Args:
        shop: The workspace.
        tasks: The tasks.
        given: Settings that are asked for; others are proposed.
        on: The version that would be tuned; the newest one that was not rejected when not given.
        probe: Take a few steps for their time; the weights are put back.

    Raises:
        RefusedError: The version stands on a rejected one, or the model is an encoder.
        SettingError: A setting that does not exist or is out of range.
    """
    shop.require_text("planning")
    checked(TuningConfig, {**usual_settings(), **_on_top(usual_settings(), given)}, "tuning")
    parent = shop.version(on) if on else shop.newest()
    rejected = shop.rejected(parent)
    if rejected is not None:
        raise RefusedError(f"{parent.name} stands on {rejected.name}, which was rejected; plan for another version")
    advisor = Advisor(shop, parent)
    return [advisor.advise(task, given, probe=probe) for task in tasks]


def _on_top(usual: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What was given, where it is part of a usual setting with the rest of that."""
    return {
        name: {**usual[name], **value} if isinstance(usual.get(name), dict) and isinstance(value, dict) else value
        for name, value in given.items()
    }


def _refused(task: Task, counts: Mapping[int, int], limit: int) -> tuple[str, ...]:
    both = enumerate((*task.train, *task.validation), 1)
    return tuple(
        f"{example.source or f'row {number}'}: {counts[id(example)]} tokens"
        for number, example in both
        if counts[id(example)] > limit
    )
