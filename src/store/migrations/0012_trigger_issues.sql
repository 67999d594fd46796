-- Issues that triggers run for, from the label until the outcome stands on the forge. The key keeps a second run of
-- an issue from going on beside the first.
CREATE TABLE trigger_issues (
    repository TEXT NOT NULL,
    issue      INTEGER NOT NULL,
    -- The job's record is kept for as long as its outcome is to be told.
    job_id     TEXT,
    record     TEXT NOT NULL,
    PRIMARY KEY (repository, issue)
) STRICT;
CREATE INDEX trigger_issues_by_job ON trigger_issues (job_id) WHERE job_id IS NOT NULL;
