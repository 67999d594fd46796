-- The latest changes of jobs' phases, as GET /events tells them. No number is given twice.
CREATE TABLE events (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id TEXT NOT NULL REFERENCES jobs (job_id) ON DELETE CASCADE,
    body TEXT NOT NULL
) STRICT;
CREATE INDEX events_by_job ON events (job_id, sequence);
