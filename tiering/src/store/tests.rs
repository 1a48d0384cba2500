#![allow(clippy::unwrap_used, reason = "tests")]

mod down;
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
