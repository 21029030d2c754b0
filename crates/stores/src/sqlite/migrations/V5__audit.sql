-- What proves that audit rows are those that were written. Rows here are only ever added.

-- How far chains are sealed: one row.
CREATE TABLE audit_sealing (
    epoch INTEGER NOT NULL,       -- grows with every seal
    sealed_at INTEGER NOT NULL,
    rows INTEGER NOT NULL,        -- the last key of the journal that is sealed
    acts INTEGER NOT NULL         -- the last key of `audit_acts` that is sealed
);
INSERT INTO audit_sealing (epoch, sealed_at, rows, acts) VALUES (0, 0, 0, 0);

-- Chains that were sealed together, one segment after another for each tenant.
CREATE TABLE audit_segments (
    tenant TEXT NOT NULL,
    number INTEGER NOT NULL,
    hash BLOB NOT NULL,
    bytes BLOB NOT NULL,
    PRIMARY KEY (tenant, number)
) WITHOUT ROWID;

-- What people did beside runs.
CREATE TABLE audit_acts (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    number INTEGER NOT NULL,
    bytes BLOB NOT NULL,
    UNIQUE (tenant, number)
);

-- Audit rows of runs that were removed.
CREATE TABLE audit_kept (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    run TEXT NOT NULL,
    tenant TEXT NOT NULL,
    rows BLOB NOT NULL
);
CREATE INDEX audit_kept_run ON audit_kept (run);
CREATE INDEX audit_kept_tenant ON audit_kept (tenant);
