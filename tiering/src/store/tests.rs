#![allow(clippy::unwrap_used, reason = "tests")]

mod apart;
mod asleep;
mod cold_reads;
mod down;
mod evict;
mod full;
mod heat;
mod jobs;
mod lanes;
mod local;
mod marks;
mod model;
mod parked;
mod proof;
mod recode;
mod repair;
mod salvage;
mod scale;
mod scrub;
mod steps;
mod steward;
mod strangers;
mod sweep;
mod tiers;
mod travel;
mod waste;
