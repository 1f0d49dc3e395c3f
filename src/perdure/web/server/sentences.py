"""The sentences of lower rooms that people read on pages, as templates for the catalogues."""

from perdure.web.server.words import N_

# Fields that hold a sentence of this list.
NESTED = frozenset({"has", "void", "needs", "holds", "deed", "points", "who", "said", "standing", "change"})

ROLES = (N_("requester"), N_("approver"), N_("operator"), N_("auditor"), N_("admin"))
ACTIONS = (
    N_("approve"),
    N_("break glass"),
    N_("canary"),
    N_("comment"),
    N_("commit"),
    N_("create"),
    N_("emergency"),
    N_("grant"),
    N_("kpi"),
    N_("migrate"),
    N_("observe"),
    N_("policy"),
    N_("promote"),
    N_("reject"),
    N_("report"),
    N_("review"),
    N_("rollback"),
    N_("withdraw"),
    N_("account opened"),
    N_("invitation"),
    N_("password set"),
    N_("token made"),
    N_("token revoked"),
    N_("address set"),
    N_("address removed"),
    N_("identity linked"),
    N_("identity unlinked"),
)
METHODS = (
    N_("Many facts in one batch, written into several MLPs only along directions that text uses little."),
    N_("Forgets the old answers by subtracting what they teach, then fine-tunes on the new ones: a dense delta."),
    N_("Adam on the answers of the facts, over all MLP matrices: a dense delta."),
    N_("Adam on the answers over the first down-projection, no weight further than `radius` from where it was."),
    N_(
        "Learns old and new answers apart, then lets each neuron forget, learn or stay, by the angle of its two "
        "updates."
    ),
    N_("Adam on the answers of the facts, over low-rank adapters of all MLP matrices: a delta of that rank."),
    N_("Many facts in one batch, written into the MLPs of several layers by least squares."),
    N_("Facts one after another, each a rank-one change of a single MLP matrix."),
    N_("The delta with its large singular values contracted; small ones and all vectors are unchanged."),
)
STAGES = (
    N_("copying the model"),
    N_("choosing the restraint"),
    N_("editing facts"),
    N_("editing batches"),
    N_("writing layers"),
    N_("storing the version"),
    N_("reading text for second moments"),
    N_("comparing"),
    N_("reading every byte"),
    N_("writing the evidence"),
)
DECISIONS = (
    N_("no valid approval"),
    N_("somebody must approve"),
    N_("{count} different people must approve"),
    N_("approved by {names} alone"),
    N_("{has} ({void}); {needs}"),
    N_("{has}; {needs}"),
    N_("{name}'s is void: {change}"),
    N_("{said} and {change}"),
    N_("{name} rejected the version on {day}"),
    N_("the report changed (approved over {old}…, now {new}…)"),
    N_("the policy changed (approved under {old}…, now {new}…)"),
    N_(
        "{name} asked for v{number}, which this version stands on and nobody approved, and cannot approve it: "
        "four eyes are needed. Somebody else must approve"
    ),
    N_("{name} asked for v{number} and cannot approve it: four eyes are needed. Somebody else must approve"),
    N_("{version} fails its gates ({reasons}) and cannot be approved"),
    N_("{version} has no report; run perdure measure {same} first"),
    N_("the policy changed since it was seen (now {digest}…)"),
    N_("the report of {version} changed since it was seen (now {digest}…); look again"),
    N_("a rejection needs its reason, so that the requester can act on it; given none"),
    N_("{version} is the base, on which every version stands, and cannot be rejected"),
    N_("a comment needs words; given none"),
    N_("a review needs words; given none"),
    N_("emergency {number} was reviewed by {name} already"),
    N_("no emergency has the number {number}; see the ledger"),
    N_("{name} broke the glass and cannot review it: four eyes are needed"),
)
RELEASES = (
    N_("{alias} holds {version} already; nothing was done"),
    N_("{alias} holds {now}, not {expected} as expected: it was moved meanwhile. Look at it and repeat"),
    N_("{alias} has canary {number} at {share}; end it first"),
    N_("breaking the glass needs its reason, for those who review it; given none"),
    N_(
        "{version} has no valid approval over its latest report under this policy (it is {standing}), so {alias} "
        "stays as it is: {needs}. Have somebody other than {name} approve it"
    ),
    N_("{alias} held no other version before that is still acceptable; promote one instead"),
    N_("no version was ever promoted to {alias}, so there is nothing to go back to"),
    N_("an alias is a small letter and up to 31 small letters, digits or hyphens; given {alias}"),
    N_("{name} is the last admin and stays one: grant somebody else admin first"),
    N_("{name} is a program and cannot be {role}: people decide"),
    N_("{name} {holds} and cannot {deed}: that takes {roles}. {admins} can grant it"),
    N_("has no role"),
    N_("has the roles {roles}"),
    N_("change the model"),
    N_("set the policy"),
    N_("break the glass"),
    N_("review an emergency"),
    N_("grant roles"),
    N_("withdraw roles"),
    N_("an actor's name must have 1 to {most} printable characters; given {name}"),
)
REQUESTS = (
    N_("Nothing was taken. Correct these rows, or skip the bad ones (skip_bad=True) to take the others."),
    N_("No row can be taken."),
    N_("and {count} more."),
    N_("is missing"),
    N_("is empty"),
    N_("is blank"),
    N_("equals the new target: there is nothing to change"),
    N_("the same subject and prompt has the target {targets}; keep one"),
    N_("does not hold the subject {subject}; write it there, or {{}} where it belongs"),
    N_("holds the subject {subject} only in another case; write both alike"),
    N_("holds the subject {subject} only with other spacing; write both alike"),
    N_("has {count} characters; at most {most} are allowed"),
    N_("has {count} bytes; at most {most} are allowed. Split it"),
    N_("has more than {most} rows; split it"),
    N_("no facts: there is no row to take"),
    N_("is not UTF-8"),
    N_("is UTF-16; save it as UTF-8"),
)
KPIS = (
    N_("must be printable words"),
    N_("must be a finite number"),
    N_("is before the period's first day, {day}"),
    N_("corrects row {number}, which is no entry of {name}; see perdure kpi list"),
    N_("corrects row {number}, which was corrected already; correct its correction"),
    N_("{name} is in {unit} and better {better} since row {number}; write it so"),
    N_("{name} of {version} has {period} already (row {number}); correct that row instead"),
    N_("the header has the unknown column {name}. Known: {known}"),
    N_("the header lacks {names}. Known columns: {known}"),
    N_("holds no KPI"),
    N_(
        "Before and after, no experiment: what else changed between the periods is in these differences as well. "
        "An interval needs two periods of each version and takes them as independent."
    ),
)
# What pydantic says of a form whose fields do not fit.
FORMS = (
    N_("Field required"),
    N_("String should have at most {most} characters"),
    N_("String should match pattern '{pattern}'"),
    N_("Input should be greater than or equal to {least}"),
    N_("Input should be less than or equal to {most}"),
    N_("Input should be a valid integer, unable to parse string as an integer"),
    N_("Input should be a valid number, unable to parse string as a number"),
    N_("Input should be a valid date or datetime, {why}"),
    N_("Input should be 'higher' or 'lower'"),
    N_("String should have at least {least} character"),
)
POLICY = (
    N_(
        "A gate on a sample passes when the whole 95% interval is on the right side of its limit, fails when the "
        "whole interval is on the wrong side, and is inconclusive in between: then more questions or a person must "
        "decide. What fails a gate cannot be approved."
    ),
    N_("What was to be learnt"),
    N_("What may be lost"),
    N_("How far the weights may move from the base"),
    N_("Skills"),
    N_("What a whole lineage may spend"),
    N_("Who must agree"),
    N_("{count} points of 100"),
    N_("At least {share} of the facts are said when asked as written."),
    N_("At least {share} are said when asked in other words."),
    N_("Questions nearby lose at most {points}."),
    N_("A fact that was taken out is not said any more, whatever else the policy allows."),
    N_("Over everything asked, at most {points} are lost, against the parent and the base."),
    N_("No single capability loses more than {points}, against the parent and the base."),
    N_("{name} has a limit of its own: at most {points}."),
    N_("Earlier tasks forget at most {points} on average since each was learnt."),
    N_("No earlier task loses more than {points}."),
    N_("An encoder loses at most {points} on average over probe sets."),
    N_("No probe set loses more than {points}."),
    N_("No class loses more than {points}."),
    N_("No protected concept loses more than {points}."),
    N_("Perplexity on held-out text rises by at most {share}."),
    N_("No matrix's condition number is more than {factor} times what it was."),
    N_("No change is larger than {share} of its matrix, by norm."),
    N_("No change's largest singular value is more than {factor} times that of its matrix."),
    N_("Skills must be compared: at most {count} may be lost for good."),
    N_("Where skills were compared: at most {count} may be lost for good."),
    N_("At most {count} may be out-shouted: still there, and not heard."),
    N_("No function vector shifts by more than {shift} (0: not at all; 1: to something unrelated)."),
    N_("Since the base, at most {count} versions stand on one another."),
    N_("Since the base, at most {count} facts are taught."),
    N_("Since the base, at most {count} tasks are learnt."),
    N_("Since the base, at most {share} of the changed matrices' norm is moved."),
    N_("Since the base, at most {factor} times the base's condition number is reached by any matrix."),
    N_("Since the base, at most {shift} is the shift of any function vector."),
    N_("Since the base, at most {count} floating-point operations are spent on training."),
    N_("Before a version stands behind {alias}, {who}."),
    N_("nobody needs to approve"),
    N_("one other person must approve"),
    N_("{count} different other people must approve"),
    N_("Nobody approves what they asked for, nor what stands on something that they asked for and nobody approved."),
)
CANARIES = (
    N_("{failures} of {requests} requests failed, surely more than {share}"),
    N_("{failures} of {requests} requests failed; not surely fewer than {share} yet"),
    N_("{failures} of {requests} requests failed, surely fewer than {share}"),
    N_("held for {held} of {needed} requests, {seconds} of {hold} s"),
    N_("more than {factor} times as slow"),
    N_("{alias} holds nothing to compare with; a canary needs two versions"),
    N_("{alias} holds {version} already; a canary needs two versions"),
    N_("{alias} has canary {number} already; end it first"),
    N_("{alias} has no canary that runs; see its history"),
    N_("{alias} has canary {number} now; canary {other} ended"),
)
# A word in place of a name, where there is none to name.
OPTIONAL = frozenset({"now", "expected"})
STANDINGS = (N_("nothing"), N_("candidate"), N_("approved"), N_("rejected"))
SAID = (*DECISIONS, *RELEASES, *REQUESTS, *KPIS, *CANARIES)
ALL = (*ROLES, *ACTIONS, *METHODS, *STAGES, *SAID, *FORMS, *POLICY, *STANDINGS)
