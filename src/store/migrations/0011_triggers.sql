-- What triggers know, as JSON: `trigger/NAME` for what is each one's own, `course/GROUP` for what a cooldown group
-- shares.
CREATE TABLE trigger_states (
    name   TEXT PRIMARY KEY,
    record TEXT NOT NULL
) STRICT;

-- Every event that arrived, and what became of it.
CREATE TABLE trigger_events (
    sequence     INTEGER PRIMARY KEY,
    event_id     TEXT NOT NULL UNIQUE,
    trigger_name TEXT NOT NULL,
    -- Whether the caller was refused: such events are bounded by themselves.
    refused      INTEGER NOT NULL,
    record       TEXT NOT NULL
) STRICT;
CREATE INDEX trigger_events_by_trigger ON trigger_events (trigger_name, refused, sequence);

-- Signatures that were taken, so that none is taken twice while its timestamp is good.
CREATE TABLE trigger_signatures (
    trigger_name TEXT NOT NULL,
    signature    TEXT NOT NULL,
    at           INTEGER NOT NULL,
    PRIMARY KEY (trigger_name, signature)
) STRICT;
