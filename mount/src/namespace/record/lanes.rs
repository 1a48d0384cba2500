//! A hash of a set of items that grows and shrinks item by item: LtHash with 1,024 lanes of 16 bits
//! (Bellare and Micciancio 1997, "A new paradigm for collision-free hashing"; as deployed, Lewi et
//! al. 2019, "Securing update propagation with homomorphic hashing").

use super::{Reader, RecordError};

/// Lanes of a sum.
const LANES: usize = 1024;

/// Bytes of a sum.
const LANES_LEN: usize = LANES * 2;

/// The sum of all items of a set: of each, 2,048 bytes of BLAKE3 output are 1,024 numbers of 16 bits,
/// which are added up lane by lane.
#[derive(Clone, PartialEq, Eq)]
pub struct Lanes(Box<[u16; LANES]>);

impl Default for Lanes {
    /// Of nothing.
    fn default() -> Self {
        Self(Box::new([0; LANES]))
    }
}

impl std::fmt::Debug for Lanes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lanes({})", blake3::hash(&self.to_bytes()))
    }
}

impl Lanes {
    /// Puts an item in.
    pub fn add(&mut self, item: &[u8]) {
        self.each(item, u16::wrapping_add);
    }

    /// Takes an item out that is in.
    pub fn remove(&mut self, item: &[u8]) {
        self.each(item, u16::wrapping_sub);
    }

    fn each(&mut self, item: &[u8], combine: fn(u16, u16) -> u16) {
        let mut expanded = [0; LANES_LEN];
        blake3::Hasher::new().update(item).finalize_xof().fill(&mut expanded);
        for (lane, bytes) in self.0.iter_mut().zip(expanded.as_chunks::<2>().0) {
            *lane = combine(*lane, u16::from_le_bytes(*bytes));
        }
    }

    /// As they are stored and hashed: little-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|lane| lane.to_le_bytes()).collect()
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, RecordError> {
        let mut lanes = Self::default();
        let bytes = reader.bytes(LANES_LEN)?;
        for (lane, bytes) in lanes.0.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *lane = u16::from_le_bytes(*bytes);
        }
        Ok(lanes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_of_a_set_does_not_depend_on_how_it_came_about() {
        let mut one = Lanes::default();
        one.add(b"a");
        one.add(b"b");
        let mut other = Lanes::default();
        for item in [b"c", b"b", b"a"] {
            other.add(item);
        }
        assert_ne!(one, other);
        other.remove(b"c");
        assert_eq!(one, other);
        // What is in twice is not what is in once, and not what is not in.
        other.add(b"a");
        assert_ne!(one, other);
        one.remove(b"a");
        one.remove(b"b");
        assert_eq!(one, Lanes::default());
    }
}
