-- Work that was submitted and has no action file. `ended_at` is null while it has not ended.
CREATE TABLE submissions (
    job_id   TEXT PRIMARY KEY,
    ended_at BIGINT
);
CREATE INDEX submissions_ended ON submissions (ended_at);

-- Idempotency keys of submissions, each its submitter's own. `digest` is the SHA-256 of the body, in hexadecimal.
CREATE TABLE idempotency_keys (
    submitter TEXT NOT NULL,
    key       TEXT NOT NULL,
    digest    TEXT NOT NULL,
    job_id    TEXT NOT NULL,
    PRIMARY KEY (submitter, key)
);
CREATE INDEX idempotency_keys_job ON idempotency_keys (job_id);
