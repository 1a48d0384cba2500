//! The daemon's part of `firn status`: numbers of all parts in one object.

use std::os::unix::ffi::OsStrExt;
use std::time::{Instant, SystemTime};

use firn_mount::backup::{BackupStatus, Fuller};
use firn_mount::fuse::KernelCache;
use firn_mount::namespace::TreeResult;
use firn_mount::thaw::{ThawCounts, Thawed};
use firn_tiering::store::{Health, ParityUsage, Usage};

use super::assemble::Parts;
use super::tree::naming::Naming;
use crate::key;
use crate::mounts;
use crate::report::escape::escaped;
use crate::report::status::SpreadStatus;
use crate::report::status::parity::{ParityBytes, ParityStatus};
use crate::report::status::thawed::ThawedStatus;
use crate::report::status::{
    AutomaticSnapshots, BackupState, ColdStatus, Counters, DataStatus, HotStatus,
    InterruptedReceive, MemoryStatus, MountStatus, PlacementStatus, Status,
};
use crate::units::rounded_bytes;

/// What stays the same as long as a volume is mounted.
#[derive(Clone, Debug)]
pub(super) struct Fixed {
    pub(super) mountpoint: String,
    pub(super) cache: String,
    pub(super) since: Instant,
    /// Where the metrics are served, if they are.
    pub(super) metrics: Option<String>,
    /// Why they are not although they were to be.
    pub(super) metrics_failure: Option<String>,
}

/// The state of a mounted volume.
pub(super) fn status(parts: &Parts, kernel: &KernelCache, fixed: &Fixed) -> Status {
    let usage = parts.store.usage();
    let health = parts.store.health();
    let backup = parts.backup.as_ref().map(|backup| backup.status());
    let uptime = parts.clock.instant().saturating_duration_since(fixed.since);
    let mut warnings = warnings(parts, &usage, &health, backup.as_ref());
    let automatic = parts.automatic.status(|path| {
        let below = std::path::Path::new(std::ffi::OsStr::from_bytes(path)).strip_prefix("/");
        let mountpoint = std::path::Path::new(&fixed.mountpoint);
        mounts::shown(&below.map_or_else(|_| mountpoint.to_owned(), |below| mountpoint.join(below)))
    });
    warnings.extend(automatic.iter().flat_map(automatic_warnings));
    let not_as_sent = not_as_sent(parts, fixed);
    warnings.extend(not_as_sent_warning(&not_as_sent));
    let receives = receives(parts, fixed).unwrap_or_else(|error| {
        warnings.push(format!("interrupted receives are not known: {error}"));
        Vec::new()
    });
    let placement = parts.placement.status();
    warnings.extend(placement_warnings(&placement));
    warnings.extend(fixed.metrics_failure.clone());
    if health.unpinned_bytes > 0 {
        warnings.push(format!(
            "pins ask for more than the hot tier holds: {} of pinned data left it for what was \
             written",
            rounded_bytes(health.unpinned_bytes)
        ));
    }
    let counters = counters(&health, kernel);
    let read_only = parts.volume.read_only_reason().is_some();
    Status {
        volume: mounts::shown(parts.dir.root()),
        uuid: parts.config.uuid.to_string(),
        format: parts.config.format,
        mount: Some(MountStatus {
            mountpoint: fixed.mountpoint.clone(),
            pid: std::process::id(),
            uptime_s: uptime.as_secs(),
            read_only,
            cache: fixed.cache.clone(),
            metrics: fixed.metrics.clone(),
        }),
        hot: HotStatus {
            place: mounts::shown(&parts.config.hot_dir(parts.dir.root())),
            used_bytes: usage.hot_bytes.saturating_add(usage.other_bytes),
            capacity_bytes: hot_capacity(parts, &usage),
            segments: usage.hot_segments + usage.open_segments,
        },
        cold: parts.config.cold.as_ref().map(|url| ColdStatus {
            place: url.to_string(),
            used_bytes: usage.cold_bytes,
            capacity_bytes: usage.cold_capacity,
            segments: usage.cold_segments,
            waiting_segments: health.uploads_waiting,
            throttle: parts.cold.as_ref().map(|cold| cold.throttle().status()),
            spread: parts
                .cold
                .as_ref()
                .and_then(|cold| cold.spread())
                .map(|spread| SpreadStatus::of(spread)),
            encryption: key::shown(&parts.dir, &parts.config),
        }),
        data: Some(data(parts, &usage, &health)),
        memory: Some(MemoryStatus {
            used_bytes: parts.budget.used_bytes(),
            peak_bytes: parts.budget.peak_bytes(),
            budget_bytes: parts.budget.total_bytes(),
            resident_bytes: resident_bytes(),
        }),
        backup: backup.map(|backup| backup_state(parts, &backup, parts.clock.now())),
        snapshots: automatic,
        receives,
        not_as_sent,
        placement: Some(placement),
        thawed: parts.thawed.as_ref().map(|counts| thawed(counts, kernel)),
        model: Some(parts.placement.model_status()),
        hit_ratio: counters.hit_ratio(),
        counters: Some(counters),
        rates: None,
        damage: parts.damage.events(),
        jobs: jobs(&health),
        health: match (read_only && !parts.read_only, warnings.is_empty()) {
            (true, _) => "read-only",
            (false, false) => "warning",
            (false, true) => "ok",
        }
        .to_owned(),
        warnings,
    }
}

fn damage_warnings(health: &Health) -> Vec<String> {
    let mut warnings = Vec::new();
    if health.lost_segments > 0 {
        let count = health.lost_segments;
        warnings.push(format!(
            "content is lost in {count} segments: `firn status --json` names files under damage, \
             `firn check --data` all of them"
        ));
    }
    if health.repaired_segments > 0 {
        let count = health.repaired_segments;
        warnings.push(format!(
            "{count} damaged segments were repaired since the mount: look after the disk; firn.log \
             names the files"
        ));
    } else if health.damaged_reads > 0 {
        let count = health.damaged_reads;
        warnings.push(format!("{count} stored copies failed verification"));
    }
    if health.suspect_segments > 0 {
        let count = health.suspect_segments;
        warnings.push(format!("{count} segments may be damaged and wait to be looked at"));
    }
    warnings
}

fn placement_warnings(placement: &PlacementStatus) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(failure) = &placement.policy_failure {
        warnings.push(failure.clone());
    }
    if let Some(failure) = &placement.last_failure {
        warnings.push(format!("planning failed: {failure}"));
    }
    if let Some(reason) = &placement.parked_reason {
        let count = placement.parked_jobs;
        warnings.push(format!("{count} jobs are parked, `firn tier jobs` lists them: {reason}"));
    }
    warnings
}

fn receives(parts: &Parts, fixed: &Fixed) -> TreeResult<Vec<InterruptedReceive>> {
    let waiting = parts.volume.interrupted_receives()?;
    // Names cost a look at all datasets.
    Ok(match waiting.is_empty() {
        true => Vec::new(),
        false => Naming::new(&parts.namespace, &fixed.mountpoint).interrupted(&waiting),
    })
}

/// Received snapshots that are not what was sent.
fn not_as_sent(parts: &Parts, fixed: &Fixed) -> Vec<String> {
    let found = parts.namespace.not_as_sent();
    if found.is_empty() {
        return Vec::new();
    }
    let naming = Naming::new(&parts.namespace, &fixed.mountpoint);
    found.iter().map(|(dataset, name)| naming.snapshot(*dataset, name)).collect()
}

fn not_as_sent_warning(snapshots: &[String]) -> Option<String> {
    let some = snapshots.iter().take(TOLD).map(|name| escaped(name)).collect::<Vec<_>>().join(", ");
    let count = snapshots.len();
    (count > 0).then(|| {
        format!(
            "{count} received snapshots are not what was sent, such as {some}: `firn verify` says more; \
             destroy them and receive them again"
        )
    })
}

/// What may be used locally: as configured, or less when the disk has less.
fn hot_capacity(parts: &Parts, usage: &Usage) -> u64 {
    usage.hot_capacity.unwrap_or(parts.config.hot_capacity.0)
}

fn data(parts: &Parts, usage: &Usage, health: &Health) -> DataStatus {
    let (plain, stored) = (health.appended_plain_bytes, health.appended_stored_bytes);
    DataStatus {
        stored_bytes: usage.stored_bytes,
        dead_bytes: usage.dead_bytes,
        ratio: (stored > 0).then(|| plain as f64 / stored as f64),
        buffered_bytes: parts.volume.buffered_bytes(),
        dirty_files: parts.volume.dirty_files() as u64,
        parity: parity(&usage.parity),
    }
}

fn parity(usage: &ParityUsage) -> ParityStatus {
    let of = |data_bytes, parity_bytes| ParityBytes { data_bytes, parity_bytes };
    ParityStatus {
        inside: of(usage.inside_data_bytes, usage.inside_bytes),
        object: of(usage.object_data_bytes, usage.object_bytes),
        stores: of(usage.stores_data_bytes, usage.stores_bytes),
    }
}

fn thawed(counts: &ThawCounts, kernel: &KernelCache) -> ThawedStatus {
    let Thawed { files, bytes, thawed, damaged } = counts.now();
    ThawedStatus { files, bytes, made: thawed, damaged, opens: kernel.passed_opens() }
}

fn counters(health: &Health, kernel: &KernelCache) -> Counters {
    let asked = kernel.requests().filter(|(_, count)| *count > 0);
    Counters {
        written_bytes: health.appended_plain_bytes,
        stored_bytes: health.appended_stored_bytes,
        uploaded_bytes: health.uploaded_bytes,
        dropped_bytes: health.dropped_bytes,
        hot_reads: health.hot_reads,
        cold_reads: health.cold_reads,
        cache_hits: health.cache_hits,
        cold_requests: health.cold_requests,
        damaged_reads: health.damaged_reads,
        rescued_reads: health.rescued_reads,
        repaired_segments: health.repaired_segments,
        lost_segments: health.lost_segments,
        hot_read_bytes: health.hot_read_bytes,
        cold_read_bytes: health.cold_read_bytes,
        cache_read_bytes: health.cache_read_bytes,
        recalled_bytes: health.recalled_bytes,
        upload_failures: health.upload_failures,
        waiting_writers: health.waiting_for_space,
        kernel_requests: asked.map(|(kind, count)| (kind.to_owned(), count)).collect(),
    }
}

fn backup_state(parts: &Parts, backup: &BackupStatus, now: SystemTime) -> BackupState {
    let last = backup.last.as_ref();
    BackupState {
        sequence: last.map(|last| last.sequence),
        age_s: last.map(|last| now.duration_since(last.time).unwrap_or_default().as_secs()),
        current: parts.is_backed_up(),
        failure: backup.failure.clone(),
        fuller: backup.fuller.map(|fuller| fuller.sequence),
    }
}

fn jobs(health: &Health) -> Vec<String> {
    let mut jobs = Vec::new();
    if !health.catalog_caught_up {
        jobs.push("the catalog is being rebuilt; everything can be read meanwhile".to_owned());
    }
    if health.uploads_waiting > 0 {
        jobs.push(format!("{} segments wait to be copied to cold", health.uploads_waiting));
    }
    if health.waiting_for_space > 0 {
        jobs.push(format!("{} writers wait for space", health.waiting_for_space));
    }
    jobs
}

fn warnings(
    parts: &Parts,
    usage: &Usage,
    health: &Health,
    backup: Option<&BackupStatus>,
) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(reason) = parts.volume.read_only_reason().filter(|_| !parts.read_only) {
        warnings.push(format!("writes are refused: {reason}; unmount and mount again"));
    }
    if health.catalog_broken {
        warnings.push("the catalog failed; it is rebuilt at the next mount".to_owned());
    }
    warnings.extend(damage_warnings(health));
    let held_up = parts.namespace.held_up().len();
    if held_up > 0 {
        warnings.push(format!(
            "damage in the namespace keeps {held_up} branches of it from being cleared away, so that \
             space does not come back: unmount, and run `firn check --repair`"
        ));
    }
    if let Some(throttle) = parts.cold.as_ref().map(|cold| cold.throttle().status())
        && throttle.is_down
    {
        warnings.push("the cold tier does not answer; it is asked again by itself".to_owned());
    }
    if let Some(spread) = parts.cold.as_ref().and_then(|cold| cold.spread()) {
        warnings.extend(SpreadStatus::of(spread).warnings());
    }
    warnings.extend(parts.cold_refusal());
    if let Some(error) = &health.last_error {
        warnings.push(format!("the last move failed: {error}"));
    }
    if let Some(failure) = backup.and_then(|backup| backup.failure.as_ref()) {
        warnings.push(format!("the last backup failed: {failure}"));
    }
    if let Some(fuller) = backup.and_then(|backup| backup.fuller) {
        let Fuller { sequence, records, newest_records } = fuller;
        warnings.push(format!(
            "backup {sequence} of the namespace has {records} records and the newest only \
             {newest_records}: it is kept for 7 days from when that began, should something be missing"
        ));
    }
    let used = usage.hot_bytes.saturating_add(usage.other_bytes);
    if used >= hot_capacity(parts, usage) / 20 * 19 && health.waiting_for_space > 0 {
        warnings.push("the hot tier is full".to_owned());
    }
    warnings
}

/// Most datasets with failed snapshots, and most snapshots, that are told in words.
const TOLD: usize = 8;

/// Without a policy that does not hold: placement follows the same file, and tells.
fn automatic_warnings(snapshots: &AutomaticSnapshots) -> Vec<String> {
    let mut warnings = Vec::new();
    if !snapshots.missing.is_empty() {
        let missing = snapshots.missing.join(", ");
        warnings.push(format!("policy.toml names datasets that do not exist: {missing}"));
    }
    let failed: Vec<String> = snapshots
        .datasets
        .iter()
        .filter_map(|state| {
            let failure = state.failure.as_ref()?;
            Some(format!("automatic snapshots of {}: {failure}", state.dataset))
        })
        .collect();
    warnings.extend(failed.iter().take(TOLD).cloned());
    if let Some(more) = failed.len().checked_sub(TOLD).filter(|more| *more > 0) {
        warnings.push(format!("automatic snapshots of {more} more datasets failed"));
    }
    warnings
}

/// Resident memory of this process; 0 when the kernel does not say.
fn resident_bytes() -> u64 {
    let page = rustix::param::page_size() as u64;
    let resident = || {
        let text = std::fs::read_to_string("/proc/self/statm").ok()?;
        text.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    resident().unwrap_or(0) * page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn received_snapshots_that_are_not_what_was_sent_are_warned_of_by_name() {
        assert_eq!(not_as_sent_warning(&[]), None);
        let names: Vec<String> = (0..TOLD + 2).map(|n| format!("/m@{n}\n")).collect();
        let warning = not_as_sent_warning(&names).expect("there are some");
        assert!(
            warning.starts_with(&format!("{} received snapshots are not", TOLD + 2)),
            "{warning}"
        );
        let told = names.iter().filter(|name| warning.contains(&escaped(name)));
        assert_eq!(told.count(), TOLD, "{warning}");
        assert!(!warning.contains('\n'), "{warning}");
    }
}
