"""The tables of a workspace's database and the rules that stand in them, below every program that writes there.

Governed tables grow at their end only, and each of their rows stands beside a row of the ledger.
"""
# ruff: noqa: S608 - the statements are put together from constants of this file

SCHEMA = 2

ROLES = ("requester", "approver", "operator", "auditor", "admin")
PERSONAL = ("approver", "admin")  # roles that only a person can hold
MACHINE = "machine:"  # how the name of an actor begins that is a program with a token

TABLES = {
    "ledger": """CREATE TABLE ledger (
        sequence INTEGER PRIMARY KEY, previous TEXT NOT NULL, time TEXT NOT NULL, actor TEXT NOT NULL,
        action TEXT NOT NULL, details TEXT NOT NULL, hash TEXT NOT NULL UNIQUE)""",
    "ledger_actions": "CREATE INDEX ledger_actions ON ledger (action)",
    "versions": """CREATE TABLE versions (
        sequence INTEGER PRIMARY KEY REFERENCES ledger (sequence), number INTEGER NOT NULL UNIQUE,
        id TEXT NOT NULL UNIQUE, parent TEXT REFERENCES versions (id), requester TEXT NOT NULL)""",
    "reports": """CREATE TABLE reports (
        sequence INTEGER PRIMARY KEY REFERENCES ledger (sequence),
        version TEXT NOT NULL REFERENCES versions (id), digest TEXT NOT NULL)""",
    "reports_versions": "CREATE INDEX reports_versions ON reports (version)",
    "approvals": """CREATE TABLE approvals (
        sequence INTEGER PRIMARY KEY REFERENCES ledger (sequence),
        version TEXT NOT NULL REFERENCES versions (id),
        decision TEXT NOT NULL CHECK (decision IN ('approved', 'rejected')),
        report TEXT, policy TEXT, approver TEXT NOT NULL, comment TEXT NOT NULL)""",
    "approvals_versions": "CREATE INDEX approvals_versions ON approvals (version)",
    "alias_moves": """CREATE TABLE alias_moves (
        sequence INTEGER PRIMARY KEY REFERENCES ledger (sequence), alias TEXT NOT NULL,
        version TEXT NOT NULL REFERENCES versions (id), previous TEXT REFERENCES versions (id),
        kind TEXT NOT NULL CHECK (kind IN ('promote', 'rollback', 'break glass')), policy TEXT)""",
    "alias_moves_aliases": "CREATE INDEX alias_moves_aliases ON alias_moves (alias)",
    "policies": """CREATE TABLE policies (
        sequence INTEGER PRIMARY KEY REFERENCES ledger (sequence), digest TEXT NOT NULL, text TEXT NOT NULL,
        origin TEXT NOT NULL CHECK (origin IN ('set', 'found')))""",
    "grants": f"""CREATE TABLE grants (
        sequence INTEGER PRIMARY KEY REFERENCES ledger (sequence), member TEXT NOT NULL,
        role TEXT NOT NULL CHECK (role IN {ROLES}),
        change TEXT NOT NULL CHECK (change IN ('grant', 'withdraw')),
        CHECK (change = 'withdraw' OR role NOT IN {PERSONAL} OR lower(member) NOT LIKE '{MACHINE}%'))""",
    "comments": """CREATE TABLE comments (
        sequence INTEGER PRIMARY KEY REFERENCES ledger (sequence),
        version TEXT NOT NULL REFERENCES versions (id), text TEXT NOT NULL CHECK (length(trim(text)) > 0))""",
    "comments_versions": "CREATE INDEX comments_versions ON comments (version)",
    "breaks": """CREATE TABLE breaks (
        sequence INTEGER PRIMARY KEY REFERENCES ledger (sequence), alias TEXT NOT NULL,
        version TEXT NOT NULL REFERENCES versions (id),
        reason TEXT NOT NULL CHECK (length(trim(reason)) > 0), expires TEXT NOT NULL)""",
    "reviews": """CREATE TABLE reviews (
        sequence INTEGER PRIMARY KEY REFERENCES ledger (sequence),
        broken INTEGER NOT NULL REFERENCES breaks (sequence), comment TEXT NOT NULL)""",
    "canaries": """CREATE TABLE canaries (
        sequence INTEGER PRIMARY KEY REFERENCES ledger (sequence), canary INTEGER NOT NULL, alias TEXT NOT NULL,
        event TEXT NOT NULL CHECK (event IN ('start', 'step', 'promote', 'fall back', 'stop')),
        stable TEXT NOT NULL REFERENCES versions (id), candidate TEXT NOT NULL REFERENCES versions (id),
        weight REAL NOT NULL CHECK (weight BETWEEN 0 AND 1), plan TEXT NOT NULL, reason TEXT NOT NULL,
        CHECK (stable <> candidate), CHECK ((event = 'promote') = (weight = 1)),
        CHECK ((event IN ('fall back', 'stop')) = (weight = 0)))""",
    # What a company measures of its own work while a version serves; a correction is a new row.
    "kpis": """CREATE TABLE kpis (
        sequence INTEGER PRIMARY KEY REFERENCES ledger (sequence), name TEXT NOT NULL CHECK (length(trim(name)) > 0),
        unit TEXT NOT NULL, better TEXT NOT NULL CHECK (better IN ('higher', 'lower')),
        version TEXT NOT NULL REFERENCES versions (id), period_start TEXT NOT NULL, period_end TEXT NOT NULL,
        value REAL NOT NULL, n INTEGER CHECK (n > 0), corrects INTEGER REFERENCES kpis (sequence),
        CHECK (period_start <= period_end))""",
    "kpis_versions": "CREATE INDEX kpis_versions ON kpis (version)",
    # What asking a served version again gave: JSON, with what is beyond the limits of the policy.
    "observations": """CREATE TABLE observations (
        sequence INTEGER PRIMARY KEY REFERENCES ledger (sequence), alias TEXT NOT NULL,
        version TEXT NOT NULL REFERENCES versions (id), policy TEXT NOT NULL, findings TEXT NOT NULL)""",
    "objects": """CREATE TABLE objects (
        hash TEXT PRIMARY KEY, kind TEXT NOT NULL, bytes INTEGER NOT NULL, digest TEXT NOT NULL,
        reference TEXT, depth INTEGER NOT NULL, added_by INTEGER)""",
    "packs": """CREATE TABLE packs (
        id TEXT PRIMARY KEY, bytes INTEGER NOT NULL, header TEXT NOT NULL, added_by INTEGER NOT NULL)""",
    "packed": """CREATE TABLE packed (
        hash TEXT NOT NULL, pack TEXT NOT NULL REFERENCES packs (id), name TEXT NOT NULL,
        PRIMARY KEY (pack, name))""",
    "packed_hashes": "CREATE INDEX packed_hashes ON packed (hash)",
    "remembered": """CREATE TABLE remembered (
        kind TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, digest TEXT NOT NULL,
        PRIMARY KEY (kind, key))""",
    # What versions were taught and what reports say of it: copied from the objects, so that it can be searched.
    "taught": """CREATE TABLE taught (
        version TEXT NOT NULL, kind TEXT NOT NULL CHECK (kind IN ('fact', 'task', 'removed')),
        place INTEGER NOT NULL, id TEXT NOT NULL, asked TEXT NOT NULL, words TEXT NOT NULL, shown TEXT NOT NULL,
        digest TEXT NOT NULL, PRIMARY KEY (version, kind, place))""",
    "taught_ids": "CREATE INDEX taught_ids ON taught (id)",
    "taught_asked": "CREATE INDEX taught_asked ON taught (asked)",
    "answered": """CREATE TABLE answered (
        report INTEGER NOT NULL, version TEXT NOT NULL, id TEXT NOT NULL, hits INTEGER NOT NULL,
        n INTEGER NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (report, id))""",
    "answered_ids": "CREATE INDEX answered_ids ON answered (id)",
    "copied": "CREATE TABLE copied (source TEXT PRIMARY KEY)",
}
GOVERNED_TABLES = (
    "versions",
    "reports",
    "approvals",
    "alias_moves",
    "policies",
    "grants",
    "comments",
    "breaks",
    "reviews",
    "canaries",
    "kpis",
    "observations",
)

_ACTOR = "lower(trim((SELECT actor FROM ledger WHERE sequence = NEW.sequence)))"
_LATEST = "(SELECT digest FROM reports WHERE version = {0} ORDER BY sequence DESC LIMIT 1)"
# Whether somebody consented to a version over its latest report, and nobody rejected it since.
_CONSENT = (
    f"EXISTS (SELECT 1 FROM approvals a WHERE a.version = {{0}} AND a.decision = 'approved' "
    f"AND a.report = {_LATEST} AND NOT EXISTS (SELECT 1 FROM approvals r WHERE r.version = {{0}} "
    f"AND r.decision = 'rejected' AND r.sequence > a.sequence){{1}})"
)
# A version and those that it stands on, up to the nearest that somebody consented to.
LINE = (
    "WITH RECURSIVE line (number, id, parent, requester) AS ("
    "SELECT number, id, parent, requester FROM versions WHERE id = {0} UNION "
    "SELECT v.number, v.id, v.parent, v.requester FROM versions v JOIN line ON v.id = line.parent "
    f"WHERE v.parent IS NOT NULL AND NOT {_CONSENT.format('v.id', '')})"
)
_HOLDS = (
    "'grant' IS NOT (SELECT change FROM grants WHERE lower(member) = {0} AND role = '{1}' "
    "ORDER BY sequence DESC LIMIT 1)"
)
_LAST_EVENT = "(SELECT event FROM canaries WHERE alias = NEW.alias ORDER BY sequence DESC LIMIT 1)"


def _append_only() -> dict[str, tuple[str, str, str]]:
    """Nothing is rewritten, and nothing is replaced: OR REPLACE deletes a row without firing the DELETE trigger."""
    rules = {}
    for table in ("ledger", *GOVERNED_TABLES):
        says = f"{table} is append-only"
        rules[f"{table}_no_update"] = (f"UPDATE ON {table}", "1", says)
        rules[f"{table}_no_delete"] = (f"DELETE ON {table}", "1", says)
        there = f"EXISTS (SELECT 1 FROM {table} WHERE sequence = NEW.sequence)"
        rules[f"{table}_no_replace"] = (f"INSERT ON {table}", there, says)
    return rules


_RULES: dict[str, tuple[str, str, str]] = {
    **_append_only(),
    "versions_no_replace_id": (
        "INSERT ON versions",
        "EXISTS (SELECT 1 FROM versions WHERE id = NEW.id OR number = NEW.number)",
        "versions is append-only",
    ),
    "ledger_at_the_end": (
        "INSERT ON ledger",
        "NEW.previous IS NOT COALESCE((SELECT hash FROM ledger ORDER BY sequence DESC LIMIT 1), '') "
        "OR NEW.sequence IS NOT COALESCE((SELECT MAX(sequence) FROM ledger), 0) + 1",
        "a ledger row must follow the last one",
    ),
    "approvals_four_eyes": (
        "INSERT ON approvals",
        "NEW.decision = 'approved' AND lower(trim(NEW.approver)) IN "
        f"({LINE.format('NEW.version')} SELECT lower(trim(requester)) FROM line)",
        "four eyes: who asked for the version, or for one below it on which nobody decided, cannot approve",
    ),
    "approvals_by_people": (
        "INSERT ON approvals",
        f"NEW.decision = 'approved' AND lower(trim(NEW.approver)) LIKE '{MACHINE}%'",
        "roles: a program cannot approve",
    ),
    "approvals_by_approvers": (
        "INSERT ON approvals",
        f"EXISTS (SELECT 1 FROM grants) AND {_HOLDS.format('lower(trim(NEW.approver))', 'approver')}",
        "roles: only an approver decides",
    ),
    "production_needs_consent": (
        "INSERT ON alias_moves",
        "NEW.alias = 'production' AND NEW.kind = 'promote' "
        "AND (SELECT parent FROM versions WHERE id = NEW.version) IS NOT NULL "
        f"AND NOT {_CONSENT.format('NEW.version', ' AND a.policy = NEW.policy')}",
        "consent: production holds approved versions only",
    ),
    "moves_stay_out_of_canaries": (
        "INSERT ON alias_moves",
        f"{_LAST_EVENT} IN ('start', 'step')",
        "canary: end the canary of this alias first",
    ),
    "breaking_is_told": (
        "INSERT ON alias_moves",
        "NEW.kind = 'break glass' AND NOT EXISTS (SELECT 1 FROM breaks b WHERE b.sequence = NEW.sequence - 1 "
        "AND b.version = NEW.version AND b.alias = NEW.alias)",
        "consent: breaking the glass is told in breaks",
    ),
    "breaks_by_people": ("INSERT ON breaks", f"{_ACTOR} LIKE '{MACHINE}%'", "roles: a program cannot break the glass"),
    "reviews_four_eyes": (
        "INSERT ON reviews",
        f"{_ACTOR} = lower(trim((SELECT actor FROM ledger WHERE sequence = NEW.broken))) OR {_ACTOR} LIKE '{MACHINE}%'",
        "four eyes: somebody other than who broke the glass reviews it",
    ),
    "reviews_once": (
        "INSERT ON reviews",
        "EXISTS (SELECT 1 FROM reviews WHERE broken = NEW.broken)",
        "reviews is append-only",
    ),
    "grants_begin_with_an_admin": (
        "INSERT ON grants",
        "NOT EXISTS (SELECT 1 FROM grants) AND (NEW.role <> 'admin' OR NEW.change <> 'grant')",
        "roles: the first member is an admin",
    ),
    "grants_by_admins": (
        "INSERT ON grants",
        f"EXISTS (SELECT 1 FROM grants) AND {_HOLDS.format(_ACTOR, 'admin')}",
        "roles: only an admin grants and withdraws",
    ),
    "grants_keep_an_admin": (
        "INSERT ON grants",
        "NEW.role = 'admin' AND NEW.change = 'withdraw' AND NOT EXISTS (SELECT 1 FROM grants g "
        "WHERE g.role = 'admin' AND g.change = 'grant' AND lower(g.member) <> lower(NEW.member) "
        "AND NOT EXISTS (SELECT 1 FROM grants w WHERE w.role = 'admin' AND w.change = 'withdraw' "
        "AND lower(w.member) = lower(g.member) AND w.sequence > g.sequence))",
        "roles: the last admin stays",
    ),
    "canaries_start_alone": (
        "INSERT ON canaries",
        f"NEW.event = 'start' AND ({_LAST_EVENT} IN ('start', 'step') "
        "OR NEW.canary IS NOT COALESCE((SELECT MAX(canary) FROM canaries), 0) + 1)",
        "canary: one at a time for an alias",
    ),
    "canaries_go_on": (
        "INSERT ON canaries",
        "NEW.event <> 'start' AND NOT EXISTS (SELECT 1 FROM canaries c WHERE c.canary = NEW.canary "
        "AND c.alias = NEW.alias AND c.stable = NEW.stable AND c.candidate = NEW.candidate "
        "AND c.plan = NEW.plan AND c.event = 'start') OR NEW.event <> 'start' "
        "AND (SELECT event FROM canaries WHERE canary = NEW.canary ORDER BY sequence DESC LIMIT 1) "
        "NOT IN ('start', 'step')",
        "canary: a step belongs to a canary that runs",
    ),
    "kpis_correct_once": (
        "INSERT ON kpis",
        "NEW.corrects IS NOT NULL AND (EXISTS (SELECT 1 FROM kpis WHERE corrects = NEW.corrects) "
        "OR NOT EXISTS (SELECT 1 FROM kpis k WHERE k.sequence = NEW.corrects AND k.name = NEW.name))",
        "kpis: a row of the same name is corrected once; correct its correction",
    ),
}
RULES = {
    name: f"CREATE TRIGGER {name} BEFORE {event} WHEN {condition} BEGIN SELECT RAISE(ABORT, '{says}'); END"
    for name, (event, condition, says) in _RULES.items()
}
STATEMENTS = {**TABLES, **RULES}
