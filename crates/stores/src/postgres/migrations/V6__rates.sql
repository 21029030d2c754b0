-- What is left of rates, and who waits. Not logged: nothing here is worth a synced write, and what a server that crashed,
-- or another one that took its place, does not know is gone altogether. The row without a name says since when nothing is
-- missing; whoever finds none makes it with the present. A bucket that is not there was empty then.
CREATE UNLOGGED TABLE rates (
    bucket text COLLATE "C" NOT NULL PRIMARY KEY,
    idle_at bigint NOT NULL,            -- when the bucket says no more than that it is full
    bytes bytea NOT NULL
) WITH (fillfactor = 50);
INSERT INTO rates (bucket, idle_at, bytes) VALUES ('', 0, '');
