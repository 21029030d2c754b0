//! Every bound of the engine, with its unit and the reason for it.
//!
//! Owns numbers only. Configurable ceilings of a run are in [`crate::budget`].

/// Bytes of one value (a context, an input, an output), counted as JSON text. Larger inputs are refused.
pub const VALUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of one file that goes to a model.
pub const FILE_BYTES_MAX: u64 = 20 * 1024 * 1024;
/// Files that go to a model with one prompt.
pub const FILES_MAX: usize = 20;
/// Input tokens that a file is counted as at least before a call: what an image costs depends on its size in pixels, and
/// with every provider stays below this.
pub const FILE_TOKENS_MIN: u64 = 50_000;
/// Nesting of a value. Deeper text is refused before it can exhaust a stack.
pub const VALUE_DEPTH_MAX: usize = 100;
/// Bytes above which a value inside an entry moves to the blob store.
pub const INLINE_BYTES_MAX: usize = 16 * 1024;
/// Bytes of one machine document.
pub const DOCUMENT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Values of one machine document, every YAML alias counted in full: an alias bomb is refused before it is expanded.
pub const DOCUMENT_VALUES_MAX: usize = 1_000_000;
/// Documents that one machine may refer to, itself included.
pub const DOCUMENT_FILES_MAX: usize = 1_000;
/// Decision tables of one machine.
pub const TABLES_MAX: usize = 64;
/// Rows of one decision table.
pub const TABLE_ROWS_MAX: usize = 1_000;
/// Columns of one decision table.
pub const TABLE_COLUMNS_MAX: usize = 32;
/// Bytes of a text that a decision table reads or has in a cell. What it reads stands in the journal.
pub const TABLE_TEXT_BYTES_MAX: usize = 1_024;
/// Steps of one run when neither the machine nor the caller says otherwise.
pub const STEPS_DEFAULT: u64 = 1_000;
/// Nesting of child machines and launches when the machine does not say otherwise.
pub const DEPTH_DEFAULT: u32 = 16;
/// Children that one state may start.
pub const FAN_OUT_MAX: usize = 10_000;
/// Samples that one parallel or voting state may take.
pub const SAMPLES_MAX: u32 = 100;
/// Model turns of one tool loop when the state does not say otherwise.
pub const TURNS_DEFAULT: u64 = 200;
/// Tool calls that one model reply may ask for. The rest is answered with an error.
pub const CALLS_PER_TURN_MAX: usize = 128;
/// Turns of a tool loop in a row with the same calls, arguments and answers; then the loop is stopped, because it makes no
/// progress.
pub const SAME_TURNS_MAX: usize = 8;
/// Alike calls of one tool with alike answers in one tool loop; then the tool is shut off for the run.
pub const SAME_CALLS_MAX: u32 = 12;
/// Failed calls of one tool within [`STORM_MS`]; then the tool is shut off for the run.
pub const FAILED_CALLS_MAX: u32 = 10;
/// Slow calls of one tool in a row; then the tool is shut off for the run.
pub const SLOW_CALLS_MAX: u32 = 5;
/// Share of the time that a call may take, in percent, from which it is slow.
pub const SLOW_PERCENT: u64 = 80;
/// Failed attempts at models of one run within [`STORM_MS`]; then no more are made for the call that failed last. More than
/// one state can make that asks a chain of links once for each of its samples.
pub const FAILED_ATTEMPTS_MAX: u32 = 250;
/// The time within which failures are counted together, in milliseconds.
pub const STORM_MS: u64 = 60_000;
/// Tools of a catalog that a model is shown at a time, where it may find more.
pub const TOOLS_SHOWN_MAX: usize = 24;
/// Tools that are chosen for what an agent is asked; the rest of the room is for what it finds.
pub const TOOLS_SELECTED_MAX: usize = 12;
/// The same while a budget is nearly used up.
pub const TOOLS_SHOWN_SAVING: usize = 12;
/// The same while a budget is nearly used up.
pub const TOOLS_SELECTED_SAVING: usize = 6;
/// Tools that one search finds.
pub const TOOLS_FOUND_MAX: usize = 6;
/// Attempts at one call that may be lost with the process that made them; then the call fails.
pub const LOSSES_MAX: u32 = 10;
/// Synchronous moves of one decision; more means that a machine spins without asking for anything.
pub const MOVES_PER_DECISION_MAX: u32 = 512;
/// Output tokens reserved for a model call whose profile names no maximum, and asked for where a ceiling needs a bound.
pub const OUTPUT_TOKENS_DEFAULT: u64 = 8_192;
/// Tokens of one kind that one call can have used: a thousand times what any model takes at once. A count beyond it is
/// none, and the call is charged at its reservation.
pub const CALL_TOKENS_MAX: u64 = 1_000_000_000;
/// Micro-USD that one call can have cost; the same is done with more.
pub const CALL_COST_MICROS_MAX: u64 = 1_000_000_000_000;
/// The largest number of a meter: what every store can hold.
pub const AMOUNT_MAX: u64 = i64::MAX as u64;
/// Time for one attempt at a model call, in milliseconds, when the profile names none.
pub const MODEL_TIMEOUT_MS_DEFAULT: u64 = 600_000;
/// Bytes per token assumed when bounding the input of a model call: at worst a token is one byte.
pub const BYTES_PER_TOKEN_MIN: u64 = 1;
/// Bytes that a token usually has, for guessing how long a conversation is.
pub const BYTES_PER_TOKEN_USUAL: u64 = 4;
/// Bytes of text that a token has at most on average: a conversation is at least its bytes over this many tokens.
pub const BYTES_PER_TOKEN_MOST: u64 = 16;
/// Bytes of a failure's message; the rest is cut with a mark.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024;
/// Length of a run id given by a caller, in bytes.
pub const RUN_ID_BYTES_MAX: usize = 200;
/// Labels on paths of one run; beyond, they move outwards.
pub const LABELS_MAX: usize = 256;
/// Bytes of a labelled path; a label on a longer one stands on the part around it.
pub const LABEL_PATH_BYTES_MAX: usize = 256;
/// Values of one run that are not shown because a contract says so; beyond, none of its values are. The run holds each, and
/// what searches for all of them is made anew as they grow.
pub const HIDDEN_MAX: usize = 4_096;
/// Bytes of those values together.
pub const HIDDEN_BYTES_MAX: usize = 1024 * 1024;
/// Length of a signal channel, in bytes.
pub const CHANNEL_BYTES_MAX: usize = 512;
/// Entries after the last snapshot above which a new snapshot is taken.
pub const SNAPSHOT_ENTRIES_MAX: u64 = 200;
/// Bytes of what is handed to a child in an envelope, as JSON without the contents of files, when its contract names none.
pub const HANDOFF_BYTES_DEFAULT: u64 = 64 * 1024;
/// Bytes of a reference in an envelope that is text.
pub const REFERENCE_BYTES_MAX: usize = 1_024;
/// Bytes that an output at least has room for which is cut where it is larger.
pub const CUT_OUTPUT_BYTES_MIN: u64 = 1_024;
/// Plans of calls that one run makes.
pub const PLANS_MAX: usize = 1_000;
/// How often the call of a tool that is not what was accepted is made before its failure counts.
pub const TOOL_LOOKS_MAX: u32 = 180;
/// The first pause after which it is judged again although nobody said anything, in milliseconds; each is twice the one
/// before.
pub const TOOL_PAUSE_MS_MIN: u64 = 5 * 60_000;
/// The longest such pause, in milliseconds. With [`TOOL_LOOKS_MAX`] a call waits for a week.
pub const TOOL_PAUSE_MS_MAX: u64 = 60 * 60_000;
