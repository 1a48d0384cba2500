#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

pub(crate) fn any_request() -> impl Strategy<Value = Request> {
    let ids = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u32>(), any::<u32>());
    let op = prop_oneof![Just(Op::Read), Just(Op::Write), Just(Op::Delete)];
    (any::<u64>(), op, any::<u64>(), any::<u64>(), ids).prop_map(
        |(at_ms, op, bytes, size, (item, client, group, owner, kind))| Request {
            at_ms,
            item,
            op,
            bytes,
            size,
            client,
            group,
            owner,
            kind,
        },
    )
}

fn write(requests: &[Request]) -> Vec<u8> {
    let mut writer = TraceWriter::new(Vec::new()).unwrap();
    requests.iter().for_each(|request| writer.write(request).unwrap());
    writer.finish().unwrap()
}

fn request() -> Request {
    Request {
        at_ms: 1_700_000_000_123,
        item: u64::MAX,
        op: Op::Write,
        bytes: 4096,
        size: 1 << 40,
        client: 17,
        group: 3,
        owner: 1000,
        kind: u32::MAX,
    }
}

const GOLDEN: &str = "firn-trace 1\n\
    # at_ms\top\titem\tbytes\tsize\tclient\tgroup\towner\tkind\n\
    1700000000123\tW\t18446744073709551615\t4096\t1099511627776\t17\t3\t1000\t4294967295\n";

#[test]
fn the_text_is_golden() {
    assert_eq!(String::from_utf8(write(&[request()])).unwrap(), GOLDEN);
    let longest = Request { at_ms: u64::MAX, bytes: u64::MAX, size: u64::MAX, ..request() };
    assert_eq!(read_trace(&write(&[longest])[..], 1).unwrap(), [longest]);
}

fn refusal(text: &str) -> String {
    read_trace(text.as_bytes(), 2).unwrap_err().to_string()
}

#[test]
fn comments_are_skipped_and_all_else_is_refused_with_its_line() {
    let fine = "firn-trace 1\n# any\n1\tR\t2\t3\t4\t5\t6\t7\t8\n#\n";
    assert_eq!(read_trace(fine.as_bytes(), 2).unwrap().len(), 1);
    for (text, reason) in [
        ("", "line 1: it has no header"),
        ("firn-trace 1", "line 1: it is cut short"),
        ("firn-trace  1\n", "line 1: it is not the header"),
        ("firn-trace 0\n", "line 1: it is not the header"),
        ("firn-trace +1\n", "line 1: it is not the header"),
        ("firn-trace 2\n", "trace has format version 2"),
        ("firn-trace 1\n\n", "line 2: 1 fields instead of 9"),
        ("firn-trace 1\n#\n1\tR\t2\t3\t4\t5\t6\t7\n", "line 3: 8 fields"),
        ("firn-trace 1\n1\tR\t2\t3\t4\t5\t6\t7\t8\t9\n", "line 2: 10 fields"),
        ("firn-trace 1\n1\tr\t2\t3\t4\t5\t6\t7\t8\n", "line 2: op is none"),
        ("firn-trace 1\n1\tR\t-2\t3\t4\t5\t6\t7\t8\n", "line 2: item is not"),
        ("firn-trace 1\n1\tR\t+2\t3\t4\t5\t6\t7\t8\n", "line 2: item is not"),
        ("firn-trace 1\n1\tR\t18446744073709551616\t3\t4\t5\t6\t7\t8\n", "line 2: item is not"),
        ("firn-trace 1\n1\tR\t2\t3\t4\t5\t6\t4294967296\t8\n", "line 2: owner is not"),
        ("firn-trace 1\n1\tR\t2\t3\t4\t5\t6\t7\t8\r\n", "line 2: kind is not"),
        ("firn-trace 1\n1\tR\t2\t3\t4\t5\t6\t7\t8", "line 2: it is cut short"),
    ] {
        assert!(refusal(text).contains(reason), "{text:?}: {}", refusal(text));
    }
    let long = format!("firn-trace 1\n#{}\n", "x".repeat(MAX_LINE));
    assert!(refusal(&long).contains("line 2: it is too long"));
    let three = write(&[request(); 3]);
    assert!(read_trace(&three[..], 2).unwrap_err().to_string().contains("line 5: there are more"));
}

#[test]
fn a_reader_ends_after_an_error() {
    let text = format!("{GOLDEN}nonsense\n{}", GOLDEN.lines().nth(2).unwrap());
    let mut reader = TraceReader::new(text.as_bytes()).unwrap();
    assert!(reader.next().unwrap().is_ok());
    assert!(reader.next().unwrap().is_err());
    assert_eq!(reader.line_number(), 4);
    assert!(reader.next().is_none());
}

#[test]
fn pseudonyms_keep_what_belongs_together_and_nothing_else() {
    let names = Pseudonyms::new([7; 32]);
    let (one, other) = (request(), Request { item: 5, ..request() });
    let (hidden, hidden_other) = (names.hide(&one), names.hide(&other));
    assert_eq!(hidden, names.hide(&one));
    assert_ne!(hidden.item, hidden_other.item);
    assert_eq!((hidden.client, hidden.group), (hidden_other.client, hidden_other.group));
    assert_eq!((hidden.at_ms, hidden.bytes, hidden.size), (one.at_ms, one.bytes, one.size));
    let ids = |r: &Request| [r.item, r.client, r.group, u64::from(r.owner), u64::from(r.kind)];
    assert!(ids(&hidden).iter().zip(ids(&one)).all(|(a, b)| *a != b));
    assert_ne!(Pseudonyms::new([8; 32]).hide(&one).item, hidden.item);
    // The same number in two roles has two names.
    let same = names.hide(&Request { item: 9, client: 9, group: 9, ..one });
    assert!(same.item != same.client && same.client != same.group);
}

proptest! {
    #[test]
    fn what_was_written_is_read(requests in prop::collection::vec(any_request(), 0..40)) {
        prop_assert_eq!(read_trace(&write(&requests)[..], 40).unwrap(), requests);
    }

    #[test]
    fn no_input_makes_it_panic(text in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = read_trace(&text[..], 10);
        let _ = read_trace(&[b"firn-trace 1\n", &text[..]].concat()[..], 10);
    }

    #[test]
    fn a_changed_byte_is_refused_or_changes_one_request(at in 0_usize..200, byte in any::<u8>()) {
        let whole = write(&[request(), request()]);
        let at = at % whole.len();
        let mut text = whole;
        text[at] = byte;
        if let Ok(read) = read_trace(&text[..], 3) {
            prop_assert!(read.iter().filter(|&&other| other != request()).count() <= 2);
        }
    }
}
