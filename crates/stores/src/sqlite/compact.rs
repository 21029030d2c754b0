//! A file written anew, so that nothing of what was removed is left between its values.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use windlass_ports::store::StoreError;

use super::{Options, failed, schema};
use crate::Compacted;

const READERS_WAITED_FOR: Duration = Duration::from_secs(1);

/// Writes a file anew, and empties the log beside it.
pub(crate) fn compact(path: &Path, options: &Options) -> Result<Compacted, StoreError> {
    let connection = schema::connect(path, options)?;
    // Writing a large file anew does not fit in memory.
    connection.execute_batch("PRAGMA temp_store = FILE").map_err(failed)?;
    let size = || {
        let sql = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()";
        connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs).map_err(failed)
    };
    let before = size()?;
    let remains = rewrite(&connection).err();
    Ok(Compacted { before, after: size()?, remains })
}

/// Writes the file of a connection anew, and empties its log. Gives what kept it from that.
pub(super) fn rewrite(connection: &Connection) -> Result<(), String> {
    let emptied = connection.execute_batch("VACUUM").and_then(|()| {
        // A reader that stays, stays for longer than anybody wants to wait.
        connection.busy_timeout(READERS_WAITED_FOR)?;
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0)).map(|busy| busy == 0)
    });
    match emptied {
        Ok(true) => Ok(()),
        Ok(false) => Err("another process reads it".into()),
        Err(error) => Err(error.to_string()),
    }
}
