//! The bytes of points. The same in both stores; `docs/formats/store.md` has the diagram.
//!
//! A *block* holds points of many series of one shard that came with one commit, a *run* the points of one series;
//! both lie within one five-minute bucket, so that a time is three bytes.

/// The width of the buckets that points are kept in, in milliseconds.
pub(crate) const FIVE_MINUTES: i64 = 300_000;
/// The width of the second roll-up, in milliseconds.
pub(crate) const HOUR: i64 = 3_600_000;
/// How many series, by ascending number, share a shard: their new points are written together.
pub(crate) const SHARD: i64 = 256;

const BLOCK_RECORD: usize = 12;
const RUN_RECORD: usize = 11;

/// A point within a bucket.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Offset {
    /// Milliseconds from the bucket's start, below [`FIVE_MINUTES`].
    pub(crate) ms: u32,
    pub(crate) value: f64,
}

/// Where the bucket of width `width` that holds `at` starts.
pub(crate) const fn floor(at: i64, width: i64) -> i64 {
    at.saturating_sub(at.rem_euclid(width))
}

/// The shard of a series.
pub(crate) const fn shard(series: i64) -> i64 {
    series.div_euclid(SHARD)
}

/// Splits a time into its bucket and the offset within it.
fn split(at: i64, value: f64) -> (i64, Offset) {
    let start = floor(at, FIVE_MINUTES);
    let ms = u32::try_from(at.saturating_sub(start)).unwrap_or(0);
    (start, Offset { ms, value })
}

/// Appends a point of `series` to a block.
fn push_to_block(block: &mut Vec<u8>, series: i64, point: Offset) {
    let place = u8::try_from(series.rem_euclid(SHARD)).unwrap_or(0);
    block.push(place);
    push_to_run(block, point);
}

/// Sorts points (series, time, value) into blocks: bucket, shard and bytes. Of two points of a series at one time the
/// later one stays behind the earlier one.
pub(crate) fn blocks(points: impl Iterator<Item = (i64, i64, f64)>) -> Vec<(i64, i64, Vec<u8>)> {
    let mut placed: Vec<_> = points
        .map(|(series, at, value)| {
            let (bucket, offset) = split(at, value);
            (bucket, shard(series), series, offset)
        })
        .collect();
    placed.sort_by_key(|(bucket, shard, ..)| (*bucket, *shard));
    let groups = placed.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1));
    groups
        .map(|group| {
            let mut block = Vec::with_capacity(group.len() * BLOCK_RECORD);
            group.iter().for_each(|(_, _, series, offset)| push_to_block(&mut block, *series, *offset));
            (group[0].0, group[0].1, block)
        })
        .collect()
}

/// The points of a block with the place of their series in the shard.
pub(crate) fn block_points(block: &[u8]) -> impl Iterator<Item = (u8, Offset)> {
    block.as_chunks::<BLOCK_RECORD>().0.iter().map(|record| {
        let [place, rest @ ..] = record;
        (*place, point_of(rest))
    })
}

/// The points of one series in a block, in the order they came.
pub(crate) fn block_points_of(block: &[u8], series: i64) -> impl Iterator<Item = Offset> {
    let wanted = u8::try_from(series.rem_euclid(SHARD)).unwrap_or(0);
    block_points(block).filter(move |(place, _)| *place == wanted).map(|(_, point)| point)
}

/// The bytes of one series' points.
pub(crate) fn encode_run(points: &[Offset]) -> Vec<u8> {
    let mut run = Vec::with_capacity(points.len() * RUN_RECORD);
    points.iter().for_each(|point| push_to_run(&mut run, *point));
    run
}

/// The points of a run.
pub(crate) fn run_points(run: &[u8]) -> impl Iterator<Item = Offset> {
    run.as_chunks::<RUN_RECORD>().0.iter().map(point_of)
}

/// Sorts points by time; of several at one time the last in the given order stays.
pub(crate) fn settle(points: &mut Vec<Offset>) {
    points.sort_by_key(|point| point.ms);
    points.dedup_by(|later, earlier| {
        let same = later.ms == earlier.ms;
        if same {
            earlier.value = later.value;
        }
        same
    });
}

fn push_to_run(run: &mut Vec<u8>, point: Offset) {
    run.extend_from_slice(&point.ms.to_le_bytes()[..3]);
    run.extend_from_slice(&point.value.to_le_bytes());
}

fn point_of(record: &[u8; RUN_RECORD]) -> Offset {
    let [a, b, c, value @ ..] = *record;
    Offset { ms: u32::from_le_bytes([a, b, c, 0]), value: f64::from_le_bytes(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_keeps_the_bytes_written_down_in_the_format() {
        let mut block = Vec::new();
        push_to_block(&mut block, 256 + 3, Offset { ms: 299_999, value: 1.5 });
        assert_eq!(block, [3, 0xdf, 0x93, 0x04, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f]);
        assert!(block_points_of(&block, 3).eq([Offset { ms: 299_999, value: 1.5 }]));
        assert_eq!(block_points_of(&block, 4).count(), 0);
    }

    #[test]
    fn times_before_the_epoch_have_buckets_too() {
        assert_eq!(split(-1, 0.0), (-300_000, Offset { ms: 299_999, value: 0.0 }));
        assert_eq!(split(300_000, 0.0).0, 300_000);
        assert_eq!(shard(255), 0);
    }

    #[test]
    fn the_point_that_came_last_wins() {
        let p = |ms, value| Offset { ms, value };
        let mut points = vec![p(2, 1.0), p(1, 1.0), p(2, 2.0), p(2, 3.0)];
        settle(&mut points);
        assert_eq!(points, [p(1, 1.0), p(2, 3.0)]);
        assert!(run_points(&encode_run(&points)).eq(points));
    }
}
