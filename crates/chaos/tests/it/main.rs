//! The parts of chaos against real sockets and a real server.

mod effects;
mod fleet;
mod postgres;
mod scripted;
