//! The erasure code of one stripe: Reed-Solomon over GF(2^8), a shard at a time.
//!
//! The data bytes at one place of the shards are the values of a polynomial at 0, 1, 2, ...; the
//! parity bytes are its values at the points after. That is the code of `reed-solomon-erasure`,
//! whose field and vector loops do the work; its own coder would hold a whole stripe in memory and
//! invert a 251 x 251 matrix, where only the few lost shards are unknown.

#[cfg(target_arch = "x86_64")]
mod gfni;

use std::ops::DerefMut;

use reed_solomon_erasure::galois_8::{div, mul, mul_slice_xor};

/// Bytes worked on at once, so that a piece of each parity shard stays in the first-level cache.
const PIECE: usize = 4 << 10;

/// The coefficients of a stripe.
#[derive(Debug)]
pub(crate) struct StripeCode {
    /// Row per parity shard, coefficient per data shard.
    rows: Vec<Vec<u8>>,
}

impl StripeCode {
    /// For `data` and `parity` shards, 256 together at most.
    pub(crate) fn new(data: usize, parity: usize) -> Self {
        debug_assert!(data + parity <= 256);
        let points = || (0..data).map(|point| point as u8);
        let product = |factors: &mut dyn Iterator<Item = u8>| factors.fold(1, mul);
        // Denominators of Lagrange's polynomials; subtraction is exclusive or.
        let below: Vec<u8> =
            points().map(|j| product(&mut points().filter(|&m| m != j).map(|m| j ^ m))).collect();
        let rows = (data..data + parity).map(|at| {
            let at = at as u8;
            let above = product(&mut points().map(|m| at ^ m));
            points().zip(&below).map(|(j, &below)| div(above, mul(at ^ j, below))).collect()
        });
        Self { rows: rows.collect() }
    }

    /// Adds data shard `index` to the parity shards, which begin as zeros.
    pub(crate) fn add<P>(&self, index: usize, shard: &[u8], parity: &mut [P])
    where
        P: DerefMut<Target = [u8]>,
    {
        let mut at = 0;
        for piece in shard.chunks(PIECE) {
            for (row, parity) in self.rows.iter().zip(parity.iter_mut()) {
                mul_slice_xor(row[index], piece, &mut parity[at..at + piece.len()]);
            }
            at += piece.len();
        }
    }

    /// Adds the data shards from `first` on.
    pub(crate) fn add_run<P>(&self, first: usize, shards: &[&[u8]], parity: &mut [P])
    where
        P: DerefMut<Target = [u8]>,
    {
        let added = self.add_fours(first, shards, parity);
        for (index, shard) in shards.iter().enumerate().skip(added) {
            self.add(first + index, shard, parity);
        }
    }

    /// Adds as many as there are fours of, where the processor has a way of its own; returns how many.
    #[cfg(target_arch = "x86_64")]
    fn add_fours<P>(&self, first: usize, shards: &[&[u8]], parity: &mut [P]) -> usize
    where
        P: DerefMut<Target = [u8]>,
    {
        if !gfni::is_there() {
            return 0;
        }
        let (fours, _) = shards.as_chunks::<{ gfni::SHARDS }>();
        for (index, four) in fours.iter().enumerate() {
            let Ok(rows) = <&mut [P; gfni::ROWS]>::try_from(&mut *parity) else { return 0 };
            let at = first + index * gfni::SHARDS;
            let factors =
                std::array::from_fn(|row| std::array::from_fn(|shard| self.rows[row][at + shard]));
            // SAFETY: the processor has what it is compiled for.
            unsafe { gfni::add(factors, *four, rows.each_mut().map(|row| &mut row[..])) };
        }
        fours.len() * gfni::SHARDS
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn add_fours<P>(&self, _: usize, _: &[&[u8]], _: &mut [P]) -> usize {
        0
    }

    /// The lost data shards, in the order of `lost`.
    ///
    /// `difference[i]` is the stored parity shard `rows[i]` exclusive-or the parity of the data
    /// shards that are there; there must be as many as lost shards.
    pub(crate) fn solve(
        &self,
        lost: &[usize],
        rows: &[usize],
        difference: &[Vec<u8>],
    ) -> Vec<Vec<u8>> {
        let matrix = rows.iter().map(|&row| lost.iter().map(|&j| self.rows[row][j]).collect());
        let inverse = invert(matrix.collect());
        let len = difference.first().map_or(0, Vec::len);
        let solution = inverse.iter().map(|coefficients| {
            let mut shard = vec![0; len];
            for (&coefficient, difference) in coefficients.iter().zip(difference) {
                mul_slice_xor(coefficient, difference, &mut shard);
            }
            shard
        });
        solution.collect()
    }
}

/// Inverts a small square matrix by elimination. Any square part of a parity matrix of this code
/// is invertible: otherwise two polynomials of that degree would agree on too many points.
fn invert(mut matrix: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let size = matrix.len();
    for (i, row) in matrix.iter_mut().enumerate() {
        row.extend((0..size).map(|j| u8::from(i == j)));
    }
    for column in 0..size {
        let pivot = (column..size).find(|&row| matrix[row][column] != 0);
        let pivot = pivot.expect("square parts of the code's matrix are invertible");
        matrix.swap(column, pivot);
        let scale = matrix[column][column];
        matrix[column].iter_mut().for_each(|value| *value = div(*value, scale));
        let pivot_row = matrix[column].clone();
        for (_, row) in matrix.iter_mut().enumerate().filter(|(i, _)| *i != column) {
            let factor = row[column];
            row.iter_mut().zip(&pivot_row).for_each(|(value, &p)| *value ^= mul(factor, p));
        }
    }
    matrix.into_iter().map(|row| row[size..].to_vec()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn shards(data: usize) -> Vec<Vec<u8>> {
        (0..data).map(|i| super::super::tests::noise(i as u64, 100)).collect()
    }

    fn parity_of(code: &StripeCode, shards: &[Vec<u8>], parity: usize) -> Vec<Vec<u8>> {
        let mut sums = vec![vec![0; shards[0].len()]; parity];
        shards.iter().enumerate().for_each(|(i, shard)| code.add(i, shard, &mut sums));
        sums
    }

    #[test]
    fn parity_is_that_of_the_crate() {
        for (data, parity) in [(1, 5), (2, 1), (10, 5), (33, 3)] {
            let shards = shards(data);
            let mut expected = vec![vec![0; 100]; parity];
            let crate_code =
                reed_solomon_erasure::galois_8::ReedSolomon::new(data, parity).unwrap();
            crate_code.encode_sep(&shards, &mut expected).unwrap();
            assert_eq!(parity_of(&StripeCode::new(data, parity), &shards, parity), expected);
        }
    }

    /// Every factor, and every number of shards that is left over from fours.
    #[test]
    fn a_run_of_shards_adds_what_its_shards_add() {
        let code = StripeCode::new(251, 5);
        let shards: Vec<Vec<u8>> =
            (0..251).map(|i| super::super::tests::noise(i, 64 * 3)).collect();
        let parity_in_runs = |len: usize| {
            let mut parity = vec![vec![0; 64 * 3]; 5];
            for first in (0..251).step_by(len) {
                let run: Vec<&[u8]> =
                    shards[first..251.min(first + len)].iter().map(Vec::as_slice).collect();
                code.add_run(first, &run, &mut parity);
            }
            parity
        };
        let expected = parity_of(&code, &shards, 5);
        for len in [1, 3, 4, 7, 16, 251] {
            assert!(parity_in_runs(len) == expected, "{len} at a time");
        }
    }

    #[test]
    fn any_shards_up_to_the_number_of_parity_shards_come_back() {
        let (data, parity) = (251, 5);
        let code = StripeCode::new(data, parity);
        let shards = shards(data);
        let stored = parity_of(&code, &shards, parity);
        for (lost, rows) in [
            (vec![0], vec![4]),
            (vec![0, 250], vec![1, 3]),
            (vec![7, 8, 9, 249, 250], vec![0, 1, 2, 3, 4]),
        ] {
            let mut rest = shards.clone();
            lost.iter().for_each(|&j: &usize| rest[j].fill(0));
            let sums = parity_of(&code, &rest, parity);
            let difference: Vec<Vec<u8>> = rows
                .iter()
                .map(|&r: &usize| sums[r].iter().zip(&stored[r]).map(|(a, b)| a ^ b).collect())
                .collect();
            let solved = code.solve(&lost, &rows, &difference);
            let expected: Vec<_> = lost.iter().map(|&j| shards[j].clone()).collect();
            assert_eq!(solved, expected);
        }
    }
}
