-- What receivers are still to be told: one row for each change of phase and URL, removed when it was delivered or
-- given up.
CREATE TABLE webhooks (
    job_id TEXT NOT NULL REFERENCES jobs (job_id) ON DELETE CASCADE,
    url TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    receiver TEXT NOT NULL,
    loopback INTEGER NOT NULL,
    body TEXT NOT NULL,
    requests INTEGER NOT NULL DEFAULT 0,
    due_at INTEGER NOT NULL,
    PRIMARY KEY (job_id, url, sequence)
) STRICT;
CREATE INDEX webhooks_by_receiver ON webhooks (receiver, due_at);
CREATE INDEX webhooks_by_time ON webhooks (due_at);
-- Receivers that want no more of a job.
CREATE TABLE webhooks_ended (
    job_id TEXT NOT NULL REFERENCES jobs (job_id) ON DELETE CASCADE,
    url TEXT NOT NULL,
    PRIMARY KEY (job_id, url)
) STRICT;
-- How many changes of its phase receivers were to be told.
ALTER TABLE jobs ADD COLUMN phase_changes INTEGER NOT NULL DEFAULT 0;
