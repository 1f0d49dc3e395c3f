"""The rewrite of CounterFact and MQuAKE: a template with `{}`, targets as `{str, id}`."""

from collections.abc import Mapping
from typing import Any

from perdure.requests.drafts import Draft, MisshapenError, pick

_REWRITE = {
    "subject": ("subject",),
    "prompt": ("prompt",),
    "target_new": ("target_new",),
    "target_true": ("target_true",),
    "relation": ("relation_id",),
}


def read_rewrite(given: Any, where: str) -> Draft:
    """A draft from one `requested_rewrite`, which stands at `where` in its row.

    Raises:
        MisshapenError: It is no object.
    """
    if not isinstance(given, Mapping):
        raise MisshapenError(where, given, "must be an object with subject, prompt and target_new")
    draft = pick(given, _REWRITE, prefix=f"{where}.")
    values = draft.values
    for key in ("target_new", "target_true"):
        target = values.get(key)
        if isinstance(target, Mapping) and "str" in target:
            values[key], draft.names[key] = target["str"], f"{where}.{key}.str"
    subject, prompt = values.get("subject"), values.get("prompt")
    if isinstance(subject, str) and isinstance(prompt, str):
        values["prompt"] = prompt.replace("{}", subject.strip())
    return draft
