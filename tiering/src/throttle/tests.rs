//! Each part by itself, then the whole on simulated links, then with tasks that wait.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::print_stderr, reason = "figures, shown when a test fails")]

mod links;
mod parts;
mod sim;
mod waiting;
