-- Pages of jobs in one phase, the newest first.
CREATE INDEX jobs_phase ON jobs (phase, job_id);
