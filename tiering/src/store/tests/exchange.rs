//! Blocks from one store to another: same bytes, same encoding, another name; and nothing that
//! was changed on the way.

use crate::blocks::Blocks;
use crate::error::Error;
use crate::store::testing::{Volume, noise, soon, text, wave};

#[test]
fn a_block_arrives_as_it_was_stored() {
    let (from, to) = (Volume::new(), Volume::new());
    for (seed, plain) in [text(1, 200_000), wave(2, 1 << 20), noise(3, 777)].iter().enumerate() {
        let block = from.append(plain);
        let open = from.store().export(&block, soon()).unwrap();
        if seed == 1 {
            from.seal();
        }
        let sealed = from.store().export(&block, soon()).unwrap();
        assert_eq!(open, sealed, "where it lies does not show");
        let here = to.store().import(&open, soon()).unwrap();
        assert_eq!((here.digest, here.len), (block.digest, block.len));
        assert_eq!(to.read(&here).unwrap(), plain);
        let (before, after) =
            (from.store().describe(block.id).unwrap(), to.store().describe(here.id).unwrap());
        assert_eq!(before.stored_bytes, after.stored_bytes);
        assert_eq!((before.codec, before.level), (after.codec, after.level));
    }
}

#[test]
fn nothing_but_the_same_block_is_imported() {
    let (from, to) = (Volume::new(), Volume::new());
    let plain = text(1, 70_000);
    let block = from.append(&plain);
    let good = from.store().export(&block, soon()).unwrap();
    let mut accepted = 0;
    for at in 0..good.len() {
        let mut bad = good.to_vec();
        bad[at] ^= 1;
        match to.store().import(&bad, soon()) {
            // A bit that a decoder does not look at.
            Ok(same) => {
                assert_eq!(same.digest, block.digest);
                assert_eq!(to.read(&same).unwrap(), plain, "byte {at}");
                accepted += 1;
            }
            Err(Error::Damaged { .. } | Error::TooNew { .. }) => {}
            Err(other) => panic!("byte {at}: {other}"),
        }
    }
    assert!(accepted < 8, "{accepted} of {} changes went unnoticed", good.len());
    for cut in [&good[..good.len() - 1], &good[..40], &[]] {
        assert!(matches!(to.store().import(cut, soon()), Err(Error::Damaged { .. })));
    }
    let longer = [&good[..], &[0]].concat();
    assert!(matches!(to.store().import(&longer, soon()), Err(Error::Damaged { .. })));
}
