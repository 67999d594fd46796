-- How long the latest successful runs of each formula took, for estimates.
CREATE TABLE durations (
    job_id       TEXT PRIMARY KEY,
    formula      TEXT NOT NULL,
    ended_at     BIGINT NOT NULL,
    milliseconds BIGINT NOT NULL
);
CREATE INDEX durations_by_formula ON durations (formula, ended_at);
