"""What a model can do: in-context functions, facts of the world, plain instructions.

Each part is a registered measure: a function of a model and a suite that gives answers by part name. One
more in this room, or in another package, is asked with the rest.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from perdure.endings import cut, has_ended
from perdure.measuring.answers import has_said, normalise, says
from perdure.measuring.branching import Row, greedy_choices
from perdure.measuring.outcomes import Answer
from perdure.measuring.suites import SHOTS, Instruction, Suite, shown_prompts
from perdure.models import chat_prompt
from perdure.models.continuing import continue_rows, end_tokens
from perdure.models.tokens import encode, encode_pair
from perdure.progress import Progress, counting, silent
from perdure.registry import measures
from perdure.requests.functions import Pair

Parts = dict[str, tuple[Answer, ...]]


class FunctionsConfig(BaseModel):
    """Settings of the in-context functions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shots: int = Field(SHOTS, ge=1, description="Pairs shown before each question")
    batch_tokens: int = Field(1024, ge=1, description="Tokens in one pass; no result depends on it")


class FactsConfig(BaseModel):
    """Settings of the facts of the world."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_new_tokens: int = Field(10, ge=1, description="Tokens the model may write after a prompt")
    batch_tokens: int = Field(1024, ge=1, description="Prompt tokens in one pass; no result depends on it")


class InstructionsConfig(BaseModel):
    """Settings of the plain instructions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_new_tokens: int = Field(24, ge=1, description="Tokens the model may reply with")
    batch_tokens: int = Field(1024, ge=1, description="Prompt tokens in one pass; no result depends on it")


def measure_retention(
    model: Any,
    tokenizer: Any,
    suite: Suite,
    progress: Progress = silent,
    settings: Mapping[str, BaseModel] | None = None,
) -> Parts:
    """What the model answered to every item of a suite, by part.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        suite: What to ask.
        progress: Told how far the work is.
        settings: From a measure's name to its settings; the defaults where a name is missing. A name that is
            not registered raises UnknownNameError.
    """
    given = {measures.get(name).name: config for name, config in (settings or {}).items()}
    parts: Parts = {}
    for measure in measures:
        parts |= measure.call(model, tokenizer, suite, given.get(measure.name) or measure.config(), progress)
    return parts


@measures.register("functions", config=FunctionsConfig, paper="Todd et al., Function Vectors, ICLR 2024")
def measure_functions(
    model: Any, tokenizer: Any, suite: Suite, config: FunctionsConfig, progress: Progress = silent
) -> Parts:
    """In-context functions: pairs of input and output are shown, the next output must follow.

    Every pair is asked once. Pairs of the first half are shown before questions of the second half and the
    other way round, so that each function has two beginnings only. An answer is right when greedy generation
    writes exactly it and a line end: every token of it, and the line end, is the most probable one.
    """
    done = counting(progress, "in-context functions", sum(len(pairs) for pairs in suite.functions.values()))
    parts = {}
    for name, pairs in suite.functions.items():
        half = len(pairs) // 2
        answers: list[Answer] = []
        for asked, others in ((pairs[:half], pairs[half:]), (pairs[half:], pairs[:half])):
            answers += _ask_function(model, tokenizer, asked, others[: config.shots], config.batch_tokens)
            done(len(asked))
        parts[f"functions.{name}"] = tuple(answers)
    return parts


def _ask_function(
    model: Any, tokenizer: Any, asked: Sequence[Pair], shots: Sequence[Pair], batch_tokens: int
) -> list[Answer]:
    prompts = shown_prompts(asked, shots)
    rows = [encode_pair(tokenizer, text, pair.output) for text, pair in zip(prompts, asked, strict=True)]
    chosen = greedy_choices(model, rows, tokens=batch_tokens)
    ends = end_tokens(model, tokenizer)
    return [_judge(tokenizer, pair, row, choices, ends) for pair, row, choices in zip(asked, rows, chosen, strict=True)]


def _judge(tokenizer: Any, pair: Pair, row: Row, choices: Sequence[int], ends: frozenset[int]) -> Answer:
    """The answer that greedy generation begins to write: known up to the first token that is not the expected one."""
    ids, start = row
    wanted = list(ids[start:])
    hits = next((at for at, token in enumerate(wanted) if choices[at] != token), len(wanted))
    follower = tokenizer.decode([choices[hits]])
    stops = choices[hits] in ends or follower.lstrip(" ").startswith("\n")
    written = tokenizer.decode([*wanted[:hits], choices[hits]], skip_special_tokens=True).strip()
    return Answer(
        item=pair.input,
        expected=pair.output,
        written=written if stops else f"{written}…",
        ok=hits == len(wanted) and stops,
    )


@measures.register(
    "facts", config=FactsConfig, paper="after Petroni et al., Language Models as Knowledge Bases?, EMNLP 2019"
)
def measure_facts(model: Any, tokenizer: Any, suite: Suite, config: FactsConfig, progress: Progress = silent) -> Parts:
    """Facts of the world: the first sentence of the greedy completion must hold the answer.

    Writing stops as soon as the answer stands there or the sentence ends.
    """
    asked = [("facts.prompt", fact.prompt, fact.answer) for fact in suite.facts]
    asked += [("facts.paraphrase", text, fact.answer) for fact in suite.facts for text in fact.paraphrases]

    def enough(row: int, text: str) -> bool:
        return has_said(asked[row][2], text) or has_ended(text, asked[row][2])

    written = continue_rows(
        model,
        tokenizer,
        [encode(tokenizer, prompt) for _, prompt, _ in asked],
        enough,
        max_new_tokens=config.max_new_tokens,
        tokens=config.batch_tokens,
        on_done=counting(progress, "facts of the world", len(asked)),
    )
    answers: dict[str, list[Answer]] = {}
    for (part, prompt, answer), text in zip(asked, written, strict=True):
        sentence = cut(text, answer)
        found = Answer(item=prompt, expected=answer, written=sentence, ok=says(answer, sentence))
        answers.setdefault(part, []).append(found)
    return {part: tuple(found) for part, found in answers.items()}


@measures.register("instructions", config=InstructionsConfig, paper="perdure's own; see the suite's README")
def measure_instructions(
    model: Any, tokenizer: Any, suite: Suite, config: InstructionsConfig, progress: Progress = silent
) -> Parts:
    """Plain instructions: the greedy reply must equal or contain one of the answers."""
    if not suite.instructions:
        return {}
    prompts = [chat_prompt(tokenizer, asked.instruction) for asked in suite.instructions]

    def enough(row: int, text: str) -> bool:
        asked = suite.instructions[row]
        return asked.match == "contains" and any(has_said(normalise(a), normalise(text)) for a in asked.answers)

    written = continue_rows(
        model,
        tokenizer,
        [encode(tokenizer, prompt) for prompt in prompts],
        enough,
        max_new_tokens=config.max_new_tokens,
        tokens=config.batch_tokens,
        on_done=counting(progress, "instructions", len(prompts)),
    )
    answers = [
        Answer(item=asked.instruction, expected=asked.answers[0], written=text.strip(), ok=follows(asked, text))
        for asked, text in zip(suite.instructions, written, strict=True)
    ]
    return {"instructions": tuple(answers)}


def follows(asked: Instruction, reply: str) -> bool:
    """Whether a reply is one of the answers, without case, punctuation and articles."""
    given = normalise(reply)
    wanted = [normalise(answer) for answer in asked.answers]
    return given in wanted if asked.match == "exact" else any(says(answer, given) for answer in wanted)
