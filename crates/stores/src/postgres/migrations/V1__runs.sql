-- Runs are known by their ids everywhere: no sequence, so that nothing here is shared by all runs of a database.
-- Payloads are bytes with a checksum (see `pack.rs`). Names are texts without U+0000 (see `text.rs`).
-- `ready`, `created_us` and `sent_us` are microseconds of the database's clock; other times are milliseconds that
-- callers gave.

CREATE TABLE store (
    id text NOT NULL
);

-- The hot row: what a step changes. A step changes no indexed column, so that the row stays on its page.
CREATE TABLE runs (
    id text COLLATE "C" NOT NULL PRIMARY KEY,
    parent text COLLATE "C",            -- none for a caller's run
    root text COLLATE "C" NOT NULL,     -- itself for a caller's run
    tenant text COLLATE "C" NOT NULL,
    pool text COLLATE "C" NOT NULL,
    priority smallint NOT NULL,         -- 0 is claimed first
    status smallint NOT NULL,           -- the last decided word, by its place in `Status::ALL`
    strikes integer NOT NULL,           -- losses of its worker with no decision in between
    helped integer NOT NULL DEFAULT 0,  -- times a person took it out of quarantine, or from its worker
    step bigint NOT NULL,
    version bigint NOT NULL,
    epoch bigint NOT NULL,
    pending bigint NOT NULL,            -- rows of its inbox that are not taken
    received bigint NOT NULL,           -- the last number given to a row of its inbox
    tokens bigint NOT NULL,
    cost_micros bigint NOT NULL,
    updated_at bigint NOT NULL,
    ready bigint,                       -- place in the queue
    wake_at bigint,                     -- earliest timer of a parked run, or the time before which a new one waits
    owner text COLLATE "C",             -- the worker that holds it
    lost text COLLATE "C",              -- the dead worker whose calls no decision has dealt with yet
    bundle bytea NOT NULL,
    state text,
    quarantine text                     -- why it is quarantined, when it is
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500,
        autovacuum_analyze_scale_factor = 0.05);
CREATE INDEX runs_queue ON runs (priority, pool, tenant, ready) WHERE ready IS NOT NULL;
CREATE INDEX runs_wake ON runs (wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX runs_owner ON runs (owner) WHERE owner IS NOT NULL;
CREATE INDEX runs_held ON runs (tenant) WHERE owner IS NOT NULL;
CREATE INDEX runs_tree ON runs (root, parent);

-- What never changes about a run.
CREATE TABLE starts (
    run text COLLATE "C" NOT NULL PRIMARY KEY,
    machine text COLLATE "C" NOT NULL,
    depth integer NOT NULL,
    input bytea NOT NULL,
    created_at bigint NOT NULL,
    created_us bigint NOT NULL,         -- place in lists
    tags text[],                        -- each tag as its key alone, and with its value
    start bytea NOT NULL
);
ALTER TABLE starts ALTER COLUMN start SET STORAGE EXTERNAL;
CREATE INDEX starts_newest ON starts (created_us, run);
CREATE INDEX starts_machine ON starts (machine, created_us);
CREATE INDEX starts_tags ON starts USING gin (tags) WHERE tags IS NOT NULL;

-- One row for each decision, with its audit rows. Rows are only ever added, and removed with their whole tree.
CREATE TABLE journal (
    run text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    op uuid NOT NULL,
    record bytea NOT NULL,
    blobs bytea,                        -- hashes, one after another
    audit bytea,
    PRIMARY KEY (run, version)
);
ALTER TABLE journal ALTER COLUMN record SET STORAGE EXTERNAL, ALTER COLUMN audit SET STORAGE EXTERNAL;

CREATE TABLE snapshots (
    run text COLLATE "C" NOT NULL PRIMARY KEY,
    version bigint NOT NULL,
    bytes bytea NOT NULL
);
ALTER TABLE snapshots ALTER COLUMN bytes SET STORAGE EXTERNAL;

CREATE TABLE waits (
    run text COLLATE "C" NOT NULL,
    effect bigint NOT NULL,
    channel text COLLATE "C" NOT NULL,
    kind bytea,                         -- none for a signal
    due bigint,
    answered boolean NOT NULL,          -- a signal is on its way to it
    PRIMARY KEY (run, effect)
);
CREATE INDEX waits_channel ON waits (channel) WHERE NOT answered;

-- Taken rows stay, without their input, so that a second delivery is known.
CREATE TABLE inbox (
    run text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    number bigint NOT NULL,
    wait bigint,                        -- of a signal, the wait that it answers
    signal text,                        -- of a signal, its id; the input is then its data
    input bytea,
    PRIMARY KEY (run, id)
);
ALTER TABLE inbox ALTER COLUMN input SET STORAGE EXTERNAL;
CREATE INDEX inbox_pending ON inbox (run, number) WHERE input IS NOT NULL;

-- Signals that found a wait stay, without their data, so that a second sending is known.
CREATE TABLE signals (
    id text COLLATE "C" NOT NULL PRIMARY KEY,
    channel text COLLATE "C" NOT NULL,
    run text COLLATE "C",               -- the only run it is for
    sent_at bigint NOT NULL,
    sent_us bigint NOT NULL,            -- place among those of its channel
    op uuid NOT NULL,
    data bytea
);
ALTER TABLE signals ALTER COLUMN data SET STORAGE EXTERNAL;
CREATE INDEX signals_buffered ON signals (channel, sent_us) WHERE data IS NOT NULL;
CREATE INDEX signals_run ON signals (run) WHERE run IS NOT NULL AND data IS NOT NULL;
CREATE INDEX signals_sent ON signals (sent_at) WHERE data IS NULL;

CREATE TABLE blobs (
    digest bytea NOT NULL PRIMARY KEY,
    bundled_at bigint,                  -- when it was last stored as a bundle, in seconds; none for other blobs
    bytes bytea NOT NULL
);
ALTER TABLE blobs ALTER COLUMN bytes SET STORAGE EXTERNAL;
CREATE TABLE blob_uses (
    run text COLLATE "C" NOT NULL,
    digest bytea NOT NULL REFERENCES blobs (digest),
    PRIMARY KEY (run, digest)
);
CREATE INDEX blob_uses_digest ON blob_uses (digest);

-- Times are microseconds of the database's clock.
CREATE TABLE workers (
    id text COLLATE "C" NOT NULL PRIMARY KEY,
    registration bytea NOT NULL,
    held bigint NOT NULL,
    calls bigint NOT NULL,
    draining boolean NOT NULL,
    joined_us bigint NOT NULL,
    seen_us bigint NOT NULL,
    until_us bigint NOT NULL,           -- when its lease ends
    alive boolean NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX workers_alive ON workers (id) WHERE alive;

CREATE TABLE objects (
    kind text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    revision bigint NOT NULL,
    bytes bytea NOT NULL,
    PRIMARY KEY (kind, key)
);
