#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

const LIMIT: u64 = 3 * SLOT_LEN;

#[derive(Clone, Debug)]
enum Op {
    Write { at: u64, len: u64 },
    Hole { at: u64, len: u64 },
    Unwritten { at: u64, len: u64 },
    Truncate { at: u64 },
    Freeze,
    Commit,
}

fn places() -> impl Strategy<Value = u64> {
    prop_oneof![
        0_u64..40,
        (SLOT_LEN - 20)..(SLOT_LEN + 20),
        (2 * SLOT_LEN - 20)..(2 * SLOT_LEN + 20)
    ]
}

fn ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => (places(), 1_u64..30).prop_map(|(at, len)| Op::Write { at, len }),
        1 => (places(), 1_u64..30).prop_map(|(at, len)| Op::Hole { at, len }),
        1 => (places(), 1_u64..30).prop_map(|(at, len)| Op::Unwritten { at, len }),
        1 => places().prop_map(|at| Op::Truncate { at }),
        1 => Just(Op::Freeze),
        1 => Just(Op::Commit),
    ]
}

/// The bytes that operations reach, and what each is: 0 unknown, 1 hole, 2 unwritten, else 3 +
/// the written value.
fn model() -> BTreeMap<u64, u16> {
    [0..80, SLOT_LEN - 40..SLOT_LEN + 60, 2 * SLOT_LEN - 40..2 * SLOT_LEN + 60]
        .into_iter()
        .flatten()
        .map(|pos| (pos, 0))
        .collect()
}

fn set(model: &mut BTreeMap<u64, u16>, range: Range<u64>, to: u16) {
    model.range_mut(range).for_each(|(_, cell)| *cell = to);
}

/// The same of an overlay.
fn seen(overlay: &Overlay) -> BTreeMap<u64, u16> {
    let mut cells = model();
    for found in overlay.lookup(0..LIMIT) {
        let start = found.range.start;
        for (pos, cell) in cells.range_mut(found.range.clone()) {
            *cell = match &found.fill {
                None => 0,
                Some(Fill::Hole) => 1,
                Some(Fill::Unwritten) => 2,
                Some(Fill::Buffered(bytes)) => {
                    assert_eq!(bytes.len() as u64, found.range.end - start);
                    3 + u16::from(bytes[(pos - start) as usize])
                }
                Some(other) => panic!("{other:?} was never put"),
            };
        }
    }
    cells
}

proptest! {
    #[test]
    fn an_overlay_equals_an_array(ops in prop::collection::vec(ops(), 1..40)) {
        let mut overlay = Overlay::default();
        let mut model = model();
        for (n, op) in ops.into_iter().enumerate() {
            let value = n as u8;
            match op {
                Op::Write { at, len } => {
                    overlay.write(at, &vec![value; len as usize]);
                    set(&mut model, at..at + len, 3 + u16::from(value));
                }
                Op::Hole { at, len } => {
                    overlay.put(at..at + len, Fill::Hole);
                    set(&mut model, at..at + len, 1);
                }
                Op::Unwritten { at, len } => {
                    overlay.put(at..at + len, Fill::Unwritten);
                    set(&mut model, at..at + len, 2);
                }
                Op::Truncate { at } => {
                    overlay.truncate(at);
                    set(&mut model, at..LIMIT, 1);
                }
                Op::Freeze => overlay.freeze_all(),
                Op::Commit => {
                    let _ = overlay.snapshot();
                    overlay.drop_committed(overlay.seq());
                    set(&mut model, 0..LIMIT, 0);
                }
            }
            prop_assert_eq!(overlay.recount(), overlay.weight());
            prop_assert_eq!(overlay.recount_allocated(), overlay.allocated());
        }
        prop_assert_eq!(seen(&overlay), model);
    }

    /// What came after a snapshot stays when the snapshot's commit is done; what was in it goes.
    #[test]
    fn a_commit_drops_what_it_committed(
        before in prop::collection::vec((places(), 1_u64..30), 1..10),
        after in prop::collection::vec((places(), 1_u64..30), 0..10),
    ) {
        let mut overlay = Overlay::default();
        let mut model = model();
        for (at, len) in before {
            overlay.write(at, &vec![1; len as usize]);
        }
        let _ = overlay.snapshot();
        let seq = overlay.seq();
        for (at, len) in after {
            overlay.write(at, &vec![2; len as usize]);
            set(&mut model, at..at + len, 5);
        }
        overlay.drop_committed(seq);
        prop_assert_eq!(overlay.recount(), overlay.weight());
            prop_assert_eq!(overlay.recount_allocated(), overlay.allocated());
        prop_assert_eq!(seen(&overlay), model);
    }
}

#[test]
fn sequential_writes_become_one_span_and_fill_the_slot() {
    let mut overlay = Overlay::default();
    for n in 0..8 {
        let full = overlay.write(n * SLOT_LEN / 8, &vec![n as u8; SLOT_LEN as usize / 8]);
        assert_eq!(full, if n == 7 { vec![0] } else { vec![] });
    }
    assert_eq!(overlay.len(), 1);
    let spans = overlay.full_slot(0).unwrap();
    assert_eq!(spans.len(), 1);
    assert!(matches!(&spans[0].1.fill, Fill::Buffered(bytes) if bytes.len() as u64 == SLOT_LEN));
}

#[test]
fn a_slot_with_a_gap_is_not_full() {
    let mut overlay = Overlay::default();
    overlay.write(1, &vec![1; SLOT_LEN as usize - 1]);
    assert!(overlay.full_slot(0).is_none());
}
