"""Which of two versions answers, so that a conversation stays where it is while the candidate's share grows."""

import hashlib

_BITS = 64


def place(canary: int, key: str) -> float:
    """Where a conversation stands between 0 and 1: uniform over conversations, and another for each canary.

    Args:
        canary: The canary's number.
        key: Who asks and which conversation it is; only its hash is used.
    """
    digest = hashlib.sha256(f"perdure canary\0{canary}\0{key}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[: _BITS // 8], "big") / float(2**_BITS)


def candidate_answers(canary: int, key: str, weight: float) -> bool:
    """Whether the candidate answers a conversation; once it does, it does so at every larger weight."""
    return place(canary, key) < weight
