-- What proves that audit rows are those that were written. Rows here are only ever added.

-- Which transaction wrote a row, so that what a seal did not see is found for the next one. Rows from before have none.
ALTER TABLE journal ADD COLUMN xact bigint NOT NULL DEFAULT 0;
ALTER TABLE journal ALTER COLUMN xact SET DEFAULT pg_current_xact_id()::text::bigint;
ALTER TABLE journal SET (autovacuum_vacuum_insert_scale_factor = 0.02);
-- Rows are written in this order, so that a few words for each range of pages are enough.
CREATE INDEX journal_xact ON journal USING brin (xact) WITH (pages_per_range = 32, autosummarize = on);

-- How far chains are sealed: one row.
CREATE TABLE audit_sealing (
    epoch bigint NOT NULL,              -- grows with every seal
    sealed_at bigint NOT NULL,
    snapshot text NOT NULL,             -- what was visible to the last one; what was not is to be sealed
    backlog text COLLATE "C"            -- of rows from before, those up to this run are sealed; none when all are
);
INSERT INTO audit_sealing (epoch, sealed_at, snapshot, backlog) VALUES (0, 0, '1:1:', '');

-- Chains that were sealed together, one segment after another for each tenant.
CREATE TABLE audit_segments (
    tenant text COLLATE "C" NOT NULL,
    number bigint NOT NULL,
    hash bytea NOT NULL,
    bytes bytea NOT NULL,
    PRIMARY KEY (tenant, number)
);
ALTER TABLE audit_segments ALTER COLUMN bytes SET STORAGE EXTERNAL;

-- What people did beside runs.
CREATE TABLE audit_acts (
    tenant text COLLATE "C" NOT NULL,
    number bigint NOT NULL,
    xact bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    bytes bytea NOT NULL,
    PRIMARY KEY (tenant, number)
);
CREATE INDEX audit_acts_xact ON audit_acts (xact);

-- Audit rows of runs that were removed.
CREATE TABLE audit_kept (
    number bigint NOT NULL PRIMARY KEY, -- grows with time
    run text COLLATE "C" NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    rows bytea NOT NULL
);
ALTER TABLE audit_kept ALTER COLUMN rows SET STORAGE EXTERNAL;
CREATE INDEX audit_kept_run ON audit_kept (run);
CREATE INDEX audit_kept_tenant ON audit_kept (tenant);
