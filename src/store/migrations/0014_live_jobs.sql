-- What is looked up by stage is what has not ended: however many jobs have, they need no place here, and a change from
-- one stage to the next changes nothing.
DROP INDEX jobs_stage;
CREATE INDEX jobs_live ON jobs (submitted_at, job_id) WHERE stage <> 'ended';
