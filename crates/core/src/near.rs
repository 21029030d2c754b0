//! From when on what a run or a conversation may take is nearly used up.

use crate::ids::Name;

/// Share of a ceiling, in percent, at which a warning is recorded; and of what a model takes at once, where a machine does
/// not say otherwise.
pub const NEAR_PERCENT: u8 = 80;

/// By what a run is said to have left a state to shorten its conversation.
pub const ON_NEAR: &str = "on_near";

/// What happens when a conversation gets nearly as long as its model takes, or as long as it should get. Shares are in percent
/// of what the model takes, or of what the machine says where that is less or the other is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// Share from which it is nearly as long.
    pub near_percent: u8,
    /// Share from which it is while money or tokens are nearly used up, where that is another.
    pub saving_percent: Option<u8>,
    /// Tokens that it should have at most, whatever its model takes.
    pub tokens_max: Option<u64>,
    /// The state that shortens it: the run goes there instead of making the call.
    pub on_near: Option<Name>,
}

impl Default for Conversation {
    fn default() -> Self {
        Self { near_percent: NEAR_PERCENT, saving_percent: None, tokens_max: None, on_near: None }
    }
}
