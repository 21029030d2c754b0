-- Whether values are encrypted: one row when they are.
CREATE TABLE encryption (
    store TEXT NOT NULL,          -- names the store in what authenticates its values; its backups have it too
    began_at INTEGER NOT NULL,
    complete_at INTEGER,          -- since when nothing is plain; none while values from before are
    state BLOB NOT NULL           -- whether plain values are read, encrypted: nobody brings that about without the key
);

-- Keys that values are encrypted with.
CREATE TABLE encryption_keys (
    id TEXT NOT NULL PRIMARY KEY,
    proof BLOB NOT NULL           -- tells the key from another one of its id
);
