//! The runtime over the store in memory, with machines built by hand and time that passes only when all is idle.

mod kit;
mod unreliable;
mod interleaved;
mod budgets;
mod calls;
mod children;
mod faults;
mod fleet;
mod keys;
mod late;
mod notices;
mod points;
mod pruning;
mod ramps;
mod rates;
mod rules;
mod schedules;
mod shutdown;
mod signals;
mod simple;
mod switches;
mod timers;
mod turns;
mod versions;
