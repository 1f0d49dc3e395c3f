"""Who may change what: the policy and its gates."""

from perdure.governance.budget import Use, uses
from perdure.governance.canary import CanaryMeasures, CanaryPlan, Decision, decide
from perdure.governance.explaining import explain
from perdure.governance.gates import judge
from perdure.governance.policy import Policy, default_policy_text, parse_policy, read_policy

__all__ = [
    "CanaryMeasures",
    "CanaryPlan",
    "Decision",
    "Policy",
    "Use",
    "decide",
    "default_policy_text",
    "explain",
    "judge",
    "parse_policy",
    "read_policy",
    "uses",
]
