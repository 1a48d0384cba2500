//! What `firn status` says. The JSON object is [`Status`] for one volume, `{"volumes": [...]}` for
//! all that are mounted; its fields are only ever added to. With `--watch` there is one object a
//! line and a look, and from the second look on it has `rates`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use firn_tiering::tier::Spread;
use firn_tiering::tier::spread::StoreStatus;
use serde::{Deserialize, Serialize};

use super::model::ModelReport;
use super::table;
use parity::ParityStatus;
use rates::Rates;
use thawed::ThawedStatus;

use crate::policy::cycle::Turn;
use crate::units::{rounded_bytes, rounded_duration};

pub mod parity;
pub mod rates;
pub mod thawed;

/// Characters of the bar that shows how full a tier is.
const BAR: u64 = 20;

/// The state of a volume.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Directory of the volume.
    pub volume: String,
    /// Its identity.
    pub uuid: String,
    /// Version of what is stored.
    pub format: u32,
    /// How it is mounted; absent when it is not.
    pub mount: Option<MountStatus>,
    /// The hot tier.
    pub hot: HotStatus,
    /// The cold tier; absent without one.
    pub cold: Option<ColdStatus>,
    /// Data of all tiers; absent when not mounted.
    pub data: Option<DataStatus>,
    /// Memory; absent when not mounted.
    pub memory: Option<MemoryStatus>,
    /// Backups of the namespace; absent without a cold tier or when not mounted.
    pub backup: Option<BackupState>,
    /// Automatic snapshots; absent without a policy for any or when not mounted.
    #[serde(default)]
    pub snapshots: Option<AutomaticSnapshots>,
    /// Receives that were interrupted and wait to go on; empty when not mounted.
    #[serde(default)]
    pub receives: Vec<InterruptedReceive>,
    /// Received snapshots that are not what was sent; empty when not mounted.
    #[serde(default)]
    pub not_as_sent: Vec<String>,
    /// Where files are to lie, and what is done about it; absent when not mounted.
    #[serde(default)]
    pub placement: Option<PlacementStatus>,
    /// Thawed files; absent where none is thawed and when not mounted.
    #[serde(default)]
    pub thawed: Option<ThawedStatus>,
    /// The classifier, as `firn model status` has it; absent when not mounted.
    #[serde(default)]
    pub model: Option<ModelReport>,
    /// Counters since the mount, from which `--watch` makes rates; absent when not mounted.
    pub counters: Option<Counters>,
    /// Share of block reads since the mount that needed nothing of the cold tier, from 0 to 1; absent
    /// before the first read and when not mounted.
    #[serde(default)]
    pub hit_ratio: Option<f64>,
    /// What happened a second since the look before; only with `--watch`, from the second look on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rates: Option<Rates>,
    /// What was found damaged in storage since the mount, and what became of it, oldest first; of
    /// many the last.
    #[serde(default)]
    pub damage: Vec<DamageEvent>,
    /// What goes on in the background, in words.
    pub jobs: Vec<String>,
    /// `ok`, `warning` or `read-only`; `not mounted`, `finishing` or `in use` without a mount.
    pub health: String,
    /// What is wrong, in words.
    pub warnings: Vec<String>,
}

/// Damage to one segment, and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamageEvent {
    /// When it was dealt with: RFC 3339, UTC.
    pub time: String,
    /// The segment.
    pub segment: String,
    /// Which copy was damaged: `hot` or `cold`.
    pub tier: String,
    /// What of it, in words.
    pub what: String,
    /// Content is lost. Otherwise everything was repaired.
    pub is_lost: bool,
    /// Blocks that were damaged, or are lost.
    pub blocks: u64,
    /// Files that hold them, as paths from the root of the volume; of many the first.
    pub paths: Vec<String>,
}

/// Where files are to lie, and what is done about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementStatus {
    /// `ml`, `age` or `manual`: who decides where no rule does.
    pub mode: String,
    /// Why `policy.toml` as it is now does not hold.
    pub policy_failure: Option<String>,
    /// When all files were looked at last, in RFC 3339; absent while there was no need.
    pub last_run: Option<String>,
    /// Moves that it planned.
    pub last_moves: u64,
    /// Bytes of these.
    pub last_bytes: u64,
    /// Why it came to nothing.
    pub last_failure: Option<String>,
    /// Jobs that wait.
    pub waiting_jobs: u64,
    /// Jobs that are being done.
    pub running_jobs: u64,
    /// Jobs that failed and are tried again.
    pub parked_jobs: u64,
    /// Why the first of these is parked.
    pub parked_reason: Option<String>,
    /// Files and directories that are pinned.
    pub pins: u64,
    /// Files of which is known how they are used.
    pub known_files: u64,
    /// Files of which that was forgotten to make room.
    pub forgotten_files: u64,
    /// Reads of cold data that are under way.
    pub recalls_in_flight: u64,
    /// Reads of cold data that wait for their turn.
    pub recalls_waiting: u64,
    /// Who passes over many files now: it is served, and nothing counts or is brought back.
    pub scans: Vec<ScanStatus>,
}

/// A process that passes over many files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanStatus {
    /// Its number.
    pub process: u64,
    /// Files it has touched.
    pub files: u64,
    /// Since when, in RFC 3339.
    pub since: String,
}

/// How a volume is mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountStatus {
    /// Where.
    pub mountpoint: String,
    /// The daemon's process.
    pub pid: u32,
    /// Seconds since it was mounted.
    pub uptime_s: u64,
    /// Mounted read-only.
    pub read_only: bool,
    /// `writeback` or `passthrough`.
    pub cache: String,
    /// Where the metrics are served; absent when they are not.
    #[serde(default)]
    pub metrics: Option<String>,
}

/// The hot tier.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HotStatus {
    /// Its directory.
    pub place: String,
    /// Bytes used, databases and indexes included.
    pub used_bytes: u64,
    /// Bytes it may use: as configured, or less when its disk has less.
    pub capacity_bytes: u64,
    /// Segments with bytes here.
    pub segments: u64,
}

/// The cold tier.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ColdStatus {
    /// Its URL.
    pub place: String,
    /// Bytes of segments; 0 while not mounted.
    pub used_bytes: u64,
    /// Bytes it may use; absent when unlimited.
    pub capacity_bytes: Option<u64>,
    /// Segments verified there.
    pub segments: u64,
    /// Segments that still have to be copied.
    pub waiting_segments: u64,
    /// What may be asked of it, and what holds that back; absent when not mounted.
    #[serde(default)]
    pub throttle: Option<firn_tiering::throttle::Status>,
    /// How objects are spread over several stores; absent with one store or when not mounted.
    #[serde(default)]
    pub spread: Option<SpreadStatus>,
    /// How it is encrypted; absent when it is not.
    #[serde(default)]
    pub encryption: Option<EncryptionStatus>,
}

/// How a cold tier is encrypted, never with what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncryptionStatus {
    /// Which wrapping of the key it is: each `firn key rotate` makes the next. Absent when it cannot
    /// be read.
    pub generation: Option<u64>,
    /// The first 16 hexadecimal digits of the BLAKE3 of the wrapped key as it is stored, in the volume
    /// directory and under `keys/` in the cold tier. Absent when it cannot be read.
    pub fingerprint: Option<String>,
}

/// How objects are spread over several stores.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SpreadStatus {
    /// Stores that hold data.
    pub data: usize,
    /// Stores that hold parity: so many may be lost.
    pub parity: usize,
    /// Bytes on all stores beyond those of the data, as a share of them, headers and checksums
    /// included: 0.67 is 67 per cent more.
    pub overhead: f64,
    /// The stores, in order.
    pub stores: Vec<StoreState>,
}

/// One of several stores.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreState {
    /// Its URL.
    pub place: String,
    /// Whether it holds parity.
    pub is_parity: bool,
    /// `ok`, `failing`, or `not asked` since the mount.
    pub state: String,
    /// Why it fails.
    pub reason: Option<String>,
}

/// Length of the object by which overhead is measured: a full segment.
const MEASURED: u64 = 64 << 20;

impl SpreadStatus {
    /// As it is now.
    pub fn of(spread: &Spread) -> Self {
        let state = |store: StoreStatus| StoreState {
            place: store.place,
            is_parity: store.is_parity,
            state: match (&store.failure, store.was_asked) {
                (Some(_), _) => "failing",
                (None, true) => "ok",
                (None, false) => "not asked",
            }
            .to_owned(),
            reason: store.failure,
        };
        Self {
            data: spread.data(),
            parity: spread.parity(),
            overhead: spread.stored_len(MEASURED) as f64 / MEASURED as f64 - 1.0,
            stores: spread.stores().into_iter().map(state).collect(),
        }
    }

    /// What is wrong, store by store.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        let failing = self.stores.iter().enumerate().filter(|(_, store)| store.reason.is_some());
        failing.map(|(at, store)| {
            let reason = store.reason.as_deref().unwrap_or_default();
            format!("store {} of the cold tier, {}, does not serve: {reason}", at + 1, store.place)
        })
    }
}

/// Data of all tiers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DataStatus {
    /// Bytes of all segments, each counted once wherever it is.
    pub stored_bytes: u64,
    /// Bytes of blocks that were removed and not collected yet.
    pub dead_bytes: u64,
    /// Plaintext over stored bytes of what was written since the mount; absent without any.
    pub ratio: Option<f64>,
    /// Bytes that write buffers hold.
    pub buffered_bytes: u64,
    /// Files with data that is not durable yet.
    pub dirty_files: u64,
    /// Bytes of parity, by where they lie.
    #[serde(default)]
    pub parity: ParityStatus,
}

/// Memory of the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryStatus {
    /// Bytes taken of the budget.
    pub used_bytes: u64,
    /// Most that was ever taken.
    pub peak_bytes: u64,
    /// The budget.
    pub budget_bytes: u64,
    /// Resident memory of the process as the kernel counts it.
    pub resident_bytes: u64,
}

/// Backups of the namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupState {
    /// Number of the last verified backup; absent when there is none yet.
    pub sequence: Option<u64>,
    /// Seconds since the state that it holds.
    pub age_s: Option<u64>,
    /// Nothing has changed since.
    pub current: bool,
    /// Why the last attempt failed.
    pub failure: Option<String>,
    /// Number of an older one that is kept for a week, since the last holds less than half of it.
    pub fuller: Option<u64>,
}

/// Automatic snapshots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AutomaticSnapshots {
    /// Why the policy file is not the one that holds.
    pub policy_failure: Option<String>,
    /// Datasets that have a rule and do not exist: paths from the root of the volume.
    pub missing: Vec<String>,
    /// Each dataset with a rule.
    pub datasets: Vec<AutomaticState>,
}

/// Automatic snapshots of a dataset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AutomaticState {
    /// Path of its root directory.
    pub dataset: String,
    /// The name of its newest automatic snapshot; absent when there is none.
    pub last: Option<String>,
    /// When the next is due: RFC 3339, UTC; absent when none is.
    pub next_due: Option<String>,
    /// Why what was due could not be done.
    pub failure: Option<String>,
}

/// A receive that was interrupted and waits to go on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterruptedReceive {
    /// Path of the dataset, which may not show yet.
    pub dataset: String,
    /// The name of the snapshot.
    pub snapshot: String,
    /// What `firn snapshot send -t` goes on with.
    pub token: String,
}

/// Counters since the mount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Plaintext bytes that became blocks.
    pub written_bytes: u64,
    /// What they were stored in.
    pub stored_bytes: u64,
    /// Bytes copied to the cold tier.
    pub uploaded_bytes: u64,
    /// Bytes dropped from the hot tier.
    pub dropped_bytes: u64,
    /// Block reads answered from the hot tier.
    pub hot_reads: u64,
    /// Block reads answered from the cold tier.
    pub cold_reads: u64,
    /// Block reads answered from memory.
    pub cache_hits: u64,
    /// Requests made of the cold tier.
    pub cold_requests: u64,
    /// Stored copies that failed verification.
    pub damaged_reads: u64,
    /// Block reads that no copy could answer and parity did.
    #[serde(default)]
    pub rescued_reads: u64,
    /// Damaged copies of segments that were replaced by whole ones.
    #[serde(default)]
    pub repaired_segments: u64,
    /// Segments of which content is lost.
    #[serde(default)]
    pub lost_segments: u64,
    /// Bytes that reads got from the hot tier, as they asked for them.
    #[serde(default)]
    pub hot_read_bytes: u64,
    /// Bytes that reads got from the cold tier.
    #[serde(default)]
    pub cold_read_bytes: u64,
    /// Bytes that reads got from memory.
    #[serde(default)]
    pub cache_read_bytes: u64,
    /// Stored bytes brought back from the cold tier to the hot tier.
    #[serde(default)]
    pub recalled_bytes: u64,
    /// Copies to the cold tier that failed; each is tried again.
    #[serde(default)]
    pub upload_failures: u64,
    /// Writers that wait for space now.
    #[serde(default)]
    pub waiting_writers: u64,
    /// FUSE requests of the kernel by kind; a kind that never came is absent.
    #[serde(default)]
    pub kernel_requests: BTreeMap<String, u64>,
}

impl Counters {
    /// Share of block reads that needed nothing of the cold tier; absent without any.
    pub fn hit_ratio(&self) -> Option<f64> {
        let near = self.hot_reads + self.cache_hits;
        let all = near + self.cold_reads;
        (all > 0).then(|| near as f64 / all as f64)
    }
}

impl Status {
    /// With what happened since `before`, that long ago. Of another mount nothing can be said.
    #[must_use]
    pub fn since(mut self, before: &Self, time: Duration) -> Self {
        let process = |status: &Self| status.mount.as_ref().map(|mount| mount.pid);
        let counters = self.counters.as_ref().zip(before.counters.as_ref());
        self.rates = counters
            .filter(|_| process(&self) == process(before) && self.uuid == before.uuid)
            .map(|(now, before)| Rates::between(before, now, time));
        self
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut rows = table::table(&[]);
        let mut row = |name: &str, value: String| {
            rows.add_row([name.to_owned(), value]);
        };
        row("volume", format!("{} ({})", self.volume, self.uuid));
        row("mounted", self.mounted());
        row("hot", self.hot());
        row("cold", self.cold.as_ref().map_or_else(|| "none".to_owned(), cold));
        if let Some(data) = &self.data {
            row("data", text_of_data(data));
            if let Some(parity) = data.parity.text() {
                row("parity", parity);
            }
        }
        if let Some(backup) = &self.backup {
            row("backup", text_of_backup(backup));
        }
        if let Some(snapshots) = &self.snapshots {
            row("snapshots", text_of_snapshots(snapshots));
        }
        for InterruptedReceive { dataset, snapshot, token } in &self.receives {
            row("receive", format!("{dataset}@{snapshot} was interrupted, token {token}"));
        }
        if let Some(thawed) = &self.thawed {
            row("thawed", thawed.text());
        }
        if let Some(memory) = &self.memory {
            row("memory", text_of_memory(memory));
        }
        if let Some((counters, ratio)) = self.counters.as_ref().zip(self.hit_ratio) {
            row("reads", text_of_reads(counters, ratio));
        }
        for (name, value) in self.rates.iter().flat_map(Rates::rows) {
            row(name, value);
        }
        for job in &self.jobs {
            row("job", job.clone());
        }
        row("health", self.health.clone());
        for warning in &self.warnings {
            row("", warning.clone());
        }
        table::text(&rows)
    }

    fn mounted(&self) -> String {
        let Some(mount) = &self.mount else { return "no".to_owned() };
        let mut text = format!(
            "at {}, since {}, process {}, cache={}",
            mount.mountpoint,
            rounded_duration(Duration::from_secs(mount.uptime_s)),
            mount.pid,
            mount.cache
        );
        if mount.read_only {
            text.push_str(", read-only");
        }
        if let Some(metrics) = &mount.metrics {
            let _ = write!(text, ", metrics at {metrics}");
        }
        text
    }

    fn hot(&self) -> String {
        let hot = &self.hot;
        let bar = bar(hot.used_bytes, hot.capacity_bytes);
        format!("{bar}{}, {}", of(hot.used_bytes, Some(hot.capacity_bytes)), hot.place)
    }
}

/// `[##--------] `: how full something is, more than full as full.
fn bar(used: u64, capacity: u64) -> String {
    let filled = (u128::from(used) * u128::from(BAR)).div_ceil(u128::from(capacity.max(1)));
    let filled = filled.min(u128::from(BAR)) as usize;
    format!("[{}{}] ", "#".repeat(filled), "-".repeat(BAR as usize - filled))
}

/// `1.5 GiB of 2.0 TiB (0 %)`.
fn of(used: u64, capacity: Option<u64>) -> String {
    let used_text = rounded_bytes(used);
    match capacity {
        Some(capacity) => {
            let pct = u128::from(used) * 100 / u128::from(capacity.max(1));
            format!("{used_text} of {} ({pct} %)", rounded_bytes(capacity))
        }
        None => used_text,
    }
}

fn cold(cold: &ColdStatus) -> String {
    let bar = cold.capacity_bytes.map_or_else(String::new, |bytes| bar(cold.used_bytes, bytes));
    let mut text = format!("{bar}{}, {}", of(cold.used_bytes, cold.capacity_bytes), cold.place);
    if let Some(encryption) = &cold.encryption {
        let _ = match (encryption.generation, &encryption.fingerprint) {
            (Some(generation), Some(fingerprint)) => {
                write!(text, ", encrypted (key {generation}, {fingerprint})")
            }
            _ => write!(text, ", encrypted (the wrapped key cannot be read)"),
        };
    }
    if cold.waiting_segments > 0 {
        let _ = write!(text, ", {} segments to be copied", cold.waiting_segments);
    }
    if let Some(throttle) = cold.throttle.as_ref().filter(|throttle| !throttle.reason.is_empty()) {
        let rate = rounded_bytes(throttle.achieved_bytes_per_s);
        let _ = write!(text, ", {rate}/s, held back by: {}", throttle.reason);
    }
    if let Some(spread) = &cold.spread {
        let (data, parity) = (spread.data, spread.parity);
        let failing = spread.stores.iter().filter(|store| store.reason.is_some()).count();
        let _ = write!(
            text,
            "; {data}+{parity} stores, {:.1} % more bytes than data, {failing} failing",
            spread.overhead * 100.0
        );
    }
    text
}

fn text_of_data(data: &DataStatus) -> String {
    let mut text = format!("{} stored", rounded_bytes(data.stored_bytes));
    if let Some(ratio) = data.ratio {
        let _ = write!(text, ", ratio {ratio:.2} since the mount");
    }
    if data.dead_bytes > 0 {
        let _ = write!(text, ", {} removed and not collected", rounded_bytes(data.dead_bytes));
    }
    if data.dirty_files > 0 {
        let bytes = rounded_bytes(data.buffered_bytes);
        let _ = write!(text, ", {} files with {bytes} not durable yet", data.dirty_files);
    }
    text
}

fn text_of_backup(backup: &BackupState) -> String {
    let mut text = match (backup.sequence, backup.age_s) {
        (Some(sequence), Some(age)) => {
            format!("number {sequence}, {} old", rounded_duration(Duration::from_secs(age)))
        }
        _ => "none yet".to_owned(),
    };
    if backup.current {
        text.push_str(", up to date");
    }
    if let Some(failure) = &backup.failure {
        let _ = write!(text, ", the last attempt failed: {failure}");
    }
    text
}

fn text_of_snapshots(snapshots: &AutomaticSnapshots) -> String {
    let count = snapshots.datasets.len();
    let mut text = format!("automatic for {count} dataset{}", if count == 1 { "" } else { "s" });
    let last = snapshots.datasets.iter().filter_map(|state| state.last.as_ref());
    let last = last.max_by_key(|name| Turn::of_snapshot(name).map(Turn::start));
    if let Some(last) = last {
        let _ = write!(text, ", last {last}");
    }
    if let Some(next) = snapshots.datasets.iter().filter_map(|state| state.next_due.as_ref()).min()
    {
        let _ = write!(text, ", next due {}", crate::utc::for_table(next));
    }
    text
}

fn text_of_memory(memory: &MemoryStatus) -> String {
    format!(
        "{} of the budget, at most {} so far; the process has {}",
        of(memory.used_bytes, Some(memory.budget_bytes)),
        rounded_bytes(memory.peak_bytes),
        rounded_bytes(memory.resident_bytes)
    )
}

fn text_of_reads(counters: &Counters, ratio: f64) -> String {
    format!(
        "{:.1} % without the cold tier; {} from hot, {} from memory, {} from cold",
        ratio * 100.0,
        rounded_bytes(counters.hot_read_bytes),
        rounded_bytes(counters.cache_read_bytes),
        rounded_bytes(counters.cold_read_bytes)
    )
}

#[cfg(test)]
mod tests;
