-- Submissions are looked up by their job alone: one tree does, where there were the rows and an index on them.
CREATE TABLE submissions_by_job (
    job_id   TEXT PRIMARY KEY,
    ended_at BIGINT,
    action   TEXT
) WITHOUT ROWID;
INSERT INTO submissions_by_job SELECT job_id, ended_at, action FROM submissions;
DROP TABLE submissions;
ALTER TABLE submissions_by_job RENAME TO submissions;
CREATE INDEX submissions_ended ON submissions (ended_at) WHERE ended_at IS NOT NULL;
