#![allow(clippy::unwrap_used, reason = "tests")]

mod down;
mod cold_reads;
mod evict;
mod full;
mod local;
mod model;
mod recode;
mod scale;
mod strangers;
mod sweep;
mod tiers;
mod travel;
mod waste;
