-- The highest revision of a removed object, by a hash of kind and key: one of that name that comes again begins above it.
CREATE TABLE object_floors (
    slot INTEGER PRIMARY KEY,
    revision INTEGER NOT NULL
);
