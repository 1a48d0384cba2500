#![allow(clippy::unwrap_used, reason = "tests")]

use super::amount::Amount;
use super::settings::{self, Mode, Order, Owner, RuleAction, State};
use super::*;

const SAMPLE: &str = r#"
[[snapshots]]
dataset = "/"
recursive = true
daily = 7

[[snapshots]]
dataset = "/projA"
hourly = 24
monthly = 0

[[snapshots]]
dataset = "/projA/raw"
recursive = true
weekly = 4
"#;

#[test]
fn the_nearest_rule_holds() {
    let policy = Policy::parse(SAMPLE).unwrap();
    let daily = Keep { daily: Some(7), ..Keep::default() };
    let weekly = Keep { weekly: Some(4), ..Keep::default() };
    assert_eq!(policy.keep(b"/"), Some(daily));
    assert_eq!(policy.keep(b"/projA"), Some(policy.snapshots[1].keep()));
    assert_eq!(policy.snapshots[1].keep().of(Cycle::Monthly), Some(0));
    // Its own rule does not reach further down, so that the one above it does.
    assert_eq!(policy.keep(b"/projA/x"), Some(daily));
    assert_eq!(policy.keep(b"/projA/raw/x/y"), Some(weekly));
    assert_eq!(policy.keep(b"/projA/rawer"), Some(daily));
    let alone = "[[snapshots]]\ndataset = \"/a\"\nrecursive = true\ndaily = 1";
    let alone = Policy::parse(alone).unwrap();
    assert_eq!((alone.keep(b"/"), alone.keep(b"/ab")), (None, None));
    assert!(alone.keep(b"/a/b").is_some());
    assert_eq!(Policy::parse("").unwrap(), Policy::default());
    assert_eq!(policy.missing(&[b"/", b"/projA", b"/x"]), ["/projA/raw"]);
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let rule = "[[snapshots]]\ndataset = ";
    for (text, line, column, message) in [
        (
            "snapshot = 1",
            1,
            1,
            "unknown field `snapshot`, did you mean `snapshots`? a policy takes tier,",
        ),
        (
            "[[snapshots]]\ndataset = \"/a\"\ndaly = 7",
            3,
            1,
            "unknown field `daly`, did you mean `daily`?",
        ),
        (
            "[[snapshots]]\ndataset = \"/a\"\n  daily = -1",
            3,
            11,
            "invalid value for `daily`: a whole number from 0 to 10000 is expected, found -1",
        ),
        ("[[snapshots]]\ndaily = 1", 1, 1, "missing field `dataset`"),
        ("[[snapshots]]\ndataset = \"/a\"\ndaily = ", 3, 9, ""),
        (&format!("{rule}\"a\"\ndaily = 1"), 1, 1, "is no path"),
        (&format!("{rule}\"/a/\"\ndaily = 1"), 1, 1, "is no path"),
        (&format!("{rule}\"/a/../b\"\ndaily = 1"), 1, 1, "is no path"),
        (&format!("{rule}\"/a\""), 1, 1, "says neither hourly"),
        (&format!("{rule}\"/a\"\nhourly = 10001"), 3, 10, "from 0 to 10000"),
        (&format!("{rule}\"/a\"\ndaily = 1\n{rule}\"/a\"\ndaily = 1"), 4, 1, "already"),
    ] {
        let error = only(text);
        assert_eq!((error.line, error.column), (line, column), "{text}: {error}");
        assert!(error.message.contains(message), "{text}: {error}");
    }
}

/// The one error of a text.
#[track_caller]
fn only(text: &str) -> PolicyError {
    let PolicyErrors(mut errors) = Policy::parse(text).unwrap_err();
    assert_eq!(errors.len(), 1, "{text}: {errors:?}");
    errors.remove(0)
}

#[test]
fn what_is_wrong_about_placement_is_named_with_its_place() {
    for (text, line, column, message) in [
        (
            "[tier.hot]\nhihg = \"90%\"",
            2,
            1,
            "unknown field `hihg`, did you mean `high`? [tier.hot] takes capacity,",
        ),
        ("[tier.warm]\nhigh = 1", 1, 7, "unknown field `warm`: [tier] takes hot, cold"),
        ("tier = 3", 1, 8, "`tier` is a table, written [tier], not 3"),
        (
            "[tier.hot]\nhigh = 90",
            2,
            8,
            "a share of the capacity such as \"90%\", or a size such as \"64GiB\", is expected, found 90",
        ),
        ("[tier.hot]\nhigh = \"110%\"", 2, 8, "`110%` is no share from 0% to 100%"),
        ("[tier.hot]\nlow = \"12XB\"", 2, 7, "unknown unit `XB`, known are"),
        (
            "[tier.hot]\nhigh = \"80%\"\nlow = \"85%\"\ncopy_ahead = \"10%\"",
            3,
            7,
            "`low` is 85%, more than `high` with 80%",
        ),
        (
            "[tier.hot]\nlow = \"60%\"\ncopy_ahead = \"70%\"",
            3,
            14,
            "`copy_ahead` is 70%, more than `low` with 60%",
        ),
        ("[tier.hot]\nhigh = \"1GiB\"\nlow = \"2GiB\"", 3, 7, "more than `high` with 1GiB"),
        ("[tier.hot]\nhigh = \"98%\"", 2, 8, "more than 100% together"),
        ("[tier.hot]\nwrite_reserve = \"20%\"", 2, 17, "more than 100% together"),
        ("[tier.hot]\ncapacity = \"0B\"", 2, 12, "leave it out"),
        ("[tier.cold]\nprice_get = -1", 2, 13, "a price such as 0.023 is expected, found -1"),
        ("[tier.cold]\nprice_get = nan", 2, 13, "a price such as 0.023 is expected"),
        ("[tier.cold]\ncurrency = \"a\\nb\"", 2, 12, "without line breaks"),
        ("[[class]]\nname = \"a\"\n  parity = \"beside\"", 3, 12, "invalid value for `parity`: "),
        ("[defaults]\nparity = \"none\"", 2, 10, "\"inside\", \"object\", \"stores\""),
        ("[defaults]\nparity = 2", 2, 10, "invalid value for `parity`"),
        (
            "[defaults]\nmode = \"mll\"",
            2,
            8,
            "one of \"ml\", \"age\", \"manual\" is expected, found `mll`, did you mean \"ml\"?",
        ),
        (
            "[defaults]\norder = \"hot\"",
            2,
            9,
            "one of \"coldest-first\", \"largest-first\", \"oldest-first\"",
        ),
        (
            "[defaults]\nsettle = \"5 parsecs\"",
            2,
            10,
            "a duration such as \"15m\" or \"30d\" is expected: unknown unit `parsecs`",
        ),
        ("[defaults]\nhorizon = \"1s\"", 2, 11, "1s is not between 1m and 366d"),
        ("[defaults]\nmin_size = 5", 2, 12, "a size such as \"64KiB\" is expected, found 5"),
        ("[defaults]\nmax_moves_per_run = 0", 2, 21, "a whole number from 1 to 1000000"),
        ("[defaults]\nmax_bytes_per_run = \"0B\"", 2, 21, "leave it out"),
        (
            "[[class]]\npath = \"/a\"",
            1,
            1,
            "missing field `name`: [[class]] needs the name of the class",
        ),
        ("[[class]]\nname = \"a b\"", 2, 8, "letters, digits"),
        ("[[class]]\nname = \"a\"\n[[class]]\nname = \"a\"", 4, 8, "there is a class `a` already"),
        ("[[class]]\nname = \"a\"\npath = [\"/x/**\", \"*.bam\"]", 3, 18, "a glob begins with /"),
        (
            "[[class]]\nname = \"a\"\npath = \"/x/[\"",
            3,
            8,
            "`/x/[` is no glob: unclosed character class",
        ),
        ("[[class]]\nname = \"a\"\npath = []", 3, 8, "empty list"),
        ("[[class]]\nname = \"a\"\next = \"*.bam\"", 3, 7, "the end of a name behind a dot"),
        (
            "[[class]]\nname = \"a\"\nsize = \"1MiB\"",
            3,
            8,
            "a comparison with <, <=, >= or > such as \">=1MiB\" is expected, found `1MiB`",
        ),
        ("[[class]]\nname = \"a\"\nowner = -1", 3, 9, "a whole number from 0 to 4294967294"),
        (
            "[[class]]\nname = \"a\"\nidle = \">1d\"",
            3,
            1,
            "unknown field `idle`: [[class]] takes name, path",
        ),
        (
            "[[rule]]\nidle = \">1d\"",
            1,
            1,
            "missing field `action`: [[rule]] needs one of \"pin-hot\"",
        ),
        ("[[rule]]\naction = \"pin-hto\"", 2, 10, "did you mean \"pin-hot\"?"),
        (
            "[[rule]]\nidle = \"30d\"\naction = \"demote\"",
            2,
            8,
            "such as \">30d\" is expected, found `30d`",
        ),
        ("[[rule]]\nidle = \">30x\"\naction = \"demote\"", 2, 8, "unknown unit `x`"),
        ("[[rule]]\np_reuse = \"<5\"\naction = \"demote\"", 2, 11, "5 is not between 0 and 1"),
        (
            "[[rule]]\np_reuse = 0.5\naction = \"demote\"",
            2,
            11,
            "such as \"<0.05\" is expected, found 0.5",
        ),
        ("[[rule]]\nheat = \">nan\"\naction = \"none\"", 2, 8, "NaN is not between"),
        (
            "[[rule]]\nstate = \"hot\"\naction = \"none\"",
            2,
            9,
            "one of \"resident\", \"dual\", \"partial\", \"cold\"",
        ),
        (
            "[[rule]]\nclass = \"raw\"\naction = \"none\"",
            2,
            9,
            "there is no class `raw` in the file, only none",
        ),
        (
            "[rule]\naction = \"none\"",
            1,
            1,
            "`rule` is a list of tables, each written [[rule]], not a table",
        ),
        (
            "[recall]\npromote_on = 1.5",
            2,
            14,
            "a whole number from 0 to 1000 is expected, found 1.5",
        ),
        (
            "[recall]\nmax_in_flight = 4\nmax_in_flight_per_user = 5",
            3,
            26,
            "more than `max_in_flight` with 4",
        ),
        (
            "[recall]\ncold_down = \"retry\"",
            2,
            13,
            "one of \"wait\", \"fail\" is expected, found `retry`",
        ),
        (
            "[throttle]\nrate = \"50MiB\"",
            2,
            8,
            "a rate such as \"50MiB/s\", or \"off\" for no cap, is expected, found `50MiB`",
        ),
        ("[throttle]\nrate = \"0/s\"", 2, 8, "would stop everything"),
        (
            "[throttle]\ntimetable = [\"08:00 50MiB/s\", \"25:00 off\"]",
            2,
            31,
            "such as \"08:00 50MiB/s\" or \"20:00 off\", found `25:00 off`",
        ),
        (
            "[throttle]\ntimetable = [\"08:00 off\", \"08:00 1MiB/s\"]",
            2,
            27,
            "says twice what holds at 08:00",
        ),
        ("[throttle]\nrate = \"256KiB/s\"", 2, 8, "less than 524288: write `off` for no cap"),
        (
            "[throttle]\ntimetable = [\"08:00 1MiB/s\", \"09:00 1KiB/s\"]",
            2,
            30,
            "1024 bytes per second are less than 524288",
        ),
        ("[scrub]\ncold_per_day = 2", 2, 16, "a share from 0 to 1, such as 0.01, is expected"),
        ("[scrub]\nrate = \"0/s\"", 2, 8, "would stop everything"),
        ("[throttle]\nback_off = \"yes\"", 2, 12, "true or false is expected, found `yes`"),
        ("[throttle]\nlatency_target = \"0s\"", 2, 18, "0 cannot be reached"),
        ("[defaults]\nmode = \"ml\"\nmode = \"age\"", 3, 1, "duplicate key"),
    ] {
        let error = only(text);
        assert_eq!((error.line, error.column), (line, column), "{text}: {error}");
        assert!(error.message.contains(message), "{text}: {error}");
    }
}

/// It was taken once, and stands beside rules that protect files.
#[test]
fn a_policy_in_use_holds_without_what_of_its_throttle_cannot_be_followed() {
    let text = "[throttle]\nrate = \"1KiB/s\"\nback_off = false\n[recall]\npromote_on = 5\n";
    let refused = Policy::parse(text).unwrap_err();
    let (policy, told) = Policy::parse_in_use(text).unwrap();
    assert_eq!(told, Some(refused));
    assert_eq!((policy.recall.promote_on, policy.throttle.back_off), (5, false));
    assert_eq!(policy.throttle.rate, Throttle::default().rate);
    assert_eq!(Policy::parse_in_use("").unwrap(), (Policy::default(), None));
    let wrong = format!("{text}[recal]\n");
    assert_eq!(Policy::parse_in_use(&wrong), Policy::parse(&wrong).map(|policy| (policy, None)));
}

#[test]
fn a_timetable_is_no_longer_than_the_throttle_takes() {
    let of = |entries: u32| {
        let slot = |n| format!("\"{:02}:{:02} 1MiB/s\"", n / 12, n % 12 * 5);
        format!(
            "[throttle]\ntimetable = [{}]",
            (0..entries).map(slot).collect::<Vec<_>>().join(",")
        )
    };
    let policy = Policy::parse(&of(96)).unwrap();
    policy.throttle.caps().unwrap();
    let error = only(&of(97));
    assert_eq!((error.line, error.column), (2, 13), "{error}");
    assert!(error.message.contains("lists 97, more than 96"), "{error}");
}

#[test]
fn everything_that_is_wrong_is_told_in_one_go() {
    let text = "[defaults]\nmode = \"x\"\nsettle = 5\n\n[[rule]]\n[[snapshots]]\ndaily = -1\n";
    let PolicyErrors(errors) = Policy::parse(text).unwrap_err();
    let places: Vec<_> = errors.iter().map(|error| (error.line, error.column)).collect();
    assert_eq!(places, [(2, 8), (3, 10), (5, 1), (6, 1), (7, 9)], "{errors:?}");
    let shown = PolicyErrors(errors).to_string();
    assert!(shown.starts_with("line 2, column 8: ") && shown.ends_with(" (and 4 more)"), "{shown}");
    // Of faults of syntax there may be several as well, and nothing else is guessed then.
    let PolicyErrors(errors) = Policy::parse("a = \n[defaults]\nmode = 1\nb = ]\n").unwrap_err();
    let lines: Vec<_> = errors.iter().map(|error| error.line).collect();
    assert_eq!(lines.first(), Some(&1), "{errors:?}");
    assert!(lines.contains(&4) && !lines.contains(&3), "{errors:?}");
    let many = "[[rule]]\n".repeat(500);
    assert_eq!(Policy::parse(&many).unwrap_err().0.len(), 100);
}

#[test]
fn a_policy_says_what_its_file_says() {
    let policy = Policy::parse(
        r#"
[tier.hot]
high = "70%"
copy_ahead = "1GiB"
[tier.cold]
price_put = 5
price_gb_month = 0.02
[defaults]
mode = "age"
order = "largest-first"
max_bytes_per_run = "1TiB"
max_moves_per_run = 1_0
[[class]]
name = "raw"
path = ["/raw/**", "**/*.raw"]
ext = [".BAM", "fits.gz"]
size = [">=1MiB", "<1TiB"]
owner = [0, "1000", "ada"]
[[class]]
name = "by-dataset"
[[rule]]
name = "old"
class = "raw"
idle = ">30d"
p_reuse = "<0.05"
state = ["resident", "dual"]
action = "demote"
max_moves_per_run = 5
[[rule]]
action = "none"
[recall]
cold_down = "fail"
[throttle]
rate = "1GiB/s"
timetable = ["20:00 off", "08:00 50MiB/s"]
"#,
    )
    .unwrap();
    let hot = &policy.tier.hot;
    // Who lowers one mark need not name those below it.
    assert_eq!((hot.high, hot.low), (Amount::percent(70), Amount::percent(63)));
    assert_eq!(hot.copy_ahead, Amount::Bytes(1 << 30));
    assert_eq!(policy.tier.cold.put_cost(2000), 10.0);
    assert_eq!((policy.defaults.mode, policy.defaults.order), (Mode::Age, Order::LargestFirst));
    assert_eq!(policy.defaults.settle, settings::SETTLE);
    assert_eq!(policy.defaults.max_moves_per_run, 10);
    let files = &policy.classes[0].files;
    assert_eq!(files.ext, ["bam", "fits.gz"]);
    assert_eq!(files.owner, [Owner::Id(0), Owner::Id(1000), Owner::Name("ada".into())]);
    assert_eq!(policy.rules[0].state, [State::Resident, State::Dual]);
    assert_eq!((policy.rules[1].action, &policy.rules[1].name), (RuleAction::None, &None));
    let json = serde_json::to_value(&policy).unwrap();
    assert_eq!(json["tier"]["hot"]["high"], "70%");
    assert_eq!(json["class"][0]["size"], serde_json::json!([">=1MiB", "<1TiB"]));
    assert_eq!(json["rule"][0]["idle"][0], ">30d");
    assert_eq!(json["rule"][0]["p_reuse"][0], "<0.05");
    assert_eq!(json["rule"][1]["action"], "none");
    assert_eq!(json["throttle"]["timetable"], serde_json::json!(["08:00 50MiB/s", "20:00 off"]));
    assert_eq!(json["recall"]["cold_down"], "fail");
}

#[test]
fn the_example_parses_and_its_defaults_are_the_defaults() {
    let policy = Policy::parse(EXAMPLE).unwrap_or_else(|errors| panic!("{:#?}", errors.0));
    let none = Policy::default();
    assert_eq!(policy.tier.hot, none.tier.hot);
    assert_eq!(policy.defaults, none.defaults);
    assert_eq!(policy.recall, none.recall);
    assert_eq!(policy.throttle.rate, none.throttle.rate);
    assert_eq!(policy.throttle.back_off, none.throttle.back_off);
    assert_eq!(policy.scrub, none.scrub);
    assert!(policy.tier.cold.has_prices() && !policy.throttle.timetable.is_empty());
    assert_eq!((policy.classes.len(), policy.rules.len(), policy.snapshots.len()), (2, 2, 1));
    // What is commented out parses as well.
    let all = EXAMPLE.replace("\n# capacity", "\ncapacity").replace("\n# max_bytes", "\nmax_bytes");
    let all = all.replace("\n# budget", "\nbudget").replace("\n# latency", "\nlatency");
    let all = all.replace("\n# cold_down", "\ncold_down");
    let all = Policy::parse(&all).unwrap();
    assert!(all.tier.hot.capacity.is_some() && all.defaults.max_bytes_per_run.is_some());
    assert!(all.recall.budget_per_user.is_some() && all.throttle.latency_target.is_some());
    assert_eq!(all.recall.cold_down, Some(settings::ColdDown::Fail));
    // And it fits where help is shown.
    assert!(EXAMPLE.lines().all(|line| line.chars().count() < 80));
}

#[test]
fn a_policy_is_replaced_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE_NAME);
    assert_eq!(read(&path).unwrap(), None);
    assert!(load(&path).is_err());
    replace(dir.path(), "").unwrap();
    replace(dir.path(), SAMPLE).unwrap();
    assert_eq!(load(&path).unwrap().0, SAMPLE);
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(left.len(), 1);
    assert!(replace(&dir.path().join("missing"), SAMPLE).is_err());
    std::fs::write(&path, vec![b'#'; MAX_LEN as usize + 1]).unwrap();
    assert!(format!("{:#}", load(&path).unwrap_err()).contains("longer than"));
}

#[test]
fn parity_lies_where_the_class_says_or_the_defaults_do() {
    let place = |policy: &Policy, path: &str, class: Option<&str>, size| {
        let rules = rules::Rules::compile_with(policy, &users::Nobody).unwrap();
        let path = path.as_bytes();
        let subject = rules::Subject { path, size, dataset_class: class, ..Default::default() };
        (rules.parity_of_all(), rules.parity_of(&subject))
    };
    let nothing = Policy::parse("").unwrap();
    let inside = (Some(ParityPlace::Inside), ParityPlace::Inside);
    assert_eq!(place(&nothing, "/a", None, 0), inside);
    let text = "[[class]]\nname = \"a\"\next = \"fits\"\nparity = \"object\"\n\
                [[class]]\nname = \"b\"\nsize = \">=1MiB\"\nparity = \"stores\"\n\
                [[class]]\nname = \"c\"\npath = \"/c/**\"\n";
    let policy = Policy::parse(text).unwrap();
    for (path, class, size, expected) in [
        ("/x/1.fits", None, 5, ParityPlace::Object),
        ("/x/1.fits", Some("c"), 5, ParityPlace::Inside),
        ("/x/1", Some("a"), 5, ParityPlace::Object),
        ("/x/1", None, 2 << 20, ParityPlace::Stores),
        ("/c/1", None, 5, ParityPlace::Inside),
        ("/x/1", None, 5, ParityPlace::Inside),
    ] {
        assert_eq!(place(&policy, path, class, size), (None, expected), "{path} {class:?}");
    }
    let apart = Policy::parse(&format!("[defaults]\nparity = \"object\"\n{text}")).unwrap();
    assert_eq!(place(&apart, "/c/1", None, 5), (None, ParityPlace::Object));
    let all = Policy::parse("[defaults]\nparity = \"stores\"\n").unwrap();
    assert_eq!(place(&all, "/a", None, 0), (Some(ParityPlace::Stores), ParityPlace::Stores));
    assert!(all.refused_stores(true).is_none() && nothing.refused_stores(false).is_none());
    assert!(all.refused_stores(false).unwrap().contains("[defaults]"));
    assert!(policy.refused_stores(false).unwrap().contains("class `b`"));
}
