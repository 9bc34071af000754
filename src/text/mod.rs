//! Text for people: durations, and what the database says made safe for a terminal.

pub mod age;
pub mod printable;
