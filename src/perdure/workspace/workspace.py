"""The workspace: one folder in which a model is edited, measured, decided on, released and rolled back."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from perdure.content import write_atomic
from perdure.editing.corruption import TracedFact
from perdure.editing.tracing import TraceConfig
from perdure.errors import RefusedError
from perdure.governance import default_policy_text, parse_policy
from perdure.measuring import Report
from perdure.measuring.sequences import in_force
from perdure.measuring.skill_comparison import built_in_functions
from perdure.measuring.skills import SkillMeasures
from perdure.measuring.traced import TraceMeasures
from perdure.progress import Progress, silent
from perdure.requests import Fact, FactFile, check_facts, read_facts
from perdure.requests.concepts import Probe
from perdure.requests.functions import Function
from perdure.requests.tasks import Task, read_task
from perdure.tuning.defaults import usual_settings
from perdure.vectors import VectorConfig
from perdure.workspace.archive import Archive
from perdure.workspace.bases import base_checkpoint
from perdure.workspace.deciding import POLICY_FILE
from perdure.workspace.edits import carry_out
from perdure.workspace.encoder_tuning import learn_set
from perdure.workspace.layer_choice import AskedLayers, check_chosen, choose
from perdure.workspace.measurements import measure_version
from perdure.workspace.opened import current_user
from perdure.workspace.pooling import tune_in_pool
from perdure.workspace.pools import refuse_pool
from perdure.workspace.rebuilding import rebuild
from perdure.workspace.records import Version
from perdure.workspace.recovering import Way, recover
from perdure.workspace.removing import RemovalPlan, plan_removal
from perdure.workspace.running import Running
from perdure.workspace.runs import EditPlan, Settings, plan_edit
from perdure.workspace.serving import Serving
from perdure.workspace.skills import compare_versions
from perdure.workspace.teachings import Found, Lineage
from perdure.workspace.tracing import ensure_trace, read_traced, trace_base
from perdure.workspace.tuning import TuningPlan, plan_tuning, tune_all


class Workspace(Running, Serving):
    """A folder that remembers versions of one model.

    Attributes:
        folder: The folder.
        archive: Its objects, versions, aliases and ledger.
        progress: Told how far long work is.
        device: Where models run.
    """

    @classmethod
    def init(
        cls,
        folder: str | Path,
        model: Any,
        *,
        tokenizer: Any = None,
        actor: str = "",
        progress: Progress = silent,
    ) -> "Workspace":
        """A new workspace whose v0 is `model`; the model's weights are never in memory all at once.

        Args:
            folder: Missing or empty.
            model: A catalogue name, a folder, a GGUF file or a hub id; the folder of a LoRA adapter, which is
                merged into the base that it names; or a live model, whose adapters are merged.
            tokenizer: The tokenizer of a live model.
            actor: Who creates it.
            progress: Told how far it is.

        Raises:
            ModelError: The model cannot be fetched, is damaged, or is not understood.
            WorkspaceError: The folder is not empty.
        """
        progress("fetching the model", 0, 3)
        with base_checkpoint(model, tokenizer, Path(folder).resolve().parent, progress=progress) as (checkpoint, words):
            progress("copying the model", 1, 3)
            archive = Archive.create(Path(folder), checkpoint, actor=actor or current_user(), source=words)
        shop = cls(archive, progress=progress)
        shop._begin()
        progress("copying the model", 3, 3)
        return shop

    @classmethod
    def open(cls, folder: str | Path = ".", *, progress: Progress = silent, device: str = "cpu") -> "Workspace":
        """The workspace in `folder`.

        Raises:
            WorkspaceError: There is none.
        """
        shop = cls(Archive.open(Path(folder)), progress=progress, device=device)
        if not (shop.folder / POLICY_FILE).exists():
            shop._begin()  # a creation that broke off, on a full disk
        return shop

    def _begin(self) -> None:
        """Put the default policy in force and the base in production where nothing ever was; the file comes last."""
        base, text = self.version("v0"), default_policy_text()
        entered, digest = self.archive.policy_in_force(), parse_policy(text).digest
        if entered is None:
            self.archive.put_policy(text, digest, actor=base.requester, origin="found")
        elif entered.digest != digest:
            return  # another one is in force, and its file is for people to put back
        if not self.archive.aliases():
            # The base is what serves today: a first rollback must have somewhere to go.
            self.archive.promote(base, "production", actor=base.requester, policy=digest, expected=None)
        write_atomic(self.folder / POLICY_FILE, text.encode())

    # Changing

    def plan(
        self,
        facts: "str | Path | Sequence[Any]",
        settings: Settings,
        *,
        on: "str | Version" = "",
        skip_bad: bool = False,
    ) -> tuple[EditPlan, FactFile]:
        """What an edit would do, and the checked facts; nothing is computed.

        Raises:
            RequestError: Bad rows, all of them listed.
            SettingError: A setting that does not exist or is out of range.
        """
        self.require_text("editing facts")
        parent = self.version(on) if on else self.newest()
        rejected = self.rejected(parent)
        if rejected is not None:
            raise RefusedError(f"{parent.name} stands on {rejected.name}, which was rejected; edit another version")
        refuse_pool(parent, "teach the facts in a task with perdure tune --pool")
        asked = (
            read_facts(Path(facts), skip_bad=skip_bad)
            if isinstance(facts, (str, Path))
            else check_facts(facts, skip_bad=skip_bad)
        )
        carried = len(self.facts_in_force(parent))
        plan = plan_edit(parent.id, asked, settings, choose(self, parent, settings), carried=carried)
        check_chosen(self, parent, plan.config)
        return plan, asked

    def edit(
        self,
        facts: "str | Path | Sequence[Any]",
        *,
        editor: str = "memit",
        restraint: str | None = None,
        config: Mapping[str, Any] | None = None,
        preset: str | None = None,
        layers: AskedLayers = None,
        on: "str | Version" = "",
        actor: str = "",
    ) -> Version:
        """A candidate version that knows the facts: solved, restrained, stored. Nothing serves it yet.

        Args:
            facts: A file, or rows, or `Fact` objects.
            editor: A registered editor.
            restraint: A registered restraint, or `auto`; by the number of facts when not given.
            config: The editor's settings, where they differ from the preset or else its defaults.
            preset: The model whose published settings to start from, such as llama-3-8b.
            layers: `traced` (the base is traced first, once), `depth`, or numbers; the editor's own when not given.
            on: The version to edit; the newest one that was not rejected when not given.
            actor: Who asks for it.
        """
        if layers == "traced":
            ensure_trace(self)
        settings = Settings(editor, config or {}, restraint, preset=preset, layers=layers)
        plan, _ = self.plan(facts, settings, on=on)
        return self.carry_out(plan, actor=actor)

    def carry_out(self, plan: EditPlan, *, actor: str = "", texts: Sequence[str] | None = None) -> Version:
        """The candidate that a plan gives. An interrupted run of the same plan is taken up where it stopped."""
        return carry_out(self, plan, actor=self._permitted("commit", actor), texts=texts)

    def _permitted(self, action: str, actor: str) -> str:
        """Who acts, allowed to: told before the work and not after it."""
        who = actor or current_user()
        self.archive.check_permitted(action, who)
        return who

    def plan_tuning(self, task: Task, settings: Mapping[str, Any], *, on: "str | Version" = "") -> TuningPlan:
        """What a tuning would do; nothing is computed.

        Raises:
            SettingError: A setting that does not exist or is out of range.
        """
        return plan_tuning(self, task, settings, on=on)

    def tune(
        self,
        tasks: "Task | str | Path | Sequence[Task | str | Path]",
        settings: Mapping[str, Any] | None = None,
        *,
        on: "str | Version" = "",
        actor: str = "",
    ) -> list[Version]:
        """Candidates that learnt tasks, one for each, each on the one before. Nothing serves them yet.

        Args:
            tasks: Files, folders, hub data sets or `Task` objects, in the order in which they are learnt.
            settings: Settings of `TuningConfig`; the usual combination when not given, plain LoRA when empty.
            on: The version to tune; the newest one that was not rejected when not given.
            actor: Who asks for it.
        """
        given = [tasks] if isinstance(tasks, (str, Path, Task)) else tasks
        read = [task if isinstance(task, Task) else read_task(task) for task in given]
        return list(self.tune_each(read, usual_settings() if settings is None else settings, on=on, actor=actor))

    def tune_each(
        self, tasks: Sequence[Task], settings: Mapping[str, Any], *, on: "str | Version" = "", actor: str = ""
    ) -> Iterator[Version]:
        """The candidates of `tune`, one by one, as each is made."""
        return tune_all(self, tasks, settings, on=on, actor=actor or current_user())

    def learn_each(
        self, sets: Sequence[Probe], settings: Mapping[str, Any], *, on: "str | Version" = "", actor: str = ""
    ) -> Iterator[Version]:
        """Candidates of an encoder that learnt labelled sets, one for each, each on the one before, as each is made.

        Args:
            sets: In the order in which they are learnt.
            settings: Of `EncoderTuningConfig`.
            on: The version to tune; the newest one that was not rejected when not given.
            actor: Who asks for it.
        """
        return tune_all(self, sets, settings, on=on, actor=actor or current_user(), one=learn_set, called="set")

    def tune_in_pool(
        self, tasks: Sequence[Task], settings: Mapping[str, Any], *, on: "str | Version" = "", actor: str = ""
    ) -> Iterator[Version]:
        """Candidates whose pool learnt tasks, one for each, each on the one before, as each is made.

        Args:
            tasks: In the order in which they are learnt.
            settings: Of `TuningConfig`; under `pool` those of `PoolConfig`.
            on: The version to tune; the newest one that was not rejected when not given.
            actor: Who asks for it.
        """
        return tune_all(self, tasks, settings, on=on, actor=actor or current_user(), one=tune_in_pool)

    def remove(
        self,
        facts: "str | Sequence[str]",
        *,
        on: "str | Version" = "",
        actor: str = "",
        texts: Sequence[str] | None = None,
    ) -> Version:
        """A candidate version without some of the facts that were taught; the others keep their answers.

        Args:
            facts: Their ids, or the first four or more digits, or their prompts or subjects.
            on: The version to take them out of; the newest one that was not rejected when not given.
            actor: Who asks for it.
            texts: The text of the second moments, where it was not the built-in passages.
        """
        named = [facts] if isinstance(facts, str) else facts
        return self.carry_out_removal(plan_removal(self, named, on=on, texts=texts), actor=actor, texts=texts)

    def carry_out_removal(self, plan: RemovalPlan, *, actor: str = "", texts: Sequence[str] | None = None) -> Version:
        """The candidate that a removal gives. An interrupted run of the same removal is taken up where it stopped."""
        return rebuild(self, plan, actor=self._permitted("commit", actor), texts=texts)

    def facts(self, version: "str | Version") -> tuple[Fact, ...]:
        """The facts that a version was asked to learn, beyond its parent."""
        chosen = self.version(version)
        if chosen.parent is None:
            return ()
        return tuple(Fact.model_validate(row) for row in self.archive.solved(chosen).notes.get("facts", ()))

    def facts_in_force(self, version: "str | Version") -> list[Fact]:
        """All facts of a version and those that it stands on, in order, less those that a later one overwrites."""
        return in_force([fact for step in self.archive.lineage(self.version(version)) for fact in self.facts(step)])

    def removed(self, version: "str | Version") -> tuple[Fact, ...]:
        """The facts that a version was made to be without."""
        chosen = self.version(version)
        rows = self.archive.solved(chosen).notes.get("removed", ()) if chosen.parent else ()
        return tuple(Fact.model_validate(row) for row in rows)

    # Looking

    def measure(
        self,
        ref: "str | Version",
        *,
        tasks: Sequence[str] = (),
        task_folder: Path | None = None,
        actor: str = "",
    ) -> Report:
        """The report of a version against its parent and its base, kept with the version.

        Args:
            ref: The version.
            tasks: lm-eval tasks to run as well.
            task_folder: A folder of lm-eval task files; without one, those that come with lm-eval.
            actor: Who asks for it.
        """
        who = self._permitted("report", actor)
        self.settle_policy(who)
        return measure_version(self, self.version(ref), tasks=tasks, task_folder=task_folder, actor=who)

    def trace(
        self, facts: "str | Path | Sequence[TracedFact] | None" = None, config: TraceConfig | None = None
    ) -> TraceMeasures:
        """Where the base carries the facts that it knows, by layer and token; computed once and kept.

        Args:
            facts: A file or a list of facts that it may know; those of the built-in suite when not given.
            config: The settings of causal tracing.
        """
        self.require_text("tracing")
        rows = read_traced(Path(facts)) if isinstance(facts, (str, Path)) else facts
        return trace_base(self, rows, config or TraceConfig())

    def recover(
        self,
        ref: "str | Version",
        function: Function,
        *,
        way: Way = "add",
        source: "str | Version" = "v0",
        others: Sequence[Function] = (),
        config: VectorConfig | None = None,
        actor: str = "",
    ) -> Version:
        """A candidate that brings a skill back without training: a vector in its weights.

        Args:
            ref: The version that lost something.
            function: The skill that is to come back (`add`), or the task that drowns others out (`subtract`).
            way: Add the vector that `source` has for it, or subtract the one that this version has.
            source: A version that could do it.
            others: Skills that must not suffer; the built-in ones when not given.
            config: The settings of the vectors.
            actor: Who asks.
        """
        return recover(
            self,
            self.version(ref),
            function,
            way=way,
            source=self.version(source),
            others=list(others) or built_in_functions(),
            config=config or VectorConfig(),
            actor=self._permitted("commit", actor),
        )

    def compare_skills(
        self,
        before: "str | Version",
        after: "str | Version",
        functions: Sequence[Function] = (),
        config: VectorConfig | None = None,
    ) -> SkillMeasures:
        """What became of skills between two versions, shown by reports of `after` made from then on.

        Args:
            before: The version that could do them.
            after: The version made later.
            functions: The skills; the built-in ones when not given.
            config: The settings of the vectors.
        """
        asked = list(functions) or built_in_functions()
        return compare_versions(self, self.version(before), self.version(after), asked, config or VectorConfig())

    def search(self, text: str, *, limit: int = 50) -> list[Found]:
        """Facts and tasks that hold every word of the text, the newest first, each once."""
        return self.archive.search(text, limit)

    def lineage_of(self, fact: str) -> Lineage:
        """Everything about one fact or task: who asked, when, where it lives, whether it still holds.

        Args:
            fact: Its id (of a task, its digest), or the first four or more digits.

        Raises:
            UnknownNameError: None has it, or several.
        """
        return self.archive.lineage_of(fact)

    def export(self, ref: "str | Version", folder: str | Path) -> None:
        """Write a version as a folder that transformers' `from_pretrained` loads, side files and processor with it."""
        self.archive.checkout(self.version(ref), Path(folder))

    def export_delta(self, ref: "str | Version", file: str | Path) -> None:
        """Write only what a version changed, with hashes of the base: for `apply_to_folder` on a copy of the base."""
        self.archive.write_delta(self.version(ref), Path(file))
