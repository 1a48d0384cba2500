//! From text to a policy: which keys there are, what each takes, and what must fit together.

use std::collections::BTreeMap;

use firn_mount::namespace::is_class_name;
use firn_tiering::segment::ParityPlace;
use firn_tiering::throttle::Timetable;
use toml::de::DeTable;

use super::amount::{Amount, Comparison};
use super::cycle::Cycle;
use super::document::{self as of, Faults, Found, Section};
use super::rules::{Rules, glob};
use super::settings::{
    Class, ColdDown, ColdTier, Defaults, Files, HotTier, Mode, Order, Rate, Recall, Rule,
    RuleAction, Scrub, Slot, State, Throttle,
};
use super::users::Nobody;
use super::{Keep, Policy, SnapshotRule};
use crate::units::{Period, Size};

/// Most snapshots of a cycle that are kept.
const MAX_KEPT: u32 = 10_000;

/// Most rules for snapshots.
const MAX_SNAPSHOT_RULES: usize = 10_000;

/// Most classes.
const MAX_CLASSES: usize = 1_000;

/// Most rules.
const MAX_RULES: usize = 4_000;

/// Most entries of one list.
const MAX_LIST: usize = 1_000;

/// Most comparisons of one value: a range needs two.
const MAX_COMPARED: usize = 4;

/// Longest name in bytes, for messages.
const MAX_NAME: usize = 64;

/// A year, in seconds.
const YEAR_S: u64 = 366 * 86_400;

const TOP: &[&str] =
    &["tier", "defaults", "class", "rule", "recall", "throttle", "scrub", "snapshots"];
const HOT: &[&str] = &["capacity", "high", "low", "copy_ahead", "write_reserve"];
const COLD: &[&str] = &["price_get", "price_put", "price_gb_month", "price_egress_gb", "currency"];
const DEFAULTS: &[&str] = &[
    "min_size",
    "settle",
    "horizon",
    "mode",
    "fallback_age",
    "max_moves_per_run",
    "max_bytes_per_run",
    "order",
    "interval",
    "parity",
];
const CLASS: &[&str] = &["name", "path", "ext", "size", "owner", "group", "age", "parity"];
const RULE: &[&str] = &[
    "name",
    "class",
    "path",
    "ext",
    "size",
    "owner",
    "group",
    "age",
    "idle",
    "p_reuse",
    "heat",
    "state",
    "action",
    "max_moves_per_run",
    "max_bytes_per_run",
];
const RECALL: &[&str] = &[
    "promote_on",
    "max_in_flight",
    "max_in_flight_per_user",
    "budget_per_user",
    "scan_files",
    "scan_window",
    "cold_down",
];
const THROTTLE: &[&str] = &["rate", "timetable", "latency_target", "back_off"];
const SCRUB: &[&str] = &["every", "rate", "cold_per_day"];
const SNAPSHOTS: &[&str] = &["dataset", "recursive", "hourly", "daily", "weekly", "monthly"];

/// Reads a document, and its minor faults; every fault where others are among them.
pub(super) fn policy(text: &str) -> Result<(Policy, Found), Found> {
    let mut faults = Faults::default();
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // What follows a fault of syntax is a guess.
        for error in errors {
            let start = error.span().map_or(0, |span| span.start);
            faults.at(start, error.message().trim().replace('\n', ", "));
        }
        return Err(faults.into_sorted().0);
    }
    let top = Section::new("a policy", 0, document.get_ref(), TOP, &mut faults);
    let policy = read(top, &mut faults);
    let (faults, minor) = faults.into_sorted();
    if faults.is_empty() {
        return Ok((policy, minor));
    }
    let mut all = [faults, minor].concat();
    all.sort();
    Err(all)
}

fn read(top: Section<'_>, faults: &mut Faults) -> Policy {
    let mut policy = Policy::default();
    let tiers = top.section("tier", "[tier]", &["hot", "cold"], faults);
    policy.tier.hot = hot(tiers.section("hot", "[tier.hot]", HOT, faults), faults);
    policy.tier.cold = cold(tiers.section("cold", "[tier.cold]", COLD, faults), faults);
    policy.defaults = defaults(top.section("defaults", "[defaults]", DEFAULTS, faults), faults);
    let classes = top.sections("class", "[[class]]", (CLASS, MAX_CLASSES), faults);
    policy.classes = read_classes(&classes, faults);
    let rules = top.sections("rule", "[[rule]]", (RULE, MAX_RULES), faults);
    policy.rules = read_rules(&rules, &policy.classes, faults);
    policy.recall = recall(top.section("recall", "[recall]", RECALL, faults), faults);
    policy.throttle = throttle(top.section("throttle", "[throttle]", THROTTLE, faults), faults);
    policy.scrub = scrub(top.section("scrub", "[scrub]", SCRUB, faults), faults);
    let bounds = (SNAPSHOTS, MAX_SNAPSHOT_RULES);
    let snapshots = top.sections("snapshots", "[[snapshots]]", bounds, faults);
    policy.snapshots = read_snapshots(&snapshots, faults);
    if let Err(error) = Rules::compile_with(&policy, &Nobody) {
        faults.at(top.place("rule"), error.to_string());
    }
    policy
}

fn hot(section: Section<'_>, faults: &mut Faults) -> HotTier {
    let default = HotTier::default();
    let capacity = section.read("capacity", faults, of::size);
    if capacity.is_some_and(|capacity| capacity.0 == 0) {
        faults.at(section.place("capacity"), "`capacity` is 0: leave it out for that of firn.toml");
    }
    let mut mark = |key, default| section.read(key, faults, of::amount).unwrap_or(default);
    let high = mark("high", default.high);
    let mut low = mark("low", default.low);
    let mut copy_ahead = mark("copy_ahead", default.copy_ahead);
    let write_reserve = mark("write_reserve", default.write_reserve);
    // Who lowers one mark need not name those below it.
    if section.is_absent("low") && low.exceeds(high) != Some(false) {
        low = below(high);
    }
    if section.is_absent("copy_ahead") && copy_ahead.exceeds(low) == Some(true) {
        copy_ahead = low;
    }
    let mut order = |lower: (&str, Amount), upper: (&str, Amount)| {
        if lower.1.exceeds(upper.1) == Some(true) {
            faults.at(
                section.place(lower.0),
                format!(
                    "`{}` is {}, more than `{}` with {}: copy_ahead <= low <= high is expected",
                    lower.0, lower.1, upper.0, upper.1
                ),
            );
        }
    };
    order(("low", low), ("high", high));
    order(("copy_ahead", copy_ahead), ("low", low));
    check_reserve(section, high, write_reserve, faults);
    HotTier { capacity, high, low, copy_ahead, write_reserve }
}

/// A mark that leaves a gap below another.
const fn below(mark: Amount) -> Amount {
    match mark {
        Amount::Share(share) => Amount::Share(share - share / 10),
        Amount::Bytes(bytes) => Amount::Bytes(bytes - bytes / 10),
    }
}

fn check_reserve(section: Section<'_>, high: Amount, reserve: Amount, faults: &mut Faults) {
    if let (Amount::Share(high_share), Amount::Share(reserve_share)) = (high, reserve)
        && high_share + reserve_share > 10_000
    {
        let key = if section.is_absent("high") { "write_reserve" } else { "high" };
        faults.at(
            section.place(key),
            format!(
                "`high` of {high} and `write_reserve` of {reserve} are more than 100% together: \
                 the reserve is for writers alone"
            ),
        );
    }
}

fn cold(section: Section<'_>, faults: &mut Faults) -> ColdTier {
    let mut price = |key| section.read(key, faults, of::price);
    ColdTier {
        price_get: price("price_get"),
        price_put: price("price_put"),
        price_gb_month: price("price_gb_month"),
        price_egress_gb: price("price_egress_gb"),
        currency: section.read("currency", faults, short_text),
    }
}

/// Text for tables.
fn short_text(value: &toml::de::DeValue<'_>) -> Result<String, String> {
    let text = of::text(value)?;
    if text.len() > MAX_NAME || text.chars().any(char::is_control) {
        return Err(format!("at most {MAX_NAME} bytes without line breaks are expected"));
    }
    Ok(text)
}

const MODES: &[(&str, Mode)] = &[("ml", Mode::Ml), ("age", Mode::Age), ("manual", Mode::Manual)];
const ORDERS: &[(&str, Order)] = &[
    ("coldest-first", Order::ColdestFirst),
    ("largest-first", Order::LargestFirst),
    ("oldest-first", Order::OldestFirst),
];

const PARITIES: &[(&str, ParityPlace)] = &[
    (ParityPlace::Inside.as_str(), ParityPlace::Inside),
    (ParityPlace::Object.as_str(), ParityPlace::Object),
    (ParityPlace::Stores.as_str(), ParityPlace::Stores),
];

fn defaults(section: Section<'_>, faults: &mut Faults) -> Defaults {
    let default = Defaults::default();
    let max_bytes_per_run = section.read("max_bytes_per_run", faults, positive_size);
    Defaults {
        min_size: section.read("min_size", faults, of::size).unwrap_or(default.min_size),
        settle: section.read("settle", faults, of::period(0, YEAR_S)).unwrap_or(default.settle),
        horizon: section.read("horizon", faults, of::period(60, YEAR_S)).unwrap_or(default.horizon),
        mode: section.read("mode", faults, of::choice(MODES)).unwrap_or_default(),
        fallback_age: section
            .read("fallback_age", faults, of::period(0, 100 * YEAR_S))
            .unwrap_or(default.fallback_age),
        max_moves_per_run: section
            .read("max_moves_per_run", faults, of::whole(1, 1_000_000))
            .unwrap_or(default.max_moves_per_run),
        max_bytes_per_run,
        order: section.read("order", faults, of::choice(ORDERS)).unwrap_or_default(),
        interval: section
            .read("interval", faults, of::period(1, 31 * 86_400))
            .unwrap_or(default.interval),
        parity: section.read("parity", faults, of::choice(PARITIES)).unwrap_or_default(),
    }
}

fn positive_size(value: &toml::de::DeValue<'_>) -> Result<Size, String> {
    match of::size(value)? {
        Size(0) => Err("0 would move nothing: leave it out for no limit".to_owned()),
        size => Ok(size),
    }
}

/// The conditions that classes and rules share.
fn files(section: Section<'_>, faults: &mut Faults) -> Files {
    let path = section.list("path", MAX_LIST, faults, |value| {
        let text = of::text(value)?;
        glob(&text).map(|_| text)
    });
    let ext = section.list("ext", MAX_LIST, faults, |value| extension(&of::text(value)?));
    Files {
        path: plain(path),
        ext: plain(ext),
        size: plain(section.list("size", MAX_COMPARED, faults, of::comparison(">=1MiB"))),
        owner: plain(section.list("owner", MAX_LIST, faults, of::owner)),
        group: plain(section.list("group", MAX_LIST, faults, of::owner)),
        age: periods(section, "age", faults),
    }
}

/// What was listed, without its places.
fn plain<T>(found: Vec<(usize, T)>) -> Vec<T> {
    found.into_iter().map(|(_, item)| item).collect()
}

fn periods(section: Section<'_>, key: &str, faults: &mut Faults) -> Vec<Comparison<Period>> {
    plain(section.list(key, MAX_COMPARED, faults, of::comparison(">30d")))
}

/// An extension, without its dot and in small letters.
fn extension(text: &str) -> Result<String, String> {
    let ext = text.strip_prefix('.').unwrap_or(text);
    if ext.is_empty() || ext.len() > 64 || ext.contains(['/', '*', '?']) {
        return Err(format!(
            "the end of a name behind a dot is expected, such as \"bam\" or \"fits.gz\", \
             found `{text}`"
        ));
    }
    Ok(ext.to_ascii_lowercase())
}

fn read_classes(sections: &[Section<'_>], faults: &mut Faults) -> Vec<Class> {
    let mut classes: Vec<Class> = Vec::new();
    for section in sections {
        let name = section.need("name", "the name of the class", faults, |value| {
            let name = of::text(value)?;
            if !is_class_name(&name) {
                return Err(format!(
                    "1 to 64 letters, digits, `-`, `_` and `.` are expected, found `{name}`"
                ));
            }
            Ok(name)
        });
        let parity = section.read("parity", faults, of::choice(PARITIES));
        let files = files(*section, faults);
        let Some(name) = name else { continue };
        if classes.iter().any(|other| other.name == name) {
            faults.at(section.place("name"), format!("there is a class `{name}` already"));
        }
        classes.push(Class { name, parity, files });
    }
    classes
}

const STATES: &[(&str, State)] = &[
    ("resident", State::Resident),
    ("dual", State::Dual),
    ("partial", State::Partial),
    ("cold", State::Cold),
];
const ACTIONS: &[(&str, RuleAction)] = &[
    ("pin-hot", RuleAction::PinHot),
    ("pin-cold", RuleAction::PinCold),
    ("demote", RuleAction::Demote),
    ("promote", RuleAction::Promote),
    ("none", RuleAction::None),
];

fn read_rules(sections: &[Section<'_>], classes: &[Class], faults: &mut Faults) -> Vec<Rule> {
    sections.iter().filter_map(|section| rule(*section, classes, faults)).collect()
}

fn rule(section: Section<'_>, classes: &[Class], faults: &mut Faults) -> Option<Rule> {
    let class = section.list("class", MAX_LIST, faults, of::text);
    for (start, name) in &class {
        if !classes.iter().any(|class| class.name == *name) {
            let names: Vec<&str> =
                classes.iter().map(|class| class.name.as_str()).take(20).collect();
            let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            faults.at(*start, format!("there is no class `{name}` in the file, only {known}"));
        }
    }
    let files = files(section, faults);
    let idle = periods(section, "idle", faults);
    let p_reuse = plain(section.list("p_reuse", MAX_COMPARED, faults, of::numeric("<0.05", 1.0)));
    let heat = plain(section.list("heat", MAX_COMPARED, faults, of::numeric(">=2", 1e9)));
    let state = section.list("state", STATES.len(), faults, of::choice(STATES));
    let what = "one of \"pin-hot\", \"pin-cold\", \"demote\", \"promote\", \"none\"";
    let action = section.need("action", what, faults, of::choice(ACTIONS));
    Some(Rule {
        name: section.read("name", faults, short_text),
        class: plain(class),
        files,
        idle,
        p_reuse,
        heat,
        state: plain(state),
        max_moves_per_run: section.read("max_moves_per_run", faults, of::whole(1, 1_000_000)),
        max_bytes_per_run: section.read("max_bytes_per_run", faults, positive_size),
        action: action?,
    })
}

const COLD_DOWN: &[(&str, ColdDown)] = &[("wait", ColdDown::Wait), ("fail", ColdDown::Fail)];

fn recall(section: Section<'_>, faults: &mut Faults) -> Recall {
    let default = Recall::default();
    let mut count = |key, least, most, default| {
        section.read(key, faults, of::count(least, most)).unwrap_or(default)
    };
    let promote_on = count("promote_on", 0, 1_000, default.promote_on);
    let max_in_flight = count("max_in_flight", 1, 4_096, default.max_in_flight);
    let own = default.max_in_flight_per_user.min(max_in_flight);
    let max_in_flight_per_user = count("max_in_flight_per_user", 1, 4_096, own);
    let scan_files = count("scan_files", 1, 1_000_000_000, default.scan_files);
    if max_in_flight_per_user > max_in_flight {
        faults.at(
            section.place("max_in_flight_per_user"),
            format!(
                "`max_in_flight_per_user` is {max_in_flight_per_user}, more than `max_in_flight` \
                 with {max_in_flight}"
            ),
        );
    }
    Recall {
        promote_on,
        max_in_flight,
        max_in_flight_per_user,
        budget_per_user: section.read("budget_per_user", faults, of::size),
        scan_files,
        scan_window: section
            .read("scan_window", faults, of::period(1, 86_400))
            .unwrap_or(default.scan_window),
        cold_down: section.read("cold_down", faults, of::choice(COLD_DOWN)),
    }
}

/// Faults of it are minor: without a cap, data move faster than they should, and no further.
fn throttle(section: Section<'_>, all: &mut Faults) -> Throttle {
    let faults = &mut Faults::default();
    let default = Throttle::default();
    let most = Timetable::MAX_ENTRIES;
    let slots = section.list("timetable", most, faults, |value| {
        let slot = slot(&of::text(value)?)?;
        cap(slot.rate).map(|_| slot)
    });
    let mut timetable: BTreeMap<u16, Slot> = BTreeMap::new();
    for (start, slot) in slots {
        if timetable.insert(slot.minute, slot).is_some() {
            let (hour, minute) = (slot.minute / 60, slot.minute % 60);
            faults.at(start, format!("`timetable` says twice what holds at {hour:02}:{minute:02}"));
        }
    }
    let throttle = Throttle {
        rate: section
            .read("rate", faults, |value| of::rate(value).and_then(cap))
            .unwrap_or(default.rate),
        timetable: timetable.into_values().collect(),
        latency_target: section.read("latency_target", faults, |value| {
            let target = of::period(0, 60)(value)?;
            if target.0.is_zero() { Err("0 cannot be reached".to_owned()) } else { Ok(target) }
        }),
        back_off: section.read("back_off", faults, of::flag).unwrap_or(default.back_off),
    };
    all.add_minor(std::mem::take(faults));
    throttle
}

/// A rate that the throttle takes as a cap.
fn cap(rate: Rate) -> Result<Rate, String> {
    Timetable::new([(0, rate.0)]).map(|_| rate).map_err(|error| error.to_string())
}

fn scrub(section: Section<'_>, faults: &mut Faults) -> Scrub {
    let default = Scrub::default();
    Scrub {
        every: section.read("every", faults, of::period(0, YEAR_S)).unwrap_or(default.every),
        rate: section.read("rate", faults, of::rate).unwrap_or(default.rate),
        cold_per_day: section
            .read("cold_per_day", faults, of::share)
            .unwrap_or(default.cold_per_day),
    }
}

/// `08:00 50MiB/s`.
fn slot(text: &str) -> Result<Slot, String> {
    let bad = || {
        format!(
            "a time of day and a rate are expected, such as \"08:00 50MiB/s\" or \"20:00 off\", \
             found `{text}`"
        )
    };
    let (time, rate) = text.trim().split_once(' ').ok_or_else(bad)?;
    let (hour, minute) = time.split_once(':').ok_or_else(bad)?;
    let number = |digits: &str, below: u16| {
        let is_two = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_two.then(|| digits.parse::<u16>().ok()).flatten().filter(|number| *number < below)
    };
    let minute = number(hour, 24).ok_or_else(bad)? * 60 + number(minute, 60).ok_or_else(bad)?;
    Ok(Slot { minute, rate: of::rate_of(rate)? })
}

fn read_snapshots(sections: &[Section<'_>], faults: &mut Faults) -> Vec<SnapshotRule> {
    let mut rules: Vec<SnapshotRule> = Vec::new();
    for section in sections {
        let dataset = section.need("dataset", "the path of a dataset", faults, of::text);
        let mut kept = |key| section.read(key, faults, of::count(0, MAX_KEPT));
        let [hourly, daily, weekly, monthly] = Cycle::ALL.map(|cycle| kept(cycle.name()));
        let recursive = section.read("recursive", faults, of::flag).unwrap_or(false);
        let Some(dataset) = dataset else { continue };
        let rule = SnapshotRule { dataset, recursive, hourly, daily, weekly, monthly };
        if let Err(message) = check_snapshots(&rules, &rule) {
            faults.at(section.start(), message);
        }
        let says_nothing = Cycle::ALL.iter().all(|cycle| section.is_absent(cycle.name()));
        if rule.keep() == Keep::default() && says_nothing && section.is_sound() {
            faults.at(section.start(), "says neither hourly, daily, weekly nor monthly");
        }
        rules.push(rule);
    }
    rules
}

/// Checks a rule behind those that are there.
fn check_snapshots(before: &[SnapshotRule], rule: &SnapshotRule) -> Result<(), String> {
    let dataset = &rule.dataset;
    let is_path = dataset == "/"
        || dataset
            .strip_prefix('/')
            .is_some_and(|names| names.split('/').all(|name| !matches!(name, "" | "." | "..")));
    if !is_path {
        return Err(format!(
            "dataset `{dataset}` is no path from the root of the volume, such as /projA"
        ));
    }
    if before.iter().any(|other| other.dataset == *dataset) {
        return Err(format!("dataset `{dataset}` has a rule already"));
    }
    Ok(())
}
