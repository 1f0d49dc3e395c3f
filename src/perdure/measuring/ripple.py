"""Ripple effects: whether a model draws on what it was taught to answer what follows from it.

A question is shown after a few examples, without which a small or a base model does not answer at all
(Zhong et al., "MQuAKE", EMNLP 2023, show examples too); a sentence to complete is given as it stands.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from perdure.endings import cut, first_clause, has_ended
from perdure.measuring.answers import gives, plain
from perdure.measuring.outcomes import RippleAnswer
from perdure.measuring.ripple_questions import RippleQuestion
from perdure.models.continuing import continue_rows
from perdure.models.scoring import Scores, score_targets
from perdure.models.tokens import encode, join
from perdure.progress import Progress, counting, silent

# Answers that hardly any data set asks for: a model that copies one of them gains nothing.
EXAMPLES = """\
Q: Which planet has the brightest rings?
A: Saturn

Q: What does the animal on the logo of the World Wide Fund for Nature eat?
A: bamboo

Q: In which ocean lie the islands where Darwin studied finches?
A: the Pacific Ocean

Q: How many strings has the instrument that Paganini is famous for?
A: four

"""
_QUESTION_MARKS = ("?", "？", "؟")
_MAX_NEW_TOKENS = 16
_BATCH_TOKENS = 1024
_TOKEN_LIMIT = 1024


@dataclass(frozen=True)
class _Asked:
    """One text that is given to the model, and what counts as right after it."""

    question: RippleQuestion
    role: str
    prompt: str
    answer: str
    aliases: tuple[str, ...]

    @property
    def text(self) -> str:
        return phrase(self.prompt)


def phrase(prompt: str) -> str:
    """What the model is given: a question after the examples, a sentence to complete as it stands."""
    return f"{EXAMPLES}Q: {prompt}\nA:" if prompt.endswith(_QUESTION_MARKS) else prompt


def measure_ripple(
    model: Any,
    tokenizer: Any,
    questions: Sequence[RippleQuestion],
    progress: Progress = silent,
    references: Mapping[str, str] | None = None,
) -> tuple[RippleAnswer, ...]:
    """What the model answers to every wording and every single step of the questions.

    Free answers are greedy, of at most 16 tokens, up to the end of the first sentence or line. The new
    answer is compared with the old one by log-probability per token: with the one given, else with what
    the model wrote before the edit. Questions of more than 1024 tokens, or more than the model takes, have no answer.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        questions: What follows from the facts.
        progress: Told how far the work is.
        references: From a prompt to what the model before the edit wrote (`ripple_references` of its
            answers). None when this is the model before the edit.
    """
    limit = _limit(model)
    asked = [part for question in questions if _fits(tokenizer, parts := _parts(question), limit) for part in parts]
    written = _write(model, tokenizer, asked, progress)
    if references is None:
        references = written
    rivals = [_rival(part, references) if part.role == "wording" else None for part in asked]
    scores = _score(model, tokenizer, asked, rivals, progress)
    return tuple(_judge(part, written[part.prompt], rival, scores) for part, rival in zip(asked, rivals, strict=True))


def ripple_references(answers: Sequence[RippleAnswer]) -> dict[str, str]:
    """From each prompt to what was written after it: the references for measuring a later version."""
    return {answer.prompt: answer.written for answer in answers}


def _parts(question: RippleQuestion) -> list[_Asked]:
    wordings = [_Asked(question, "wording", prompt, question.answer, question.aliases) for prompt in question.wordings]
    return wordings + [_Asked(question, "hop", hop.prompt, hop.answer, hop.aliases) for hop in question.hops]


def _limit(model: Any) -> int:
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return min(_TOKEN_LIMIT, positions or _TOKEN_LIMIT)


def _fits(tokenizer: Any, parts: Sequence[_Asked], limit: int) -> bool:
    """Whether each text and its longest answer fit into the model, and leave room to write."""
    for part in parts:
        room = limit - len(encode(tokenizer, part.text))
        answers = (part.answer, part.question.old_answer or "")
        longest = max(len(encode(tokenizer, join(part.text, answer))) for answer in answers)
        if room < _MAX_NEW_TOKENS or longest > limit:
            return False
    return True


def _write(model: Any, tokenizer: Any, asked: Sequence[_Asked], progress: Progress) -> dict[str, str]:
    """From each prompt to what the model writes, every prompt once; those with examples apart from those without."""
    answers = {part.prompt: part.answer for part in asked}
    shown = [prompt for prompt in answers if phrase(prompt) != prompt]
    bare = [prompt for prompt in answers if phrase(prompt) == prompt]
    done = counting(progress, "questions that follow from the facts", len(answers))
    written: dict[str, str] = {}
    for prompts in (shown, bare):
        kept = [answers[prompt] for prompt in prompts]
        texts = continue_rows(
            model,
            tokenizer,
            [encode(tokenizer, phrase(prompt)) for prompt in prompts],
            partial(_enough, kept),
            max_new_tokens=_MAX_NEW_TOKENS,
            tokens=_BATCH_TOKENS,
            on_done=done,
        )
        written |= {prompt: cut(text, answer) for prompt, text, answer in zip(prompts, texts, kept, strict=True)}
    return written


def _enough(answers: Sequence[str], row: int, text: str) -> bool:
    return has_ended(text, answers[row])


def _rival(part: _Asked, references: Mapping[str, str]) -> str | None:
    """What stands against the new answer: the old one, else what was written before, unless that is right too."""
    rival = part.question.old_answer or first_clause(references.get(part.prompt, "")) or None
    right = {plain(text) for text in (part.answer, *part.aliases)}
    return None if rival is None or plain(rival) in right else rival


def _score(
    model: Any,
    tokenizer: Any,
    asked: Sequence[_Asked],
    rivals: Sequence[str | None],
    progress: Progress,
) -> dict[tuple[str, str], Scores]:
    """The scores of the new and the old answer after each wording."""
    pairs = [
        (part.text, answer)
        for part, rival in zip(asked, rivals, strict=True)
        if part.role == "wording"
        for answer in (part.answer, rival)
        if answer
    ]
    done = counting(progress, "probabilities of what follows", len(pairs))
    return dict(zip(pairs, score_targets(model, tokenizer, pairs, tokens=_BATCH_TOKENS, on_done=done), strict=True))


def _judge(part: _Asked, written: str, rival: str | None, scores: Mapping[tuple[str, str], Scores]) -> RippleAnswer:
    question = part.question
    new, old = scores.get((part.text, part.answer)), scores.get((part.text, rival)) if rival else None
    asks_old = part.role == "wording" and question.old_answer is not None
    return RippleAnswer(
        question=question.id,
        role=part.role,
        prompt=part.prompt,
        written=written,
        ok=gives(part.answer, part.aliases, written),
        old_ok=gives(question.old_answer, question.old_aliases, written) if asks_old and question.old_answer else None,
        log_prob_new=new.mean_log_prob if new else None,
        log_prob_old=old.mean_log_prob if old else None,
        accuracy=new.accuracy if new else None,
    )
