-- The epoch of the read-only switches of a tenant, as it is when the transaction that asks is written: whoever changes a
-- switch waits for every transaction that has asked, and each that asks later sees the change. A function, because each
-- statement of one sees what was committed before it, where the statement that calls it sees what was before itself.
CREATE OR REPLACE FUNCTION switch_epoch(tenant text) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(7812738460179);
    RETURN (SELECT coalesce(sum(o.revision), 0)::bigint FROM objects o
        WHERE o.kind = 'read_only' AND o.key IN ('environment', 'tenant:' || switch_epoch.tenant));
END
$$;
