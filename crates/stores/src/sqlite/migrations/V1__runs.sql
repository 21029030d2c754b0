-- Runs are known by small integer keys inside; keys are never used twice, so that one remembered too long finds nothing.
-- Payloads are bytes with a checksum (see `pack.rs`). There are no foreign keys: rows are written by one writer that
-- has just read what they refer to, and `fsck` checks all of them.

-- The hot row: what a step changes.
CREATE TABLE runs (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    pool INTEGER NOT NULL,        -- a name
    priority INTEGER NOT NULL,    -- 0 is claimed first
    tenant INTEGER NOT NULL,      -- a name
    parent INTEGER,               -- none for a caller's run
    root INTEGER,                 -- none for a caller's run
    status INTEGER NOT NULL,      -- the last decided word, by its place in `Status::ALL`
    state TEXT,
    step INTEGER NOT NULL,
    version INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    owner INTEGER,                -- the worker that holds it
    lost INTEGER,                 -- the dead worker whose calls no decision has dealt with yet
    ready INTEGER,                -- place in the queue: since when, in microseconds; see `tx.rs`
    wake_at INTEGER,              -- earliest timer of a parked run, or when a new one may be claimed
    pending INTEGER NOT NULL,     -- rows of its inbox that are not taken
    tokens INTEGER NOT NULL,
    cost_micros INTEGER NOT NULL,
    bundle BLOB NOT NULL,
    updated_at INTEGER NOT NULL,
    strikes INTEGER NOT NULL,     -- losses of a worker in a row with no decision in between
    quarantine TEXT,              -- why it is quarantined
    helped INTEGER NOT NULL DEFAULT 0 -- times a person took it out of quarantine, or from its worker
);
CREATE INDEX runs_ready ON runs (pool, priority, tenant, ready) WHERE ready IS NOT NULL;
CREATE INDEX runs_wake ON runs (wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX runs_owner ON runs (owner, tenant) WHERE owner IS NOT NULL;
CREATE INDEX runs_tree ON runs (root, parent) WHERE root IS NOT NULL;
CREATE INDEX runs_tree_ready ON runs (root, ready) WHERE root IS NOT NULL AND ready IS NOT NULL;
CREATE INDEX runs_tree_wake ON runs (root, wake_at) WHERE root IS NOT NULL AND wake_at IS NOT NULL;

-- What never changes about a run.
CREATE TABLE starts (
    run INTEGER PRIMARY KEY,
    machine TEXT NOT NULL,
    depth INTEGER NOT NULL,
    input BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    tags BLOB,                    -- as an object, those of its parent included
    start BLOB NOT NULL
);

-- Pools and tenants.
CREATE TABLE names (
    key INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);

-- Tags once more, to find runs by them.
CREATE TABLE tags (
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    run INTEGER NOT NULL,
    PRIMARY KEY (key, value, run)
) WITHOUT ROWID;
CREATE INDEX tags_run ON tags (run);

-- One row for each decision, with its audit rows. Appended in the order of commits, whatever the run.
CREATE TABLE journal (
    key INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    version INTEGER NOT NULL,
    op BLOB NOT NULL,
    record BLOB NOT NULL,
    blobs BLOB,                   -- hashes, one after another
    audit BLOB
);
CREATE UNIQUE INDEX journal_run ON journal (run, version);

CREATE TABLE snapshots (
    run INTEGER PRIMARY KEY,
    version INTEGER NOT NULL,
    bytes BLOB NOT NULL
);

CREATE TABLE waits (
    run INTEGER NOT NULL,
    effect INTEGER NOT NULL,
    channel TEXT NOT NULL,
    kind BLOB,                    -- none for a signal
    due INTEGER,
    answered INTEGER NOT NULL,    -- a signal is on its way to it
    PRIMARY KEY (run, effect)
) WITHOUT ROWID;
CREATE INDEX waits_channel ON waits (channel) WHERE answered = 0;

-- Taken rows stay, without their input, so that a second delivery is known.
CREATE TABLE inbox (
    number INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    id TEXT NOT NULL,
    input BLOB
);
CREATE UNIQUE INDEX inbox_run ON inbox (run, id);
CREATE INDEX inbox_pending ON inbox (run) WHERE input IS NOT NULL;

-- Signals that found a wait stay, without their data, so that a second sending is known.
CREATE TABLE signals (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    channel TEXT NOT NULL,
    run INTEGER,                  -- the only run it is for
    sent_at INTEGER NOT NULL,
    data BLOB
);
CREATE INDEX signals_buffered ON signals (channel) WHERE data IS NOT NULL;
CREATE INDEX signals_run ON signals (run) WHERE run IS NOT NULL AND data IS NOT NULL;

CREATE TABLE blobs (
    key INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    bundled_at INTEGER,           -- when it was last stored as a bundle, in seconds; none for other blobs
    bytes BLOB NOT NULL
);
CREATE TABLE blob_uses (
    run INTEGER NOT NULL,
    blob INTEGER NOT NULL,
    PRIMARY KEY (run, blob)
) WITHOUT ROWID;
CREATE INDEX blob_uses_blob ON blob_uses (blob);

CREATE TABLE workers (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    fenced INTEGER NOT NULL DEFAULT 0
);

-- Small things that are kept beside the runs.
CREATE TABLE objects (
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    revision INTEGER NOT NULL,
    bytes BLOB NOT NULL,
    PRIMARY KEY (kind, key)
) WITHOUT ROWID;
