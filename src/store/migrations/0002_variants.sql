-- Variants of base jobs that this store used, and when last.
CREATE TABLE variants (
    id      TEXT PRIMARY KEY,
    used_at BIGINT NOT NULL
);
