//! The parts of chaos against real sockets and a real server.

mod effects;
mod postgres;
mod scripted;
