-- Keys that values are, or were, encrypted with, and whether more may be.
CREATE TABLE encryption_writers (
    id TEXT NOT NULL PRIMARY KEY,
    header BLOB NOT NULL UNIQUE,  -- how its values begin
    closed_at INTEGER             -- since when nothing more is encrypted with it; none while it may be
);
INSERT INTO encryption_writers (id, header)
    SELECT id, unhex('45' || hex(id) || substr('00000000000000000000000000000000', 1, 32 - 2 * length(id)))
    FROM encryption_keys;
