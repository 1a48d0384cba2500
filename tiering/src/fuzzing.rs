//! What fuzzers feed: each function takes any bytes, gives them to decoders, and panics when one of
//! them panics, breaks a bound, or does not read again what was written of what it read. The inputs
//! that were worth keeping lie in `tests/fuzz/corpus` and are run by the unit tests as well.
//!
//! Most formats carry a checksum, which no fuzzer guesses: behind the bytes as they are, each function
//! tries them once more with the checksum put right.

use crate::classifier::{Limits, Model, Registry, Samples};
use crate::encode::{Codec, Filter, decode_cell, encode_block_as};
use crate::envelope::{self, Kind};
use crate::heat::{History, Map};
use crate::replay::{Judge, JudgeConfig, TraceWriter, read_trace};

pub use crate::catalog::fuzzing::catalog;
pub use crate::segment::fuzzing::{frames, segment_index};
use crate::tier::fuzzing::answers;

/// Codec, filter, plaintext length and one stored cell.
pub fn cells(data: &[u8]) {
    let Some(([codec, filter, low, high], stored)) = data.split_first_chunk() else { return };
    let (Ok(codec), Ok(filter)) = (Codec::from_byte(*codec), Filter::from_byte(*filter)) else {
        return;
    };
    let len = usize::from(u16::from_le_bytes([*low, *high])) + 1;
    let Ok(plain) = decode_cell(stored, codec, filter, len) else { return };
    assert_eq!(plain.len(), len, "a cell has the length that its frame records");
    let block = encode_block_as(&plain, codec, filter, 1);
    let again = decode_cell(&block.payload, block.codec, block.filter, len);
    assert_eq!(again.expect("what was encoded decodes"), plain);
}

/// What lies in a cold tier beside segments: an envelope, as it is and with its digest put right; a
/// claim, a key, a header.
pub fn cold(data: &[u8]) {
    answers(data);
    const KIND: Kind = Kind { tag: *b"fuzz", name: "fuzz", version: 1, max_plain_len: 1 << 20 };
    let mut sealed = data.to_vec();
    sealed.extend_from_slice(blake3::hash(data).as_bytes());
    for sealed in [data, &sealed] {
        let Ok((plain, version, _)) = envelope::open(KIND, sealed) else { continue };
        assert!(plain.len() <= KIND.max_plain_len && version <= KIND.version);
        let (again, digest) = envelope::seal(KIND, &plain).expect("it is short enough");
        let opened = envelope::open(KIND, &again).expect("what was sealed opens");
        assert_eq!(opened, (plain, KIND.version, digest));
    }
}

/// What is kept of uses, behind a byte for its version: samples, models, guardrail, heat, traces.
pub fn classifier(data: &[u8]) {
    let Some((version, plain)) = data.split_first() else { return };
    let limits = Limits { matured: 64, pending: 64, slots: 4, each: 4 };
    if let Ok(samples) = Samples::decode(&sealed(b"smpl", *version, plain), 1000, limits) {
        let stored = samples.encode().expect("it is short enough");
        let again = Samples::decode(&stored, 1000, limits).expect("what was written is read");
        assert_eq!(again.encode().expect("it is short enough"), stored);
    }
    if let Ok(model) = Model::decode(&sealed(b"clsf", *version, plain)) {
        for value in [0.0, 1.0, f32::NAN, f32::INFINITY, -1e30] {
            let verdict = model.predict(&[value; 44]);
            assert!((0.0..=1.0).contains(&verdict.p_reuse) && (0.0..=1.0).contains(&verdict.score));
            model.reasons(&[value; 44]);
        }
        let stored = model.encode().expect("it was stored before");
        assert_eq!(Model::decode(&stored).expect("what was written is read"), model);
    }
    if let Ok(registry) = Registry::decode(&sealed(b"clrg", *version, plain)) {
        let stored = registry.encode().expect("it was stored before");
        Registry::decode(&stored).expect("what was written is read");
    }
    if let Ok(judge) = Judge::decode(JudgeConfig::default(), &sealed(b"grdl", *version, plain)) {
        let stored = judge.encode().expect("it was stored before");
        Judge::decode(JudgeConfig::default(), &stored).expect("what was written is read");
    }
    heat(plain);
    if let Ok(requests) = read_trace(plain, 1000) {
        let mut writer = TraceWriter::new(Vec::new()).expect("memory takes all");
        requests.iter().for_each(|request| writer.write(request).expect("memory takes all"));
        let stored = writer.finish().expect("memory takes all");
        assert_eq!(
            read_trace(stored.as_slice(), 1000).expect("what was written is read"),
            requests
        );
    }
}

/// A file of heat in one frame, and one past.
fn heat(plain: &[u8]) {
    let frame = sealed(b"heat", 1, plain);
    let end =
        sealed(b"heat", 1, &[&[255, 1, 0, 0, 0, 0, 0, 0, 0][..], &1_u64.to_le_bytes()].concat());
    let mut file = Vec::new();
    for part in [frame, end] {
        file.extend_from_slice(&(part.len() as u32).to_le_bytes());
        file.extend_from_slice(&part);
    }
    let map = Map::new(1 << 16, 5);
    let _ = map.load(file.as_slice(), 1_700_000_000_000);
    if let Some(stored) = plain.first_chunk()
        && let Ok(history) = History::decode(stored)
    {
        assert_eq!(history.encode(), *stored);
    }
}

/// An envelope of that kind with an uncompressed payload and a digest that is right.
fn sealed(tag: &[u8; 4], version: u8, plain: &[u8]) -> Vec<u8> {
    let mut out = [&b"FIRN"[..], tag, &[version, 0, 0, 0, 0, 0, 0, 0]].concat();
    out.extend_from_slice(&(plain.len() as u64).to_le_bytes());
    out.extend_from_slice(plain);
    let digest = blake3::hash(&out);
    out.extend_from_slice(digest.as_bytes());
    out
}

#[cfg(test)]
#[path = "../../tests/fuzz/src/corpus.rs"]
mod corpus;

#[cfg(test)]
mod tests {
    use super::corpus::replay;
    use super::*;

    #[test]
    fn what_fuzzers_found_stays_found() {
        replay("frames", frames);
        replay("cells", cells);
        replay("segment_index", segment_index);
        replay("catalog", catalog);
        replay("classifier", classifier);
        replay("cold", cold);
    }
}
