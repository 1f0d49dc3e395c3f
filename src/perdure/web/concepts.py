"""What an encoder recognises: in plain words and as rows of tables."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from perdure.measuring.concepts import ConceptClass, ConceptMean, ConceptMeasures, ConceptSet, LostItem
from perdure.measuring.shares import Comparison, Difference
from perdure.web import figures
from perdure.web.visible import one_line, squeeze, visible
from perdure.web.words import _, counted, in_turn, listed, quoted

NAME_LIMIT = 40
SET_LIMIT = 30
"""More sets than a person reads; the report's data holds all of them."""
CLASS_LIMIT = 15
EXAMPLE_SETS = 4
_NAMED = 3


@dataclass(frozen=True)
class SetRow:
    """One set with the name that tells it from the others."""

    found: ConceptSet
    name: str


@dataclass(frozen=True)
class ClassRow:
    """One class with its name, and that of its set where there are several."""

    found: ConceptClass
    name: str

    @property
    def comparison(self) -> Comparison:
        """As the charts draw it: with the interval that holds for all classes at once."""
        given = self.found
        return Comparison(
            name=self.name,
            label=self.name,
            how="linear probe",
            before=given.before,
            after=given.after,
            difference=given.jointly,
        )


@dataclass(frozen=True)
class LostGroup:
    """Examples of what a set lost, and how many items went either way."""

    name: str
    lost: int
    gained: int
    items: Sequence[LostItem]


def set_names(sets: Sequence[ConceptSet]) -> dict[str, str]:
    """From each set's digest to a short name; where several share one, with their place."""
    short = {found.digest: squeeze(one_line(visible(found.name)), NAME_LIMIT) for found in sets}
    often, numbered = Counter(short.values()), enumerate(short.items(), 1)
    return {digest: f"{name} ({place})" if often[name] > 1 else name for place, (digest, name) in numbered}


def set_rows(found: ConceptMeasures) -> list[SetRow]:
    """Every set, those that were not tuned on first."""
    called = set_names(found.sets)
    return [SetRow(each, called[each.digest]) for each in found.sets]


def drawn_sets(rows: Sequence[SetRow]) -> list[Comparison]:
    """The linear probe of each set, labelled for a chart."""
    return [
        row.found.linear.model_copy(
            update={"label": _("{name} (tuned on)").format(name=row.name) if row.found.tuned else row.name}
        )
        for row in rows
    ]


def class_rows(found: ConceptMeasures) -> list[ClassRow]:
    """The classes that lost most and those that clearly gained, the largest loss first; none that were tuned on."""
    called, several = set_names(found.sets), len(found.others) > 1
    pairs = found.classes
    gained = [pair for pair in pairs if pair[1].better][-_NAMED:]
    shown = pairs[: CLASS_LIMIT - len(gained)]
    shown += tuple(pair for pair in gained if pair not in shown)
    rows = []
    for each, given in shown:
        name = squeeze(one_line(visible(given.name)), NAME_LIMIT)
        rows.append(ClassRow(given, f"{name} ({called[each.digest]})" if several else name))
    return rows


def lost_groups(found: ConceptMeasures) -> list[LostGroup]:
    """Examples of what is not recognised any more, the sets that lost most first."""
    called = set_names(found.sets)
    order = sorted(found.others, key=lambda each: each.linear.difference.value)
    return [LostGroup(called[each.digest], each.lost_count, each.gained, each.lost) for each in order if each.lost][
        :EXAMPLE_SETS
    ]


def summary(found: ConceptMeasures) -> str:
    """What became of what the encoder recognised, in plain words."""
    tuned = [row for row in set_rows(found) if row.found.tuned]
    parts = [_learnt(row) for row in tuned[:_NAMED]]
    if found.linear is None:
        return in_turn(*parts, _("Nothing else was probed, so nothing can be said of what it may have lost."))
    named = _kept_by_name(found.zero_shot) if found.zero_shot is not None else ""
    return in_turn(*parts, _kept(found.linear), named, _classes(found))


def _learnt(row: SetRow) -> str:
    linear = row.found.linear
    before, after = figures.percent(linear.before.value, linear.before.n), figures.share(linear.after)
    said = _("Of {set}, which it was tuned on, it recognises {after}; before, it was {before}.")
    own = _("Its own head is right on {share}.").format(share=figures.share(row.found.head)) if row.found.head else ""
    return in_turn(said.format(set=quoted(row.name), after=after, before=before), own)


def _kept(mean: ConceptMean) -> str:
    changed = _moved(mean.difference)
    if mean.against_base is None:
        return counted(
            "Of the set that it was not tuned on, it recognises {changed} than before.",
            "Of the {count} sets that it was not tuned on, it recognises {changed} than before.",
            mean.sets,
            changed=changed,
        )
    return counted(
        "Of the set that it was not tuned on, it recognises {changed} than before, and {since} than the "
        "original model.",
        "Of the {count} sets that it was not tuned on, it recognises {changed} than before, and {since} than the "
        "original model.",
        mean.sets,
        changed=changed,
        since=_moved(mean.against_base),
    )


def _kept_by_name(mean: ConceptMean) -> str:
    changed = _moved(mean.difference)
    if mean.against_base is None:
        return _("By the names of the classes alone, it recognises {changed} than before.").format(changed=changed)
    return _(
        "By the names of the classes alone, it recognises {changed} than before, and {since} than the original model."
    ).format(changed=changed, since=_moved(mean.against_base))


def _moved(given: Difference) -> str:
    """Such as "4.4 points less (−5.1 to −3.7; n = 900)"; no direction where the interval holds zero."""
    if given.low <= 0 <= given.high:
        said = _("neither clearly more nor less ({interval}; {n})")
    elif given.value < 0:
        said = _("{size} less ({interval}; {n})")
    else:
        said = _("{size} more ({interval}; {n})")
    return said.format(
        size=figures.size_in_points(abs(given.value)),
        interval=figures.difference_interval(given),
        n=figures.sample(given.n),
    )


def _classes(found: ConceptMeasures) -> str:
    worse = [given for _set, given in found.classes if given.worse]
    classes = counted("{count} class", "{count} classes", len(found.classes))
    if not worse:
        return _("None of {classes} clearly got worse.").format(classes=classes)
    said = _("Of {classes}, {worse} clearly got worse: {each}.")
    if len(worse) > _NAMED:
        said = _("Of {classes}, {worse} clearly got worse, most of all {each}.")
    each = listed(map(_loss, worse[:_NAMED]))
    return said.format(classes=classes, worse=figures.whole(len(worse)), each=each)


def _loss(given: ConceptClass) -> str:
    name = squeeze(one_line(visible(given.name)), NAME_LIMIT)
    return _("{name} by {size}").format(name=quoted(name), size=figures.size_in_points(-given.difference.value))
