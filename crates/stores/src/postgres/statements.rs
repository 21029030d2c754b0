//! The statements by which decisions, new runs, deliveries and signals are written, many at once.
//!
//! Each takes its rows as arrays. What belongs to a decision is written only when its journal row is there: the guarded
//! change of the hot row puts it there, and everything else of the same transaction joins it.

use tokio_postgres::types::Type;

use super::connect::Sql;

/// Microseconds of the database's clock.
macro_rules! now_us {
    () => {
        "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
    };
}
pub(super) use now_us;

/// Whether the decision of row `i` passed its guard in this transaction: sent once more, it does not.
macro_rules! accepted {
    () => {
        "EXISTS (SELECT 1 FROM journal j WHERE j.run = i.run AND j.version = i.version AND j.op = i.op \
         AND j.xmin = pg_current_xact_id()::xid)"
    };
}

/// Adds what was put into an inbox to the count of its run, and puts the run into the queue when nobody holds it.
macro_rules! count_arrivals {
    () => {
        concat!(
            "n AS (SELECT run, count(*) AS added, max(number) AS last FROM put GROUP BY run), \
             woken AS (UPDATE runs r SET pending = r.pending + n.added, received = n.last, \
             ready = CASE WHEN r.owner IS NULL AND r.quarantine IS NULL THEN coalesce(r.ready, ",
            now_us!(),
            ") ELSE r.ready END, \
             wake_at = CASE WHEN r.owner IS NULL AND r.quarantine IS NULL THEN NULL ELSE r.wake_at END \
             FROM n WHERE r.id = n.run RETURNING r.id, r.owner)"
        )
    };
}

/// The waits that a signal `i` is for. One that names its run finds them by the run, which `OFFSET 0` sees to: many may
/// wait on its channel.
macro_rules! addressed {
    () => {
        "CROSS JOIN LATERAL (SELECT run, effect FROM waits \
           WHERE i.run IS NULL AND channel = i.channel AND NOT answered \
           UNION ALL SELECT run, effect FROM (SELECT * FROM waits WHERE run = i.run OFFSET 0) own \
           WHERE channel = i.channel AND NOT answered) w"
    };
}

/// What becomes of the lease, as a number.
pub(super) const HOLD: i16 = 0;
pub(super) const PARK: i16 = 1;
pub(super) const HAND_BACK: i16 = 2;
pub(super) const END: i16 = 3;
/// It is decided later in the same transaction.
pub(super) const LATER: i16 = 4;

/// The guarded change of hot rows, in the order they are sent in, and the journal rows of those that passed. Of decisions
/// that begin calls which change something, whether their read-only switches were changed since.
pub(super) static STEPS: Sql = Sql {
    text: concat!(
        "WITH u AS (UPDATE runs r SET status = i.status, state = i.state, step = i.step, version = i.expected + 1, \
         tokens = i.tokens, cost_micros = i.cost_micros, bundle = i.bundle, updated_at = i.at, lost = NULL, strikes = i.strikes, \
         owner = CASE WHEN i.keep IN (0, 4) OR (i.keep = 1 AND r.pending > 0) THEN r.owner END, \
         ready = CASE WHEN i.keep = 2 THEN ",
        now_us!(),
        " END, wake_at = CASE WHEN i.keep = 1 AND r.pending = 0 THEN i.wake_at END \
         FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[], $5::smallint[], $6::text[], $7::bigint[], \
         $8::bigint[], $9::bigint[], $10::bytea[], $11::bigint[], $12::smallint[], $13::bigint[], $14::uuid[], \
         $15::bytea[], $16::bytea[], $17::bytea[], $18::int[], $19::bigint[]) AS i (run, expected, epoch, worker, status, state, \
         step, tokens, cost_micros, bundle, at, keep, wake_at, op, record, uses, audit, strikes, begins) \
         WHERE r.id = i.run AND r.version = i.expected AND r.epoch = i.epoch AND r.owner = i.worker \
         RETURNING r.id, r.version, r.pending, r.owner, r.tenant, i.op, i.record, i.uses, i.audit, i.begins), \
         w AS (INSERT INTO journal (run, version, op, record, blobs, audit) \
         SELECT id, version, op, record, uses, audit FROM u) \
         SELECT id, pending, owner IS NOT NULL, \
         CASE WHEN begins IS NULL THEN false ELSE switch_epoch(tenant) <> begins END FROM u"
    ),
    types: &[
        Type::TEXT_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::TEXT_ARRAY,
        Type::INT2_ARRAY,
        Type::TEXT_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::BYTEA_ARRAY,
        Type::INT8_ARRAY,
        Type::INT2_ARRAY,
        Type::INT8_ARRAY,
        Type::UUID_ARRAY,
        Type::BYTEA_ARRAY,
        Type::BYTEA_ARRAY,
        Type::BYTEA_ARRAY,
        Type::INT4_ARRAY,
        Type::INT8_ARRAY,
    ],
};

/// Whoever opens a wait for a signal and whoever sends one meet here, channel by channel.
pub(super) static LOCK_CHANNELS: Sql = Sql {
    text: "SELECT count(pg_advisory_xact_lock(key)) FROM unnest($1::bigint[]) AS i (key)",
    types: &[Type::INT8_ARRAY],
};

/// Locks every run that is written to, in the order of ids: also those that wait for a signal.
pub(super) static LOCK_RUNS: Sql = Sql {
    text: concat!(
        "SELECT id FROM runs WHERE id IN (SELECT unnest($1::text[]) \
         UNION SELECT w.run FROM unnest($2::text[], $3::text[]) AS i (channel, run) ",
        addressed!(),
        ") ORDER BY id FOR NO KEY UPDATE"
    ),
    types: &[Type::TEXT_ARRAY, Type::TEXT_ARRAY, Type::TEXT_ARRAY],
};

pub(super) static BLOBS: Sql = Sql {
    text: concat!(
        "INSERT INTO blobs (digest, bytes) SELECT DISTINCT ON (digest) digest, bytes \
         FROM unnest($1::text[], $2::bigint[], $3::uuid[], $4::bytea[], $5::bytea[]) AS i (run, version, op, digest, bytes) \
         WHERE ",
        accepted!(),
        " ORDER BY digest ON CONFLICT (digest) DO NOTHING"
    ),
    types: &[Type::TEXT_ARRAY, Type::INT8_ARRAY, Type::UUID_ARRAY, Type::BYTEA_ARRAY, Type::BYTEA_ARRAY],
};

/// The last array has what is said when a blob is not there.
pub(super) static BLOB_USES: Sql = Sql {
    text: concat!(
        "INSERT INTO blob_uses (run, digest) SELECT run, digest \
         FROM unnest($1::text[], $2::bigint[], $3::uuid[], $4::bytea[], $5::text[]) AS i (run, version, op, digest, words) \
         WHERE CASE WHEN NOT ",
        accepted!(),
        " THEN false WHEN EXISTS (SELECT 1 FROM blobs b WHERE b.digest = i.digest) THEN true \
         ELSE i.words::integer = 0 END \
         ORDER BY digest, run ON CONFLICT (run, digest) DO NOTHING"
    ),
    types: &[Type::TEXT_ARRAY, Type::INT8_ARRAY, Type::UUID_ARRAY, Type::BYTEA_ARRAY, Type::TEXT_ARRAY],
};

/// New runs: children of decisions (with `run`, `version`, `op`), and those of callers.
pub(super) static CREATE: Sql = Sql {
    text: concat!(
        "WITH RECURSIVE lane (priority, pool) AS ( \
           (SELECT priority, pool FROM runs WHERE ready IS NOT NULL ORDER BY priority, pool LIMIT 1) \
           UNION ALL SELECT n.priority, n.pool FROM lane l CROSS JOIN LATERAL (SELECT q.priority, q.pool FROM runs q \
             WHERE q.ready IS NOT NULL AND (q.priority, q.pool) > (l.priority, l.pool) \
             ORDER BY q.priority, q.pool LIMIT 1) n), \
         i AS (SELECT DISTINCT ON (id) * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], \
           $6::text[], $7::integer[], $8::bytea[], $9::bytea[], $10::bigint[], $11::text[], $12::smallint[], \
           $13::bigint[], $14::text[], $15::text[], $16::bigint[], $17::bytea[], $18::text[], $19::bigint[], \
           $20::uuid[]) AS i (seq, id, parent, root, machine, tenant, depth, input, bundle, at, pool, \
           priority, wake_at, tags, keys, queued_max, start, run, version, op) \
           WHERE i.run IS NULL OR ",
        accepted!(),
        " ORDER BY id, seq), \
         placed AS (SELECT i.*, p.pool AS parent_pool, p.priority AS parent_priority, s.tags AS parent_tags, \
           CASE WHEN i.parent IS NOT NULL AND p.id IS NULL THEN i.parent \
             WHEN i.root <> i.id AND NOT EXISTS (SELECT 1 FROM runs t WHERE t.id = i.root) THEN i.root END AS missing \
           FROM i LEFT JOIN runs p ON p.id = i.parent LEFT JOIN starts s ON s.run = i.parent), \
         free AS MATERIALIZED (SELECT placed.*, CASE WHEN queued_max IS NULL THEN true ELSE \
           (SELECT count(*) FROM (SELECT 1 FROM lane CROSS JOIN LATERAL (SELECT 1 FROM runs q \
             WHERE q.priority = lane.priority AND q.pool = lane.pool AND q.tenant = placed.tenant \
             AND q.ready IS NOT NULL LIMIT placed.queued_max) one LIMIT placed.queued_max) most) \
           + row_number() OVER (PARTITION BY tenant ORDER BY seq) <= queued_max END AS room, ",
        now_us!(),
        " + seq AS place FROM placed), \
         made AS (INSERT INTO runs (id, parent, root, tenant, pool, priority, status, strikes, step, version, epoch, \
           pending, received, tokens, cost_micros, updated_at, ready, wake_at, bundle) \
           SELECT id, parent, root, tenant, coalesce(pool, parent_pool, 'default'), \
           coalesce(priority, parent_priority, 1), 1, 0, 0, 0, 0, 0, 0, 0, 0, at, \
           CASE WHEN wake_at IS NULL THEN place END, wake_at, bundle FROM free \
           WHERE room AND CASE WHEN missing IS NULL THEN true WHEN run IS NULL THEN false ELSE \
             ('windlass refuses: `' || id || '` is to be below `' || missing || '`, which does not exist')::integer = 0 END \
           ORDER BY id ON CONFLICT (id) DO NOTHING RETURNING id), \
         began AS (INSERT INTO starts (run, machine, depth, input, created_at, created_us, tags, start) \
           SELECT free.id, machine, depth, input, at, place, CASE WHEN free.tags IS NULL THEN parent_tags ELSE \
           ARRAY(SELECT jsonb_array_elements_text(free.tags::jsonb)) || ARRAY(SELECT t FROM unnest(parent_tags) t \
             WHERE NOT EXISTS (SELECT 1 FROM jsonb_array_elements_text(free.keys::jsonb) k \
             WHERE t = k OR starts_with(t, k || '='))) END, start FROM free JOIN made ON made.id = free.id) \
         SELECT free.seq, missing, room, made.id IS NOT NULL FROM free LEFT JOIN made ON made.id = free.id"
    ),
    types: &[
        Type::INT8_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::INT4_ARRAY,
        Type::BYTEA_ARRAY,
        Type::BYTEA_ARRAY,
        Type::INT8_ARRAY,
        Type::TEXT_ARRAY,
        Type::INT2_ARRAY,
        Type::INT8_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::INT8_ARRAY,
        Type::BYTEA_ARRAY,
        Type::TEXT_ARRAY,
        Type::INT8_ARRAY,
        Type::UUID_ARRAY,
    ],
};

pub(super) static TAKE: Sql = Sql {
    text: concat!(
        "WITH gone AS (UPDATE inbox x SET input = NULL \
         FROM unnest($1::text[], $2::bigint[], $3::uuid[], $4::bigint[]) AS i (run, version, op, number) \
         WHERE x.run = i.run AND x.number = i.number AND x.input IS NOT NULL AND ",
        accepted!(),
        " RETURNING x.run), n AS (SELECT run, count(*) AS taken FROM gone GROUP BY run) \
         UPDATE runs r SET pending = r.pending - n.taken FROM n WHERE r.id = n.run"
    ),
    types: &[Type::TEXT_ARRAY, Type::INT8_ARRAY, Type::UUID_ARRAY, Type::INT8_ARRAY],
};

pub(super) static CLOSE_WAITS: Sql = Sql {
    text: concat!(
        "DELETE FROM waits w USING unnest($1::text[], $2::bigint[], $3::uuid[], $4::bigint[]) \
         AS i (run, version, op, effect) WHERE w.run = i.run AND w.effect = i.effect AND ",
        accepted!()
    ),
    types: &[Type::TEXT_ARRAY, Type::INT8_ARRAY, Type::UUID_ARRAY, Type::INT8_ARRAY],
};

/// Inputs for runs: of decisions (with `run`, `version`, `op`), and of callers.
pub(super) static PUT: Sql = Sql {
    text: concat!(
        "WITH ok AS MATERIALIZED (SELECT i.*, r.status, r.received, \
           row_number() OVER (PARTITION BY i.target, i.id ORDER BY i.seq) AS nth \
           FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bytea[], $5::text[], $6::bigint[], $7::uuid[]) \
           AS i (seq, target, id, input, run, version, op) JOIN runs r ON r.id = i.target WHERE i.run IS NULL OR ",
        accepted!(),
        "), put AS (INSERT INTO inbox (run, id, number, input) SELECT target, id, \
           received + row_number() OVER (PARTITION BY target ORDER BY seq), input FROM ok \
           WHERE status < 6 AND nth = 1 ON CONFLICT (run, id) DO NOTHING RETURNING run, id, number), ",
        count_arrivals!(),
        " SELECT ok.seq, ok.status >= 6, ok.nth = 1 AND put.id IS NOT NULL, woken.owner FROM ok \
         LEFT JOIN put ON put.run = ok.target AND put.id = ok.id LEFT JOIN woken ON woken.id = put.run"
    ),
    types: &[
        Type::INT8_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::BYTEA_ARRAY,
        Type::TEXT_ARRAY,
        Type::INT8_ARRAY,
        Type::UUID_ARRAY,
    ],
};

/// Opens waits. Each for a signal takes one that is buffered: the oldest that names its run, or else the oldest that
/// names none.
pub(super) static OPEN_WAITS: Sql = Sql {
    text: concat!(
        "WITH ok AS MATERIALIZED (SELECT i.*, r.received, \
           row_number() OVER (PARTITION BY i.run, i.channel, i.kind IS NULL ORDER BY i.effect) AS nth \
           FROM unnest($1::text[], $2::bigint[], $3::uuid[], $4::bigint[], $5::text[], $6::bytea[], $7::bigint[]) \
           WITH ORDINALITY AS i (run, version, op, effect, channel, kind, due, seq) \
           JOIN runs r ON r.id = i.run WHERE ",
        accepted!(),
        "), own AS MATERIALIZED (SELECT ok.seq, s.id, s.data FROM ok CROSS JOIN LATERAL (SELECT id, data FROM \
           (SELECT id, data, sent_us, channel FROM signals WHERE run = ok.run AND data IS NOT NULL OFFSET 0) named \
           WHERE channel = ok.channel ORDER BY sent_us, id OFFSET ok.nth - 1 LIMIT 1) s WHERE ok.kind IS NULL), \
         rest AS MATERIALIZED (SELECT seq, channel, row_number() OVER (PARTITION BY channel ORDER BY seq) AS nth \
           FROM ok WHERE kind IS NULL AND seq NOT IN (SELECT seq FROM own)), \
         free AS (SELECT c.channel, s.id, s.data, \
           row_number() OVER (PARTITION BY c.channel ORDER BY s.sent_us, s.id) AS nth \
           FROM (SELECT channel, count(*) AS most FROM rest GROUP BY channel) c CROSS JOIN LATERAL \
           (SELECT id, data, sent_us FROM signals WHERE channel = c.channel AND data IS NOT NULL AND run IS NULL \
             ORDER BY sent_us, id LIMIT c.most) s), \
         hit AS MATERIALIZED (SELECT ok.run, ok.effect, ok.received, t.id, t.data FROM (SELECT seq, id, data FROM own \
           UNION ALL SELECT rest.seq, free.id, free.data FROM rest JOIN free USING (channel, nth)) t \
           JOIN ok ON ok.seq = t.seq), \
         used AS (UPDATE signals s SET data = NULL FROM hit WHERE s.id = hit.id), \
         opened AS (INSERT INTO waits (run, effect, channel, kind, due, answered) \
           SELECT ok.run, ok.effect, channel, kind, due, hit.id IS NOT NULL FROM ok \
           LEFT JOIN hit ON hit.run = ok.run AND hit.effect = ok.effect \
           ON CONFLICT (run, effect) DO UPDATE SET channel = excluded.channel, kind = excluded.kind, \
           due = excluded.due, answered = excluded.answered), \
         put AS (INSERT INTO inbox (run, id, number, wait, signal, input) \
           SELECT run, 'signal:' || id || '#' || effect, \
           received + row_number() OVER (PARTITION BY run ORDER BY effect), effect, id, data FROM hit \
           ON CONFLICT (run, id) DO NOTHING RETURNING run, number), ",
        count_arrivals!(),
        " SELECT count(*) FROM woken"
    ),
    types: &[
        Type::TEXT_ARRAY,
        Type::INT8_ARRAY,
        Type::UUID_ARRAY,
        Type::INT8_ARRAY,
        Type::TEXT_ARRAY,
        Type::BYTEA_ARRAY,
        Type::INT8_ARRAY,
    ],
};

/// Notes signals that may be sent.
pub(super) static NOTE_SIGNALS: Sql = Sql {
    text: concat!(
        "WITH ok AS MATERIALIZED (SELECT i.*, r.status FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], \
           $5::bigint[], $6::uuid[], $7::bytea[]) AS i (seq, id, channel, run, at, op, data) \
           LEFT JOIN runs r ON r.id = i.run), \
         noted AS (INSERT INTO signals (id, channel, run, sent_at, sent_us, op, data) \
           SELECT id, channel, run, at, ",
        now_us!(),
        " + seq, op, data FROM ok WHERE run IS NULL OR status < 6 ORDER BY id \
           ON CONFLICT (id) DO NOTHING RETURNING id) \
         SELECT ok.seq, EXISTS (SELECT 1 FROM signals s WHERE s.id = ok.id), \
         ok.run IS NULL OR ok.status IS NOT NULL, coalesce(ok.status >= 6, false), noted.id IS NOT NULL \
         FROM ok LEFT JOIN noted ON noted.id = ok.id"
    ),
    types: &[
        Type::INT8_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::INT8_ARRAY,
        Type::UUID_ARRAY,
        Type::BYTEA_ARRAY,
    ],
};

/// Brings noted signals to everyone who waits on their channels.
pub(super) static SEND_SIGNALS: Sql = Sql {
    text: concat!(
        "WITH hit AS MATERIALIZED (SELECT i.seq, s.id, s.data, w.run, w.effect, r.received \
           FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::uuid[]) AS i (seq, id, channel, run, op) \
           JOIN signals s ON s.id = i.id AND s.op = i.op AND s.data IS NOT NULL \
           ",
        addressed!(),
        " JOIN runs r ON r.id = w.run), \
         answered AS (UPDATE waits w SET answered = true FROM hit WHERE w.run = hit.run AND w.effect = hit.effect), \
         used AS (UPDATE signals s SET data = NULL WHERE s.id IN (SELECT id FROM hit)), \
         put AS (INSERT INTO inbox (run, id, number, wait, signal, input) \
           SELECT run, 'signal:' || id || '#' || effect, \
           received + row_number() OVER (PARTITION BY run ORDER BY seq, effect), effect, id, data FROM hit \
           ON CONFLICT (run, id) DO NOTHING RETURNING run, number), ",
        count_arrivals!(),
        " SELECT DISTINCT hit.seq, hit.run FROM hit ORDER BY hit.seq, hit.run"
    ),
    types: &[Type::INT8_ARRAY, Type::TEXT_ARRAY, Type::TEXT_ARRAY, Type::TEXT_ARRAY, Type::UUID_ARRAY],
};

/// What a run that is over has no more use for.
pub(super) static CLEAR_ENDED: Sql = Sql {
    text: "WITH over AS MATERIALIZED (SELECT id FROM runs WHERE id = ANY($1::text[]) AND status >= 6), \
         closed AS (DELETE FROM waits w USING over WHERE w.run = over.id), \
         emptied AS (UPDATE inbox x SET input = NULL FROM over WHERE x.run = over.id AND x.input IS NOT NULL) \
         UPDATE signals s SET data = NULL FROM over WHERE s.run = over.id AND s.data IS NOT NULL",
    types: &[Type::TEXT_ARRAY],
};

/// What becomes of leases, after everything else is written.
pub(super) static FINISH: Sql = Sql {
    text: concat!(
        "UPDATE runs r SET pending = CASE WHEN i.keep = 3 THEN 0 ELSE r.pending END, \
         owner = CASE WHEN i.keep = 0 OR (i.keep = 1 AND r.pending > 0) THEN r.owner END, \
         ready = CASE WHEN i.keep = 2 THEN ",
        now_us!(),
        " END, wake_at = CASE WHEN i.keep = 1 AND r.pending = 0 THEN i.wake_at END \
         FROM unnest($1::text[], $2::bigint[], $3::uuid[], $4::smallint[], $5::bigint[]) AS i (run, version, op, keep, wake_at) \
         WHERE r.id = i.run AND ",
        accepted!(),
        " RETURNING r.id, r.pending, r.owner IS NOT NULL"
    ),
    types: &[Type::TEXT_ARRAY, Type::INT8_ARRAY, Type::UUID_ARRAY, Type::INT2_ARRAY, Type::INT8_ARRAY],
};

pub(super) static CHANGE_POOLS: Sql = Sql {
    text: concat!(
        "UPDATE runs r SET pool = i.pool FROM unnest($1::text[], $2::bigint[], $3::uuid[], $4::text[]) \
         AS i (run, version, op, pool) WHERE r.id = i.run AND ",
        accepted!()
    ),
    types: &[Type::TEXT_ARRAY, Type::INT8_ARRAY, Type::UUID_ARRAY, Type::TEXT_ARRAY],
};

pub(super) static SNAPSHOTS: Sql = Sql {
    text: concat!(
        "INSERT INTO snapshots (run, version, bytes) SELECT run, version, bytes \
         FROM unnest($1::text[], $2::bigint[], $3::uuid[], $4::bytea[]) AS i (run, version, op, bytes) WHERE ",
        accepted!(),
        " ON CONFLICT (run) DO UPDATE SET version = excluded.version, bytes = excluded.bytes"
    ),
    types: &[Type::TEXT_ARRAY, Type::INT8_ARRAY, Type::UUID_ARRAY, Type::BYTEA_ARRAY],
};
