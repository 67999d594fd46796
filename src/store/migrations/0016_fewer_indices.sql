-- What has not ended is found by its phase, and nobody looks up what happened to one job: each index is one page more that
-- every change of a job writes.
DROP INDEX jobs_live;
DROP INDEX journal_job;
