//! What a record costs. Run with `cargo test --release -p overstory-logfiles --lib walk::tests::speed -- --nocapture`.

use std::time::Instant;

use super::*;

/// The nanoseconds that a record takes in a file that is in memory, at best of some rounds.
fn nanoseconds(format: Format, size: usize) -> f64 {
    let count = (16 << 20) / size;
    let records: Records =
        (0..count).map(|at| (bucket().first_key() + at as u64 % 4096, vec![at.to_le_bytes()[0]; size])).collect();
    let bytes = written(format, &records);
    let mut best = f64::MAX;
    for _ in 0..5 {
        let mut walker = Walker::new(format, bucket(), bytes.len() as u64);
        let (mut found, mut sum) = (0, 0);
        let begun = Instant::now();
        loop {
            let offset = usize::try_from(walker.offset()).unwrap();
            let window = &bytes[offset..bytes.len().min(offset + (256 << 10)).max(offset)];
            let mut need = 0;
            let mut visit = |key: u64, value: &[u8]| {
                found += 1;
                sum += key + value.len() as u64;
                true
            };
            match walker.next(window, &mut visit) {
                Step::Need(bytes) => need = bytes,
                Step::End => break,
                _ => {}
            }
            if need > window.len() {
                let offset = usize::try_from(walker.offset()).unwrap();
                walker.next(&bytes[offset..bytes.len().min(offset + need.max(256 << 10))], &mut visit);
            }
        }
        best = best.min(begun.elapsed().as_secs_f64() * 1e9 / count as f64);
        assert_eq!(found, count);
        std::hint::black_box(sum);
    }
    best
}

#[test]
fn a_record_costs_little() {
    for format in FORMATS {
        for size in [100, 1024] {
            let cost = nanoseconds(format, size);
            println!("{format}, {size} bytes: {cost:.1} ns a record, {:.2} GB/s", size as f64 / cost);
            if !cfg!(debug_assertions) && format == Format::V1 && size == 100 {
                // The aim is 20: room for a busy machine.
                assert!(cost < 60.0, "{cost} ns");
            }
        }
    }
}
