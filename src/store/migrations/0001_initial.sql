-- Times are milliseconds since 1970. `record` holds a whole job as JSON; the columns beside it are
-- what is looked up and what must be unique.
CREATE TABLE settings (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE jobs (
    job_id       TEXT PRIMARY KEY,
    -- The action's id in lower case; null for hand dispatches and for files that claim a taken id.
    action_key   TEXT UNIQUE,
    path         TEXT,
    stage        TEXT NOT NULL,
    phase        TEXT NOT NULL,
    submitted_at BIGINT NOT NULL,
    record       TEXT NOT NULL
);
CREATE INDEX jobs_stage ON jobs (stage);
CREATE INDEX jobs_path ON jobs (path);

-- Actions whose result stood in the ops repo before this store knew it. `blob` is set where the
-- action was rejected before launch, so that it is looked at again when its content changes.
CREATE TABLE past_actions (
    action_key TEXT PRIMARY KEY,
    path       TEXT NOT NULL,
    blob       TEXT
);
CREATE INDEX past_actions_path ON past_actions (path);

-- The launch gate: one allocation for each attempt, for ever.
CREATE TABLE admissions (
    dispatch_id TEXT PRIMARY KEY,
    allocation  TEXT NOT NULL UNIQUE,
    admitted_at BIGINT NOT NULL
);

-- Every child that belongs to a job.
CREATE TABLE children (
    child       TEXT PRIMARY KEY,
    job_id      TEXT NOT NULL
);

CREATE TABLE results (
    path      TEXT PRIMARY KEY,
    job_id    TEXT NOT NULL,
    content   TEXT NOT NULL,
    pushed_at BIGINT
);
CREATE INDEX results_pending ON results (pushed_at);

CREATE TABLE journal (
    sequence INTEGER PRIMARY KEY,
    job_id   TEXT NOT NULL,
    at       BIGINT NOT NULL,
    event    TEXT NOT NULL,
    phase    TEXT NOT NULL
);
CREATE INDEX journal_job ON journal (job_id);
