//! Text for people and programs: durations, JSON, and what the database says made safe for a terminal.

pub mod age;
pub mod json;
pub mod printable;
