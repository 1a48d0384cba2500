//! What a policy says about placement, as plain values. Each field that a file leaves out has the
//! default that the constant beside it documents, so that no file at all is a policy too.

use firn_tiering::segment::ParityPlace;
use firn_tiering::throttle::{Timetable, TimetableError};
use serde::{Serialize, Serializer};

use super::amount::{Amount, Comparison};
use crate::units::{Period, Size};

/// Above this much of the hot tier files are demoted.
pub const HIGH: Amount = Amount::percent(90);
/// Down to this much.
pub const LOW: Amount = Amount::percent(80);
/// Bytes without a verified copy in cold are kept below this much: everything is copied.
pub const COPY_AHEAD: Amount = Amount::percent(0);
/// What only writers may use.
pub const WRITE_RESERVE: Amount = Amount::percent(5);
/// Smaller files stay where they are: a request costs more than their bytes.
pub const MIN_SIZE: Size = Size(64 << 10);
/// How long a file must not have been written.
pub const SETTLE: Period = Period::secs(10 * 60);
/// How far ahead reuse is predicted.
pub const HORIZON: Period = Period::secs(7 * 86_400);
/// Idle for how long a file may go where no prediction decides.
pub const FALLBACK_AGE: Period = Period::secs(30 * 86_400);
/// Moves of one run.
pub const MAX_MOVES: u64 = 10_000;
/// Between two runs.
pub const INTERVAL: Period = Period::secs(60);
/// At which access within the horizon a cold file is promoted.
pub const PROMOTE_ON: u32 = 2;
/// Requests to cold at once.
pub const MAX_IN_FLIGHT: u32 = 64;
/// Of one user.
pub const MAX_IN_FLIGHT_PER_USER: u32 = 32;
/// Cold files that one process touches within [`SCAN_WINDOW`] before it counts as a scan.
pub const SCAN_FILES: u32 = 1_000;
/// See [`SCAN_FILES`].
pub const SCAN_WINDOW: Period = Period::secs(10 * 60);

/// Both tiers.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Tiers {
    /// `[tier.hot]`.
    pub hot: HotTier,
    /// `[tier.cold]`.
    pub cold: ColdTier,
}

/// Room in the hot tier.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HotTier {
    /// Bytes that placement lets lie here, when less than `hot_capacity` in `firn.toml`.
    pub capacity: Option<Size>,
    /// Above this files are demoted.
    pub high: Amount,
    /// Down to this. The wider the gap, the rarer and the larger the runs.
    pub low: Amount,
    /// Bytes whose only copy is hot are kept below this, so that eviction is instant. Lower costs
    /// requests for data that dies young.
    pub copy_ahead: Amount,
    /// Never filled by placement.
    pub write_reserve: Amount,
}

impl Default for HotTier {
    fn default() -> Self {
        Self {
            capacity: None,
            high: HIGH,
            low: LOW,
            copy_ahead: COPY_AHEAD,
            write_reserve: WRITE_RESERVE,
        }
    }
}

/// The watermarks of a hot tier in bytes: `copy_ahead <= low <= high <= capacity - reserve`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// The capacity that counts.
    pub capacity: u64,
    /// See [`HotTier::high`].
    pub high: u64,
    /// See [`HotTier::low`].
    pub low: u64,
    /// See [`HotTier::copy_ahead`].
    pub copy_ahead: u64,
    /// See [`HotTier::write_reserve`].
    pub reserve: u64,
}

impl HotTier {
    /// The marks for a tier of `capacity` bytes. Where shares and sizes meet, the lower one wins.
    pub fn marks(&self, capacity: u64) -> Marks {
        let capacity = self.capacity.map_or(capacity, |own| own.0.min(capacity));
        let reserve = self.write_reserve.of(capacity);
        let high = self.high.of(capacity).min(capacity - reserve);
        let low = self.low.of(capacity).min(high);
        let copy_ahead = self.copy_ahead.of(capacity).min(low);
        Marks { capacity, high, low, copy_ahead, reserve }
    }
}

/// What the cold tier costs; nothing where nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ColdTier {
    /// For 1,000 requests that read.
    pub price_get: Option<f64>,
    /// For 1,000 requests that write.
    pub price_put: Option<f64>,
    /// For 10^9 bytes stored for a month.
    pub price_gb_month: Option<f64>,
    /// For 10^9 bytes read.
    pub price_egress_gb: Option<f64>,
    /// What prices are in, for tables.
    pub currency: Option<String>,
}

impl ColdTier {
    /// Whether any price is known.
    pub fn has_prices(&self) -> bool {
        let Self { price_get, price_put, price_gb_month, price_egress_gb, .. } = self;
        [price_get, price_put, price_gb_month, price_egress_gb].iter().any(|price| price.is_some())
    }

    /// What it costs to write so much once.
    pub fn put_cost(&self, requests: u64) -> f64 {
        self.price_put.unwrap_or(0.0) * requests as f64 / 1e3
    }

    /// What it costs to read so much once.
    pub fn get_cost(&self, requests: u64, bytes: u64) -> f64 {
        self.price_get.unwrap_or(0.0) * requests as f64 / 1e3
            + self.price_egress_gb.unwrap_or(0.0) * bytes as f64 / 1e9
    }

    /// What it costs to keep so much for a month.
    pub fn month_cost(&self, bytes: u64) -> f64 {
        self.price_gb_month.unwrap_or(0.0) * bytes as f64 / 1e9
    }
}

/// Who decides where no rule does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// The classifier; where it abstains, the age.
    #[default]
    Ml,
    /// How long a file has been idle.
    Age,
    /// Nobody: only rules and pins move anything.
    Manual,
}

impl Mode {
    /// What people call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ml => "ml",
            Self::Age => "age",
            Self::Manual => "manual",
        }
    }
}

/// Which candidates go first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Those least likely to be read again.
    #[default]
    ColdestFirst,
    /// Those that free most.
    LargestFirst,
    /// Those not written for longest.
    OldestFirst,
}

/// What holds where nothing else is said.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Defaults {
    /// Smaller files stay where they are, unless they are pinned.
    pub min_size: Size,
    /// Files written within this stay where they are.
    pub settle: Period,
    /// How far ahead reuse is predicted.
    pub horizon: Period,
    /// Who decides.
    pub mode: Mode,
    /// Idle for longer than this, a file may go where no prediction decides.
    pub fallback_age: Period,
    /// Most moves of one run.
    pub max_moves_per_run: u64,
    /// Most bytes of one run; larger files are never moved by one.
    pub max_bytes_per_run: Option<Size>,
    /// Which go first.
    pub order: Order,
    /// Between two runs of the daemon.
    pub interval: Period,
    /// Where parity lies of files whose class does not say.
    #[serde(serialize_with = "parity")]
    pub parity: ParityPlace,
}

fn parity<S: Serializer>(place: &ParityPlace, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(place.as_str())
}

fn own_parity<S: Serializer>(
    place: &Option<ParityPlace>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    place.map(ParityPlace::as_str).serialize(serializer)
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            min_size: MIN_SIZE,
            settle: SETTLE,
            horizon: HORIZON,
            mode: Mode::default(),
            fallback_age: FALLBACK_AGE,
            max_moves_per_run: MAX_MOVES,
            max_bytes_per_run: None,
            order: Order::default(),
            interval: INTERVAL,
            parity: ParityPlace::Inside,
        }
    }
}

/// A user or a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// By number.
    Id(u32),
    /// By name, looked up on the machine that has the volume mounted.
    Name(String),
}

impl Serialize for Owner {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Id(id) => serializer.serialize_u32(*id),
            Self::Name(name) => serializer.serialize_str(name),
        }
    }
}

/// Which files are meant. All that is said must hold; of a list of names one must fit, of a list of
/// comparisons all must hold. What is left empty holds for every file.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Files {
    /// Globs over the path from the volume's root: `/raw/**/*.fits`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub path: Vec<String>,
    /// Ends of the name behind a dot, in any case: `bam`, `fits.gz`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ext: Vec<String>,
    /// Length.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub size: Vec<Comparison<Size>>,
    /// Owner.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub owner: Vec<Owner>,
    /// Group.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub group: Vec<Owner>,
    /// Time since the content was changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub age: Vec<Comparison<Period>>,
}

impl Files {
    /// Whether every file is meant.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }
}

/// A class of files. A file is in the class that its dataset names as its property `tier`; otherwise
/// in the first that it fits. One without conditions is for datasets only.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Class {
    /// Its name.
    pub name: String,
    /// Where the parity of what is written to its files lies; `None`: as [`Defaults::parity`] says.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "own_parity")]
    pub parity: Option<ParityPlace>,
    /// Which files fit.
    #[serde(flatten)]
    pub files: Files,
}

/// Where a file lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// In hot only.
    Resident,
    /// In hot, and verified in cold.
    Dual,
    /// Some of it in cold only.
    Partial,
    /// In cold only.
    Cold,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RuleAction {
    /// Keep in hot, and bring back.
    PinHot,
    /// Move to cold, and keep there.
    PinCold,
    /// Move to cold, whatever room there is.
    Demote,
    /// Bring back as far as there is room.
    Promote,
    /// Leave alone.
    None,
}

/// A rule. The first that fits decides.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rule {
    /// What it is called in explanations; otherwise by its number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Of one of these classes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub class: Vec<String>,
    /// Which files.
    #[serde(flatten)]
    pub files: Files,
    /// Time since the last access.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub idle: Vec<Comparison<Period>>,
    /// Probability of another access within the horizon; an unknown one fits no comparison.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub p_reuse: Vec<Comparison<f32>>,
    /// Accesses, the older the less they count.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub heat: Vec<Comparison<f32>>,
    /// In one of these states.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub state: Vec<State>,
    /// What is done.
    pub action: RuleAction,
    /// Most moves of one run by this rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_moves_per_run: Option<u64>,
    /// Most bytes of one run by this rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes_per_run: Option<Size>,
}

/// What reads of cold data do while the cold tier does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ColdDown {
    /// Wait until `read_deadline` in `firn.toml`.
    Wait,
    /// Fail with `EIO` at once.
    Fail,
}

/// How cold data comes back.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Recall {
    /// At which access within the horizon a file is promoted; 0 never.
    pub promote_on: u32,
    /// Requests to cold at once.
    pub max_in_flight: u32,
    /// Of one user.
    pub max_in_flight_per_user: u32,
    /// Bytes that reads of one user may promote in an hour; unlimited when absent.
    pub budget_per_user: Option<Size>,
    /// So many cold files touched by one process within the window are a scan: served, not promoted.
    pub scan_files: u32,
    /// See `scan_files`.
    pub scan_window: Period,
    /// What reads do while cold does not answer; what `firn.toml` says when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cold_down: Option<ColdDown>,
}

impl Default for Recall {
    fn default() -> Self {
        Self {
            promote_on: PROMOTE_ON,
            max_in_flight: MAX_IN_FLIGHT,
            max_in_flight_per_user: MAX_IN_FLIGHT_PER_USER,
            budget_per_user: None,
            scan_files: SCAN_FILES,
            scan_window: SCAN_WINDOW,
            cold_down: None,
        }
    }
}

/// A cap on bytes per second; none where it is off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate(pub Option<u64>);

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(bytes) => write!(f, "{}/s", Size(bytes)),
            None => f.write_str("off"),
        }
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// From when on a rate holds, every day in the machine's local time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Minutes after midnight, below 1,440.
    pub minute: u16,
    /// The rate from then on.
    pub rate: Rate,
}

impl Slot {
    /// Second of the day and cap.
    const fn entry(&self) -> (u32, Option<u64>) {
        (self.minute as u32 * 60, self.rate.0)
    }
}

impl Serialize for Slot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { minute, rate } = self;
        serializer.collect_str(&format_args!("{:02}:{:02} {rate}", minute / 60, minute % 60))
    }
}

/// How much of the way to cold is taken.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Throttle {
    /// The cap where the timetable says nothing.
    pub rate: Rate,
    /// Sorted by time, each once. The last of a day holds until the first of the next.
    pub timetable: Vec<Slot>,
    /// Latency of a request that transfers may bring about; found out by itself when absent.
    pub latency_target: Option<Period>,
    /// Yield to reads of the mount.
    pub back_off: bool,
}

impl Throttle {
    /// Which cap holds when, as the throttle takes it; an error where it would not.
    pub fn caps(&self) -> Result<Timetable, TimetableError> {
        if self.timetable.is_empty() {
            return Timetable::new(self.rate.0.map(|rate| (0, Some(rate))));
        }
        Timetable::new(self.timetable.iter().map(Slot::entry))
    }
}

impl Default for Throttle {
    fn default() -> Self {
        let rate = Rate(None);
        Self { rate, timetable: Vec::new(), latency_target: None, back_off: true }
    }
}

/// How storage is looked over for damage.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scrub {
    /// Time from the beginning of one pass to that of the next; 0 for none of its own accord.
    pub every: Period,
    /// Most bytes that are read for it.
    pub rate: Rate,
    /// Share of the objects in cold of which every byte is read each day, from 0 to 1.
    pub cold_per_day: f64,
}

impl Default for Scrub {
    /// A month, and a thousandth a day: reading in cold costs.
    fn default() -> Self {
        let every = Period(std::time::Duration::from_secs(30 * 86_400));
        Self { every, rate: Rate(Some(100 << 20)), cold_per_day: 0.001 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_keep_their_order_whatever_is_mixed() {
        let marks = HotTier::default().marks(1000);
        assert_eq!(
            marks,
            Marks { capacity: 1000, high: 900, low: 800, copy_ahead: 0, reserve: 50 }
        );
        let mixed = HotTier {
            capacity: Some(Size(600)),
            high: Amount::percent(100),
            low: Amount::Bytes(900),
            copy_ahead: Amount::Bytes(2000),
            write_reserve: Amount::percent(10),
        };
        let expected = Marks { capacity: 600, high: 540, low: 540, copy_ahead: 540, reserve: 60 };
        assert_eq!(mixed.marks(1000), expected);
        assert_eq!(mixed.marks(100).capacity, 100);
    }
}
