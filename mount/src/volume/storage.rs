//! What a volume asks of its block store beside blocks.

use firn_tiering::BlockId;

use crate::error::FsResult;

/// Room in all tiers together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Hot plus cold capacity; an unlimited cold tier counts as 1 PiB free.
    pub total_bytes: u64,
    /// Not yet used.
    pub free_bytes: u64,
}

/// Which tiers hold a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The hot tier does.
    pub hot: bool,
    /// The cold tier does, verified.
    pub cold: bool,
}

/// What a volume asks of its block store beside blocks.
pub trait Storage: Send + Sync + 'static {
    /// Room.
    fn space(&self) -> FsResult<Space>;
    /// Where each of `blocks` is, in their order.
    fn placements(&self, blocks: &[BlockId]) -> FsResult<Vec<Placement>>;
}
