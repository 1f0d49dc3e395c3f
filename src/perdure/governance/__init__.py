"""Who may change what: the policy and its gates."""

from perdure.governance.gates import judge
from perdure.governance.policy import Policy, default_policy_text, parse_policy, read_policy

__all__ = ["Policy", "default_policy_text", "judge", "parse_policy", "read_policy"]
