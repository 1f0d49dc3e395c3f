"""An answer as a model writes it, told piece by piece."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from perdure.errors import RequestError
from perdure.models.chat import write_chat
from perdure.models.continuing import Choose, continue_rows, end_tokens
from perdure.models.sampling import drawn, most_probable
from perdure.models.tokens import encode, positions_of
from perdure.web.gateway.pieces import Finish, Piece
from perdure.web.gateway.problems import AnswerError
from perdure.web.gateway.shapes import Asked
from perdure.web.gateway.unfolding import Unfolding


def write(model: Any, tokenizer: Any, asked: Asked, tell: Callable[[Piece], None], gone: Callable[[], bool]) -> None:
    """Write the answer to a request, telling each piece.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        asked: The request.
        tell: Told each piece.
        gone: Whether nobody waits for the answer any more; asked after each token.

    Raises:
        AnswerError: The request does not fit the model.
        RequestError: The request is no text that the model reads.
    """
    row = encode(tokenizer, prompt_of(tokenizer, asked))
    _check_fits(model, row, asked.tokens)
    taken: list[int] = []
    choose, unfolding = _counted(_choice(asked), taken), Unfolding(asked.stops)

    def enough(_row: int, text: str) -> bool:
        piece = unfolding.more(text)
        if piece:
            tell(Piece(piece))
        return unfolding.stopped or gone()

    (text,) = continue_rows(model, tokenizer, [row], enough, max_new_tokens=asked.tokens, choose=choose)
    rest = unfolding.rest(text)
    ended = taken[-1] in end_tokens(model, tokenizer)
    finish: Finish = "stop" if ended or unfolding.stopped else "length"
    tell(Piece(rest, finish, len(row), len(taken) - ended))


def prompt_of(tokenizer: Any, asked: Asked) -> str:
    """The text that the model goes on from; without a chat template, a single message as it is.

    Raises:
        AnswerError: A conversation for a model that has no chat template.
    """
    if not asked.messages:
        return asked.prompt
    if getattr(tokenizer, "chat_template", None):
        return write_chat(tokenizer, asked.messages, ask=True)
    if len(asked.messages) > 1:
        alone = "this model has no chat template: send one message, or a text to /v1/completions"
        raise AnswerError(400, "no_chat_template", alone, param="messages")
    return asked.messages[0].content


def _check_fits(model: Any, row: list[int], more: int) -> None:
    if not row:
        raise RequestError("a prompt without any token cannot be continued; give some text")
    limit = positions_of(model)
    if limit is not None and len(row) + more > limit:
        both = f"a prompt of {len(row)} tokens and {more} new ones exceed the model's {limit} positions"
        raise AnswerError(400, "context_length_exceeded", both)


def _choice(asked: Asked) -> Choose:
    if asked.temperature == 0:
        return most_probable
    generator = torch.Generator().manual_seed(asked.seed)

    def choose(logits_BV: Tensor) -> Tensor:
        uniform_B = torch.rand(len(logits_BV), dtype=torch.float64, generator=generator)
        return drawn(logits_BV, uniform_B, temperature=asked.temperature, top_p=asked.top_p)

    return choose


def _counted(choose: Choose, taken: list[int]) -> Choose:
    def noted(logits_BV: Tensor) -> Tensor:
        ids_B = choose(logits_BV)
        taken.extend(ids_B.tolist())
        return ids_B

    return noted
