"""What reports hold in English, told in the language in force: labels, gates and their reasons, ways of judging.

Lower rooms wrote these when they measured and judged, and a report is kept and signed as it is. So they are known by
their shape; names, prompts and answers inside them stay as they are, and so does what is not on the list.
"""

import re

from perdure.web.told import Sayings
from perdure.web.words import N_, in_turn

HOW = (
    N_("free generation"),
    N_("probability"),
    N_("teacher-forced"),
    N_("linear probe"),
    N_("nearest neighbours"),
    N_("zero-shot"),
    N_("log-likelihood"),
)
LABELS = (
    N_("says {what} and nothing else, {asked}"),
    N_("says {what}, {asked}"),
    N_("finds {what} likelier than {other}, {asked}"),
    N_("would choose every word of {what}, {asked}"),
    N_("writes the same as before, {asked}"),
    N_("the new fact"),
    N_("the old one"),
    N_("the right answer"),
    N_("asked as written"),
    N_("asked in other words"),
    N_("asked a question nearby"),
    N_("everything it was asked"),
    N_("facts of the world, in other words"),
    N_("facts of the world"),
    N_("plain instructions"),
    N_("in context: {name}"),
    N_("general tasks, with examples"),
    N_("general tasks"),
    N_("facts {oldest}–{newest}"),
    N_("{item}: before '{before}', now '{now}'"),
)
FOLLOWED = (
    N_("several facts joined"),
    N_("what follows from the fact"),
    N_("reasoning"),
    N_("another name for the subject"),
    N_("the fact turned round"),
    N_("other kinds"),
    N_("the question, each wording for itself"),
    N_("the question, in at least one wording"),
    N_("the question"),
    N_("single steps"),
    N_("the new fact itself"),
    N_("every single step of a question"),
    N_("the new answer likelier than the old (teacher-forced)"),
    N_("every word of the answer chosen"),
    N_("the old answer"),
    N_("{kind}: {measure}"),
    N_("no right answer is given"),
    N_("this version was not taught every fact that they need"),
    N_("another fact that was taught changes one of their steps"),
    N_("they are too long for the model"),
    N_(
        "The model {repeats} ({steps} of {all} single steps) {link} {reasons}: it answers {hits} of {n} multi-hop "
        "questions (95% interval {low}–{high}%); before the change, {before}."
    ),
    N_("does not repeat most of the new facts"),
    N_("repeats some of the new facts"),
    N_("repeats the new facts"),
    N_("does not reason with them"),
    N_("reasons with some of them"),
    N_("reasons with them"),
    N_("but"),
    N_("and"),
    N_("Before the change it {could} questions: it gave the answer that was right then to {hits} of {n}."),
    N_("could hardly answer such"),
    N_("could answer some such"),
    N_("could answer such"),
    N_(
        "Where one new fact is enough, it says the fact itself {steps} of {all} times and answers {hits} of {n} "
        "questions that follow from it (95% interval {low}–{high}%); before the change, {before}."
    ),
)
GATES = (
    N_("{gate} (against the base)"),
    N_("facts learnt"),
    N_("facts asked differently"),
    N_("neighbours kept"),
    N_("facts taken out"),
    N_("earlier tasks"),
    N_("task kept: {name}"),
    N_("concepts kept"),
    N_("concepts kept: {name}"),
    N_("concepts kept by name"),
    N_("concepts kept by name: {name}"),
    N_("protected concept: {name}"),
    N_("single concepts"),
    N_("retention"),
    N_("everything kept"),
    N_("kept: {part}"),
    N_("language"),
    N_("size of the change"),
    N_("largest direction"),
    N_("condition number"),
    N_("skills"),
    N_("skills lost"),
    N_("skills out-shouted"),
    N_("function vectors"),
    N_("budget: {use}"),
    N_("versions since the base"),
    N_("facts taught since the base"),
    N_("tasks learnt since the base"),
    N_("norm of all changes over that of the changed matrices"),
    N_("condition number over the base's, of the worst matrix"),
    N_("shift of the function vector that moved most since the base"),
    N_("floating-point operations of all trainings since the base"),
)
REASONS = (
    N_("{hits} of {n} facts are said in free generation; {limit} are required"),
    N_("the taught answer is gone from {hits} of {n} questions; from all as taught it must be"),
    N_("{value} ({low} to {high}, n = {n}) points are forgotten on average; at most {limit} points may be"),
    N_(
        "of {classes} classes, {name} of {set} is furthest off: {value} ({low} to {high}, n = {n}) points; a loss of "
        "at most {limit} points is allowed"
    ),
    N_("{value} ({low} to {high}, n = {n}) points; a loss of at most {limit} points is allowed"),
    N_("{value} ({low} to {high}, n = {n}); at least {limit} is required"),
    N_("no labelled set was probed that it was not tuned on; add one: perdure concepts add SET"),
    N_("what was kept has not been measured"),
    N_("the policy limits it, and it was not asked"),
    N_("perplexity has not been measured"),
    N_("perplexity is {ratio} times what it was ({low} to {high}); at most {limit} is allowed"),
    N_("at most {share} of a matrix's norm ({matrix}); at most {limit} is allowed"),
    N_("every changed matrix is zero in the base"),
    N_("at most {ratio} times the base's largest singular value ({matrix}); at most {limit} is allowed"),
    N_("at most {ratio} times the base's ({matrix}); at most {limit} is allowed"),
    N_("{matrix} is singular in the base already, so its condition number says nothing"),
    N_("skills have not been compared"),
    N_("{count} are lost for good of {n} skills, {before} against {after}; at most {limit} may be"),
    N_("{count} are out-shouted of {n} skills, {before} against {after}; at most {limit} may be"),
    N_("at most {shift} ({name}), {before} against {after}; {limit} is allowed"),
    N_("{used}; at most {limit} may be spent"),
    N_("the report was made before this was counted; measure the version again"),
    N_("not every training noted it"),
    N_("a matrix of the base is singular"),
    N_("skills were not compared with {base}; run perdure vectors compare"),
    N_("no skill's vector could be told"),
)
SKILLS = (
    N_(
        "intact prompts are answered rightly {right} of the time, shuffled ones {shuffled} (n {n}): not surely "
        "{margin} better, so no head can be seen to carry it"
    ),
)
POOLS = (
    N_("{first}; {second}"),
    N_("{task} is in {group} already"),
    N_("{task} is the first"),
    N_("{task} was parted from {group} into a group of its own"),
    N_("{task} joins {group}: {chosen}"),
    N_("{task} opens {group}: {chosen}"),
    N_("{task} takes the nearest group {group}, as all {count} are in use: {chosen}"),
    N_("similarity {similarity} to {group}, threshold {threshold} ({source})"),
    N_("as set"),
    N_("calibrated on the built-in instructions"),
    N_("calibrated on the project's tasks ({kinds})"),
    N_("merged: the earlier tasks' loss changed by {mean} ({low} to {high}, n {n}), where {limit} is allowed"),
    N_("refused: the earlier tasks' loss changed by {mean} ({low} to {high}, n {n}), where {limit} is allowed"),
    N_("not judged: {count} test rows of {tasks} were kept"),
    N_("it opened {group} instead"),
)
TOKENS = (
    N_("first subject token"),
    N_("middle subject tokens"),
    N_("last subject token"),
    N_("first token after"),
    N_("further tokens"),
    N_("last token"),
)
COSTS = (
    N_("added"),
    N_("model"),
    N_("measuring the parent"),
    N_("measuring the version"),
    N_("measuring the weights"),
)
_SAYINGS = Sayings(
    (*HOW, *GATES, *REASONS, *LABELS, *FOLLOWED, *SKILLS, *TOKENS, *COSTS, *POOLS),
    nested=frozenset({
        "what", "asked", "other", "repeats", "reasons", "link", "could", "kind", "measure", "use", "chosen", "source",
        "first", "second",
    }),
    optional=frozenset({"part", "gate"}),
)  # fmt: skip
_SENTENCES = re.compile(r"(?<=\.) (?=[A-Z])")


def told(text: str) -> str:
    """One saying of a report in the language in force; what is not known stays as it is."""
    return _SAYINGS.told(text)


def every(text: str) -> str:
    """Several sentences of a report, one after the other, each in the language in force."""
    return in_turn(*map(told, _SENTENCES.split(text)))
