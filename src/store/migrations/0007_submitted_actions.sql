-- The action that was submitted, as the text of a file; null for what was recovered or submitted to an earlier version.
ALTER TABLE submissions ADD COLUMN action TEXT;
-- Whether a job's result waits to be pushed.
CREATE INDEX results_job ON results (job_id);
