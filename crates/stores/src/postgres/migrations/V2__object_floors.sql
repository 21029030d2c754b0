-- The highest revision of a removed object, by a hash of kind and key: one of that name that comes again begins above
-- it. Every slot is there from the start, so that it can be locked.
CREATE TABLE object_floors (
    slot smallint NOT NULL PRIMARY KEY,
    revision bigint NOT NULL
) WITH (fillfactor = 50);
INSERT INTO object_floors (slot, revision) SELECT slot, 0 FROM generate_series(0, 255) AS slot;
