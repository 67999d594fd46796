-- Other actions may wait for one that ended before this store knew it.
ALTER TABLE past_actions ADD COLUMN succeeded BOOLEAN NOT NULL DEFAULT FALSE;
