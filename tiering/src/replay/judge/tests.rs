#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

const CONFIG: JudgeConfig = JudgeConfig {
    window_reads: 1000,
    window_ms: u64::MAX,
    least_reads: 100,
    margin: 0.01,
    sigmas: 3.0,
    off_after: 2,
    on_after: 3,
    doublings: 2,
};

/// A window in which the model hits so many of 1,000 reads, LRU and S3-FIFO so many others.
fn window(judge: &mut Judge, at_ms: &mut u64, model: u64, lru: u64, s3fifo: u64) -> bool {
    let mut changed = false;
    for read in 0..1000 {
        *at_ms += 1;
        let hits = Hits { model: read < model, lru: read < lru, s3fifo: read < s3fifo };
        changed |= judge.note(*at_ms, hits);
    }
    changed
}

#[test]
fn it_goes_off_while_worse_than_either_and_comes_back() {
    for (lru, s3fifo, baseline) in
        [(600, 500, Baseline::Lru), (500, 600, Baseline::S3Fifo), (600, 590, Baseline::Lru)]
    {
        let mut judge = Judge::new(CONFIG);
        let mut at = 0;
        assert!(!window(&mut judge, &mut at, 550, lru, s3fifo));
        assert!(window(&mut judge, &mut at, 550, lru, s3fifo));
        let State::Off { since_ms: 2000, baseline: than, figures } = judge.state() else {
            panic!("{:?}", judge.state())
        };
        assert_eq!(than, baseline);
        assert!((figures.model - 0.55).abs() < 1e-9 && figures.reads == 1500.0, "{figures}");
        // Better than before but not than both: stays off.
        for _ in 0..10 {
            assert!(!window(&mut judge, &mut at, 640, 600, 680));
        }
        assert!(!judge.state().is_on());
        let windows = (1..).find(|_| window(&mut judge, &mut at, 730, 600, 680)).unwrap();
        assert_eq!(windows, 3);
        assert_eq!(judge.state(), State::On { since_ms: at });
    }
}

#[test]
fn a_little_worse_is_not_worse_and_no_difference_is_nothing() {
    let mut judge = Judge::new(CONFIG);
    let mut at = 0;
    for _ in 0..50 {
        // Below the margin, then equal.
        assert!(!window(&mut judge, &mut at, 599, 600, 500));
        assert!(!window(&mut judge, &mut at, 600, 600, 600));
    }
    // One bad window, a good one, a bad one: no streak.
    for _ in 0..50 {
        assert!(!window(&mut judge, &mut at, 580, 600, 500));
        assert!(!window(&mut judge, &mut at, 700, 600, 500));
    }
    // Worse by the margin, but no more than chance explains: many gains and losses.
    let mut judge = Judge::new(CONFIG);
    for read in 0..100_000_u64 {
        let model = (read * 7919) % 100 < 49;
        let lru = (read * 104_729) % 1000 / 10 < 51;
        judge.note(read, Hits { model, lru, s3fifo: model });
    }
    let mut noisy = judge.clone();
    noisy.config.sigmas = 1e6;
    assert!(noisy.worse_than().is_none());
    noisy.config.sigmas = 0.0;
    assert_eq!(noisy.worse_than(), Some(Baseline::Lru));
}

#[test]
fn a_little_worse_for_long_is_worse() {
    let mut judge = Judge::new(CONFIG);
    let mut at = 0;
    let windows = (1..).find(|_| window(&mut judge, &mut at, 595, 600, 500)).unwrap();
    assert!((3..10).contains(&windows), "{windows}");
    assert!(matches!(judge.state(), State::Off { baseline: Baseline::Lru, .. }));
}

/// Windows until the next switch, with a model that is good while it is off and bad while it is on.
fn until_switched(judge: &mut Judge, at_ms: &mut u64) -> u32 {
    let model = if judge.state().is_on() { 500 } else { 700 };
    (1..).find(|_| window(judge, at_ms, model, 600, 600)).unwrap()
}

#[test]
fn who_goes_off_again_and_again_stays_off_longer_and_longer() {
    let mut judge = Judge::new(CONFIG);
    let mut at = 0;
    let mut off = Vec::new();
    for _ in 0..5 {
        until_switched(&mut judge, &mut at);
        off.push(until_switched(&mut judge, &mut at));
    }
    assert_eq!(off, [3, 6, 12, 12, 12], "it doubles as often as it may");
    assert_eq!(judge.switches(), 10);
    // As long on without a setback as it stayed off takes one doubling back.
    for _ in 0..12 {
        assert!(!window(&mut judge, &mut at, 700, 600, 600));
    }
    until_switched(&mut judge, &mut at);
    assert_eq!(until_switched(&mut judge, &mut at), 12);
    for _ in 0..12 + 6 {
        assert!(!window(&mut judge, &mut at, 700, 600, 600));
    }
    until_switched(&mut judge, &mut at);
    assert_eq!(until_switched(&mut judge, &mut at), 6);
}

#[test]
fn windows_end_by_reads_or_by_time() {
    let config = JudgeConfig { window_ms: 500, off_after: 1, ..CONFIG };
    let mut judge = Judge::new(config);
    let lost = Hits { model: false, lru: true, s3fifo: false };
    // Too few reads, however late.
    assert!((0..99).all(|read| !judge.note(read * 1000, lost)));
    assert!(judge.note(99_000, lost));
    let mut judge = Judge::new(config);
    let first = (0..).find(|&at| judge.note(at, lost)).unwrap();
    assert_eq!(first, 500);
}

#[test]
fn a_new_model_starts_afresh() {
    let mut judge = Judge::new(CONFIG);
    let mut at = 0;
    assert!((0..3).any(|_| window(&mut judge, &mut at, 0, 600, 600)));
    assert!(!judge.state().is_on());
    judge.restart(77);
    assert_eq!(judge.state(), State::On { since_ms: 77 });
    assert_eq!(judge.figures(), Figures::default());
}

#[test]
fn state_survives_and_says_what_is_wrong() {
    let mut judge = Judge::new(CONFIG);
    let mut at = 0;
    let round_trip = |judge: &Judge| Judge::decode(CONFIG, &judge.encode().unwrap()).unwrap();
    assert_eq!(round_trip(&judge), judge);
    window(&mut judge, &mut at, 500, 520, 600);
    assert_eq!(round_trip(&judge), judge);
    window(&mut judge, &mut at, 500, 520, 600);
    let back = round_trip(&judge);
    assert_eq!(back, judge);
    assert_eq!(
        back.state().to_string(),
        "off: worse than s3-fifo: hit ratio 0.500, lru 0.520, s3-fifo 0.600 over 1500 sampled reads"
    );
    let json = serde_json::to_value(back.state()).unwrap();
    assert_eq!((&json["state"], &json["baseline"]), (&"off".into(), &"s3-fifo".into()));
}

/// A judge that was switched off, as the first version told it, and what the second one adds.
fn golden() -> (Judge, Vec<u8>, Vec<u8>) {
    let mut judge = Judge::new(CONFIG);
    let mut at = 0;
    assert!((0..2).any(|_| window(&mut judge, &mut at, 500, 500, 600)));
    let numbers = [1500.0, 0.5, 0.5, 0.6_f64, 1500.0, 750.0, 750.0, 900.0, 0.0, 0.0, 0.0, 150.0];
    let mut first = b"\x01\x01\0\0\0\0\xd0\x07\0\0\0\0\0\0".to_vec();
    numbers.iter().for_each(|number: &f64| first.extend_from_slice(&number.to_le_bytes()));
    window(&mut judge, &mut at, 500, 500, 600);
    let mut second = first.clone();
    let recent = [1750.0, 875.0, 875.0, 1050.0, 0.0, 0.0, 0.0, 175.0];
    for (at, number) in recent.iter().enumerate() {
        second[14 + 32 + at * 8..][..8].copy_from_slice(&f64::to_le_bytes(*number));
    }
    second.extend_from_slice(b"\x01\0\0\0\x01\0\0\0\x01\0\0\0");
    let lasting = [1000.0, 500.0, 500.0, 600.0, 0.0, 0.0, 0.0, 100.0];
    lasting.iter().for_each(|number: &f64| second.extend_from_slice(&number.to_le_bytes()));
    (judge, first, second)
}

#[test]
fn the_bytes_are_golden() {
    let (judge, _, second) = golden();
    let sealed = judge.encode().unwrap();
    let (plain, version, _) = envelope::open(KIND, &sealed).unwrap();
    assert_eq!((plain, version), (second, 2));
    assert_eq!(Judge::decode(CONFIG, &sealed).unwrap(), judge);
}

#[test]
fn the_first_version_is_read() {
    let (_, first, _) = golden();
    let (sealed, _) = envelope::seal(Kind { version: 1, ..KIND }, &first).unwrap();
    let judge = Judge::decode(CONFIG, &sealed).unwrap();
    assert!(matches!(judge.state(), State::Off { since_ms: 2000, baseline: Baseline::S3Fifo, .. }));
    assert_eq!((judge.switches(), judge.recent.reads, judge.lasting), (1, 1500.0, judge.recent));
}

proptest! {
    #[test]
    fn nonsense_is_refused(mut plain in prop::collection::vec(any::<u8>(), FIRST_LEN + ADDED_LEN), cut in any::<bool>()) {
        prop_assert!(Judge::decode(CONFIG, &plain).is_err());
        if cut {
            plain.truncate(FIRST_LEN + ADDED_LEN - 1);
        }
        let (sealed, _) = envelope::seal(KIND, &plain).unwrap();
        if let Ok(judge) = Judge::decode(CONFIG, &sealed) {
            let mut counts = judge.recent.counts().into_iter().chain(judge.lasting.counts());
            prop_assert!(counts.all(|count| (0.0..=MOST).contains(&count)));
            prop_assert!(!cut);
        }
    }
}
