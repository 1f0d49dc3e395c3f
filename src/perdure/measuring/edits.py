"""How well facts were learnt: every fact asked as written, in other words, and questions nearby."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perdure.endings import cut, first_clause, has_ended
from perdure.measuring.answers import is_exactly, plain, says
from perdure.measuring.outcomes import EditAnswer
from perdure.models.continuing import continue_rows
from perdure.models.scoring import Scores, score_targets
from perdure.models.tokens import encode
from perdure.progress import Progress, counting, silent
from perdure.requests import Fact

_MAX_NEW_TOKENS = 16
_BATCH_TOKENS = 1024


@dataclass(frozen=True)
class _Question:
    fact: Fact
    kind: str
    prompt: str
    right: str | None  # what is known to be right after the edit


def measure_edits(
    model: Any,
    tokenizer: Any,
    facts: Sequence[Fact],
    progress: Progress = silent,
    references: Mapping[str, str] | None = None,
) -> tuple[EditAnswer, ...]:
    """What the model answers to every question about the facts, freely and in probabilities.

    Free answers are greedy, of at most 16 tokens, up to the end of the first sentence or line. The new answer
    is compared with the old one by log-probability per token: with the fact's `target_true`, else with
    what the model wrote before the edit. A neighbour without a known answer is held to that as well.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        facts: What was, or will be, taught.
        progress: Told how far the work is.
        references: From a prompt to what the model before the edit wrote after it (`references_from` its
            answers). None when this is the model before the edit: its own words are taken.
    """
    questions = [question for fact in facts for question in _questions(fact)]
    written = _write(model, tokenizer, questions, references or {}, progress)
    if references is None:
        references = {question.prompt: text for question, text in zip(questions, written, strict=True)}
    rivals = [_rival(question, references) for question in questions]
    pairs = [(question.prompt, question.fact.target_new) for question in questions]
    pairs += [(question.prompt, rival) for question, rival in zip(questions, rivals, strict=True) if rival]
    pairs = list(dict.fromkeys(pairs))
    done = counting(progress, "probabilities of answers", len(pairs))
    scores = dict(zip(pairs, score_targets(model, tokenizer, pairs, tokens=_BATCH_TOKENS, on_done=done), strict=True))
    return tuple(
        _judge(question, text, rival, scores) for question, text, rival in zip(questions, written, rivals, strict=True)
    )


def references_from(answers: Sequence[EditAnswer]) -> dict[str, str]:
    """From each prompt to what was written after it: the references for measuring a later version."""
    return {answer.prompt: answer.written for answer in answers}


def _questions(fact: Fact) -> list[_Question]:
    return [
        _Question(fact, "prompt", fact.prompt, fact.target_new),
        *(_Question(fact, "paraphrase", prompt, fact.target_new) for prompt in fact.paraphrases),
        *(_Question(fact, "neighbour", near.prompt, near.answer) for near in fact.neighbours),
    ]


def _write(
    model: Any,
    tokenizer: Any,
    questions: Sequence[_Question],
    references: Mapping[str, str],
    progress: Progress,
) -> list[str]:
    """What is written to each question; facts share neighbours, and those are asked once."""
    asked = [(question.prompt, question.right or references.get(question.prompt)) for question in questions]
    different = list(dict.fromkeys(asked))
    texts = continue_rows(
        model,
        tokenizer,
        [encode(tokenizer, prompt) for prompt, _ in different],
        lambda row, text: has_ended(text, different[row][1]),
        max_new_tokens=_MAX_NEW_TOKENS,
        tokens=_BATCH_TOKENS,
        on_done=counting(progress, "questions about the facts", len(different)),
    )
    written = {key: cut(text, key[1]) for key, text in zip(different, texts, strict=True)}
    return [written[key] for key in asked]


def _rival(question: _Question, references: Mapping[str, str]) -> str | None:
    """What stands against the new target: the old answer, or the right one of a neighbour."""
    if question.kind == "neighbour":
        return question.right or first_clause(references.get(question.prompt, "")) or None
    return question.fact.target_true or first_clause(references.get(question.fact.prompt, "")) or None


def _judge(
    question: _Question, written: str, rival: str | None, scores: Mapping[tuple[str, str], Scores]
) -> EditAnswer:
    fact, prompt = question.fact, question.prompt
    expected = question.right or rival
    judged = scores.get((prompt, expected)) if expected else None
    new, old = scores[prompt, fact.target_new], scores.get((prompt, rival)) if rival else None
    differs = rival is not None and plain(rival) != plain(fact.target_new)
    return EditAnswer(
        fact=fact.id,
        subject=fact.subject,
        kind=question.kind,
        prompt=prompt,
        expected=expected,
        expected_is_given=question.right is not None,
        target=fact.target_new,
        rival=rival if differs else None,
        written=written,
        exact=expected is not None and is_exactly(expected, written),
        contains=expected is not None and says(expected, written),
        log_prob_new=new.mean_log_prob,
        log_prob_old=old.mean_log_prob if old and differs else None,
        accuracy=judged.accuracy if judged else None,
    )
