#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

const DAY: u64 = 86_400;

/// `ada` is 1000, and the group `lab` 2000.
struct Two;

impl Users for Two {
    fn uid(&self, name: &str) -> Option<u32> {
        (name == "ada").then_some(1000)
    }

    fn gid(&self, name: &str) -> Option<u32> {
        (name == "lab").then_some(2000)
    }
}

fn rules(text: &str) -> Rules {
    Rules::compile_with(&Policy::parse(text).unwrap(), &Two).unwrap()
}

fn file(path: &str) -> Subject<'_> {
    Subject {
        path: path.as_bytes(),
        size: 1 << 20,
        uid: 1000,
        gid: 2000,
        age: Duration::from_secs(10 * DAY),
        idle: Duration::from_secs(10 * DAY),
        heat: 1.0,
        stored_bytes: 100,
        hot_bytes: 100,
        ..Subject::default()
    }
}

/// Whether a rule with these conditions fits.
#[track_caller]
fn fits(conditions: &str, subject: &Subject<'_>) -> bool {
    let text =
        format!("[defaults]\nmode = \"manual\"\n[[rule]]\naction = \"demote\"\n{conditions}");
    rules(&text).decide(subject).rule().is_some()
}

#[test]
fn each_condition_fits_what_it_says_and_nothing_else() {
    let fits_path = |glob: &str, path: &str| fits(&format!("path = '{glob}'"), &file(path));
    for (glob, path, expected) in [
        ("/raw/**", "/raw/a/b.fits", true),
        ("/raw/**", "/rawer/b.fits", false),
        ("/raw/*", "/raw/a/b.fits", false),
        ("/raw/*.fits", "/raw/b.fits", true),
        ("**/*.fits", "/x/y/b.fits", true),
        ("**/*.fits", "/b.fits", true),
        ("**/*.fits", "/b.fit", false),
        ("/{a,b}/**", "/b/c", true),
        ("/[!a]/*", "/a/c", false),
        (r"/a\*b", "/a*b", true),
        (r"/a\*b", "/axb", false),
    ] {
        assert_eq!(fits_path(glob, path), expected, "{glob} {path}");
    }
    for (ext, path, expected) in [
        ("bam", "/a/x.bam", true),
        ("bam", "/a/x.BAM", true),
        ("bam", "/a/xbam", false),
        ("bam", "/a/.bam", false),
        ("fits.gz", "/a/x.fits.gz", true),
        ("gz", "/a/x.fits.gz", true),
        ("bam", "m", false),
    ] {
        assert_eq!(fits(&format!("ext = '{ext}'"), &file(path)), expected, "{ext} {path}");
    }
    let one = file("/a");
    let in_doubt = Subject { p_reuse: Some(0.04), ..one };
    for (conditions, subject, expected) in [
        ("size = '>=1MiB'", &one, true),
        ("size = '>1MiB'", &one, false),
        ("size = ['>1KiB', '<1MiB']", &one, false),
        ("age = '>9d'", &one, true),
        ("age = '<9d'", &one, false),
        ("idle = '>=10d'", &one, true),
        ("heat = '>=2'", &one, false),
        ("heat = '<2'", &one, true),
        ("p_reuse = '<0.05'", &one, false),
        ("p_reuse = '>=0'", &one, false),
        ("p_reuse = '<0.05'", &in_doubt, true),
        ("owner = 'ada'", &one, true),
        ("owner = [7, 'ada']", &one, true),
        ("owner = 7", &one, false),
        ("owner = 'eve'", &one, false),
        ("group = 'lab'", &one, true),
        ("group = 'ada'", &one, false),
        ("state = 'resident'", &one, true),
        ("state = ['dual', 'cold']", &one, false),
        ("owner = 'ada'\nsize = '>1GiB'", &one, false),
    ] {
        assert_eq!(fits(conditions, subject), expected, "{conditions}");
    }
    let unknown = rules("[[rule]]\naction = 'none'\nowner = 'eve'\ngroup = ['ada', 'lab']");
    assert_eq!(unknown.unknown(), ["group `ada`", "user `eve`"]);
}

#[test]
fn names_need_not_be_text() {
    let odd = Subject { path: b"/raw/\xff\xfe.bam", ..file("") };
    assert!(fits("path = '/raw/*'\next = 'bam'", &odd));
}

#[test]
fn states_are_those_of_listings() {
    let of = |stored_bytes, hot_bytes, cold_bytes| {
        Subject { stored_bytes, hot_bytes, cold_bytes, ..Subject::default() }.state()
    };
    assert_eq!(of(0, 0, 0), State::Resident);
    assert_eq!(of(10, 10, 0), State::Resident);
    assert_eq!(of(10, 10, 4), State::Resident);
    assert_eq!(of(10, 10, 10), State::Dual);
    assert_eq!(of(10, 6, 4), State::Partial);
    assert_eq!(of(10, 1, 10), State::Partial);
    assert_eq!(of(10, 0, 10), State::Cold);
}

#[test]
fn the_first_rule_that_fits_decides_and_pins_come_before_it() {
    let rules = rules(
        "[[class]]\nname = 'raw'\npath = '/raw/**'\n[[class]]\nname = 'all'\npath = '/**'\n\
         [[class]]\nname = 'project'\n\
         [[rule]]\nclass = 'raw'\nsize = '>1GiB'\naction = 'pin-cold'\n\
         [[rule]]\nname = 'raw stays'\nclass = 'raw'\naction = 'pin-hot'\n\
         [[rule]]\nclass = 'project'\naction = 'promote'\n\
         [[rule]]\nclass = ['all']\naction = 'none'\n",
    );
    let decide = |subject: &Subject<'_>| {
        let decision = rules.decide(subject);
        (decision.action, decision.rule(), rules.why(subject, &decision))
    };
    let raw = file("/raw/x");
    assert_eq!(decide(&raw), (Action::PinHot, Some(1), "rule 2 (raw stays)".into()));
    let large = Subject { size: 1 << 40, ..raw };
    assert_eq!(decide(&large), (Action::PinCold, Some(0), "rule 1".into()));
    assert_eq!(decide(&file("/else")), (Action::Leave, Some(3), "rule 4".into()));
    // A dataset's own class comes before those that are found by path; one that is not there does
    // not count.
    let own = Subject { dataset_class: Some("project"), ..raw };
    assert_eq!(decide(&own).0, Action::Promote);
    assert_eq!(rules.class_of(&own), Some("project"));
    let gone = Subject { dataset_class: Some("gone"), ..raw };
    assert_eq!(decide(&gone).0, Action::PinHot);
    assert!(rules.has_class("raw") && !rules.has_class("gone"));
    let pin = Pin { tier: PinTier::Cold, from: None };
    let pinned = Subject { pin: Some(&pin), ..raw };
    assert_eq!(decide(&pinned), (Action::PinCold, None, "pinned cold".into()));
    let pin = Pin { tier: PinTier::Hot, from: Some(Arc::from(&b"/raw"[..])) };
    let pinned = Subject { pin: Some(&pin), ..large };
    assert_eq!(decide(&pinned), (Action::PinHot, None, "pinned hot through /raw".into()));
}

#[test]
fn without_a_rule_the_mode_decides() {
    let by = |mode: &str, verdict, idle_days: u64| {
        let rules = rules(&format!("[defaults]\nmode = '{mode}'\nfallback_age = '30d'"));
        let idle = Duration::from_secs(idle_days * DAY);
        let subject = Subject { verdict, idle, p_reuse: Some(0.25), ..file("/a") };
        let decision = rules.decide(&subject);
        (decision.action, rules.why(&subject, &decision))
    };
    let (go, keep) = (Action::MayGo, Action::Keep);
    let clear = "not likely read within 7d (p 0.25)".to_owned();
    assert_eq!(by("ml", Verdict::StaysCold, 1), (go, clear));
    let clear = "likely read within 7d (p 0.25)".to_owned();
    assert_eq!(by("ml", Verdict::Reused, 99), (keep, clear));
    let unclear = "no clear prediction, idle for 31d".to_owned();
    assert_eq!(by("ml", Verdict::Unsure, 31), (go, unclear));
    let early = "no clear prediction, idle for 30d, not longer than 30d".to_owned();
    assert_eq!(by("ml", Verdict::Unsure, 30), (keep, early));
    assert_eq!(by("ml", Verdict::Unknown, 31), (go, "idle for 31d".into()));
    assert_eq!(by("age", Verdict::Reused, 31), (go, "idle for 31d".into()));
    assert_eq!(by("age", Verdict::StaysCold, 3).0, keep);
    assert_eq!(by("manual", Verdict::StaysCold, 99).0, Action::Leave);
}

#[test]
fn thousands_of_rules_are_compiled_once_and_still_decide() {
    let mut text = "[defaults]\nmode = 'manual'\n".to_owned();
    for number in 0..3_000 {
        text.push_str(&format!(
            "[[rule]]\npath = '/p{number}/**/*.x{number}'\naction = 'demote'\n"
        ));
    }
    let rules = rules(&text);
    assert_eq!(rules.decide(&file("/p2999/a/b.x2999")).rule(), Some(2999));
    assert_eq!(rules.decide(&file("/p2999/a/b.x2998")).rule(), None);
}
