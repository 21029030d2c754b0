-- Whether values are encrypted: one row when they are.
CREATE TABLE encryption (
    store text NOT NULL,                -- names the store in what authenticates its values; its backups have it too
    began_at bigint NOT NULL,
    complete_at bigint,                 -- since when nothing is plain; none while values from before are
    state bytea NOT NULL                -- whether plain values are read, encrypted: nobody brings that about without the key
);

-- Keys that values are encrypted with.
CREATE TABLE encryption_keys (
    id text COLLATE "C" NOT NULL PRIMARY KEY,
    proof bytea NOT NULL                -- tells the key from another one of its id
);
