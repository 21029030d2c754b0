-- What is left of rates, and who waits. The row without a name says since when nothing from before is missing: a bucket
-- that is not there was empty then.
CREATE TABLE rates (
    bucket TEXT NOT NULL PRIMARY KEY,
    idle_at INTEGER NOT NULL,     -- when the bucket says no more than that it is full
    bytes BLOB NOT NULL
) WITHOUT ROWID;
INSERT INTO rates (bucket, idle_at, bytes) VALUES ('', 0, x'');
