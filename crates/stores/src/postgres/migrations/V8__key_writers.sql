-- Keys that values are, or were, encrypted with, and whether more may be.
CREATE TABLE encryption_writers (
    id text COLLATE "C" NOT NULL PRIMARY KEY,
    header bytea NOT NULL UNIQUE,       -- how its values begin
    closed_at bigint                    -- since when nothing more is encrypted with it; none while it may be
);
INSERT INTO encryption_writers (id, header)
    SELECT id, convert_to('E' || id, 'UTF8') || decode(repeat('00', 16 - length(id)), 'hex') FROM encryption_keys;
