-- Submitted work has no path, and most of it has not ended when it is written: rows that nobody looks up so need no
-- place in these indices.
DROP INDEX jobs_path;
CREATE INDEX jobs_path ON jobs (path) WHERE path IS NOT NULL;
DROP INDEX submissions_ended;
CREATE INDEX submissions_ended ON submissions (ended_at) WHERE ended_at IS NOT NULL;
