"""Questions around a fact in any spelling of the common data sets, as `{prompt, answer}` with aliases and kind."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from perdure.requests.drafts import Draft, MisshapenError, Raw, answers, first, listed, pick

_SPELT = {"prompt": ("prompt", "loc"), "answer": ("ground_truth", "loc_ans")}


@dataclass(frozen=True)
class Spelling:
    """What one kind of question keeps of what a data set gives.

    Attributes:
        answered: The fields that hold the answer, from any form of it.
        kinded: Whether the kind, under which the data set lists the question, is kept.
    """

    answered: Callable[[Any], dict[str, Any]]
    kinded: bool

    def asked(self, item: Any) -> Any:
        """One question; what is spelt as in the own shape, or not understood, is passed on."""
        if isinstance(item, str):
            return {"prompt": item}
        if not isinstance(item, Mapping) or not {"loc", "ground_truth"} & item.keys():
            return item
        found = pick(item, _SPELT).values
        return {**found, **self.answered(found.get("answer"))}

    def listed(self, value: Any, where: str) -> Any:
        """Questions from a list, from `{kind: list}`, or from `{kind: {prompt, ground_truth}}`.

        Raises:
            MisshapenError: A part of `value`, which stands at `where`, cannot be unpacked.
        """
        if not isinstance(value, Mapping) or "prompt" in value:
            return self._group(value, where)
        found: list[Any] = []
        for kind, group in value.items():
            part = self._group(group, f"{where}.{kind}")
            if not isinstance(part, list):
                raise MisshapenError(f"{where}.{kind}", group, "must be a list of questions")
            found += [self._of_kind(item, kind) for item in part]
        return found

    def _of_kind(self, item: Any, kind: Any) -> Any:
        return {"kind": kind, **item} if self.kinded and isinstance(item, Mapping) else item

    def _group(self, value: Any, where: str) -> Any:
        if value is None or isinstance(value, str):
            return listed(value)
        if isinstance(value, list | tuple):
            return [self.asked(item) for item in value]
        if isinstance(value, Mapping) and "prompt" in value:
            return self._paired(value["prompt"], value.get("ground_truth"), where)
        return value

    def _paired(self, prompts: Any, given: Any, where: str) -> list[Any]:
        """Questions from a prompt and an answer, or from two lists of the same length."""
        if not isinstance(prompts, list):
            return [] if prompts is None else [{"prompt": prompts, **self.answered(given)}]
        if not isinstance(given, list) or len(given) != len(prompts):
            raise MisshapenError(where, prompts, f"{len(prompts)} prompts need as many answers")
        return [{"prompt": prompt, **self.answered(answer)} for prompt, answer in zip(prompts, given, strict=True)]


SPELLINGS = {
    "neighbours": Spelling(lambda given: {"answer": first(given)}, kinded=False),
    "portability": Spelling(answers, kinded=True),
}


def read_own(row: Raw) -> list[Draft]:
    """The one draft of a row in the own shape, whose questions may be plain texts."""
    values = dict(row)
    for key, spelling in SPELLINGS.items():
        if isinstance(values.get(key), list | tuple):
            values[key] = [spelling.asked(item) for item in values[key]]
    return [Draft(values)]
